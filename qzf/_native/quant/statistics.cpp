// What models are made from.
#include <algorithm>
#include <cstdlib>

#include "quant/contexts.h"
#include "quant/encode.h"

namespace qzf {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

bool quant_count(const Isa& isa, const QuantModel& model, const ColumnClasses& columns, const uint8_t* blocks,
                 size_t n, size_t row_blocks, uint64_t* heads, uint64_t* codes) {
  const QuantSchema& schema = model.schema;
  const QuantLease lease;
  QuantScratch& s = *lease;
  if (row_blocks == 0 || n % row_blocks != 0 || !columns_fit(model, columns, row_blocks)) return false;
  if (!take_blocks(isa, schema, model.extrema, blocks, n, s, nullptr)) return false;
  for (const HeadsSection& section : make_heads(isa, model, n, row_blocks, s)) {
    for (size_t i = 0; i < section.size; ++i)
      ++heads[section.contexts.contexts[i / section.contexts.run] * size_t{256} + section.symbols[i]];
  }
  const LanesPlan plan = lanes_plan(isa, model, columns, n, row_blocks, s);
  for (size_t p = 0; p < plan.lanes; ++p) {
    const uint8_t* lane = s.codes.data() + size_t{plan.order[p]} * schema.elements;
    const size_t group = p / kGroup;
    for (size_t t = 0; t < plan.steps; ++t) {
      const size_t table = plan.base[group] + (plan.classes ? plan.classes[group][t] : size_t{0});
      ++codes[table * schema.alphabet() + (lane[t] >> schema.low)];
    }
  }
  return true;
}

void quant_numbers(const Isa& isa, const QuantSchema& schema, const uint8_t* blocks, size_t n,
                   uint16_t* first, uint16_t* second) {
  const QuantLease lease;
  QuantScratch& s = *lease;
  take_blocks(isa, schema, false, blocks, n, s, nullptr);
  if (schema.numbers > 0) std::copy(s.numbers[0].begin(), s.numbers[0].end(), first);
  if (schema.numbers > 1) std::copy(s.numbers[1].begin(), s.numbers[1].end(), second);
}

bool quant_has_extrema(const Isa& isa, const QuantSchema& schema, const uint8_t* blocks, size_t n) {
  const QuantLease lease;
  return schema.extrema != 0 && take_blocks(isa, schema, true, blocks, n, *lease, nullptr);
}

void quant_deviations(const Isa& isa, const QuantSchema& schema, const uint8_t* blocks, size_t n,
                      size_t row_blocks, uint64_t* sums) {
  const QuantLease lease;
  QuantScratch& s = *lease;
  take_blocks(isa, schema, false, blocks, n, s, nullptr);
  const size_t lanes = schema.lanes(), row = row_blocks * lanes;
  const int middle = 8 << schema.bits;  // of types without a minimum, in 1/16
  std::vector<int> centers(n * lanes, middle);
  if (schema.numbers > 1) lane_centers(isa, schema, n, s, centers.data());
  std::vector<uint32_t> columns(row * schema.elements);  // at most 2^11 for each of 2^21 rows
  for (size_t lane = 0; lane < n * lanes; ++lane) {
    const uint8_t* codes = s.codes.data() + lane * schema.elements;
    uint32_t* to = columns.data() + lane % row * schema.elements;
    const int center = centers[lane];
    for (size_t e = 0; e < schema.elements; ++e)
      to[e] += static_cast<uint32_t>(std::abs(16 * codes[e] - center));
  }
  for (size_t c = 0; c < columns.size(); ++c) sums[c] += columns[c];
}

}  // namespace qzf
