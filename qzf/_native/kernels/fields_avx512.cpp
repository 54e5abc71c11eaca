// AVX-512 F, BW and VL. Masked loads and stores serve every tail and every number of lanes.
#ifdef QZF_SIMDE  // the test program can emulate AVX-512
#include "tests/simde_avx512.h"
#else
#include <immintrin.h>
#endif

#include "kernels/fields.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint8_t;

constexpr __mmask64 first(size_t lanes) { return lanes >= 64 ? ~__mmask64{0} : (__mmask64{1} << lanes) - 1; }
constexpr unsigned ones(unsigned bits) { return (1u << bits) - 1; }

__m512i fill(unsigned byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
__m128i count(unsigned bits) { return _mm_cvtsi32_si128(static_cast<int>(bits)); }
// Shifts move bits across bytes within 16-bit words; callers mask them off.
__m512i right(__m512i v, __m128i bits) { return _mm512_srl_epi16(v, bits); }
__m512i left(__m512i v, __m128i bits) { return _mm512_sll_epi16(v, bits); }

void copy(const uint8_t* src, size_t src_step, uint8_t* dst, size_t dst_step, size_t width,
          size_t n) noexcept {
  if (width < 32) return kFieldsScalar.copy(src, src_step, dst, dst_step, width, n);
  for (size_t at = 0; at < width; at += 64) {
    const __mmask64 lanes = first(width - at);
    for (size_t i = 0; i < n; ++i) {
      const __m512i row = _mm512_maskz_loadu_epi8(lanes, src + i * src_step + at);
      _mm512_mask_storeu_epi8(dst + i * dst_step + at, lanes, row);
    }
  }
}

// --- planes: a vector of 64 / kSize numbers at a time -----------------------------------------------------

template <size_t kSize>
struct Numbers;

template <>
struct Numbers<2> {
  static __m512i rotate_left(__m512i v) {
    return _mm512_or_si512(_mm512_slli_epi16(v, 1), _mm512_srli_epi16(v, 15));
  }
  static __m512i rotate_right(__m512i v) {
    return _mm512_or_si512(_mm512_srli_epi16(v, 1), _mm512_slli_epi16(v, 15));
  }
  static __m512i shift_right(__m512i v, unsigned bits) { return _mm512_srl_epi16(v, count(bits)); }
  static __m512i shift_left(__m512i v, unsigned bits) { return _mm512_sll_epi16(v, count(bits)); }
  static void store_low(uint8_t* p, __mmask64 lanes, __m512i v) {
    _mm256_mask_storeu_epi8(p, static_cast<__mmask32>(lanes), _mm512_cvtepi16_epi8(v));
  }
  static __m512i load_low(const uint8_t* p, __mmask64 lanes) {
    return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(static_cast<__mmask32>(lanes), p));
  }
};

template <>
struct Numbers<4> {
  static __m512i rotate_left(__m512i v) { return _mm512_rol_epi32(v, 1); }
  static __m512i rotate_right(__m512i v) { return _mm512_ror_epi32(v, 1); }
  static __m512i shift_right(__m512i v, unsigned bits) { return _mm512_srl_epi32(v, count(bits)); }
  static __m512i shift_left(__m512i v, unsigned bits) { return _mm512_sll_epi32(v, count(bits)); }
  static void store_low(uint8_t* p, __mmask64 lanes, __m512i v) {
    _mm_mask_storeu_epi8(p, static_cast<__mmask16>(lanes), _mm512_cvtepi32_epi8(v));
  }
  static __m512i load_low(const uint8_t* p, __mmask64 lanes) {
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(static_cast<__mmask16>(lanes), p));
  }
};

template <>
struct Numbers<8> {
  static __m512i rotate_left(__m512i v) { return _mm512_rol_epi64(v, 1); }
  static __m512i rotate_right(__m512i v) { return _mm512_ror_epi64(v, 1); }
  static __m512i shift_right(__m512i v, unsigned bits) { return _mm512_srl_epi64(v, count(bits)); }
  static __m512i shift_left(__m512i v, unsigned bits) { return _mm512_sll_epi64(v, count(bits)); }
  static void store_low(uint8_t* p, __mmask64 lanes, __m512i v) {
    _mm_mask_storeu_epi8(p, static_cast<__mmask16>(lanes), _mm512_cvtepi64_epi8(v));
  }
  static __m512i load_low(const uint8_t* p, __mmask64 lanes) {
    return _mm512_cvtepu8_epi64(_mm_maskz_loadu_epi8(static_cast<__mmask16>(lanes), p));
  }
};

