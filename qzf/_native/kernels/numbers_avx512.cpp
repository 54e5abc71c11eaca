// AVX-512 F, BW and VL. A vector of numbers at a time; masked loads and stores serve the last ones.
#ifdef QZF_SIMDE  // the test program can emulate AVX-512
#include "tests/simde_avx512.h"
#else
#include <immintrin.h>
#endif

#include "kernels/numbers.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr size_t kTwos = 32, kFours = 16;  // numbers of a vector

constexpr __mmask64 first_of(size_t bytes) {
  return bytes >= 64 ? ~__mmask64{0} : (__mmask64{1} << bytes) - 1;
}
constexpr size_t nibble_bytes(size_t n) { return (n + 1) / 2; }

__m512i load64(const void* p, size_t bytes) { return _mm512_maskz_loadu_epi8(first_of(bytes), p); }
__m256i load32(const void* p, size_t bytes) {
  return _mm256_maskz_loadu_epi8(static_cast<__mmask32>(first_of(bytes)), p);
}
__m128i load16(const void* p, size_t bytes) {
  return _mm_maskz_loadu_epi8(static_cast<__mmask16>(first_of(bytes)), p);
}
void store64(void* p, size_t bytes, __m512i v) { _mm512_mask_storeu_epi8(p, first_of(bytes), v); }
void store32(void* p, size_t bytes, __m256i v) {
  _mm256_mask_storeu_epi8(p, static_cast<__mmask32>(first_of(bytes)), v);
}
void store16(void* p, size_t bytes, __m128i v) {
  _mm_mask_storeu_epi8(p, static_cast<__mmask16>(first_of(bytes)), v);
}

__m512i rotate_right2(__m512i v) {
  return _mm512_or_si512(_mm512_srli_epi16(v, 1), _mm512_slli_epi16(v, 15));
}
__m512i rotate_left2(__m512i v) { return _mm512_or_si512(_mm512_slli_epi16(v, 1), _mm512_srli_epi16(v, 15)); }

// Keys of 16 bits. Shifts to their place drop what is above the bits of a key.
__m512i keys2(const uint8_t* symbols, size_t n, uint16_t key0) {
  const __m512i start = _mm512_set1_epi16(static_cast<short>(key0));
  return _mm512_add_epi16(_mm512_cvtepu8_epi16(load32(symbols, n)), start);
}

// `some` works on up to a vector of numbers: at position `at` of its arguments, `count` of them.
template <size_t kNumbers, class Some>
void each_vector(size_t n, Some some) {
  size_t at = 0;
  for (; at + kNumbers <= n; at += kNumbers) some(at, kNumbers);
  if (at < n) some(at, n - at);
}

void merge2n(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* nibbles, uint8_t* out) noexcept {
  each_vector<kTwos>(n, [=](size_t at, size_t count) {
    // A byte of nibbles to the bottoms of two numbers.
    const __m512i two = _mm512_cvtepu8_epi32(load16(nibbles + at / 2, nibble_bytes(count)));
    const __m512i raw =
        _mm512_and_si512(_mm512_or_si512(two, _mm512_slli_epi32(two, 12)), _mm512_set1_epi32(0x000f000f));
    const __m512i key = _mm512_slli_epi16(keys2(symbols + at, count, key0), 4);
    store64(out + 2 * at, 2 * count, rotate_right2(_mm512_or_si512(key, raw)));
  });
}

void merge2b(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* bytes, uint8_t* out) noexcept {
  each_vector<kTwos>(n, [=](size_t at, size_t count) {
    const __m512i raw = _mm512_cvtepu8_epi16(load32(bytes + at, count));
    const __m512i key = _mm512_slli_epi16(keys2(symbols + at, count, key0), 8);
    store64(out + 2 * at, 2 * count, rotate_right2(_mm512_or_si512(key, raw)));
  });
}

