// Values of a few bits, packed from the lowest bit of the first byte up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace qzf {

inline std::uint32_t load32(const std::uint8_t* p) {
  return static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8 |
         static_cast<std::uint32_t>(p[2]) << 16 | static_cast<std::uint32_t>(p[3]) << 24;
}

inline std::uint64_t load64(const std::uint8_t* p) {
  return load32(p) | static_cast<std::uint64_t>(load32(p + 4)) << 32;
}

inline std::size_t packed_size(std::size_t n, unsigned bits) { return (n * bits + 7) / 8; }

// At most 24 bits from bit `at` on; 4 bytes must be readable.
inline std::uint32_t get_bits(const std::uint8_t* packed, std::size_t at, unsigned bits) {
  return load32(packed + at / 8) >> at % 8 & ((1u << bits) - 1);
}

// A copy of `size` bytes with 8 more behind them, so that `get_bits` may read anywhere.
inline const std::uint8_t* padded(std::vector<std::uint8_t>& room, const std::uint8_t* from,
                                  std::size_t size) {
  room.resize(size + 8);
  if (size != 0) std::memcpy(room.data(), from, size);
  std::memset(room.data() + size, 0, 8);
  return room.data();
}

constexpr std::size_t kPackAhead = 8;

// Packs n values of at most 12 bits, value(i) each; writes up to kPackAhead bytes more than packed_size.
template <class Value>
void pack_bits(Value value, std::size_t n, unsigned bits, std::uint8_t* out) {
  std::uint64_t held = 0;
  unsigned count = 0;
  const auto put = [&](std::uint64_t some, unsigned more) {
    held |= some << count;
    count += more;
    std::memcpy(out, &held, sizeof held);
    out += count / 8;
    held >>= count & ~7u;
    count &= 7;
  };
  const auto at = [&](std::size_t i) { return static_cast<std::uint64_t>(value(i)); };
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    put(at(i) | at(i + 1) << bits | (at(i + 2) | at(i + 3) << bits) << 2 * bits, 4 * bits);
  }
  for (; i < n; ++i) put(at(i), bits);
}

// Appends values, in whole bytes once it is finished.
class BitWriter {
 public:
  explicit BitWriter(std::vector<std::uint8_t>& out) : out_(out) {}
  void put(std::uint32_t value, unsigned bits) {
    held_ |= std::uint64_t{value} << count_;
    for (count_ += bits; count_ >= 8; count_ -= 8, held_ >>= 8)
      out_.push_back(static_cast<std::uint8_t>(held_));
  }
  void finish() {
    if (count_ != 0) out_.push_back(static_cast<std::uint8_t>(held_));
    held_ = count_ = 0;
  }

 private:
  std::vector<std::uint8_t>& out_;
  std::uint64_t held_ = 0;
  unsigned count_ = 0;
};

}  // namespace qzf
