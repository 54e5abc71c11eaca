// AVX-512 F, BW, VL and VBMI.
#ifdef QZF_SIMDE  // the test program can emulate AVX-512
#include "tests/simde_avx512.h"
#else
#include <immintrin.h>
#endif

#include <cstring>

#include "kernels/counts.h"

namespace qzf {
namespace {
#include "kernels/lanes_avx512.inl"

// Each symbol that there is is compared with 64 at a time: there is no chain of additions to one counter.
template <size_t kElements, size_t kAlphabet>
void count_as(const LanesPlan& plan, const uint8_t* from, unsigned shift, uint64_t* counts) {
  alignas(64) uint8_t symbols[kMaxSteps][kGroup];
  const __m512i rest = fill(255u >> shift);
  for (size_t group = 0; group * kGroup < plan.lanes; ++group) {
    const size_t lanes = smaller(plan.lanes - group * kGroup, kGroup);
    const __mmask64 there = ~first(kGroup - lanes);
    get_group<kElements>(from, plan.order + group * kGroup, lanes, symbols);
    for (size_t t = 0; t < plan.steps; ++t) {
      const size_t table = plan.base[group] + size_t{classes_of(plan, group)[t]};
      uint64_t* to = counts + table * kAlphabet;
      const __m512i moved = _mm512_srl_epi16(load(symbols[t]), _mm_cvtsi32_si128(static_cast<int>(shift)));
      const __m512i each = _mm512_and_si512(moved, rest);
      for (unsigned s = 0; s < kAlphabet; ++s)
        to[s] += count(_mm512_mask_cmpeq_epi8_mask(there, each, fill(s)));
    }
  }
}

void count_symbols(const LanesPlan& plan, const uint8_t* symbols, unsigned shift, uint64_t* counts) noexcept {
  const bool wide = plan.elements == 32;
  const auto as = plan.alphabet == 16 ? wide ? count_as<32, 16> : count_as<16, 16>
                  : wide              ? count_as<32, 32>
                                      : count_as<16, 32>;
  as(plan, symbols, shift, counts);
}

void look_up(const uint8_t* map, const uint8_t* index, size_t n, uint8_t* out) noexcept {
  const __m512i low = load(map), high = load(map + 64);
  for (size_t i = 0; i < n; i += 64) {
    const __mmask64 there = first(n - i);
    const __m512i places = _mm512_maskz_loadu_epi8(there, index + i);
    _mm512_mask_storeu_epi8(out + i, there, _mm512_permutex2var_epi8(low, places, high));
  }
}

}  // namespace

const CountsKernels kCountsAvx512 = {count_symbols, look_up};

}  // namespace qzf
