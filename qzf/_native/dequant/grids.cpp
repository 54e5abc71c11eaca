// Codebooks as sets: the points of a codebook stand in ascending order, read as numbers whose lowest digit is
// the first coordinate, so one bit for each number of 8 ternary or 4 octal digits says all of it. Which
// points there are is a matter of GGML: iq2xxs_grid ... iq1s_grid of ggml/src/ggml-common.h in ggml-org/ggml
// (the `gguf` Python package has the same points in gguf/quants.py).
#include "dequant/grids.h"

#include <cstddef>
#include <cstring>

namespace qzf {
namespace {

#include "dequant/points.inl"

// Points of the set, in order. Coordinate c of a point is coordinates[digit c of its number].
template <class Point, std::size_t Words, std::size_t Base, std::size_t Count>
void expand(const std::uint64_t (&set)[Words], const std::int8_t (&coordinates)[Base],
            Point (&points)[Count]) {
  std::size_t found = 0;
  for (std::size_t number = 0; number < Words * 64 && found < Count; ++number) {
    if ((set[number / 64] >> number % 64 & 1) == 0) continue;
    std::int8_t point[sizeof(Point)];
    std::size_t rest = number;
    for (std::int8_t& each : point) {
      each = coordinates[rest % Base];
      rest /= Base;
    }
    std::memcpy(&points[found++], point, sizeof point);
  }
}

DequantGrids make_grids() {
  constexpr std::int8_t iq1[] = {-1, 0, 1}, iq2[] = {8, 25, 43};
  constexpr std::int8_t iq3_xxs[] = {4, 12, 20, 28, 36, 44, 52, 62}, iq3_s[] = {1, 3, 5, 7, 9, 11, 13, 15};
  DequantGrids grids{};
  expand(kIq1S, iq1, grids.iq1);
  expand(kIq2Xxs, iq2, grids.iq2_xxs);
  expand(kIq2Xs, iq2, grids.iq2_xs);
  expand(kIq2S, iq2, grids.iq2_s);
  expand(kIq3Xxs, iq3_xxs, grids.iq3_xxs);
  expand(kIq3S, iq3_s, grids.iq3_s);
  for (unsigned bits = 0; bits < 256; ++bits) {
    std::uint8_t mask[8];
    unsigned parity = 0;
    for (unsigned i = 0; i < 8; ++i) {
      mask[i] = (bits >> i & 1) != 0 ? 0xff : 0;
      parity ^= bits >> i & 1;
    }
    std::memcpy(&grids.masks[bits], mask, sizeof mask);
    if (bits < 128) grids.signs[bits] = static_cast<std::uint8_t>(bits | parity << 7);
  }
  return grids;
}

}  // namespace

const DequantGrids& dequant_grids() {
  static const DequantGrids grids = make_grids();
  return grids;
}

}  // namespace qzf
