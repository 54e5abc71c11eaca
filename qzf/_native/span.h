// Bytes that belong to someone else.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qzf {

struct Span {
  const std::uint8_t* data;
  std::size_t size;
};

}  // namespace qzf
