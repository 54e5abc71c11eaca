// The kernels of blocks.h, compiled for this file's instruction set.
#ifdef QZF_SIMDE  // the test program can emulate AVX-512
#include "tests/simde_avx512.h"
#else
#include <immintrin.h>
#endif

#include <cstring>

#include "kernels/blocks.h"

namespace qzf {
namespace {
#include "kernels/blocks.inl"
#include "kernels/blocks_merge.inl"

inline void split_q5(const uint8_t* mask, const uint8_t* record, uint8_t* codes) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(record));
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1);
  const __m256i low = _mm256_and_si256(both, _mm256_set1_epi8(15));
  const __m256i high = _mm256_maskz_mov_epi8(load32(mask), _mm256_set1_epi8(16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm256_or_si256(low, high));
}

inline uint32_t odd16(const uint8_t* codes) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  return static_cast<uint32_t>(_mm_movemask_epi8(_mm_slli_epi16(v, 7)));
}

inline uint32_t equal32(const uint8_t* codes, uint8_t code) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  return static_cast<uint32_t>(
      _mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_set1_epi8(static_cast<char>(code)))));
}

#include "kernels/blocks_encode.inl"
}  // namespace

const BlocksKernels kBlocksAvx512 = {split, merge, split_low, take_extrema, logs, index, deviations};

}  // namespace qzf
