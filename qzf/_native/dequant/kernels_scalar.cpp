// The kernels of kernels.h, compiled for this file's instruction set.
#include <cstring>

#include "dequant/grids.h"
#include "dequant/kernels.h"

namespace qzf {
namespace {
using std::int8_t, std::size_t, std::uint16_t, std::uint32_t, std::uint64_t, std::uint8_t;

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half & 0x7c00, below = half & 0x7fff;
  const float small = static_cast<float>(below) * 0x1p-24F;
  uint32_t bits;
  std::memcpy(&bits, &small, sizeof bits);
  if (exponent != 0) bits = (below << 13) + (exponent == 0x7c00 ? 224u << 23 : 112u << 23);
  bits |= sign;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Low halves of the 16 bytes first.
inline void look_up16(const int8_t* table, const uint8_t* packed, int8_t* codes) {
  for (size_t i = 0; i < 16; ++i) {
    codes[i] = table[packed[i] & 15];
    codes[16 + i] = table[packed[i] >> 4];
  }
}

#include "dequant/blocks.inl"
#include "dequant/codebooks.inl"

inline void narrow_half(const Floats* __restrict in, size_t n, uint8_t* __restrict out) {
  for (size_t i = 0; i < n; ++i) {
    uint32_t bits, small;
    std::memcpy(&bits, in + i, sizeof bits);
    const uint32_t size = bits & 0x7fffffff;
    // Below 2^-14 a float of 1/2 and more has the steps of the half; adding to it rounds.
    const float sum = from_bits(size) + 0.5F;
    std::memcpy(&small, &sum, sizeof small);
    uint32_t half = (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
    if (size < 0x38800000) half = small - 0x3f000000;
    if (size >= 0x47800000) half = 0x7c00;
    if (size > 0x7f800000) half = 0x7e00 | (size >> 13 & 0x3ff);
    const uint16_t kept = static_cast<uint16_t>(half | (bits >> 16 & 0x8000));
    std::memcpy(out + 2 * i, &kept, sizeof kept);
  }
}

#include "dequant/table.inl"
}  // namespace

const DequantKernels kDequantScalar = {kTypes, sizeof kTypes / sizeof *kTypes};

}  // namespace qzf
