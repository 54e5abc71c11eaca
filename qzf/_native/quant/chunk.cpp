#include "quant/chunk.h"

#include <algorithm>
#include <cstring>

#include "bits.h"
#include "quant/lanes_order.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr size_t kTailsHead = 12;                // row_blocks, and two counts of exceptions
constexpr size_t kException = 6;                 // place, pattern
constexpr size_t kOneContext = size_t{1} << 40;  // a run that no stream reaches the end of

void append32(std::vector<uint8_t>& out, uint32_t value) {
  for (unsigned shift = 0; shift < 32; shift += 8) out.push_back(static_cast<uint8_t>(value >> shift));
}

// --- contexts of the scales' symbols
// -------------------------------------------------------------------------

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
  map_index(model.min_contexts, s.index.data(), n * lanes, s.contexts.data());
}

// --- decoding
// -----------------------------------------------------------------------------------------------

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

const char* decode_number(const NumberCode& code, const Tails& tails, size_t k, size_t n, QuantScratch& s) {
  const uint8_t* bits = padded(s.packed, tails.bits[k], packed_size(n, code.shift));
  const size_t count = code.count();
  uint16_t* out = s.numbers[k].data();
  size_t most = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t rank =
        static_cast<size_t>(s.symbols[i]) << code.shift | get_bits(bits, i * code.shift, code.shift);
    most = std::max(most, rank);
    out[i] = code.values.empty() ? static_cast<uint16_t>(code.base + rank)
                                 : code.values[std::min(rank, count - 1)];
  }
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

size_t low_size(const QuantSchema& schema) { return schema.low * schema.elements / 8; }

bool columns_fit(const QuantModel& model, const ColumnClasses& columns, size_t row_blocks) {
  if (columns.data == nullptr) return model.column_classes == 1;
  const size_t row = row_blocks * model.schema.lanes();
  return model.column_classes > 1 && columns.size == column_count(model.schema, row_blocks) &&
         row * model.keys <= (size_t{1} << 20) &&
         std::all_of(columns.data, columns.data + columns.size,
                     [&](uint8_t value) { return value < model.column_classes; });
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
  return isa.blocks->merge(schema.shape.type, s.fields(), codes, n, out) ? nullptr
                                                                         : "an extremum out of place";
}

// --- encoding
// -----------------------------------------------------------------------------------------------

