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

struct RansKernels {
  // Decodes n symbols, symbol i in lane i mod 32. `tables` has kRansSlots entries for each context that
  // occurs: frequency in bits 0 to 11, (slot - first slot of its symbol) in bits 12 to 23, symbol in bits 24
  // to 31. False where words are missing; what is in `out` is then undefined.
  bool (*decode)(RansReader& reader, const std::uint32_t* tables, const RansContexts& contexts,
                 std::uint8_t* out, std::size_t n) noexcept;
};

extern const RansKernels kRansScalar;
extern const RansKernels kRansAvx2;
extern const RansKernels kRansAvx512;
extern const RansKernels kRansNeon;

}  // namespace qzf
