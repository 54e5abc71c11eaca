// AVX2. Whole vectors; the last numbers are left to the scalar kernels.
#include <immintrin.h>

#include <cstring>

#include "kernels/numbers.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
__m128i load16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
__m128i load8(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
__m128i load4(const void* p) {
  int bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  return _mm_cvtsi32_si128(bytes);
}
void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
void store16(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }
void store8(void* p, __m128i v) { _mm_storel_epi64(static_cast<__m128i*>(p), v); }

__m256i either(__m256i a, __m256i b) { return _mm256_or_si256(a, b); }
__m256i rotate_right2(__m256i v) { return either(_mm256_srli_epi16(v, 1), _mm256_slli_epi16(v, 15)); }
__m256i rotate_left2(__m256i v) { return either(_mm256_slli_epi16(v, 1), _mm256_srli_epi16(v, 15)); }
__m256i rotate_right4(__m256i v) { return either(_mm256_srli_epi32(v, 1), _mm256_slli_epi32(v, 31)); }
__m256i rotate_left4(__m256i v) { return either(_mm256_slli_epi32(v, 1), _mm256_srli_epi32(v, 31)); }

// Packing works on halves of vectors; this puts the quarters in order.
__m256i joined(__m256i packed) { return _mm256_permute4x64_epi64(packed, 0xd8); }
// Numbers of 4 bytes, below 2^16, narrowed to 2.
__m256i narrowed(__m256i low, __m256i high) { return joined(_mm256_packus_epi32(low, high)); }
// Numbers of 2 bytes, below 256, narrowed to one.
__m128i narrowed(__m256i v) { return _mm256_castsi256_si128(joined(_mm256_packus_epi16(v, v))); }

// Keys of 16 bits. Shifts to their place drop what is above the bits of a key.
__m256i keys2(const uint8_t* symbols, __m256i key0) {
  return _mm256_add_epi16(_mm256_cvtepu8_epi16(load16(symbols)), key0);
}

void merge2n(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* nibbles, uint8_t* out) noexcept {
  const __m256i start = _mm256_set1_epi16(static_cast<short>(key0)), mask = _mm256_set1_epi32(0x000f000f);
  size_t at = 0;
  for (; at + 16 <= n; at += 16) {
    const __m256i two = _mm256_cvtepu8_epi32(load8(nibbles + at / 2));  // to the bottoms of two numbers
    const __m256i raw = _mm256_and_si256(either(two, _mm256_slli_epi32(two, 12)), mask);
    const __m256i key = _mm256_slli_epi16(keys2(symbols + at, start), 4);
    store(out + 2 * at, rotate_right2(either(key, raw)));
  }
  kNumbersScalar.merge2n(symbols + at, n - at, key0, nibbles + at / 2, out + 2 * at);
}

void merge2b(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* bytes, uint8_t* out) noexcept {
  const __m256i start = _mm256_set1_epi16(static_cast<short>(key0));
  size_t at = 0;
  for (; at + 16 <= n; at += 16) {
    const __m256i raw = _mm256_cvtepu8_epi16(load16(bytes + at));
    const __m256i key = _mm256_slli_epi16(keys2(symbols + at, start), 8);
    store(out + 2 * at, rotate_right2(either(key, raw)));
  }
  kNumbersScalar.merge2b(symbols + at, n - at, key0, bytes + at, out + 2 * at);
}

void merge4(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* words, const uint8_t* nibbles,
            uint8_t* out) noexcept {
  const __m256i start = _mm256_set1_epi32(key0), places = _mm256_set1_epi64x(0x000f0000000f0000);
  size_t at = 0;
  for (; at + 8 <= n; at += 8) {
    const __m256i high = _mm256_cvtepu8_epi64(load4(nibbles + at / 2));
    const __m256i two = either(_mm256_slli_epi64(high, 16), _mm256_slli_epi64(high, 44));
    const __m256i raw = either(_mm256_and_si256(two, places), _mm256_cvtepu16_epi32(load16(words + 2 * at)));
    const __m256i key = _mm256_add_epi32(_mm256_cvtepu8_epi32(load8(symbols + at)), start);
    store(out + 4 * at, rotate_right4(either(_mm256_slli_epi32(key, 20), raw)));
  }
  kNumbersScalar.merge4(symbols + at, n - at, key0, words + 2 * at, nibbles + at / 2, out + 4 * at);
}

void split2n(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* nibbles) noexcept {
  const __m256i mask = _mm256_set1_epi32(0x000f000f), low = _mm256_set1_epi32(0xff);
  size_t at = 0;
  for (; at + 32 <= n; at += 32) {
    const __m256i a = rotate_left2(load(src + 2 * at)), b = rotate_left2(load(src + 2 * at + 32));
    store(keys + at, _mm256_srli_epi16(a, 4));
    store(keys + at + 16, _mm256_srli_epi16(b, 4));
    const __m256i two_a = _mm256_and_si256(a, mask), two_b = _mm256_and_si256(b, mask);
    const __m256i byte_a = _mm256_and_si256(either(two_a, _mm256_srli_epi32(two_a, 12)), low);
    const __m256i byte_b = _mm256_and_si256(either(two_b, _mm256_srli_epi32(two_b, 12)), low);
    store16(nibbles + at / 2, narrowed(narrowed(byte_a, byte_b)));
  }
  kNumbersScalar.split2n(src + 2 * at, n - at, keys + at, nibbles + at / 2);
}

void split2b(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* bytes) noexcept {
  const __m256i low = _mm256_set1_epi16(0xff);
  size_t at = 0;
  for (; at + 16 <= n; at += 16) {
    const __m256i value = rotate_left2(load(src + 2 * at));
    store(keys + at, _mm256_srli_epi16(value, 8));
    store16(bytes + at, narrowed(_mm256_and_si256(value, low)));
  }
  kNumbersScalar.split2b(src + 2 * at, n - at, keys + at, bytes + at);
}

void split4(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* words, uint8_t* nibbles) noexcept {
  const __m256i low = _mm256_set1_epi32(0xffff), nibble = _mm256_set1_epi16(0xf);
  size_t at = 0;
  for (; at + 16 <= n; at += 16) {
    const __m256i a = rotate_left4(load(src + 4 * at)), b = rotate_left4(load(src + 4 * at + 32));
    const __m256i high = narrowed(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    store(keys + at, _mm256_srli_epi16(high, 4));
    store(words + 2 * at, narrowed(_mm256_and_si256(a, low), _mm256_and_si256(b, low)));
    const __m256i raw = _mm256_and_si256(high, nibble);
    const __m256i two = _mm256_and_si256(either(raw, _mm256_srli_epi32(raw, 12)), _mm256_set1_epi32(0xff));
    store8(nibbles + at / 2, narrowed(narrowed(two, two)));
  }
  kNumbersScalar.split4(src + 4 * at, n - at, keys + at, words + 2 * at, nibbles + at / 2);
}

// For each set of 8 lanes: its lanes, in ascending order.
struct Lanes {
  alignas(8) uint8_t lanes[256][8];
};

constexpr Lanes make_lanes() {
  Lanes result{};
  for (unsigned set = 0; set < 256; ++set) {
    unsigned count = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      if ((set >> lane & 1) != 0) result.lanes[set][count++] = static_cast<uint8_t>(lane);
    }
  }
  return result;
}

constexpr Lanes kLanes = make_lanes();

// Which lanes are `least` or above.
uint32_t above(__m256i v, __m256i least) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(v, least), v)));
}

