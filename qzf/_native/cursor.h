// Reading a table field by field; std::invalid_argument where it breaks a rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace qzf {

class Cursor {
 public:
  // `what` starts every message.
  Cursor(const std::uint8_t* at, std::size_t size, const char* what) : at_(at), left_(size), what_(what) {}

  void require(bool condition, const char* message) const {
    if (!condition) throw std::invalid_argument(std::string(what_) + message);
  }
  const std::uint8_t* take(std::size_t n) {
    require(n <= left_, "it ends too early");
    const std::uint8_t* here = at_;
    at_ += n;
    left_ -= n;
    return here;
  }
  unsigned u8() { return *take(1); }
  unsigned u16() {
    const std::uint8_t* p = take(2);
    return static_cast<unsigned>(p[0] | p[1] << 8);
  }
  std::size_t left() const { return left_; }

 private:
  const std::uint8_t* at_;
  std::size_t left_;
  const char* what_;
};

}  // namespace qzf
