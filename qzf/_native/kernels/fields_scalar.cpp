// The oracle: plain C++ in the order of the definitions in fields.h. Every other ISA is tested against it.
#include <cstring>

#include "kernels/fields.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint8_t;

template <size_t kWidth>
void copy_fixed(const uint8_t* __restrict src, size_t src_step, uint8_t* __restrict dst, size_t dst_step,
                size_t n) {
  for (size_t i = 0; i < n; ++i) std::memcpy(dst + i * dst_step, src + i * src_step, kWidth);
}

void copy(const uint8_t* src, size_t src_step, uint8_t* dst, size_t dst_step, size_t width,
          size_t n) noexcept {
  // A memcpy of known size becomes a few moves; a call for each block would cost more than the copy.
  switch (width) {
    case 1: return copy_fixed<1>(src, src_step, dst, dst_step, n);
    case 2: return copy_fixed<2>(src, src_step, dst, dst_step, n);
    case 3: return copy_fixed<3>(src, src_step, dst, dst_step, n);
    case 4: return copy_fixed<4>(src, src_step, dst, dst_step, n);
    case 8: return copy_fixed<8>(src, src_step, dst, dst_step, n);
    case 12: return copy_fixed<12>(src, src_step, dst, dst_step, n);
    case 16: return copy_fixed<16>(src, src_step, dst, dst_step, n);
    case 32: return copy_fixed<32>(src, src_step, dst, dst_step, n);
    case 48: return copy_fixed<48>(src, src_step, dst, dst_step, n);
    case 64: return copy_fixed<64>(src, src_step, dst, dst_step, n);
    case 96: return copy_fixed<96>(src, src_step, dst, dst_step, n);
    case 128: return copy_fixed<128>(src, src_step, dst, dst_step, n);
    default:
      for (size_t i = 0; i < n; ++i) std::memcpy(dst + i * dst_step, src + i * src_step, width);
  }
}

// Rotating left by one bit gives each byte the top bit of the byte below, and the lowest that of the highest.
template <size_t kSize, bool kRotate>
void split_numbers(const uint8_t* __restrict src, uint8_t* const* planes, size_t n) {
  for (size_t k = 0; k < kSize; ++k) {
    uint8_t* __restrict plane = planes[k];
    const size_t below = (k + kSize - 1) % kSize;
    for (size_t i = 0; i < n; ++i) {
      const uint8_t* number = src + i * kSize;
      plane[i] = kRotate ? static_cast<uint8_t>(number[k] << 1 | number[below] >> 7) : number[k];
    }
  }
}

template <size_t kSize, bool kRotate>
void merge_numbers(const uint8_t* const* planes, uint8_t* __restrict dst, size_t n) {
  const uint8_t* plane[kSize];
  for (size_t k = 0; k < kSize; ++k) plane[k] = planes[k];
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < kSize; ++k) {
      const unsigned byte = plane[k][i], above = plane[(k + 1) % kSize][i];
      dst[i * kSize + k] = static_cast<uint8_t>(kRotate ? byte >> 1 | above << 7 : byte);
    }
  }
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

// The loops over lanes use copies of a step's numbers, as a store to a byte might change the step itself for
// all that the compiler knows; so they become vector code even here.
unsigned ones(unsigned bits) { return (1u << bits) - 1; }

void split_codes(const CodesStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                 size_t width, size_t n) noexcept {
  const CodesStep s = step;
  const unsigned low_mask = ones(s.low_bits), high_mask = ones(s.high_bits);
  for (size_t b = 0; b < n; ++b, blocks += block, codes += width) {
    for (size_t k = 0; k < s.count; ++k) {
      const CodesPlane plane = s.planes[k];
      uint8_t* __restrict out = codes + k * s.lanes;
      for (size_t l = lane; l < s.lanes; ++l) {
        const unsigned low = blocks[plane.low + l] >> plane.low_shift & low_mask;
        const unsigned high = blocks[plane.high + l] >> plane.high_shift & high_mask;
        out[l] = static_cast<uint8_t>(high << s.low_bits | low);
      }
    }
  }
}

void split_masks(const MaskStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                 size_t width, size_t n) noexcept {
  const MaskStep s = step;
  const unsigned low_mask = ones(s.low_bits);
  for (size_t b = 0; b < n; ++b, blocks += block, codes += width) {
    for (size_t k = 0; k < s.count; ++k) {
      const MaskPlane plane = s.planes[k];
      uint8_t* __restrict out = codes + k * s.lanes;
      for (size_t l = lane; l < s.lanes; ++l) {
        const unsigned low = blocks[plane.low + l] >> plane.low_shift & low_mask;
        const unsigned high = blocks[plane.mask + l / 8] >> l % 8 & 1u;
        out[l] = static_cast<uint8_t>(high << s.low_bits | low);
      }
    }
  }
}

void merge_rows(const RowsStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                size_t block, size_t n) noexcept {
  const RowsStep s = step;
  for (size_t b = 0; b < n; ++b, blocks += block, codes += width) {
    for (size_t r = 0; r < s.count; ++r) {
      const Row& row = s.rows[r];
      uint8_t* __restrict out = blocks + row.offset;
      if (!s.add) std::memset(out + lane, 0, s.lanes - lane);
      for (size_t i = 0; i < row.count; ++i) {
        const RowPart part = row.parts[i];
        const uint8_t* __restrict in = codes + part.codes;
        for (size_t l = lane; l < s.lanes; ++l) {
          out[l] |= static_cast<uint8_t>((in[l] >> part.right & part.mask) << part.left);
        }
      }
    }
  }
}

void merge_masks(const MaskStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                 size_t block, size_t n) noexcept {
  for (size_t b = 0; b < n; ++b, blocks += block, codes += width) {
    for (size_t k = 0; k < step.count; ++k) {
      const uint8_t* __restrict in = codes + k * step.lanes;
      for (size_t l = lane; l < step.lanes; l += 8) {
        unsigned bits = 0;
        for (size_t i = 0; i < 8; ++i) bits |= (in[l + i] >> step.low_bits & 1u) << i;
        blocks[step.planes[k].mask + l / 8] = static_cast<uint8_t>(bits);
      }
    }
  }
}

}  // namespace

const FieldsKernels kFieldsScalar = {copy,        split_planes, merge_planes, split_codes,
                                     split_masks, merge_rows,   merge_masks};

}  // namespace qzf