size_t find_above(const uint8_t* symbols, size_t n, uint8_t first, uint32_t* positions) noexcept {
  const __m256i least = _mm256_set1_epi8(static_cast<char>(first));
  size_t count = 0, at = 0;
  for (; at + 64 <= n; at += 64) {
    const __m256i low = load(symbols + at), high = load(symbols + at + 32);
    uint64_t found = uint64_t{above(high, least)} << 32 | above(low, least);
    if (found == 0) continue;
    // Without branches, which nothing could foretell. Whole vectors are stored: no more have been found than
    // were looked at, so there is room.
    for (size_t from = at; from < at + 64; from += 8, found >>= 8) {
      const __m256i lanes = _mm256_cvtepu8_epi32(load8(kLanes.lanes[found & 0xff]));
      store(positions + count, _mm256_add_epi32(lanes, _mm256_set1_epi32(static_cast<int>(from))));
      count += static_cast<size_t>(_mm_popcnt_u64(found & 0xff));
    }
  }
  for (; at < n; ++at) {
    if (symbols[at] >= first) positions[count++] = static_cast<uint32_t>(at);
  }
  return count;
}

}  // namespace

const NumbersKernels kNumbersAvx2 = {merge2n, merge2b, merge4, split2n, split2b, split4, find_above};

}  // namespace qzf