template <size_t kSize>
void split_some(const uint8_t* src, uint8_t* const* planes, bool rotate, size_t at, size_t n) {
  __m512i v = _mm512_maskz_loadu_epi8(first(n * kSize), src + at * kSize);
  if (rotate) v = Numbers<kSize>::rotate_left(v);
  for (unsigned k = 0; k < kSize; ++k) {
    Numbers<kSize>::store_low(planes[k] + at, first(n), Numbers<kSize>::shift_right(v, 8 * k));
  }
}

template <size_t kSize>
void merge_some(const uint8_t* const* planes, uint8_t* dst, bool rotate, size_t at, size_t n) {
  __m512i v = _mm512_setzero_si512();
  for (unsigned k = 0; k < kSize; ++k) {
    const __m512i byte = Numbers<kSize>::load_low(planes[k] + at, first(n));
    v = _mm512_or_si512(v, Numbers<kSize>::shift_left(byte, 8 * k));
  }
  if (rotate) v = Numbers<kSize>::rotate_right(v);
  _mm512_mask_storeu_epi8(dst + at * kSize, first(n * kSize), v);
}

template <size_t kSize>
void split_numbers(const uint8_t* src, uint8_t* const* planes, bool rotate, size_t n) {
  constexpr size_t kNumbers = 64 / kSize;
  size_t at = 0;
  for (; at + kNumbers <= n; at += kNumbers) split_some<kSize>(src, planes, rotate, at, kNumbers);
  if (at < n) split_some<kSize>(src, planes, rotate, at, n - at);
}

template <size_t kSize>
void merge_numbers(const uint8_t* const* planes, uint8_t* dst, bool rotate, size_t n) {
  constexpr size_t kNumbers = 64 / kSize;
  size_t at = 0;
  for (; at + kNumbers <= n; at += kNumbers) merge_some<kSize>(planes, dst, rotate, at, kNumbers);
  if (at < n) merge_some<kSize>(planes, dst, rotate, at, n - at);
}

void split_planes(const uint8_t* src, uint8_t* const* planes, size_t size, bool rotate, size_t n) noexcept {
  switch (size) {
    case 2: return split_numbers<2>(src, planes, rotate, n);
    case 4: return split_numbers<4>(src, planes, rotate, n);
    case 8: return split_numbers<8>(src, planes, rotate, n);
  }
}

void merge_planes(const uint8_t* const* planes, uint8_t* dst, size_t size, bool rotate, size_t n) noexcept {
  switch (size) {
    case 2: return merge_numbers<2>(planes, dst, rotate, n);
    case 4: return merge_numbers<4>(planes, dst, rotate, n);
    case 8: return merge_numbers<8>(planes, dst, rotate, n);
  }
}

// --- codes: rows of up to 64 lanes ------------------------------------------------------------------------

// The bytes that hold a mask bit for each of `lanes` lanes, of which there are 64 at most.
__mmask16 mask_bytes(size_t lanes) { return static_cast<__mmask16>(first(lanes / 8) & 0xff); }

void split_codes(const CodesStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                 size_t width, size_t n) noexcept {
  const __m512i low_mask = fill(ones(step.low_bits)), high_mask = fill(ones(step.high_bits));
  const __m128i place = count(step.low_bits);
  for (; lane < step.lanes; lane += 64) {
    const __mmask64 lanes = first(step.lanes - lane);
    for (size_t b = 0; b < n; ++b) {
      const uint8_t* from = blocks + b * block + lane;
      uint8_t* to = codes + b * width + lane;
      for (size_t k = 0; k < step.count; ++k) {
        const CodesPlane& p = step.planes[k];
        const __m512i low = right(_mm512_maskz_loadu_epi8(lanes, from + p.low), count(p.low_shift));
        const __m512i high = right(_mm512_maskz_loadu_epi8(lanes, from + p.high), count(p.high_shift));
        const __m512i top = left(_mm512_and_si512(high, high_mask), place);
        const __m512i code = _mm512_or_si512(_mm512_and_si512(low, low_mask), top);
        _mm512_mask_storeu_epi8(to + k * step.lanes, lanes, code);
      }
    }
  }
}

