// The oracle.
#include "kernels/counts.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint8_t;

void count(const LanesPlan& plan, const uint8_t* symbols, unsigned shift, std::uint64_t* counts) noexcept {
  for (size_t p = 0; p < plan.lanes; ++p) {
    const uint8_t* lane = symbols + size_t{plan.order[p]} * plan.elements;
    const size_t group = p / kGroup;
    std::uint64_t* base = counts + plan.base[group] * plan.alphabet;
    for (size_t t = 0; t < plan.steps; ++t) {
      const size_t table = plan.classes ? plan.classes[group][t] : size_t{0};
      ++base[table * plan.alphabet + (lane[t] >> shift)];
    }
  }
}

// Keeps a loop over look-ups from becoming one over vectors that are put together byte by byte, which is
// slower.
inline unsigned alone(unsigned value) {
#ifdef __GNUC__
  __asm__("" : "+r"(value));
#endif
  return value;
}

void look_up(const uint8_t* map, const uint8_t* index, size_t n, uint8_t* out) noexcept {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(alone(map[index[i]]));
}

}  // namespace

const CountsKernels kCountsScalar = {count, look_up};

}  // namespace qzf