namespace {

void split(const Isa& isa, const QuantSchema& schema, const uint8_t* blocks, size_t n, QuantScratch& s) {
  s.resize(schema, n);
  s.codes.resize(n * schema.shape.codes);
  isa.blocks->split(schema.shape, blocks, n, s.fields(), s.codes.data());
  scale_logs(isa, schema, n, s);
}

// The codes that the extrema of a lane of 32 must have, given its scale; `high` is the second one's.
struct Extremes {
  unsigned low, high;
};

Extremes extremes(const QuantSchema& schema, bool zero, bool negative) {
  const unsigned top = (1u << schema.bits) - 1, neutral = 1u << (schema.bits - 1);
  if (schema.signed_extremum()) return {zero ? neutral : negative ? 1u : top, 0};
  if (schema.extrema == 1) return {zero ? neutral : 0u, 0};
  return {0, zero ? 0u : top};
}

// Exchanges the extrema with the last elements. Their places, or -1 where there are none.
int take_extrema(const QuantSchema& schema, bool zero, uint8_t* codes) {
  const auto find = [&](unsigned value, size_t count) {
    const void* found = std::memchr(codes, static_cast<int>(value), count);
    return found == nullptr ? count : static_cast<size_t>(static_cast<const uint8_t*>(found) - codes);
  };
  bool negative = false;
  size_t first = find(extremes(schema, zero, false).low, 32);
  if (first == 32 && schema.signed_extremum()) {
    negative = true;
    first = find(extremes(schema, zero, true).low, 32);
  }
  if (first == 32) return -1;
  std::swap(codes[first], codes[31]);
  if (schema.signed_extremum()) return static_cast<int>(first | (negative && !zero ? 32u : 0u));
  if (schema.extrema == 1) return static_cast<int>(first);
  const size_t second = find(extremes(schema, zero, false).high, 31);
  if (second == 31) return -1;
  std::swap(codes[second], codes[30]);
  return static_cast<int>(first | second << 5);
}

bool zero_scale(const QuantScratch& s, size_t i) { return (s.numbers[0][i] & 0x7fff) == 0; }

// Takes the extrema of all lanes out. False where one lacks them; places go to s.order.
bool take_all_extrema(const QuantSchema& schema, size_t n, QuantScratch& s) {
  for (size_t i = 0; i < n; ++i) {
    const int places = take_extrema(schema, zero_scale(s, i), s.codes.data() + 32 * i);
    if (places < 0) return false;
    s.order[i] = static_cast<uint32_t>(places);
  }
  return true;
}

// Low bits and places of extrema; leaves in s.codes the symbols to be coded.
void write_rest(const Isa& isa, const QuantModel& model, size_t lanes, QuantScratch& s,
                std::vector<uint8_t>& rest) {
  const QuantSchema& schema = model.schema;
  const size_t bytes = low_size(schema);
  rest.resize(lanes * bytes);
  if (schema.low != 0) isa.blocks->split_low(schema.low, schema.elements, lanes, s.codes.data(), rest.data());
  if (model.extrema && schema.low == 4) {  // the last element's are free for a part of the place
    for (size_t lane = 0; lane < lanes; ++lane) {
      uint8_t& last = rest[lane * bytes + 15];
      last = static_cast<uint8_t>((last & 15u) | (s.order[lane] & 15u) << 4);
    }
  }
  if (!model.extrema) return;
  const unsigned skip = schema.position_bits() - schema.packed_position_bits();
  BitWriter bits(rest);
  for (size_t lane = 0; lane < lanes; ++lane) bits.put(s.order[lane] >> skip, schema.packed_position_bits());
  bits.finish();
}

// A section of the heads.
struct Section {
  std::vector<uint8_t> contexts;  // one a symbol
  std::vector<uint8_t> symbols;
};

// Ranks of a number: symbols, low bits and exceptions. What a context has no frequency for is an exception
// too.
void write_number(const QuantModel& model, size_t k, const uint16_t* numbers, size_t n, Section& section,
                  std::vector<uint8_t>& tails, std::vector<uint8_t>& exceptions) {
  const NumberCode& code = model.numbers[k];
  BitWriter bits(tails);
  for (size_t i = 0; i < n; ++i) {
    uint32_t rank = code.ranks[numbers[i]];
    const RansCode& frequencies = model.rans_codes[section.contexts[i]];
    if (frequencies.frequency[rank >> code.shift] == 0) rank = uint32_t{frequencies.commonest} << code.shift;
    if (rank >= code.count()) rank = 0;  // the list is shorter; without a frequency, coding fails
    section.symbols[i] = static_cast<uint8_t>(rank >> code.shift);
    bits.put(rank & ((1u << code.shift) - 1), code.shift);
    if (code.value(rank) == numbers[i]) continue;
    append32(exceptions, static_cast<uint32_t>(i));
    exceptions.push_back(static_cast<uint8_t>(numbers[i]));
    exceptions.push_back(static_cast<uint8_t>(numbers[i] >> 8));
  }
  bits.finish();
}

std::vector<Section> make_heads(const Isa& isa, const QuantModel& model, size_t n, size_t row_blocks,
                                QuantScratch& s, std::vector<uint8_t>& tails) {
  const QuantSchema& schema = model.schema;
  std::vector<Section> sections;
  std::vector<uint8_t> exceptions[2];
  tails.assign(kTailsHead, 0);
  for (size_t k = 0; k < schema.numbers; ++k) {
    Section section{std::vector<uint8_t>(n, 0), std::vector<uint8_t>(n)};
    if (k == 1) second_contexts(model, s.numbers[0].data(), n, section.contexts.data());
    write_number(model, k, s.numbers[k].data(), n, section, tails, exceptions[k]);
    sections.push_back(std::move(section));
  }
  for (const auto& each : exceptions) tails.insert(tails.end(), each.begin(), each.end());
  const uint32_t head[3] = {static_cast<uint32_t>(row_blocks),
                            static_cast<uint32_t>(exceptions[0].size() / kException),
                            static_cast<uint32_t>(exceptions[1].size() / kException)};
  std::vector<uint8_t> start;
  for (const uint32_t value : head) append32(start, value);
  std::copy(start.begin(), start.end(), tails.begin());
  if (!s.scales.empty())
    sections.push_back({std::vector<uint8_t>(s.scales.size(), model.scale_context), s.scales});
  if (!s.mins.empty()) {
    min_contexts(isa, model, n, s);
    sections.push_back({s.contexts, s.mins});
  }
  return sections;
}

}  // namespace

