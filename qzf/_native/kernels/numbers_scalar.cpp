// The oracle: the definition in kernels/numbers.h, one number after the other.
#include "kernels/numbers.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

uint32_t load2(const uint8_t* p) { return uint32_t{p[0]} | uint32_t{p[1]} << 8; }
uint32_t load4(const uint8_t* p) { return load2(p) | load2(p + 2) << 16; }
void store2(uint8_t* p, uint32_t value) {
  p[0] = static_cast<uint8_t>(value);
  p[1] = static_cast<uint8_t>(value >> 8);
}
void store4(uint8_t* p, uint32_t value) {
  store2(p, value);
  store2(p + 2, value >> 16);
}

uint32_t rotate_right2(uint32_t value) {
  return value >> 1 | value << 15;
}  // bits above 15 are of no meaning
uint32_t rotate_left2(uint32_t value) { return (value << 1 | value >> 15) & 0xffff; }
uint32_t rotate_right4(uint32_t value) { return value >> 1 | value << 31; }
uint32_t rotate_left4(uint32_t value) { return value << 1 | value >> 31; }

uint32_t nibble(const uint8_t* nibbles, size_t i) { return (nibbles[i / 2] >> 4 * (i % 2)) & 0xf; }
// Numbers come in order, so that the low half is there before the high one.
void put_nibble(uint8_t* nibbles, size_t i, uint32_t value) {
  nibbles[i / 2] = static_cast<uint8_t>(i % 2 == 0 ? value : nibbles[i / 2] | value << 4);
}

void merge2n(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* nibbles, uint8_t* out) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t key = (uint32_t{key0} + symbols[i]) & 0xfff;
    store2(out + 2 * i, rotate_right2(key << 4 | nibble(nibbles, i)));
  }
}

void merge2b(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* bytes, uint8_t* out) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t key = (uint32_t{key0} + symbols[i]) & 0xff;
    store2(out + 2 * i, rotate_right2(key << 8 | bytes[i]));
  }
}

void merge4(const uint8_t* symbols, size_t n, uint16_t key0, const uint8_t* words, const uint8_t* nibbles,
            uint8_t* out) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t key = (uint32_t{key0} + symbols[i]) & 0xfff;
    const uint32_t raw = nibble(nibbles, i) << 16 | load2(words + 2 * i);
    store4(out + 4 * i, rotate_right4(key << 20 | raw));
  }
}

void split2n(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* nibbles) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t value = rotate_left2(load2(src + 2 * i));
    keys[i] = static_cast<uint16_t>(value >> 4);
    put_nibble(nibbles, i, value & 0xf);
  }
}

void split2b(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* bytes) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t value = rotate_left2(load2(src + 2 * i));
    keys[i] = static_cast<uint16_t>(value >> 8);
    bytes[i] = static_cast<uint8_t>(value);
  }
}

void split4(const uint8_t* src, size_t n, uint16_t* keys, uint8_t* words, uint8_t* nibbles) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t value = rotate_left4(load4(src + 4 * i));
    keys[i] = static_cast<uint16_t>(value >> 20);
    store2(words + 2 * i, value);
    put_nibble(nibbles, i, value >> 16 & 0xf);
  }
}

size_t find_above(const uint8_t* symbols, size_t n, uint8_t first, uint32_t* positions) noexcept {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    if (symbols[i] >= first) positions[count++] = static_cast<uint32_t>(i);
  }
  return count;
}

}  // namespace

const NumbersKernels kNumbersScalar = {merge2n, merge2b, merge4, split2n, split2b, split4, find_above};

}  // namespace qzf
