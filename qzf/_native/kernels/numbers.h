// The table of kernels that take numbers of 2 or 4 bytes apart into a key, which is coded by its symbol, and
// raw bits, and that put them together again. Declarations only, as in fields.h.
//
// A number of W bytes is little-endian; rotated left by one bit (which takes a float's sign from the top to
// the bottom) its top bits are the key and the others, the raw bits, stand below:
//
//   kernel  W  key bits  raw bits  where the raw bits of number i are
//   2n      2  12        4         nibbles[i / 2], in the low half for even i and in the high half for odd i
//   2b      2  8         8         bytes[i]
//   4       4  12        20        the low 16 in words[2 i] and words[2 i + 1], little-endian; the high 4 in
//                                  `nibbles`, as in 2n
//
// Pointers need no alignment, but for `keys` and `positions`, which have that of their type. Memory of
// different arguments does not overlap. n may be any number, 0 too; `nibbles` has (n + 1) / 2 bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qzf {

struct NumbersKernels {
  // Number i of `out` has the key key0 + symbols[i], modulo 2 ^ (key bits). Where n is odd, the high half of
  // the last byte of `nibbles` is not looked at.
  void (*merge2n)(const std::uint8_t* symbols, std::size_t n, std::uint16_t key0, const std::uint8_t* nibbles,
                  std::uint8_t* out) noexcept;
  void (*merge2b)(const std::uint8_t* symbols, std::size_t n, std::uint16_t key0, const std::uint8_t* bytes,
                  std::uint8_t* out) noexcept;
  void (*merge4)(const std::uint8_t* symbols, std::size_t n, std::uint16_t key0, const std::uint8_t* words,
                 const std::uint8_t* nibbles, std::uint8_t* out) noexcept;

  // The inverse, with whole keys. Where n is odd, the high half of the last byte of `nibbles` becomes zero.
  void (*split2n)(const std::uint8_t* src, std::size_t n, std::uint16_t* keys,
                  std::uint8_t* nibbles) noexcept;
  void (*split2b)(const std::uint8_t* src, std::size_t n, std::uint16_t* keys, std::uint8_t* bytes) noexcept;
  void (*split4)(const std::uint8_t* src, std::size_t n, std::uint16_t* keys, std::uint8_t* words,
                 std::uint8_t* nibbles) noexcept;

  // Writes the positions of all symbols that are `first` or above, in ascending order, and returns how many
  // they are. `positions` has room for n, of which those beyond the result are undefined; n is below 2^32.
  // Made for a few per cent of them.
  std::size_t (*find_above)(const std::uint8_t* symbols, std::size_t n, std::uint8_t first,
                            std::uint32_t* positions) noexcept;
};

extern const NumbersKernels kNumbersScalar;
extern const NumbersKernels kNumbersAvx2;
extern const NumbersKernels kNumbersAvx512;
extern const NumbersKernels kNumbersNeon;

}  // namespace qzf
