#include "quant/ranks.h"

#include <algorithm>
#include <numeric>

#include "frequencies.h"

namespace qzf {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

namespace {

// Values of a number that are worth a list; more are coded as they are.
constexpr size_t kMostValues = 4096;
constexpr size_t kPatterns = size_t{1} << 16;

// Bits of a rank that are left when its symbol has eight.
unsigned low_bits(size_t ranks) {
  unsigned bits = 0;
  while (ranks > size_t{256} << bits) ++bits;
  return bits;
}

// What the symbols of these values cost, in bits.
uint64_t symbols_cost(const std::vector<uint16_t>& values, unsigned shift,
                      const std::vector<uint32_t>& seen) {
  uint64_t counts[kMostSymbols] = {};
  for (size_t rank = 0; rank < values.size(); ++rank) counts[rank >> shift] += seen[values[rank]];
  return cost(counts, kMostSymbols) >> 10;
}

}  // namespace

Ranking rank_patterns(const uint16_t* patterns, size_t n, bool alone) {
  std::vector<uint32_t> counts(kPatterns);
  for (size_t i = 0; i < n; ++i) ++counts[patterns[i]];
  std::vector<uint16_t> seen, often;
  uint64_t common = 0;
  for (size_t value = 0; value < kPatterns; ++value) {
    if (counts[value] > 0) seen.push_back(static_cast<uint16_t>(value));
    if (counts[value] > 1) {
      often.push_back(static_cast<uint16_t>(value));
      common += counts[value];
    }
  }
  if (seen.size() <= kMostValues && 10 * common >= 9 * n) {
    often = seen;
  } else if (100 * common < 98 * n || often.size() > kMostValues) {
    const size_t low = seen.front(), high = seen.back();
    const unsigned shift = low_bits(high - low + 1);
    return {shift, static_cast<uint16_t>(std::min(low, kPatterns - (size_t{256} << shift))), {}};
  }
  const unsigned shift = low_bits(often.size());
  if (alone) {
    std::vector<uint16_t> by_count = often;
    std::stable_sort(by_count.begin(), by_count.end(),
                     [&](uint16_t a, uint16_t b) { return counts[a] > counts[b]; });
    if (symbols_cost(by_count, shift, counts) < symbols_cost(often, shift, counts))
      return {shift, 0, std::move(by_count)};
  }
  return {shift, 0, std::move(often)};
}

void pattern_parts(const uint16_t* patterns, size_t n, size_t parts, uint8_t* by_value) {
  uint64_t counts[256] = {};
  for (size_t i = 0; i < n; ++i) ++counts[patterns[i] >> 7 & 255];
  uint64_t below = 0;
  for (size_t value = 0; value < 256; ++value) {
    below += counts[value];
    by_value[value] = static_cast<uint8_t>(std::min<uint64_t>(below * parts / n, parts - 1));
  }
}

void column_classes(const uint64_t* deviations, size_t columns, size_t classes, uint8_t* by_column) {
  std::vector<uint32_t> order(columns);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return deviations[a] < deviations[b]; });
  for (size_t rank = 0; rank < columns; ++rank)
    by_column[order[rank]] = static_cast<uint8_t>(rank * classes / columns);
}

}  // namespace qzf
