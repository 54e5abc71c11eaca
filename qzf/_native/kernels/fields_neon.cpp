#include <arm_neon.h>

#include "kernels/fields.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint8_t;

constexpr size_t kLanes = 16;
constexpr unsigned ones(unsigned bits) { return (1u << bits) - 1; }

uint8x16_t fill(unsigned byte) { return vdupq_n_u8(static_cast<uint8_t>(byte)); }
int8x16_t left(unsigned bits) { return vdupq_n_s8(static_cast<std::int8_t>(bits)); }
int8x16_t right(unsigned bits) { return vnegq_s8(left(bits)); }  // NEON shifts right by a negative count

// --- planes ----------------------------------------------------------------------------------------------

template <size_t kSize>
uint8x16_t rotate_left(uint8x16_t v) {
  if constexpr (kSize == 2) {
    const uint16x8_t x = vreinterpretq_u16_u8(v);
    return vreinterpretq_u8_u16(vsriq_n_u16(vshlq_n_u16(x, 1), x, 15));
  }
  if constexpr (kSize == 4) {
    const uint32x4_t x = vreinterpretq_u32_u8(v);
    return vreinterpretq_u8_u32(vsriq_n_u32(vshlq_n_u32(x, 1), x, 31));
  }
  if constexpr (kSize == 8) {
    const uint64x2_t x = vreinterpretq_u64_u8(v);
    return vreinterpretq_u8_u64(vsriq_n_u64(vshlq_n_u64(x, 1), x, 63));
  }
}

template <size_t kSize>
uint8x16_t rotate_right(uint8x16_t v) {
  if constexpr (kSize == 2) {
    const uint16x8_t x = vreinterpretq_u16_u8(v);
    return vreinterpretq_u8_u16(vsliq_n_u16(vshrq_n_u16(x, 1), x, 15));
  }
  if constexpr (kSize == 4) {
    const uint32x4_t x = vreinterpretq_u32_u8(v);
    return vreinterpretq_u8_u32(vsliq_n_u32(vshrq_n_u32(x, 1), x, 31));
  }
  if constexpr (kSize == 8) {
    const uint64x2_t x = vreinterpretq_u64_u8(v);
    return vreinterpretq_u8_u64(vsliq_n_u64(vshrq_n_u64(x, 1), x, 63));
  }
}

// 16 numbers in v[0..kSize) -> plane k in v[k]. In each round bytes at even and at odd places part, which
// takes the lowest bit off a byte's place in its number and puts it on top of its vector's number k; after
// log2(kSize) rounds all bits have moved.
template <size_t kSize>
void part(uint8x16_t (&v)[kSize]) {
  for (size_t round = 1; round < kSize; round *= 2) {
    uint8x16_t next[kSize];
    for (size_t i = 0; i < kSize / 2; ++i) {
      next[i] = vuzp1q_u8(v[2 * i], v[2 * i + 1]);
      next[i + kSize / 2] = vuzp2q_u8(v[2 * i], v[2 * i + 1]);
    }
    for (size_t i = 0; i < kSize; ++i) v[i] = next[i];
  }
}

// Inverse of part.
template <size_t kSize>
void join(uint8x16_t (&v)[kSize]) {
  for (size_t round = 1; round < kSize; round *= 2) {
    uint8x16_t next[kSize];
    for (size_t i = 0; i < kSize / 2; ++i) {
      next[2 * i] = vzip1q_u8(v[i], v[i + kSize / 2]);
      next[2 * i + 1] = vzip2q_u8(v[i], v[i + kSize / 2]);
    }
    for (size_t i = 0; i < kSize; ++i) v[i] = next[i];
  }
}

template <size_t kSize, bool kRotate>
void split_numbers(const uint8_t* src, uint8_t* const* planes, size_t n) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    uint8x16_t v[kSize];
    for (size_t k = 0; k < kSize; ++k) {
      v[k] = vld1q_u8(src + i * kSize + kLanes * k);
      if constexpr (kRotate) v[k] = rotate_left<kSize>(v[k]);
    }
    part(v);
    for (size_t k = 0; k < kSize; ++k) vst1q_u8(planes[k] + i, v[k]);
  }
  uint8_t* rest[kSize];
  for (size_t k = 0; k < kSize; ++k) rest[k] = planes[k] + i;
  kFieldsScalar.split_planes(src + i * kSize, rest, kSize, kRotate, n - i);
}

template <size_t kSize, bool kRotate>
void merge_numbers(const uint8_t* const* planes, uint8_t* dst, size_t n) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    uint8x16_t v[kSize];
    for (size_t k = 0; k < kSize; ++k) v[k] = vld1q_u8(planes[k] + i);
    join(v);
    for (size_t k = 0; k < kSize; ++k) {
      if constexpr (kRotate) v[k] = rotate_right<kSize>(v[k]);
      vst1q_u8(dst + i * kSize + kLanes * k, v[k]);
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

// --- codes: rows of 16 lanes, what is left lane by lane ---------------------------------------------------

void split_codes(const CodesStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                 size_t width, size_t n) noexcept {
  const uint8x16_t low_mask = fill(ones(step.low_bits)), high_mask = fill(ones(step.high_bits));
  const int8x16_t place = left(step.low_bits);
  for (; lane + kLanes <= step.lanes; lane += kLanes) {
    for (size_t b = 0; b < n; ++b) {
      const uint8_t* from = blocks + b * block + lane;
      uint8_t* to = codes + b * width + lane;
      for (size_t k = 0; k < step.count; ++k) {
        const CodesPlane& p = step.planes[k];
        const uint8x16_t low = vshlq_u8(vld1q_u8(from + p.low), right(p.low_shift));
        const uint8x16_t high = vshlq_u8(vld1q_u8(from + p.high), right(p.high_shift));
        const uint8x16_t top = vshlq_u8(vandq_u8(high, high_mask), place);
        vst1q_u8(to + k * step.lanes, vorrq_u8(vandq_u8(low, low_mask), top));
      }
    }
  }
  if (lane < step.lanes) kFieldsScalar.split_codes(step, lane, blocks, block, codes, width, n);
}

uint8x16_t lane_bits() { return vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201)); }

