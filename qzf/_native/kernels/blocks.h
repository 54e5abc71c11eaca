// Blocks of the GGML types that the "quant" transform knows <-> their scales and codes. Declarations only, as
// in fields.h. Source of the layouts: ggml/src/ggml-common.h and the dequantize_row functions of
// ggml-quants.c.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qzf {

enum class Block : std::uint8_t {
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2K,
  kQ3K,
  kQ4K,
  kQ5K,
  kQ6K,
  kIQ4NL,
  kIQ4XS,
  kTQ2_0,
  kMXFP4,
  kNVFP4,
};

struct BlockShape {
  Block type;
  std::size_t size;   // bytes of a block
  std::size_t codes;  // codes of a block
};

// The fields of n blocks, each field block after block. A type uses those that its schema names
// (quant/schema.h).
struct BlockScales {
  std::uint16_t* numbers[2];  // fp16 bits: scale, and minimum or scale of the minima
  std::uint8_t* scales;       // integer scales
  std::uint8_t* mins;         // integer minima
};

// Codes in the form that the "lanes" codec decodes to (kernels/lanes.h), and what is stored beside it.
struct BlockCodes {
  const std::uint8_t* records;
  const std::uint8_t* highs;
  // Low bits of the codes: for 4 bits 16 bytes a lane, laid out as records are; for 1 bit 2 bytes a lane, bit
  // e for element e.
  const std::uint8_t* low;
  // Where the extrema are, `position_bits` each, packed from the lowest bit up; null if they are coded like
  // all. Readable for 8 bytes beyond.
  const std::uint8_t* positions;
};

// The codes that quantizers leave in every lane of 32: one; one of two, and which of them counts as a place's
// bit 5; or two, of which the second is looked for when the first one is out.
enum class Extrema : std::uint8_t { kOne, kSigned, kTwo };

struct ExtremeCodes {
  Extrema kind;
  std::uint8_t first[2];   // where the lane's number is not zero, and where it is
  std::uint8_t second[2];  // likewise; not used for kOne
};

struct BlocksKernels {
  // Takes n blocks apart. `codes`: one byte a code, as whole numbers that grow with the value, in the order
  // of GGML's weights.
  void (*split)(const BlockShape& shape, const std::uint8_t* blocks, std::size_t n, const BlockScales& scales,
                std::uint8_t* codes) noexcept;

  // Puts them together. False where a position of an extremum is impossible.
  bool (*merge)(Block type, const BlockScales& scales, const BlockCodes& codes, std::size_t n,
                std::uint8_t* blocks) noexcept;

  // Takes the `bits` (1 or 4) low bits of codes away, lane by lane of `elements`, to where `BlockCodes::low`
  // has them; the codes that are left are shifted down.
  void (*split_low)(unsigned bits, std::size_t elements, std::size_t lanes, std::uint8_t* codes,
                    std::uint8_t* low) noexcept;

  // Takes the extreme codes out of n lanes of 32: the last element takes the place of the first one, and of
  // kTwo the last but one that of the second. Places have 5 bits, the first one's lowest. What is left in the
  // elements that are now free is undefined, but of kSigned the low 4 bits are those of the place. False
  // where a lane lacks a code.
  bool (*take_extrema)(const ExtremeCodes& want, const std::uint16_t* numbers, std::size_t n,
                       std::uint8_t* codes, std::uint16_t* places) noexcept;

  // For n blocks of 8 or 16 lanes: out[lane] = bits 0 to 14 of the block's number + log2 of the lane's
  // integer (quant/lanes_order.h).
  void (*logs)(const std::uint16_t* numbers, const std::uint8_t* integers, std::size_t n, std::size_t lanes,
               std::uint16_t* out) noexcept;

  // out[i] = (a[i] - b[i] + add) / 2^shift, rounded down, brought into 0 to most.
  void (*index)(const std::uint16_t* a, const std::uint16_t* b, std::int32_t add, unsigned shift,
                std::uint8_t most, std::size_t n, std::uint8_t* out) noexcept;

  // Adds |16 x code - center| to the sum of each code's column. A row has `row` lanes of 16 or 32 elements,
  // and every lane a center, below 2^15.
  void (*deviations)(const std::uint8_t* codes, std::size_t elements, const std::uint16_t* centers,
                     std::size_t rows, std::size_t row, std::uint32_t* sums) noexcept;
};

extern const BlocksKernels kBlocksScalar;
extern const BlocksKernels kBlocksAvx2;
extern const BlocksKernels kBlocksAvx512;

}  // namespace qzf
