#include <immintrin.h>

#include <cstring>

#include "kernels/fields.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint8_t;

// 32 or 16 lanes, so that the kernels below are written once for both widths.
struct Lanes32 {
  using Vector = __m256i;
  static constexpr size_t kLanes = 32;
  static Vector load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Vector*>(p)); }
  static void store(uint8_t* p, Vector v) { _mm256_storeu_si256(reinterpret_cast<Vector*>(p), v); }
  static Vector fill(unsigned byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
  static Vector both(Vector a, Vector b) { return _mm256_and_si256(a, b); }
  static Vector either(Vector a, Vector b) { return _mm256_or_si256(a, b); }
  // Shifts move bits across bytes within 16-bit words; callers mask them off.
  static Vector right(Vector v, __m128i count) { return _mm256_srl_epi16(v, count); }
  static Vector left(Vector v, __m128i count) { return _mm256_sll_epi16(v, count); }

  // Bit l of the bytes at p -> `one` in lane l where set, else 0.
  static Vector expand(const uint8_t* p, Vector one) {
    std::uint32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    const Vector spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const Vector select = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    const Vector own = both(_mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), spread), select);
    return both(_mm256_cmpeq_epi8(own, select), one);
  }
  // Bit 7 of lane l -> bit l of the bytes at p.
  static void collect(uint8_t* p, Vector v) {
    const auto bits = static_cast<std::uint32_t>(_mm256_movemask_epi8(v));
    std::memcpy(p, &bits, sizeof bits);
  }
};

struct Lanes16 {
  using Vector = __m128i;
  static constexpr size_t kLanes = 16;
  static Vector load(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const Vector*>(p)); }
  static void store(uint8_t* p, Vector v) { _mm_storeu_si128(reinterpret_cast<Vector*>(p), v); }
  static Vector fill(unsigned byte) { return _mm_set1_epi8(static_cast<char>(byte)); }
  static Vector both(Vector a, Vector b) { return _mm_and_si128(a, b); }
  static Vector either(Vector a, Vector b) { return _mm_or_si128(a, b); }
  static Vector right(Vector v, __m128i count) { return _mm_srl_epi16(v, count); }
  static Vector left(Vector v, __m128i count) { return _mm_sll_epi16(v, count); }

  static Vector expand(const uint8_t* p, Vector one) {
    std::uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    const Vector spread = _mm_set_epi64x(0x0101010101010101, 0);
    const Vector select = _mm_set1_epi64x(static_cast<long long>(0x8040201008040201));
    const Vector own = both(_mm_shuffle_epi8(_mm_set1_epi16(static_cast<short>(bits)), spread), select);
    return both(_mm_cmpeq_epi8(own, select), one);
  }
  static void collect(uint8_t* p, Vector v) {
    const auto bits = static_cast<std::uint16_t>(_mm_movemask_epi8(v));
    std::memcpy(p, &bits, sizeof bits);
  }
};

__m128i count(unsigned bits) { return _mm_cvtsi32_si128(static_cast<int>(bits)); }
constexpr unsigned ones(unsigned bits) { return (1u << bits) - 1; }

// --- runs ------------------------------------------------------------------------------------------------

template <size_t kRows>
void copy_rows(const uint8_t* src, size_t src_step, uint8_t* dst, size_t dst_step, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t r = 0; r < kRows; ++r) Lanes32::store(dst + 32 * r, Lanes32::load(src + 32 * r));
    src += src_step;
    dst += dst_step;
  }
}

void copy(const uint8_t* src, size_t src_step, uint8_t* dst, size_t dst_step, size_t width,
          size_t n) noexcept {
  switch (width) {
    case 32: return copy_rows<1>(src, src_step, dst, dst_step, n);
    case 64: return copy_rows<2>(src, src_step, dst, dst_step, n);
    case 96: return copy_rows<3>(src, src_step, dst, dst_step, n);
    case 128: return copy_rows<4>(src, src_step, dst, dst_step, n);
    case 256: return copy_rows<8>(src, src_step, dst, dst_step, n);
    default: return kFieldsScalar.copy(src, src_step, dst, dst_step, width, n);
  }
}

