// The codebooks of the IQ types: points of small grids, by their index in a block.
#pragma once

#include <cstdint>

namespace qzf {

// A point is 8 (IQ1, IQ2) or 4 (IQ3) signed bytes, the first weight's first in memory. The points of IQ2 and
// IQ3 have positive coordinates up to 62; those of IQ1 are -1, 0 and 1.
struct DequantGrids {
  std::uint64_t iq2_xxs[256], iq2_xs[512], iq2_s[1024], iq1[2048];
  std::uint32_t iq3_xxs[256], iq3_s[512];
  // By 7 bits, the signs of 8 weights as bits: the eighth makes their number even.
  std::uint8_t signs[128];
  // By 8 bits, a byte each: 0xff where the bit is set.
  std::uint64_t masks[256];
};

// Made at the first call.
const DequantGrids& dequant_grids();

}  // namespace qzf
