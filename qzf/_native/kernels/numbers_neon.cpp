// NEON. Whole vectors; the last numbers are left to the scalar kernels. Numbers are loaded and
// stored as bytes, which need no alignment.
#include <arm_neon.h>

#include "kernels/numbers.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

uint16x8_t load2(const uint8_t* p) { return vreinterpretq_u16_u8(vld1q_u8(p)); }
uint32x4_t load4(const uint8_t* p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }
void store2(uint8_t* p, uint16x8_t v) { vst1q_u8(p, vreinterpretq_u8_u16(v)); }
void store4(uint8_t* p, uint32x4_t v) { vst1q_u8(p, vreinterpretq_u8_u32(v)); }

uint16x8_t rotate_right2(uint16x8_t v) { return vsliq_n_u16(vshrq_n_u16(v, 1), v, 15); }
uint16x8_t rotate_left2(uint16x8_t v) { return vsriq_n_u16(vshlq_n_u16(v, 1), v, 15); }
uint32x4_t rotate_right4(uint32x4_t v) { return vsliq_n_u32(vshrq_n_u32(v, 1), v, 31); }
uint32x4_t rotate_left4(uint32x4_t v) { return vsriq_n_u32(vshlq_n_u32(v, 1), v, 31); }

// 16 nibbles from 8 bytes, a byte each, and back.
uint8x16_t unpacked(const uint8_t* nibbles) {
  const uint8x8_t two = vld1_u8(nibbles), low = vand_u8(two, vdup_n_u8(0xf)), high = vshr_n_u8(two, 4);
  return vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
}
uint8x8_t packed(uint8x16_t nibbles) {
  const uint16x8_t two = vreinterpretq_u16_u8(nibbles);
  return vmovn_u16(vsraq_n_u16(two, two, 4));
}

// 8 numbers of 2 bytes: keys, raw bits. Shifts to their place drop what is above the bits of a key.
template <int kRawBits>
uint16x8_t merged2(uint8x8_t symbols, uint16x8_t key0, uint8x8_t raw) {
  const uint16x8_t key = vaddw_u8(key0, symbols);
  return rotate_right2(vorrq_u16(vshlq_n_u16(key, kRawBits), vmovl_u8(raw)));
}

void merge2n(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* nibbles, uint8_t* out) noexcept {
  const uint16x8_t start = vdupq_n_u16(key0);
  size_t at = 0;
  for (; at + 16 <= n; at += 16) {
    const uint8x16_t symbol = vld1q_u8(symbols + at), raw = unpacked(nibbles + at / 2);
    store2(out + 2 * at, merged2<4>(vget_low_u8(symbol), start, vget_low_u8(raw)));
    store2(out + 2 * at + 16, merged2<4>(vget_high_u8(symbol), start, vget_high_u8(raw)));
  }
  kNumbersScalar.merge2n(symbols + at, n - at, key0, nibbles + at / 2, out + 2 * at);
}

void merge2b(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* bytes, uint8_t* out) noexcept {
  const uint16x8_t start = vdupq_n_u16(key0);
  size_t at = 0;
  for (; at + 8 <= n; at += 8) {
    store2(out + 2 * at, merged2<8>(vld1_u8(symbols + at), start, vld1_u8(bytes + at)));
  }
  kNumbersScalar.merge2b(symbols + at, n - at, key0, bytes + at, out + 2 * at);
}

// 4 numbers of 4 bytes.
uint32x4_t merged4(uint16x4_t key, uint16x4_t low, uint16x4_t high) {
  const uint32x4_t raw = vorrq_u32(vmovl_u16(low), vshll_n_u16(high, 16));
  return rotate_right4(vorrq_u32(vshlq_n_u32(vmovl_u16(key), 20), raw));
}