// --- planes ----------------------------------------------------------------------------------------------

template <size_t kSize>
__m256i rotate_left(__m256i v) {
  if constexpr (kSize == 2) return _mm256_or_si256(_mm256_slli_epi16(v, 1), _mm256_srli_epi16(v, 15));
  if constexpr (kSize == 4) return _mm256_or_si256(_mm256_slli_epi32(v, 1), _mm256_srli_epi32(v, 31));
  if constexpr (kSize == 8) return _mm256_or_si256(_mm256_slli_epi64(v, 1), _mm256_srli_epi64(v, 63));
}

template <size_t kSize>
__m256i rotate_right(__m256i v) {
  if constexpr (kSize == 2) return _mm256_or_si256(_mm256_srli_epi16(v, 1), _mm256_slli_epi16(v, 15));
  if constexpr (kSize == 4) return _mm256_or_si256(_mm256_srli_epi32(v, 1), _mm256_slli_epi32(v, 31));
  if constexpr (kSize == 8) return _mm256_or_si256(_mm256_srli_epi64(v, 1), _mm256_slli_epi64(v, 63));
}

// Two runs of 16 bytes as one vector. AVX2 shuffles within 128-bit halves, so each half works on 16 numbers
// of its own: half h of vector k holds bytes [16 k, 16 k + 16) of those.
__m256i load_halves(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(Lanes16::load(low)), Lanes16::load(high), 1);
}

void store_halves(uint8_t* low, uint8_t* high, __m256i v) {
  Lanes16::store(low, _mm256_castsi256_si128(v));
  Lanes16::store(high, _mm256_extracti128_si256(v, 1));
}

// 32 numbers in v[0..kSize) -> plane k in v[k]. In each round bytes at even and at odd places part, which
// takes the lowest bit off a byte's place in its number and puts it on top of its vector's number k; after
// log2(kSize) rounds all bits have moved.
template <size_t kSize>
void part(__m256i (&v)[kSize]) {
  const __m256i even_first =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  for (size_t round = 1; round < kSize; round *= 2) {
    __m256i next[kSize];
    for (size_t i = 0; i < kSize / 2; ++i) {
      const __m256i a = _mm256_shuffle_epi8(v[2 * i], even_first);
      const __m256i b = _mm256_shuffle_epi8(v[2 * i + 1], even_first);
      next[i] = _mm256_unpacklo_epi64(a, b);
      next[i + kSize / 2] = _mm256_unpackhi_epi64(a, b);
    }
    for (size_t i = 0; i < kSize; ++i) v[i] = next[i];
  }
}

// Inverse of part.
template <size_t kSize>
void join(__m256i (&v)[kSize]) {
  for (size_t round = 1; round < kSize; round *= 2) {
    __m256i next[kSize];
    for (size_t i = 0; i < kSize / 2; ++i) {
      next[2 * i] = _mm256_unpacklo_epi8(v[i], v[i + kSize / 2]);
      next[2 * i + 1] = _mm256_unpackhi_epi8(v[i], v[i + kSize / 2]);
    }
    for (size_t i = 0; i < kSize; ++i) v[i] = next[i];
  }
}

template <size_t kSize, bool kRotate>
void split_numbers(const uint8_t* src, uint8_t* const* planes, size_t n) {
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const uint8_t* low = src + i * kSize;
    const uint8_t* high = low + 16 * kSize;
    __m256i v[kSize];
    for (size_t k = 0; k < kSize; ++k) {
      v[k] = load_halves(low + 16 * k, high + 16 * k);
      if constexpr (kRotate) v[k] = rotate_left<kSize>(v[k]);
    }
    part(v);
    for (size_t k = 0; k < kSize; ++k) Lanes32::store(planes[k] + i, v[k]);
  }
  uint8_t* rest[kSize];
  for (size_t k = 0; k < kSize; ++k) rest[k] = planes[k] + i;
  kFieldsScalar.split_planes(src + i * kSize, rest, kSize, kRotate, n - i);
}

