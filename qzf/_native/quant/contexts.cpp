#include "quant/contexts.h"

#include <algorithm>

namespace qzf {

using std::size_t;
using std::uint16_t;
using std::uint8_t;

void second_contexts(const QuantModel& model, const uint16_t* first, size_t n, uint8_t* contexts) {
  for (size_t i = 0; i < n; ++i) contexts[i] = model.second_contexts[first[i] >> 7 & 255];
}

// A minimum is about scale x d / dmin: the logarithm of that is its context.
void min_contexts(const Isa& isa, const QuantModel& model, size_t n, QuantScratch& s) {
  const size_t lanes = model.schema.lanes();
  uint16_t* divisors = s.min_logs.data();
  for (size_t i = 0; i < n; ++i) {
    std::fill(divisors + i * lanes, divisors + (i + 1) * lanes,
              static_cast<uint16_t>(s.numbers[1][i] & 0x7fff));
  }
  isa.blocks->index(s.logs.data(), divisors, 4096, 7, 127, n * lanes, s.index.data());
  isa.counts->look_up(model.min_contexts, s.index.data(), n * lanes, s.contexts.data());
}

bool columns_fit(const QuantModel& model, const ColumnClasses& columns, size_t row_blocks) {
  if (columns.data == nullptr) return model.column_classes == 1;
  const size_t row = row_blocks * model.schema.lanes();
  return model.column_classes > 1 && columns.size == column_count(model.schema, row_blocks) &&
         row * model.keys <= (size_t{1} << 20) &&
         std::all_of(columns.data, columns.data + columns.size,
                     [&](uint8_t value) { return value < model.column_classes; });
}

}  // namespace qzf
