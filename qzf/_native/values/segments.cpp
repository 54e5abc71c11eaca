#include "values/segments.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "frequencies.h"
#include "values/chunk.h"

namespace qzf {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

namespace {

constexpr size_t kSymbols = 256, kMostContexts = 16;
constexpr int kRounds = 8;  // of k-means

// Cost of a symbol by its frequency, in 1/256 bit.
const std::vector<uint16_t>& costs_by_frequency() {
  static const std::vector<uint16_t> costs = [] {
    std::vector<uint16_t> made(kRansSlots, 1 << 14);
    for (uint32_t f = 1; f < kRansSlots; ++f)
      made[f] = static_cast<uint16_t>(std::nearbyint(256 * (12 - log2_everywhere(f))));
    return made;
  }();
  return costs;
}

// The sample's segments: the symbols that occur in each, with their counts.
class Segments {
 public:
  Segments(const uint16_t* counts, size_t segments) : first_{0} {
    for (size_t i = 0; i < segments; ++i) {
      for (size_t s = 0; s < kSymbols; ++s) {
        const uint16_t count = counts[i * kSymbols + s];
        if (count != 0) entries_.push_back({static_cast<uint16_t>(s), count});
      }
      first_.push_back(entries_.size());
    }
  }

  struct Entry {
    uint16_t symbol, count;
  };
  size_t size() const { return first_.size() - 1; }
  const Entry* begin(size_t i) const { return entries_.data() + first_[i]; }
  const Entry* end(size_t i) const { return entries_.data() + first_[i + 1]; }

  void add(size_t i, uint64_t* counts) const {
    for (const Entry* e = begin(i); e != end(i); ++e) counts[e->symbol] += e->count;
  }

 private:
  std::vector<Entry> entries_;
  std::vector<size_t> first_;
};

// Where k-means starts: segments in the order of their mean symbol, in parts of equal number.
std::vector<uint8_t> first_choice(const Segments& segments, size_t contexts) {
  std::vector<uint64_t> means;
  for (size_t i = 0; i < segments.size(); ++i) {
    uint64_t sum = 0, count = 0;
    for (const auto* e = segments.begin(i); e != segments.end(i); ++e) {
      sum += uint64_t{e->symbol} * e->count;
      count += e->count;
    }
    means.push_back(sum * 256 / std::max<uint64_t>(count, 1));
  }
  std::vector<uint32_t> order(segments.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return means[a] < means[b]; });
  std::vector<uint8_t> chosen(segments.size());
  for (size_t rank = 0; rank < order.size(); ++rank)
    chosen[order[rank]] = static_cast<uint8_t>(rank * contexts / order.size());
  return chosen;
}

// The context that codes each segment at the least cost, the first of equals.
std::vector<uint8_t> best_choice(const Segments& segments, const std::vector<uint16_t>& frequencies) {
  const size_t contexts = frequencies.size() / kSymbols;
  const std::vector<uint16_t>& by_frequency = costs_by_frequency();
  std::vector<float> costs(kSymbols * kMostContexts);
  for (size_t c = 0; c < contexts; ++c) {
    for (size_t s = 0; s < kSymbols; ++s)
      costs[s * kMostContexts + c] = by_frequency[frequencies[c * kSymbols + s]];
  }
  std::vector<uint8_t> chosen(segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    double sums[kMostContexts] = {};  // of whole numbers: exact
    for (const auto* e = segments.begin(i); e != segments.end(i); ++e) {
      const float* each = costs.data() + e->symbol * kMostContexts;
      const double count = e->count;
      for (size_t c = 0; c < kMostContexts; ++c) sums[c] += count * static_cast<double>(each[c]);
    }
    chosen[i] = static_cast<uint8_t>(std::min_element(sums, sums + contexts) - sums);
  }
  return chosen;
}

}  // namespace

void count_keys(const Isa& isa, Form form, const uint8_t* numbers, size_t n, uint64_t* counts) {
  std::vector<uint16_t> keys(n);
  values_keys(isa, form, numbers, n, keys.data());
  for (const uint16_t key : keys) ++counts[key];
}

std::vector<uint16_t> count_segments(const Isa& isa, Form form, const uint8_t* symbol_of_key,
                                     const uint8_t* numbers, size_t n, size_t segment, size_t step) {
  std::vector<uint16_t> keys(n), counts;
  values_keys(isa, form, numbers, n, keys.data());
  for (size_t first = 0; first + segment <= n; first += step * segment) {
    counts.resize(counts.size() + kSymbols);
    uint16_t* row = counts.data() + (counts.size() - kSymbols);
    for (size_t i = first; i < first + segment; ++i) ++row[symbol_of_key[keys[i]]];
  }
  return counts;
}

std::vector<uint16_t> segment_contexts(const uint16_t* counts, size_t segments, size_t contexts, size_t last,
                                       bool every) {
  const Segments seen(counts, segments);
  uint64_t everything[kSymbols] = {};
  for (size_t i = 0; i < segments; ++i) seen.add(i, everything);
  const uint64_t lean =
      std::max<uint64_t>(std::accumulate(everything, everything + kSymbols, uint64_t{0}) / 64, 1);
  std::vector<uint8_t> chosen = first_choice(seen, contexts);
  std::vector<uint16_t> frequencies;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<uint64_t> sums(contexts * kSymbols);
    std::vector<uint32_t> members(contexts);
    for (size_t i = 0; i < segments; ++i) {
      seen.add(i, sums.data() + chosen[i] * kSymbols);
      ++members[chosen[i]];
    }
    if (segments == 0) members[0] = 1;
    frequencies.clear();
    for (size_t c = 0; c < contexts; ++c) {
      if (members[c] == 0) continue;  // nobody's choice
      uint64_t* row = sums.data() + c * kSymbols;
      size_t live = 0;
      for (size_t s = 0; s < kSymbols; ++s)
        row[s] = row[s] * 16 + everything[s] * 16 / lean;  // rare ones lean
      ++row[last];
      for (size_t s = 0; s < kSymbols; ++s) live += row[s] != 0;
      if (live < 2) ++row[0];  // else quantize would make another up, which may be no symbol
      frequencies.resize(frequencies.size() + kSymbols);
      quantize(row, kSymbols, kRansSlots, every, frequencies.data() + (frequencies.size() - kSymbols));
    }
    std::vector<uint8_t> better = best_choice(seen, frequencies);
    if (better == chosen) break;  // it would stay so
    chosen = std::move(better);
  }
  return frequencies;
}

}  // namespace qzf
