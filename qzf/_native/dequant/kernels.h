// The table of kernels that turn GGML blocks into floats. Declarations only, as in kernels/fields.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qzf {

// Writes the weights of `n` blocks, little-endian and one after another. Any bytes are blocks. Pointers need
// no alignment; memory of different arguments does not overlap.
using Dequantize = void (*)(const std::uint8_t* blocks, std::size_t n, std::uint8_t* out) noexcept;

// How a type becomes floats: bit for bit as the `gguf` Python package computes float32 (each operation of
// float32 rounded by itself), and those rounded to the nearest, ties to even, for the 16-bit types. NaNs stay
// NaNs, with no promise which.
struct DequantType {
  const char* name;
  std::size_t weights, bytes;  // of a block
  Dequantize to_float32, to_float16, to_bfloat16;
};

struct DequantKernels {
  const DequantType* types;
  std::size_t count;
};

extern const DequantKernels kDequantScalar;
extern const DequantKernels kDequantAvx2;  // needs F16C too
extern const DequantKernels kDequantAvx512;

}  // namespace qzf
