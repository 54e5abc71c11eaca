#include "quant/lanes_order.h"

#include <algorithm>

namespace qzf {

using std::int32_t;
using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

namespace {

// The logarithm of number times integer of each lane; of the number alone where there are no integers.
void lane_logs(const Isa& isa, const uint16_t* numbers, const uint8_t* integers, size_t n, size_t lanes,
               uint16_t* out) {
  if (integers != nullptr) return isa.blocks->logs(numbers, integers, n, lanes, out);
  if (lanes == 1) {
    for (size_t i = 0; i < n; ++i) out[i] = numbers[i] & 0x7fff;
    return;
  }
  for (size_t i = 0; i < n; ++i)
    std::fill_n(out + i * lanes, lanes, static_cast<uint16_t>(numbers[i] & 0x7fff));
}

// map(x) of each of the integers, in s.index.
template <typename Map>
const uint8_t* mapped(const std::vector<uint8_t>& integers, QuantScratch& s, Map map) {
  const uint8_t* from = integers.data();
  uint8_t* __restrict to = s.index.data();
  for (size_t i = 0, n = integers.size(); i < n; ++i) to[i] = static_cast<uint8_t>(map(unsigned{from[i]}));
  return s.index.data();
}

// What the logarithm is taken of: how large the integer scales are.
const uint8_t* magnitudes(LaneScale kind, QuantScratch& s) {
  switch (kind) {
    case LaneScale::kSigned: return mapped(s.scales, s, [](unsigned x) { return x < 128 ? x : 256 - x; });
    case LaneScale::kOffset32:
      return mapped(s.scales, s, [](unsigned x) { return x < 32 ? 32 - x : x - 32; });
    case LaneScale::kNibbles: return mapped(s.scales, s, [](unsigned x) { return x & 15; });
    default: return s.scales.empty() ? nullptr : s.scales.data();
  }
}

// The logarithm of each lane's minimum.
void minimum_logs(const Isa& isa, const QuantSchema& schema, size_t n, QuantScratch& s) {
  const uint8_t* mins = s.mins.empty() ? nullptr : s.mins.data();
  if (schema.scale == LaneScale::kNibbles) mins = mapped(s.scales, s, [](unsigned x) { return x >> 4; });
  lane_logs(isa, s.numbers[1].data(), mins, n, schema.lanes(), s.min_logs.data());
}

// The part of the keys that the ratio of minimum and scale gives.
void ratio_keys(const Isa& isa, const QuantModel& model, size_t n, QuantScratch& s) {
  const size_t lanes = n * model.schema.lanes();
  if (model.schema.numbers < 2) {
    std::fill(s.keys.begin(), s.keys.end(), model.ratio_keys[0]);
    return;
  }
  minimum_logs(isa, model.schema, n, s);
  isa.blocks->index(s.min_logs.data(), s.logs.data(), 2048, 6, 127, lanes, s.index.data());
  isa.counts->look_up(model.ratio_keys, s.index.data(), lanes, s.keys.data());
}

// So many 16-bit numbers add up to 32 bits, of which twice as many fit a register as of 64 bits.
constexpr size_t kSummed = 65536;

uint64_t sum_of(const uint16_t* values, size_t n) {
  uint64_t all = 0;
  for (size_t from = 0; from < n; from += kSummed) {
    uint32_t sum = 0;
    for (size_t i = from; i < std::min(n, from + kSummed); ++i) sum += values[i];
    all += sum;
  }
  return all;
}

// Adds up each column.
void add_rows(const uint16_t* values, size_t rows, size_t row, std::vector<uint64_t>& sums) {
  std::vector<uint32_t> some(row);
  for (size_t from = 0; from < rows; from += kSummed) {
    std::fill(some.begin(), some.end(), 0);
    for (size_t r = from; r < std::min(rows, from + kSummed); ++r) {
      for (size_t c = 0; c < row; ++c) some[c] += values[r * row + c];
    }
    for (size_t c = 0; c < row; ++c) sums[c] += some[c];
  }
}

// The part that the scale's residual against its row and its column gives: scale - row mean - column mean +
// mean.
void residual_keys(const Isa& isa, const QuantModel& model, size_t rows, size_t row, QuantScratch& s) {
  const uint8_t* map = model.residual_keys;
  if (std::all_of(map, map + 64, [&](uint8_t key) { return key == map[0]; })) {
    for (uint8_t& key : s.keys) key = static_cast<uint8_t>(key + map[0]);
    return;
  }
  std::vector<uint64_t> sums(row);
  s.means.resize(row);
  add_rows(s.logs.data(), rows, row, sums);
  uint64_t all = 0;
  for (size_t c = 0; c < row; ++c) {
    all += sums[c];
    s.means[c] = static_cast<uint16_t>(sums[c] / rows);
  }
  const int32_t grand = static_cast<int32_t>(all / (rows * row));
  for (size_t r = 0; r < rows; ++r) {
    const uint16_t* logs = s.logs.data() + r * row;
    const int32_t add = 2048 + grand - static_cast<int32_t>(sum_of(logs, row) / row);
    isa.blocks->index(logs, s.means.data(), add, 6, 63, row, s.index.data() + r * row);
  }
  uint8_t padded[128] = {};
  std::copy(map, map + 64, padded);
  isa.counts->look_up(padded, s.index.data(), rows * row, s.index.data());
  const uint8_t* more = s.index.data();
  uint8_t* __restrict keys = s.keys.data();
  for (size_t i = 0; i < rows * row; ++i) keys[i] = static_cast<uint8_t>(keys[i] + more[i]);
}

constexpr size_t kParts = 4;

// visit(part, lane, column) for all lanes. Four parts of whole rows are gone through side by side, as lanes
// that follow each other often have the same key and would wait for its counter; the last has what is left
// over.
template <bool kByColumn, typename Visit>
void each_lane(size_t lanes, size_t columns, Visit visit) {
  const size_t part = lanes / columns / kParts * columns;
  const auto next = [&](size_t c) { return !kByColumn || c + 1 == columns ? 0 : c + 1; };
  for (size_t i = 0, c = 0; i < part; ++i, c = next(c)) {
    for (size_t p = 0; p < kParts; ++p) visit(p, p * part + i, c);
  }
  for (size_t lane = kParts * part, c = 0; lane < lanes; ++lane, c = next(c)) visit(kParts - 1, lane, c);
}

// Lanes by key, those of equal key in their own order; with columns by column first.
template <bool kByColumn>
void sort_lanes(unsigned keys, size_t lanes, size_t columns, QuantScratch& s) {
  s.counts.assign(keys * columns * kParts, 0);
  uint32_t* counts = s.counts.data();
  const uint8_t* key = s.keys.data();
  const auto bucket = [&](size_t p, size_t lane, size_t c) {
    return ((kByColumn ? c * keys : 0) + key[lane]) * kParts + p;
  };
  each_lane<kByColumn>(lanes, columns,
                       [&](size_t p, size_t lane, size_t c) { ++counts[bucket(p, lane, c)]; });
  uint32_t sum = 0;
  for (uint32_t& count : s.counts) {
    const uint32_t here = count;
    count = sum;
    sum += here;
  }
  uint32_t* order = s.order.data();
  each_lane<kByColumn>(lanes, columns, [&](size_t p, size_t lane, size_t c) {
    order[counts[bucket(p, lane, c)]++] = static_cast<uint32_t>(lane);
  });
}

}  // namespace

void QuantScratch::resize(const QuantSchema& schema, size_t n) {
  const size_t lanes = n * schema.lanes(), groups = (lanes + kGroup - 1) / kGroup;
  for (size_t k = 0; k < 2; ++k) numbers[k].resize(schema.numbers > k ? n : 0);
  scales.resize(n * schema.scales);
  mins.resize(n * schema.mins);
  symbols.resize(n * std::max({1u, schema.scales, schema.mins}));
  contexts.resize(n * std::max(1u, schema.mins));
  second.resize(n);
  for (auto& each : ranks) each.resize(n);
  rank_bits.resize(n);
  places.resize(schema.extrema != 0 ? lanes : 0);
  logs.resize(lanes);
  min_logs.resize(lanes);
  index.resize(lanes);
  keys.resize(lanes);
  order.resize(lanes);
  base.resize(groups);
  classes.resize(groups);
}

namespace {

QuantScratch& of_thread() {
  thread_local QuantScratch scratch;
  return scratch;
}

}  // namespace

QuantLease::QuantLease() : scratch_(of_thread()) {}

QuantLease::~QuantLease() {
  constexpr size_t kKeep = 1 << 19;  // lanes
  if (scratch_.logs.capacity() > kKeep || scratch_.codes.capacity() > 32 * kKeep) scratch_ = QuantScratch();
}

void scale_logs(const Isa& isa, const QuantSchema& schema, size_t n, QuantScratch& s) {
  const size_t lanes = n * schema.lanes();
  if (schema.scale == LaneScale::kE8M0) {
    for (size_t i = 0; i < lanes; ++i) s.logs[i] = static_cast<uint16_t>(s.scales[i] << 7);
  } else if (schema.scale == LaneScale::kUE4M3) {
    for (size_t i = 0; i < lanes; ++i) s.logs[i] = static_cast<uint16_t>((s.scales[i] & 0x7f) << 7);
  } else {
    lane_logs(isa, s.numbers[0].data(), magnitudes(schema.scale, s), n, schema.lanes(), s.logs.data());
  }
}

void lane_centers(const Isa& isa, const QuantSchema& schema, size_t n, QuantScratch& s, uint16_t* centers) {
  scale_logs(isa, schema, n, s);
  minimum_logs(isa, schema, n, s);
  for (size_t lane = 0; lane < n * schema.lanes(); ++lane) {
    // 2^(log / 1024), with a straight line between the octaves as in the logarithm
    const int32_t log = std::clamp(s.min_logs[lane] - s.logs[lane] + 4096, 0, 9 * 1024), octave = log >> 10;
    centers[lane] = static_cast<uint16_t>(((log & 1023) + 1024) << octave >> 10);
  }
}

LanesPlan lanes_plan(const Isa& isa, const QuantModel& model, const ColumnClasses& columns, size_t n,
                     size_t row_blocks, QuantScratch& s) {
  const QuantSchema& schema = model.schema;
  const size_t lanes = n * schema.lanes(), row = row_blocks * schema.lanes();
  const bool by_column = columns.data != nullptr;
  ratio_keys(isa, model, n, s);
  residual_keys(isa, model, n / row_blocks, row, s);
  if (by_column) {
    sort_lanes<true>(model.keys, lanes, row, s);
  } else {
    sort_lanes<false>(model.keys, lanes, 1, s);
  }
  for (size_t g = 0; g < s.base.size(); ++g) {
    const size_t middle = s.order[std::min(g * kGroup + kGroup / 2, lanes - 1)];
    s.base[g] = static_cast<uint16_t>(s.keys[middle] * model.column_classes);
    if (by_column) s.classes[g] = columns.data + middle % row * schema.elements;
  }
  return {lanes,
          model.steps(),
          schema.elements,
          schema.alphabet(),
          s.order.data(),
          s.base.data(),
          by_column ? s.classes.data() : nullptr};
}

}  // namespace qzf