void split_masks(const MaskStep& step, size_t lane, const uint8_t* blocks, size_t block, uint8_t* codes,
                 size_t width, size_t n) noexcept {
  const uint8x16_t low_mask = fill(ones(step.low_bits)), one = fill(1u << step.low_bits), own = lane_bits();
  for (; lane + kLanes <= step.lanes; lane += kLanes) {
    for (size_t b = 0; b < n; ++b) {
      const uint8_t* from = blocks + b * block;
      uint8_t* to = codes + b * width + lane;
      for (size_t k = 0; k < step.count; ++k) {
        const MaskPlane& p = step.planes[k];
        const uint8_t* mask = from + p.mask + lane / 8;
        const uint8x16_t low = vshlq_u8(vld1q_u8(from + p.low + lane), right(p.low_shift));
        const uint8x16_t set = vtstq_u8(vcombine_u8(vld1_dup_u8(mask), vld1_dup_u8(mask + 1)), own);
        vst1q_u8(to + k * step.lanes, vorrq_u8(vandq_u8(low, low_mask), vandq_u8(set, one)));
      }
    }
  }
  if (lane < step.lanes) kFieldsScalar.split_masks(step, lane, blocks, block, codes, width, n);
}

// A row's parts in registers or on the stack: a store of bytes may alias what lies elsewhere, which would be
// loaded anew for each block.
struct Part {
  size_t codes;
  int8x16_t right;
  uint8x16_t mask;
  int8x16_t left;
};

template <size_t kParts>
void merge_row(const Row& row, bool add, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
               size_t block, size_t n) {
  Part parts[kParts];
  for (size_t i = 0; i < kParts; ++i) {
    const bool there = i < row.count;  // else a part that adds nothing
    const RowPart& part = row.parts[there ? i : 0];
    parts[i] = {part.codes + lane, right(part.right), fill(there ? part.mask : 0), left(part.left)};
  }
  uint8_t* out = blocks + row.offset + lane;
  for (size_t b = 0; b < n; ++b, out += block, codes += width) {
    uint8x16_t bytes = add ? vld1q_u8(out) : fill(0);
    for (const Part& part : parts) {
      const uint8x16_t code = vshlq_u8(vld1q_u8(codes + part.codes), part.right);
      bytes = vorrq_u8(bytes, vshlq_u8(vandq_u8(code, part.mask), part.left));
    }
    vst1q_u8(out, bytes);
  }
}

void merge_rows(const RowsStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                size_t block, size_t n) noexcept {
  for (; lane + kLanes <= step.lanes; lane += kLanes) {
    for (size_t r = 0; r < step.count; ++r) {
      const Row& row = step.rows[r];
      if (row.count <= 2) {
        merge_row<2>(row, step.add, lane, codes, width, blocks, block, n);
      } else if (row.count <= 4) {
        merge_row<4>(row, step.add, lane, codes, width, blocks, block, n);
      } else {
        merge_row<8>(row, step.add, lane, codes, width, blocks, block, n);
      }
    }
  }
  if (lane < step.lanes) kFieldsScalar.merge_rows(step, lane, codes, width, blocks, block, n);
}

void merge_masks(const MaskStep& step, size_t lane, const uint8_t* codes, size_t width, uint8_t* blocks,
                 size_t block, size_t n) noexcept {
  const uint8x16_t one = fill(1u << step.low_bits), own = lane_bits();
  for (; lane + kLanes <= step.lanes; lane += kLanes) {
    for (size_t b = 0; b < n; ++b) {
      const uint8_t* from = codes + b * width + lane;
      uint8_t* to = blocks + b * block + lane / 8;
      for (size_t k = 0; k < step.count; ++k) {
        const uint8x16_t set = vandq_u8(vtstq_u8(vld1q_u8(from + k * step.lanes), one), own);
        to[step.planes[k].mask] = vaddv_u8(vget_low_u8(set));
        to[step.planes[k].mask + 1] = vaddv_u8(vget_high_u8(set));
      }
    }
  }
  if (lane < step.lanes) kFieldsScalar.merge_masks(step, lane, codes, width, blocks, block, n);
}

// A memcpy of known size already becomes NEON moves.
void copy(const uint8_t* src, size_t src_step, uint8_t* dst, size_t dst_step, size_t width,
          size_t n) noexcept {
  kFieldsScalar.copy(src, src_step, dst, dst_step, width, n);
}

}  // namespace

const FieldsKernels kFieldsNeon = {copy,        split_planes, merge_planes, split_codes,
                                   split_masks, merge_rows,   merge_masks};

}  // namespace qzf