void merge4(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* words, const uint8_t* nibbles,
            uint8_t* out) noexcept {
  const uint16x8_t start = vdupq_n_u16(key0);
  size_t at = 0;
  for (; at + 16 <= n; at += 16) {
    const uint8x16_t symbol = vld1q_u8(symbols + at), raw = unpacked(nibbles + at / 2);
    for (size_t half = 0; half < 2; ++half) {
      const uint16x8_t key = vaddw_u8(start, half == 0 ? vget_low_u8(symbol) : vget_high_u8(symbol));
      const uint16x8_t high = vmovl_u8(half == 0 ? vget_low_u8(raw) : vget_high_u8(raw));
      const uint16x8_t low = load2(words + 2 * at + 16 * half);
      uint8_t* to = out + 4 * at + 32 * half;
      store4(to, merged4(vget_low_u16(key), vget_low_u16(low), vget_low_u16(high)));
      store4(to + 16, merged4(vget_high_u16(key), vget_high_u16(low), vget_high_u16(high)));
    }
  }
  kNumbersScalar.merge4(symbols + at, n - at, key0, words + 2 * at, nibbles + at / 2, out + 4 * at);
}

void split2n(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* nibbles) noexcept {
  const uint8x16_t mask = vdupq_n_u8(0xf);
  size_t at = 0;
  for (; at + 16 <= n; at += 16) {
    const uint16x8_t a = rotate_left2(load2(src + 2 * at)), b = rotate_left2(load2(src + 2 * at + 16));
    vst1q_u16(keys + at, vshrq_n_u16(a, 4));
    vst1q_u16(keys + at + 8, vshrq_n_u16(b, 4));
    vst1_u8(nibbles + at / 2, packed(vandq_u8(vcombine_u8(vmovn_u16(a), vmovn_u16(b)), mask)));
  }
  kNumbersScalar.split2n(src + 2 * at, n - at, keys + at, nibbles + at / 2);
}

void split2b(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* bytes) noexcept {
  size_t at = 0;
  for (; at + 8 <= n; at += 8) {
    const uint16x8_t value = rotate_left2(load2(src + 2 * at));
    vst1q_u16(keys + at, vshrq_n_u16(value, 8));
    vst1_u8(bytes + at, vmovn_u16(value));
  }
  kNumbersScalar.split2b(src + 2 * at, n - at, keys + at, bytes + at);
}

void split4(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* words, uint8_t* nibbles) noexcept {
  const uint8x16_t mask = vdupq_n_u8(0xf);
  size_t at = 0;
  for (; at + 16 <= n; at += 16) {
    uint8x8_t raw[2];
    for (size_t half = 0; half < 2; ++half) {
      const uint8_t* from = src + 4 * at + 32 * half;
      const uint16x8_t a = vreinterpretq_u16_u32(rotate_left4(load4(from)));
      const uint16x8_t b = vreinterpretq_u16_u32(rotate_left4(load4(from + 16)));
      const uint16x8_t high = vuzp2q_u16(a, b);
      store2(words + 2 * at + 16 * half, vuzp1q_u16(a, b));
      vst1q_u16(keys + at + 8 * half, vshrq_n_u16(high, 4));
      raw[half] = vmovn_u16(high);
    }
    vst1_u8(nibbles + at / 2, packed(vandq_u8(vcombine_u8(raw[0], raw[1]), mask)));
  }
  kNumbersScalar.split4(src + 4 * at, n - at, keys + at, words + 2 * at, nibbles + at / 2);
}

size_t find_above(const uint8_t* symbols, size_t n, uint8_t first, uint32_t* positions) noexcept {
  const uint8x16_t least = vdupq_n_u8(first);
  size_t count = 0, at = 0;
  for (; at < n; at += 16) {
    if (at + 16 <= n && vmaxvq_u8(vcgeq_u8(vld1q_u8(symbols + at), least)) == 0) continue;
    const size_t end = at + 16 <= n ? at + 16 : n;
    // Stored in any case: no more have been found than were looked at, so there is room.
    for (size_t i = at; i < end; ++i) {
      positions[count] = static_cast<uint32_t>(i);
      count += symbols[i] >= first;
    }
  }
  return count;
}

}  // namespace

const NumbersKernels kNumbersNeon = {merge2n, merge2b, merge4, split2n, split2b, split4, find_above};

}  // namespace qzf
