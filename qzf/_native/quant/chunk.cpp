#include "quant/chunk.h"

#include <algorithm>

#include "bits.h"
#include "quant/contexts.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

struct Tails {
  size_t row_blocks = 0;
  const uint8_t* bits[2];
  const uint8_t* exceptions[2];
  size_t counts[2];
};

const char* parse_tails(const QuantModel& model, const Span& in, size_t n, Tails& tails) {
  if (in.size < kTailsHead) return "the tails of the scales are cut short";
  tails.row_blocks = load32(in.data);
  if (tails.row_blocks == 0 || tails.row_blocks > n || n % tails.row_blocks != 0)
    return "rows that do not fit";
  size_t at = kTailsHead;
  for (size_t k = 0; k < 2; ++k) {
    tails.counts[k] = load32(in.data + 4 + 4 * k);
    if (tails.counts[k] > (k < model.schema.numbers ? n : 0)) return "more exceptions than scales";
    tails.bits[k] = in.data + std::min(at, in.size);
    at += k < model.schema.numbers ? packed_size(n, model.numbers[k].shift) : 0;
  }
  for (size_t k = 0; k < 2; ++k) {
    tails.exceptions[k] = in.data + std::min(at, in.size);
    at += kException * tails.counts[k];
  }
  return at == in.size ? nullptr : "the tails of the scales have another size";
}

// visit(i, rank) for all n ranks; the largest of them. Eight ranks at a time have their low bits, at most 8
// of each, in one word. 8 bytes must be readable behind `bits`.
template <class Visit>
size_t each_rank(const uint8_t* symbols, const uint8_t* bits, unsigned shift, size_t n, Visit visit) {
  const uint64_t mask = (uint64_t{1} << shift) - 1;
  size_t most = 0;
  const auto one = [&](size_t i, uint64_t word) {
    const size_t rank = static_cast<size_t>(symbols[i]) << shift | (word & mask);
    most = std::max(most, rank);
    visit(i, rank);
  };
  size_t i = 0;
  for (; i + 8 <= n; i += 8, bits += shift) {
    const uint64_t word = load64(bits);
    for (size_t k = 0; k < 8; ++k) one(i + k, word >> k * shift);
  }
  for (size_t k = 0; i + k < n; ++k) one(i + k, get_bits(bits, k * shift, shift));
  return most;
}

const char* decode_number(const NumberCode& code, const Tails& tails, size_t k, size_t n, QuantScratch& s) {
  const uint8_t* bits = padded(s.packed, tails.bits[k], packed_size(n, code.shift));
  const size_t count = code.count();
  uint16_t* out = s.numbers[k].data();
  const auto counted = [&](size_t i, size_t rank) { out[i] = static_cast<uint16_t>(code.base + rank); };
  const auto listed = [&](size_t i, size_t rank) { out[i] = code.values[std::min(rank, count - 1)]; };
  const uint8_t* symbols = s.symbols.data();
  const size_t most = code.values.empty() ? each_rank(symbols, bits, code.shift, n, counted)
                                          : each_rank(symbols, bits, code.shift, n, listed);
  if (most >= count) return "a scale that is not in the table";
  for (size_t e = 0; e < tails.counts[k]; ++e) {
    const uint8_t* exception = tails.exceptions[k] + kException * e;
    const size_t place = load32(exception);
    if (place >= n) return "an exception of no scale";
    out[place] = static_cast<uint16_t>(exception[4] | exception[5] << 8);
  }
  return nullptr;
}

constexpr uint8_t kZero = 0;

const char* decode_scales(const Isa& isa, const QuantModel& model, const QuantStreams& in, size_t n,
                          Tails& tails, QuantScratch& s) {
  const QuantSchema& schema = model.schema;
  const char* cut = "the symbols of the scales are cut short";
  if (const char* fault = parse_tails(model, in.tails, n, tails)) return fault;
  RansReader reader;
  if (!rans_open(in.heads.data, in.heads.size, reader)) return cut;
  const auto decode = [&](const RansContexts& contexts, uint8_t* out, size_t count) {
    return isa.rans->decode(reader, model.rans.data(), contexts, out, count);
  };
  for (size_t k = 0; k < schema.numbers; ++k) {
    if (k == 1) second_contexts(model, s.numbers[0].data(), n, s.contexts.data());
    const RansContexts contexts =
        k == 0 ? RansContexts{&kZero, kOneContext} : RansContexts{s.contexts.data(), 1};
    if (!decode(contexts, s.symbols.data(), n)) return cut;
    if (const char* fault = decode_number(model.numbers[k], tails, k, n, s)) return fault;
  }
  if (!decode({&model.scale_context, kOneContext}, s.scales.data(), s.scales.size())) return cut;
  scale_logs(isa, schema, n, s);
  if (!s.mins.empty()) {
    min_contexts(isa, model, n, s);
    if (!decode({s.contexts.data(), 1}, s.mins.data(), s.mins.size())) return cut;
  }
  return rans_at_end(reader) ? nullptr : "the symbols of the scales do not end where they should";
}

}  // namespace

const char* quant_decode(const Isa& isa, const QuantModel& model, const ColumnClasses& columns,
                         const QuantStreams& in, uint8_t* out, size_t n) {
  const QuantSchema& schema = model.schema;
  const QuantLease lease;
  QuantScratch& s = *lease;
  s.resize(schema, n);
  const size_t lanes = n * schema.lanes();
  const unsigned position_bits = model.extrema ? schema.packed_position_bits() : 0;
  const size_t low = lanes * low_size(schema), positions = packed_size(lanes, position_bits);
  if (in.rest.size != low + positions) return "the low bits of the codes have another size";
  Tails tails;
  if (const char* fault = decode_scales(isa, model, in, n, tails, s)) return fault;
  if (!columns_fit(model, columns, tails.row_blocks)) return "the table of columns does not fit";
  LanesPlan plan = lanes_plan(isa, model, columns, n, tails.row_blocks, s);
  plan.ahead = in.rest.data;
  plan.ahead_size = in.rest.size;
  s.records.resize(lanes * schema.elements / 2);
  s.highs.resize(schema.alphabet() == 32 ? lanes * schema.elements / 8 : 0);
  if (!isa.lanes->decode(plan, model.lanes.data(), in.codes.data, in.codes.size,
                         {s.records.data(), s.highs.data()})) {
    return "the codes do not end where they should";
  }
  const BlockCodes codes = {s.records.data(), s.highs.data(), in.rest.data,
                            model.extrema ? padded(s.packed, in.rest.data + low, positions) : nullptr};
  return isa.blocks->merge(schema.shape.type, s.fields(schema), codes, n, out) ? nullptr
                                                                               : "an extremum out of place";
}

}  // namespace qzf