bool quant_encode(const Isa& isa, const QuantModel& model, const ColumnClasses& columns,
                  const uint8_t* blocks, size_t n, size_t row_blocks, QuantEncoded& out) {
  const QuantSchema& schema = model.schema;
  const QuantLease lease;
  QuantScratch& s = *lease;
  if (row_blocks == 0 || n % row_blocks != 0 || !columns_fit(model, columns, row_blocks)) return false;
  if (!model.all_codes) return false;
  split(isa, schema, blocks, n, s);
  if (model.extrema && !take_all_extrema(schema, n, s)) return false;
  const size_t lanes = n * schema.lanes();
  write_rest(isa, model, lanes, s, out.rest);

  const std::vector<Section> sections = make_heads(isa, model, n, row_blocks, s, out.tails);
  size_t symbols = 0;
  for (const Section& section : sections) symbols += section.symbols.size();
  RansWriter writer(symbols);
  for (auto section = sections.rbegin(); section != sections.rend(); ++section) {
    if (!writer.add(model.rans_codes.data(), {section->contexts.data(), 1}, section->symbols.data(),
                    section->symbols.size())) {
      return false;
    }
  }
  out.heads = writer.finish();

  const LanesPlan plan = lanes_plan(isa, model, columns, n, row_blocks, s);
  std::vector<uint8_t> room(lanes_bound(lanes, plan.steps));
  const size_t size =
      isa.lanes->encode(plan, model.lanes_codes.data(), s.codes.data(), room.data(), room.size());
  out.codes.assign(room.end() - static_cast<std::ptrdiff_t>(size), room.end());
  return true;
}

// --- statistics
// -----------------------------------------------------------------------------------------------

bool quant_count(const Isa& isa, const QuantModel& model, const ColumnClasses& columns, const uint8_t* blocks,
                 size_t n, size_t row_blocks, uint64_t* heads, uint64_t* codes) {
  const QuantSchema& schema = model.schema;
  const QuantLease lease;
  QuantScratch& s = *lease;
  if (row_blocks == 0 || n % row_blocks != 0 || !columns_fit(model, columns, row_blocks)) return false;
  split(isa, schema, blocks, n, s);
  if (model.extrema && !take_all_extrema(schema, n, s)) return false;
  std::vector<uint8_t> tails;
  for (const Section& section : make_heads(isa, model, n, row_blocks, s, tails)) {
    for (size_t i = 0; i < section.symbols.size(); ++i)
      ++heads[section.contexts[i] * 256 + section.symbols[i]];
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
  split(isa, schema, blocks, n, s);
  if (schema.numbers > 0) std::copy(s.numbers[0].begin(), s.numbers[0].end(), first);
  if (schema.numbers > 1) std::copy(s.numbers[1].begin(), s.numbers[1].end(), second);
}

bool quant_has_extrema(const Isa& isa, const QuantSchema& schema, const uint8_t* blocks, size_t n) {
  const QuantLease lease;
  QuantScratch& s = *lease;
  if (schema.extrema == 0) return false;
  split(isa, schema, blocks, n, s);
  return take_all_extrema(schema, n, s);
}

void quant_deviations(const Isa& isa, const QuantSchema& schema, const uint8_t* blocks, size_t n,
                      size_t row_blocks, uint64_t* sums) {
  const QuantLease lease;
  QuantScratch& s = *lease;
  split(isa, schema, blocks, n, s);
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