template <size_t kSize, bool kRotate>
void merge_numbers(const uint8_t* const* planes, uint8_t* dst, size_t n) {
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    uint8_t* low = dst + i * kSize;
    uint8_t* high = low + 16 * kSize;
    __m256i v[kSize];
    for (size_t k = 0; k < kSize; ++k) v[k] = Lanes32::load(planes[k] + i);
    join(v);
    for (size_t k = 0; k < kSize; ++k) {
      if constexpr (kRotate) v[k] = rotate_right<kSize>(v[k]);
      store_halves(low + 16 * k, high + 16 * k, v[k]);
    }
  }
  const uint8_t* rest[kSize];
  for (size_t k = 0; k < kSize; ++k) rest[k] = planes[k] + i;
  kFieldsScalar.merge_planes(rest, dst + i * kSize, kSize, kRotate, n - i);
}

void split_planes(const uint8_t* src, uint8_t* const* planes, size_t size, bool rotate, size_t n) noexcept {
  switch (size) {
    case 2: return rotate ? split_numbers<2, true>(src, planes, n) : split_numbers<2, false>(src, planes, n);
    case 4: return rotate ? split_numbers<4, true>(src, planes, n) : split_numbers<4, false>(src, planes, n);
    case 8: return rotate ? split_numbers<8, true>(src, planes, n) : split_numbers<8, false>(src, planes, n);
  }
}

void merge_planes(const uint8_t* const* planes, uint8_t* dst, size_t size, bool rotate, size_t n) noexcept {
  switch (size) {
    case 2: return rotate ? merge_numbers<2, true>(planes, dst, n) : merge_numbers<2, false>(planes, dst, n);
    case 4: return rotate ? merge_numbers<4, true>(planes, dst, n) : merge_numbers<4, false>(planes, dst, n);
    case 8: return rotate ? merge_numbers<8, true>(planes, dst, n) : merge_numbers<8, false>(planes, dst, n);
  }
}

// --- codes -----------------------------------------------------------------------------------------------

template <class Lanes>
void split_codes_at(const CodesStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                    size_t width, size_t n) {
  const auto low_mask = Lanes::fill(ones(step.low_bits)), high_mask = Lanes::fill(ones(step.high_bits));
  const __m128i place = count(step.low_bits);
  for (size_t b = 0; b < n; ++b, blocks += block, codes += width) {
    for (size_t k = 0; k < step.count; ++k) {
      const CodesPlane& p = step.planes[k];
      const auto low = Lanes::right(Lanes::load(blocks + p.low + lane), count(p.low_shift));
      const auto high = Lanes::right(Lanes::load(blocks + p.high + lane), count(p.high_shift));
      const auto top = Lanes::left(Lanes::both(high, high_mask), place);
      Lanes::store(codes + k * step.lanes + lane, Lanes::either(Lanes::both(low, low_mask), top));
    }
  }
}

template <class Lanes>
void split_masks_at(const MaskStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                    size_t width, size_t n) {
  const auto low_mask = Lanes::fill(ones(step.low_bits)), one = Lanes::fill(1u << step.low_bits);
  for (size_t k = 0; k < step.count; ++k) {
    const uint8_t* low = blocks + step.planes[k].low + lane;
    const uint8_t* mask = blocks + step.planes[k].mask + lane / 8;
    const __m128i low_shift = count(step.planes[k].low_shift);
    uint8_t* to = codes + k * step.lanes + lane;
    for (size_t b = 0; b < n; ++b, low += block, mask += block, to += width) {
      const auto bottom = Lanes::both(Lanes::right(Lanes::load(low), low_shift), low_mask);
      Lanes::store(to, Lanes::either(bottom, Lanes::expand(mask, one)));
    }
  }
}

// A row's parts in registers or on the stack: a store of bytes may alias what lies elsewhere, which would be
// loaded anew for each block.
template <class Lanes>
struct Part {
  size_t codes;
  __m128i right;
  typename Lanes::Vector mask;
  __m128i left;
};

