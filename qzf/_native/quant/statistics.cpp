// What models are made from.
#include <algorithm>

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
    const uint8_t* contexts = section.contexts.contexts;
    const bool each = section.contexts.run == 1;
    for (size_t i = 0; i < section.size; ++i)
      ++heads[contexts[each ? i : 0] * size_t{256} + section.symbols[i]];
  }
  const LanesPlan plan = lanes_plan(isa, model, columns, n, row_blocks, s);
  isa.counts->count(plan, s.codes.data(), schema.low, codes);
  return true;
}

bool quant_look(const Isa& isa, const QuantSchema& schema, const uint8_t* blocks, size_t n, uint16_t* first,
                uint16_t* second) {
  const QuantLease lease;
  QuantScratch& s = *lease;
  const bool extrema = schema.extrema != 0 && take_blocks(isa, schema, true, blocks, n, s, nullptr);
  if (!extrema) take_blocks(isa, schema, false, blocks, n, s, nullptr);  // it stopped where a lane lacks one
  if (schema.numbers > 0) std::copy(s.numbers[0].begin(), s.numbers[0].end(), first);
  if (schema.numbers > 1) std::copy(s.numbers[1].begin(), s.numbers[1].end(), second);
  return extrema;
}

void quant_deviations(const Isa& isa, const QuantSchema& schema, const uint8_t* blocks, size_t n,
                      size_t row_blocks, uint64_t* sums) {
  const QuantLease lease;
  QuantScratch& s = *lease;
  take_blocks(isa, schema, false, blocks, n, s, nullptr);
  const size_t lanes = schema.lanes(), row = row_blocks * lanes;
  s.centers.assign(n * lanes, static_cast<uint16_t>(8 << schema.bits));  // where there are no minima
  if (schema.numbers > 1) lane_centers(isa, schema, n, s, s.centers.data());
  std::vector<uint32_t> columns(row * schema.elements);  // at most 2^11 for each of 2^21 rows
  isa.blocks->deviations(s.codes.data(), schema.elements, s.centers.data(), n / row_blocks, row,
                         columns.data());
  for (size_t c = 0; c < columns.size(); ++c) sums[c] += columns[c];
}

}  // namespace qzf
