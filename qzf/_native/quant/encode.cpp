#include "quant/encode.h"

#include <algorithm>

#include "bits.h"
#include "quant/contexts.h"

namespace qzf {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

namespace {

constexpr size_t kBatch = 1 << 13;  // codes that go through all steps while they are in the first cache

// The codes that the extrema of a lane of 32 must have, where the scale is not zero and where it is.
ExtremeCodes extreme_codes(const QuantSchema& schema) {
  const auto top = static_cast<uint8_t>((1u << schema.bits) - 1);
  const auto neutral = static_cast<uint8_t>(1u << (schema.bits - 1));
  if (schema.signed_extremum()) return {Extrema::kSigned, {top, neutral}, {1, neutral}};
  if (schema.extrema == 1) return {Extrema::kOne, {0, neutral}, {0, 0}};
  return {Extrema::kTwo, {0, 0}, {top, 0}};
}

// Where the extrema are; s.rest has room for that.
void write_places(const QuantSchema& schema, size_t lanes, const QuantScratch& s, uint8_t* to) {
  const unsigned bits = schema.packed_position_bits(), skip = schema.position_bits() - bits;
  pack_bits([&](size_t lane) { return s.places[lane] >> skip; }, lanes, bits, to);
}

void append_exception(std::vector<uint8_t>& out, size_t place, unsigned pattern) {
  for (unsigned shift = 0; shift < 32; shift += 8) out.push_back(static_cast<uint8_t>(place >> shift));
  for (unsigned shift = 0; shift < 16; shift += 8) out.push_back(static_cast<uint8_t>(pattern >> shift));
}

// Ranks of n numbers as symbols and low bits; what differs from the value of its rank is an exception. What
// the context has no frequency for becomes one too. Everything is looked up through locals, as the bytes that
// are written might be anything.
template <bool kEach, bool kList>
void rank_numbers(const QuantModel& model, size_t k, const uint8_t* contexts, size_t n, QuantScratch& s) {
  const NumberCode& code = model.numbers[k];
  const uint16_t *numbers = s.numbers[k].data(), *ranks = code.ranks.data(), *values = code.values.data();
  const RansCode* codes = model.rans_codes.data();
  uint8_t *symbols = s.ranks[k].data(), *low = s.rank_bits.data();
  const size_t count = code.count();
  const unsigned shift = code.shift, mask = (1u << shift) - 1, base = code.base;
  for (size_t i = 0; i < n; ++i) {
    const uint16_t number = numbers[i];
    const size_t context = kEach ? contexts[i] : 0;
    uint32_t rank = ranks[number];
    if (codes[context].symbols[rank >> shift].frequency == 0)
      rank = uint32_t{model.commonest[context]} << shift;
    if (rank >= count) rank = 0;  // the list is shorter; without a frequency, coding fails
    symbols[i] = static_cast<uint8_t>(rank >> shift);
    low[i] = static_cast<uint8_t>(rank & mask);
    if ((kList ? values[rank] : base + rank) != number) append_exception(s.exceptions[k], i, number);
  }
}

// The tails: row_blocks and counts of exceptions, low bits of the ranks, exceptions.
void write_number(const QuantModel& model, size_t k, const uint8_t* contexts, size_t n, QuantScratch& s) {
  const unsigned shift = model.numbers[k].shift;
  const bool list = !model.numbers[k].values.empty();
  const auto rank = contexts != nullptr ? list ? rank_numbers<true, true> : rank_numbers<true, false>
                    : list              ? rank_numbers<false, true>
                                        : rank_numbers<false, false>;
  rank(model, k, contexts, n, s);
  const size_t at = s.tails.size(), size = packed_size(n, shift);
  s.tails.resize(at + size + kPackAhead);
  pack_bits([&](size_t i) { return s.rank_bits[i]; }, n, shift, s.tails.data() + at);
  s.tails.resize(at + size);
}

}  // namespace

bool take_blocks(const Isa& isa, const QuantSchema& schema, bool extrema, const uint8_t* blocks, size_t n,
                 QuantScratch& s, uint8_t* low) {
  const size_t each = schema.shape.codes, batch = kBatch / each;
  const ExtremeCodes extremes = extreme_codes(schema);
  s.resize(schema, n);
  s.codes.resize(n * each);
  for (size_t first = 0; first < n; first += batch) {
    const size_t count = std::min(batch, n - first);
    uint8_t* codes = s.codes.data() + first * each;
    isa.blocks->split(schema.shape, blocks + first * schema.shape.size, count, s.fields(schema, first),
                      codes);
    if (extrema && !isa.blocks->take_extrema(extremes, s.numbers[0].data() + first, count, codes,
                                             s.places.data() + first)) {
      return false;
    }
    if (low == nullptr) continue;
    const size_t lanes = schema.lanes();
    isa.blocks->split_low(schema.low, schema.elements, count * lanes, codes,
                          low + first * lanes * low_size(schema));
  }
  scale_logs(isa, schema, n, s);
  return true;
}

HeadsSections make_heads(const Isa& isa, const QuantModel& model, size_t n, size_t row_blocks,
                         QuantScratch& s) {
  static constexpr uint8_t kZero = 0;
  const QuantSchema& schema = model.schema;
  HeadsSections heads;
  s.tails.assign(kTailsHead, 0);
  for (auto& each : s.exceptions) each.clear();
  for (size_t k = 0; k < schema.numbers; ++k) {
    if (k == 1) second_contexts(model, s.numbers[0].data(), n, s.second.data());
    const uint8_t* contexts = k == 1 ? s.second.data() : nullptr;
    write_number(model, k, contexts, n, s);
    heads.add(
        {contexts ? RansContexts{contexts, 1} : RansContexts{&kZero, kOneContext}, s.ranks[k].data(), n});
  }
  const size_t head[3] = {row_blocks, s.exceptions[0].size() / kException,
                          s.exceptions[1].size() / kException};
  for (size_t i = 0; i < kTailsHead; ++i) s.tails[i] = static_cast<uint8_t>(head[i / 4] >> i % 4 * 8);
  for (const auto& each : s.exceptions) s.tails.insert(s.tails.end(), each.begin(), each.end());
  if (!s.scales.empty()) heads.add({{&model.scale_context, kOneContext}, s.scales.data(), s.scales.size()});
  if (!s.mins.empty()) {
    min_contexts(isa, model, n, s);
    heads.add({{s.contexts.data(), 1}, s.mins.data(), s.mins.size()});
  }
  return heads;
}

bool quant_encode(const Isa& isa, const QuantModel& model, const ColumnClasses& columns,
                  const uint8_t* blocks, size_t n, size_t row_blocks, const QuantLease& lease,
                  QuantStreams& out) {
  const QuantSchema& schema = model.schema;
  QuantScratch& s = *lease;
  if (row_blocks == 0 || n % row_blocks != 0 || !columns_fit(model, columns, row_blocks)) return false;
  if (!model.all_codes) return false;
  const size_t lanes = n * schema.lanes(), low = lanes * low_size(schema);
  const size_t places = model.extrema ? packed_size(lanes, schema.packed_position_bits()) : 0;
  s.rest.resize(low + places + kPackAhead);
  if (!take_blocks(isa, schema, model.extrema, blocks, n, s, schema.low ? s.rest.data() : nullptr))
    return false;
  if (model.extrema) write_places(schema, lanes, s, s.rest.data() + low);

  const HeadsSections heads = make_heads(isa, model, n, row_blocks, s);
  size_t symbols = 0;
  for (const HeadsSection& section : heads) symbols += section.size;
  RansWriter writer(*isa.rans, s.words, symbols);
  for (size_t i = heads.count; i-- > 0;) {
    const HeadsSection& section = heads.sections[i];
    if (!writer.add(model.rans_codes.data(), section.contexts, section.symbols, section.size)) return false;
  }
  writer.finish(s.heads);

  const LanesPlan plan = lanes_plan(isa, model, columns, n, row_blocks, s);
  s.room.resize(std::max(s.room.size(), lanes_bound(lanes, plan.steps)));
  const size_t size =
      isa.lanes->encode(plan, model.lanes_codes.data(), s.codes.data(), s.room.data(), s.room.size());
  out = {{s.heads.data(), s.heads.size()},
         {s.tails.data(), s.tails.size()},
         {s.room.data() + (s.room.size() - size), size},
         {s.rest.data(), low + places}};
  return true;
}

}  // namespace qzf