void merge4(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* words, const uint8_t* nibbles,
            uint8_t* out) noexcept {
  const __m512i places = _mm512_set1_epi64(0x000f0000000f0000);
  each_vector<kFours>(n, [=](size_t at, size_t count) {
    const __m512i two = _mm512_cvtepu8_epi64(load16(nibbles + at / 2, nibble_bytes(count)));
    const __m512i high = _mm512_or_si512(_mm512_slli_epi64(two, 16), _mm512_slli_epi64(two, 44));
    const __m512i low = _mm512_cvtepu16_epi32(load32(words + 2 * at, 2 * count));
    const __m512i raw = _mm512_or_si512(_mm512_and_si512(high, places), low);
    const __m512i symbol = _mm512_cvtepu8_epi32(load16(symbols + at, count));
    const __m512i key = _mm512_slli_epi32(_mm512_add_epi32(symbol, _mm512_set1_epi32(key0)), 20);
    store64(out + 4 * at, 4 * count, _mm512_ror_epi32(_mm512_or_si512(key, raw), 1));
  });
}

void split2n(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* nibbles) noexcept {
  each_vector<kTwos>(n, [=](size_t at, size_t count) {
    const __m512i value = rotate_left2(load64(src + 2 * at, 2 * count));
    store64(keys + at, 2 * count, _mm512_srli_epi16(value, 4));
    const __m512i raw = _mm512_and_si512(value, _mm512_set1_epi32(0x000f000f));
    const __m512i two = _mm512_or_si512(raw, _mm512_srli_epi32(raw, 12));
    store16(nibbles + at / 2, nibble_bytes(count), _mm512_cvtepi32_epi8(two));
  });
}

void split2b(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* bytes) noexcept {
  each_vector<kTwos>(n, [=](size_t at, size_t count) {
    const __m512i value = rotate_left2(load64(src + 2 * at, 2 * count));
    store64(keys + at, 2 * count, _mm512_srli_epi16(value, 8));
    store32(bytes + at, count, _mm512_cvtepi16_epi8(value));
  });
}

void split4(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* words, uint8_t* nibbles) noexcept {
  each_vector<kFours>(n, [=](size_t at, size_t count) {
    const __m512i value = _mm512_rol_epi32(load64(src + 4 * at, 4 * count), 1);
    store32(keys + at, 2 * count, _mm512_cvtepi32_epi16(_mm512_srli_epi32(value, 20)));
    store32(words + 2 * at, 2 * count, _mm512_cvtepi32_epi16(value));
    const __m512i raw = _mm512_and_si512(_mm512_srli_epi32(value, 16), _mm512_set1_epi32(0xf));
    const __m512i two = _mm512_or_si512(raw, _mm512_srli_epi64(raw, 28));
    store16(nibbles + at / 2, nibble_bytes(count), _mm512_cvtepi64_epi8(two));
  });
}

size_t find_above(const uint8_t* symbols, size_t n, uint8_t first, uint32_t* positions) noexcept {
  const __m512i least = _mm512_set1_epi8(static_cast<char>(first));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  size_t count = 0, at = 0;
  for (; at + 64 <= n; at += 64) {
    uint64_t found = _mm512_cmpge_epu8_mask(load64(symbols + at, 64), least);
    if (found == 0) continue;
    // Without branches, which nothing could foretell. Whole vectors are stored: no more have been found than
    // were looked at, so there is room.
    for (size_t from = at; from < at + 64; from += 16, found >>= 16) {
      const auto here = static_cast<__mmask16>(found);
      const __m512i position = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(from)));
      _mm512_storeu_si512(positions + count, _mm512_maskz_compress_epi32(here, position));
      count += static_cast<size_t>(_mm_popcnt_u32(here));
    }
  }
  for (; at < n; ++at) {
    if (symbols[at] >= first) positions[count++] = static_cast<uint32_t>(at);
  }
  return count;
}

}  // namespace

const NumbersKernels kNumbersAvx512 = {merge2n, merge2b, merge4, split2n, split2b, split4, find_above};

}  // namespace qzf
