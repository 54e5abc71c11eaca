// The table of kernels around the codec "lanes": what its keys and tables are made with. Declarations only,
// as in fields.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/lanes.h"

namespace qzf {

struct CountsKernels {
  // Counts symbols[lane * elements + step] >> shift by table: adds to counts[table * alphabet + symbol].
  void (*count)(const LanesPlan& plan, const std::uint8_t* symbols, unsigned shift,
                std::uint64_t* counts) noexcept;

  // out[i] = map[index[i]], of 128 entries; `out` may be `index`.
  void (*look_up)(const std::uint8_t* map, const std::uint8_t* index, std::size_t n,
                  std::uint8_t* out) noexcept;
};

extern const CountsKernels kCountsScalar;
extern const CountsKernels kCountsAvx512;  // needs AVX512_VBMI too

}  // namespace qzf
