#include "frequencies.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qzf {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

namespace {

// What a step of one slot wins in bits, about: weight / (f + step / 2) for a frequency f.
double gain(double weight, double frequency, double step, double total) {
  if (weight == 0 || frequency + step < 1 || frequency + step >= total)
    return -std::numeric_limits<double>::infinity();
  return step * weight / std::max(frequency + step / 2, 0.5);
}

// Changes frequencies one by one, where it costs least, until `left` more slots are taken.
void settle(const double* weights, size_t width, int32_t left, uint32_t total, uint16_t* frequencies) {
  const int step = left < 0 ? -1 : 1;
  double gains[kMostSymbols];
  for (size_t s = 0; s < width; ++s) gains[s] = gain(weights[s], frequencies[s], step, total);
  for (; left != 0; left -= step) {
    const size_t best = static_cast<size_t>(std::max_element(gains, gains + width) - gains);
    frequencies[best] = static_cast<uint16_t>(frequencies[best] + step);
    gains[best] = gain(weights[best], frequencies[best], step, total);
  }
}

}  // namespace

double log2_everywhere(double x) {
  int exponent;
  double mantissa = std::frexp(x, &exponent);
  if (mantissa < 0.70710678118654752) {
    mantissa *= 2;
    --exponent;
  }
  const double t = (mantissa - 1) / (mantissa + 1), square = t * t;  // log(m) = 2 artanh t
  double series = 0;
  for (int odd = 21; odd >= 1; odd -= 2) series = series * square + 1.0 / odd;
  return exponent + 2.8853900817779268 * t * series;  // 2 / ln 2
}

void quantize(const uint64_t* counts, size_t width, uint32_t total, bool every, uint16_t* frequencies) {
  const bool all = every || std::all_of(counts, counts + width, [](uint64_t count) { return count == 0; });
  double weights[kMostSymbols];
  size_t live = 0;
  uint64_t sum = 0;
  const auto weigh = [&](size_t s, uint64_t weight) {
    weights[s] = static_cast<double>(weight);
    sum += weight;
    live += weight != 0;
  };
  for (size_t s = 0; s < width; ++s) weigh(s, all ? std::max<uint64_t>(counts[s], 1) : counts[s]);
  if (live == 1) {  // no symbol may have all of the probability
    weigh(static_cast<size_t>(std::max_element(counts, counts + width) - counts + 1) % width, 1);
  }
  auto left = static_cast<int32_t>(total);
  for (size_t s = 0; s < width; ++s) {
    frequencies[s] = 0;
    if (weights[s] == 0) continue;
    const double share = std::nearbyint(weights[s] * total / static_cast<double>(sum));
    frequencies[s] = static_cast<uint16_t>(std::clamp(share, 1.0, total - 1.0));
    left -= frequencies[s];
  }
  settle(weights, width, left, total, frequencies);
}

void quantize_leaning(const uint64_t* counts, size_t width, const uint64_t* lean, size_t leaned,
                      uint32_t total, uint16_t* frequencies) {
  uint64_t weights[kMostSymbols];
  for (size_t s = 0; s < leaned; ++s) weights[s] = 64 * counts[s] + lean[s];
  quantize(weights, leaned, total, true, frequencies);
  std::fill(frequencies + leaned, frequencies + width, uint16_t{0});
}

uint64_t cost(const uint64_t* counts, size_t width) {
  uint64_t sum = 0, bits = 0;
  for (size_t s = 0; s < width; ++s) sum += counts[s];
  for (size_t s = 0; s < width; ++s) {
    if (counts[s] == 0) continue;
    const double rarity = static_cast<double>(sum) / static_cast<double>(counts[s]);
    bits += counts[s] * static_cast<uint64_t>(std::nearbyint(1024 * log2_everywhere(rarity)));
  }
  return bits;
}

std::vector<uint8_t> join_rows(const CountRows& rows, size_t most, std::vector<uint64_t>& joined) {
  using Row = std::vector<uint64_t>;
  struct Group {
    Row counts;
    size_t members;
    uint64_t alone, pair;  // cost, and that of it and the next one joined
  };
  const auto add = [](Row counts, const Row& more) {
    for (size_t s = 0; s < counts.size(); ++s) counts[s] += more[s];
    return counts;
  };
  const auto bits = [](const Row& counts) { return cost(counts.data(), counts.size()) >> 10; };
  std::vector<Group> groups;
  const auto pair_up = [&](size_t i) {
    if (i + 1 < groups.size()) groups[i].pair = bits(add(groups[i].counts, groups[i + 1].counts));
  };
  for (size_t i = 0; i < rows.rows; ++i) {
    Row counts(rows.row(i), rows.row(i) + rows.width);
    const uint64_t alone = bits(counts);
    groups.push_back({std::move(counts), 1, alone, 0});
  }
  for (size_t i = 0; i < groups.size(); ++i) pair_up(i);
  while (groups.size() > most) {
    size_t best = 0;
    int64_t least = std::numeric_limits<int64_t>::max();
    for (size_t i = 0; i + 1 < groups.size(); ++i) {
      const auto added = static_cast<int64_t>(groups[i].pair - groups[i].alone - groups[i + 1].alone);
      if (added < least) best = i, least = added;
    }
    Group &one = groups[best], &next = groups[best + 1];
    one = {add(std::move(one.counts), next.counts), one.members + next.members, one.pair, 0};
    groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    pair_up(best);
    if (best != 0) pair_up(best - 1);
  }
  std::vector<uint8_t> out;
  joined.clear();
  for (size_t i = 0; i < groups.size(); ++i) {
    out.insert(out.end(), groups[i].members, static_cast<uint8_t>(i));
    joined.insert(joined.end(), groups[i].counts.begin(), groups[i].counts.end());
  }
  return out;
}

}  // namespace qzf