void split_masks(const MaskStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                 size_t width, size_t n) noexcept {
  const __m512i low_mask = fill(ones(step.low_bits)), one = fill(1u << step.low_bits);
  for (; lane < step.lanes; lane += 64) {
    const __mmask64 lanes = first(step.lanes - lane);
    const __mmask16 bytes = mask_bytes(step.lanes - lane);
    for (size_t k = 0; k < step.count; ++k) {
      const MaskPlane p = step.planes[k];
      const __m128i low_shift = count(p.low_shift);
      uint8_t* to = codes + k * step.lanes + lane;
      for (size_t b = 0; b < n; ++b) {
        const uint8_t* from = blocks + b * block;
        const __m512i low = right(_mm512_maskz_loadu_epi8(lanes, from + p.low + lane), low_shift);
        const __m128i bits = _mm_maskz_loadu_epi8(bytes, from + p.mask + lane / 8);
        const __m512i top = _mm512_maskz_mov_epi8(static_cast<__mmask64>(_mm_cvtsi128_si64(bits)), one);
        const __m512i code = _mm512_or_si512(_mm512_and_si512(low, low_mask), top);
        _mm512_mask_storeu_epi8(to + b * width, lanes, code);
      }
    }
  }
}

// A row's parts in registers or on the stack: a store of bytes may alias what lies elsewhere, which would be
// loaded anew for each block.
struct Part {
  size_t codes;
  __m128i right;
  __m512i mask;
  __m128i left;
};

template <size_t kParts>
void merge_row(const Row& row, bool add, size_t lane, __mmask64 lanes, const uint8_t* codes, size_t width,
               uint8_t* blocks, size_t block, size_t n) {
  Part parts[kParts];
  for (size_t i = 0; i < kParts; ++i) {
    const bool there = i < row.count;  // else a part that adds nothing
    const RowPart& part = row.parts[there ? i : 0];
    parts[i] = {part.codes + lane, count(part.right), fill(there ? part.mask : 0), count(part.left)};
  }
  uint8_t* out = blocks + row.offset + lane;
  for (size_t b = 0; b < n; ++b, out += block, codes += width) {
    __m512i bytes = add ? _mm512_maskz_loadu_epi8(lanes, out) : _mm512_setzero_si512();
    for (const Part& part : parts) {
      const __m512i code = right(_mm512_maskz_loadu_epi8(lanes, codes + part.codes), part.right);
      bytes = _mm512_or_si512(bytes, left(_mm512_and_si512(code, part.mask), part.left));
    }
    _mm512_mask_storeu_epi8(out, lanes, bytes);
  }
}

void merge_rows(const RowsStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                size_t block, size_t n) noexcept {
  for (; lane < step.lanes; lane += 64) {
    const __mmask64 lanes = first(step.lanes - lane);
    for (size_t r = 0; r < step.count; ++r) {
      const Row& row = step.rows[r];
      if (row.count <= 2) {
        merge_row<2>(row, step.add, lane, lanes, codes, width, blocks, block, n);
      } else if (row.count <= 4) {
        merge_row<4>(row, step.add, lane, lanes, codes, width, blocks, block, n);
      } else {
        merge_row<8>(row, step.add, lane, lanes, codes, width, blocks, block, n);
      }
    }
  }
}

void merge_masks(const MaskStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                 size_t block, size_t n) noexcept {
  const __m512i one = fill(1u << step.low_bits);
  for (; lane < step.lanes; lane += 64) {
    const __mmask64 lanes = first(step.lanes - lane);
    const __mmask16 bytes = mask_bytes(step.lanes - lane);
    for (size_t k = 0; k < step.count; ++k) {
      const uint8_t* from = codes + k * step.lanes + lane;
      uint8_t* to = blocks + step.planes[k].mask + lane / 8;
      for (size_t b = 0; b < n; ++b) {
        const __m512i code = _mm512_maskz_loadu_epi8(lanes, from + b * width);
        const auto bits = static_cast<long long>(_mm512_test_epi8_mask(code, one));
        _mm_mask_storeu_epi8(to + b * block, bytes, _mm_cvtsi64_si128(bits));
      }
    }
  }
}

}  // namespace

const FieldsKernels kFieldsAvx512 = {copy,        split_planes, merge_planes, split_codes,
                                     split_masks, merge_rows,   merge_masks};

}  // namespace qzf
