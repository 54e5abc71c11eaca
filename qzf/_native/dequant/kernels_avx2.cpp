// The kernels of kernels.h, compiled for this file's instruction set.
#include <immintrin.h>

#include <cstring>

#include "dequant/grids.h"
#include "dequant/kernels.h"

namespace qzf {
namespace {
using std::int8_t, std::size_t, std::uint16_t, std::uint32_t, std::uint64_t, std::uint8_t;

inline float half_to_float(uint16_t half) { return _cvtsh_ss(half); }

// Low halves of the 16 bytes first.
inline void look_up16(const int8_t* table, const uint8_t* packed, int8_t* codes) {
  const __m128i values = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)), low = _mm_set1_epi8(15);
  const __m128i second = _mm_and_si128(_mm_srli_epi16(v, 4), low);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm_shuffle_epi8(values, _mm_and_si128(v, low)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16), _mm_shuffle_epi8(values, second));
}

#include "dequant/blocks.inl"
#include "dequant/codebooks.inl"

inline void narrow_half(const Floats* in, size_t n, uint8_t* out) {
  for (; n >= 8; n -= 8, in += 8, out += 16) {
    const __m256 v = _mm256_loadu_ps(reinterpret_cast<const float*>(in));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  for (; n > 0; --n, ++in, out += 2) {
    const uint16_t half = _cvtss_sh(*in, _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(out, &half, sizeof half);
  }
}

#include "dequant/table.inl"
}  // namespace

const DequantKernels kDequantAvx2 = {kTypes, sizeof kTypes / sizeof *kTypes};

}  // namespace qzf
