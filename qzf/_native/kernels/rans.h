// The table of kernels of codec 2, "rans": bytes in 32 interleaved lanes, 32-bit states, 12-bit
// probabilities, 16-bit renormalisation (spec/codecs/02-rans.md). Declarations only, as in fields.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qzf {

constexpr std::size_t kRansLanes = 32;
constexpr std::size_t kRansSlots = 4096;

// A stream being read. Symbols are decoded in calls of any length; each call starts at lane 0.
struct RansReader {
  std::uint32_t state[kRansLanes];
  const std::uint8_t* at;  // the next 16-bit word
  const std::uint8_t* end;
};

// How the tables are chosen: symbol i has context contexts[i / run]. `run` is 1, or a multiple of 32.
struct RansContexts {
  const std::uint8_t* contexts;
  std::size_t run;
};

// Encoding tables, one for each context that occurs.
struct alignas(8) RansSymbol {
  std::uint32_t reciprocal;  // x / frequency = x * reciprocal >> 32 or one more, for x < 2^32
  std::uint16_t frequency;
  std::uint16_t start;  // first slot
};
struct RansCode {
  RansSymbol symbols[256];
  std::uint64_t exact[256];  // x / frequency = x * exact >> 64, but for frequency 1, where it is 0
};

constexpr std::size_t kRansAhead = 16;  // words

struct RansKernels {
  // Decodes n symbols, symbol i in lane i mod 32. `tables` has kRansSlots entries for each context that
  // occurs: frequency in bits 0 to 11, (slot - first slot of its symbol) in bits 12 to 23, symbol in bits 24
  // to 31. False where words are missing; what is in `out` is then undefined.
  bool (*decode)(RansReader& reader, const std::uint32_t* tables, const RansContexts& contexts,
                 std::uint8_t* out, std::size_t n) noexcept;

  // Encodes n symbols from the last to the first, and so writes words in the order in which they are made:
  // the reader's last one first. Returns where they end, or null where a symbol has no frequency. `words` has
  // room for n and kRansAhead more.
  std::uint16_t* (*encode)(std::uint32_t* states, const RansCode* codes, const RansContexts& contexts,
                           const std::uint8_t* symbols, std::size_t n, std::uint16_t* words) noexcept;
};

extern const RansKernels kRansScalar;
extern const RansKernels kRansAvx2;
extern const RansKernels kRansAvx512;
extern const RansKernels kRansNeon;

}  // namespace qzf