template <class Lanes, size_t kParts>
void merge_row_at(const Row& row, bool add, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                  size_t block, size_t n) {
  Part<Lanes> parts[kParts];
  for (size_t i = 0; i < kParts; ++i) {
    const bool there = i < row.count;  // else a part that adds nothing
    const RowPart& part = row.parts[there ? i : 0];
    const auto mask = Lanes::fill(there ? part.mask : 0);
    parts[i] = {part.codes + lane, count(part.right), mask, count(part.left)};
  }
  uint8_t* out = blocks + row.offset + lane;
  for (size_t b = 0; b < n; ++b, out += block, codes += width) {
    auto bytes = add ? Lanes::load(out) : Lanes::fill(0);
    for (const Part<Lanes>& part : parts) {
      const auto code = Lanes::right(Lanes::load(codes + part.codes), part.right);
      bytes = Lanes::either(bytes, Lanes::left(Lanes::both(code, part.mask), part.left));
    }
    Lanes::store(out, bytes);
  }
}

template <class Lanes>
void merge_rows_at(const RowsStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                   size_t block, size_t n) {
  for (size_t r = 0; r < step.count; ++r) {
    const Row& row = step.rows[r];
    if (row.count <= 1) {
      merge_row_at<Lanes, 1>(row, step.add, lane, codes, width, blocks, block, n);
    } else if (row.count <= 2) {
      merge_row_at<Lanes, 2>(row, step.add, lane, codes, width, blocks, block, n);
    } else if (row.count <= 4) {
      merge_row_at<Lanes, 4>(row, step.add, lane, codes, width, blocks, block, n);
    } else {
      merge_row_at<Lanes, 8>(row, step.add, lane, codes, width, blocks, block, n);
    }
  }
}

template <class Lanes>
void merge_masks_at(const MaskStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                    size_t block, size_t n) {
  const __m128i to_top = count(7 - step.low_bits);
  for (size_t k = 0; k < step.count; ++k) {
    const uint8_t* from = codes + k * step.lanes + lane;
    uint8_t* mask = blocks + step.planes[k].mask + lane / 8;
    for (size_t b = 0; b < n; ++b, from += width, mask += block) {
      Lanes::collect(mask, Lanes::left(Lanes::load(from), to_top));
    }
  }
}

// Each in rows of 32 lanes, then of 16, and what is left lane by lane.

void split_codes(const CodesStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                 size_t width, size_t n) noexcept {
  for (; lane + 32 <= step.lanes; lane += 32)
    split_codes_at<Lanes32>(step, lane, blocks, block, codes, width, n);
  for (; lane + 16 <= step.lanes; lane += 16)
    split_codes_at<Lanes16>(step, lane, blocks, block, codes, width, n);
  if (lane < step.lanes) kFieldsScalar.split_codes(step, lane, blocks, block, codes, width, n);
}

void split_masks(const MaskStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                 size_t width, size_t n) noexcept {
  for (; lane + 32 <= step.lanes; lane += 32)
    split_masks_at<Lanes32>(step, lane, blocks, block, codes, width, n);
  for (; lane + 16 <= step.lanes; lane += 16)
    split_masks_at<Lanes16>(step, lane, blocks, block, codes, width, n);
  if (lane < step.lanes) kFieldsScalar.split_masks(step, lane, blocks, block, codes, width, n);
}

void merge_rows(const RowsStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                size_t block, size_t n) noexcept {
  for (; lane + 32 <= step.lanes; lane += 32)
    merge_rows_at<Lanes32>(step, lane, codes, width, blocks, block, n);
  for (; lane + 16 <= step.lanes; lane += 16)
    merge_rows_at<Lanes16>(step, lane, codes, width, blocks, block, n);
  if (lane < step.lanes) kFieldsScalar.merge_rows(step, lane, codes, width, blocks, block, n);
}

void merge_masks(const MaskStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                 size_t block, size_t n) noexcept {
  for (; lane + 32 <= step.lanes; lane += 32)
    merge_masks_at<Lanes32>(step, lane, codes, width, blocks, block, n);
  for (; lane + 16 <= step.lanes; lane += 16)
    merge_masks_at<Lanes16>(step, lane, codes, width, blocks, block, n);
  if (lane < step.lanes) kFieldsScalar.merge_masks(step, lane, codes, width, blocks, block, n);
}

}  // namespace

const FieldsKernels kFieldsAvx2 = {copy,        split_planes, merge_planes, split_codes,
                                   split_masks, merge_rows,   merge_masks};

}  // namespace qzf
