#include "quant/model.h"

#include <algorithm>

#include "cursor.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint8_t;

constexpr uint8_t kKind = 1;
constexpr unsigned kMaxKeys = 256, kMaxColumnClasses = 16, kMaxContexts = 64;

void copy_map(Cursor& in, uint8_t* map, size_t n, unsigned below, const char* message) {
  const uint8_t* from = in.take(n);
  in.require(std::all_of(from, from + n, [&](uint8_t value) { return value < below; }), message);
  std::copy(from, from + n, map);
}

void read_values(Cursor& in, NumberCode& number, size_t count) {
  for (size_t i = 0; i < count; ++i) number.values.push_back(static_cast<uint16_t>(in.u16()));
  in.require(count <= size_t{256} << number.shift, "a list of values is longer than its ranks reach");
  in.require(number.values.empty() ? number.base + (size_t{256} << number.shift) <= 65536 : number.base == 0,
             "a number's base is out of range");
}

void make_ranks(NumberCode& number) {
  const size_t count = number.count();
  number.ranks.assign(65536, 0);
  for (size_t rank = count; rank-- > 0;) number.ranks[number.value(rank)] = static_cast<uint16_t>(rank);
}

}  // namespace

QuantModel::QuantModel(const QuantSchema& of, const uint8_t* table, size_t size) : schema(of) {
  Cursor in(table, size, "quant table: ");
  in.require(in.u8() == kKind, "it is of another kind");
  const unsigned flags = in.u8();
  in.require(flags <= 1, "reserved flags are set");
  extrema = flags & 1;
  in.require(!extrema || schema.extrema != 0, "the type has no extrema");
  for (NumberCode& number : numbers) {
    number.shift = in.u8();
    in.require(number.shift <= 8, "a shift above 8");
  }
  for (NumberCode& number : numbers) number.base = static_cast<uint16_t>(in.u16());
  keys = in.u16();
  column_classes = in.u8();
  contexts = in.u8();
  in.require(keys >= 1 && keys <= kMaxKeys, "the number of keys is out of range");
  in.require(column_classes >= 1 && column_classes <= kMaxColumnClasses,
             "the number of column classes is out of range");
  in.require(contexts >= 1 && contexts <= kMaxContexts, "the number of contexts is out of range");
  scale_context = static_cast<uint8_t>(in.u8());
  in.require(scale_context < contexts && in.u8() == 0, "a context that is not there, or a reserved byte");
  const size_t counts[2] = {in.u16(), in.u16()};
  copy_map(in, ratio_keys, sizeof ratio_keys, keys, "a key that is not there");
  copy_map(in, residual_keys, sizeof residual_keys, keys, "a key that is not there");
  in.require(*std::max_element(std::begin(ratio_keys), std::end(ratio_keys)) +
                     *std::max_element(std::begin(residual_keys), std::end(residual_keys)) <
                 static_cast<int>(keys),
             "a key that is not there");
  copy_map(in, second_contexts, sizeof second_contexts, contexts, "a context that is not there");
  copy_map(in, min_contexts, sizeof min_contexts, contexts, "a context that is not there");
  for (size_t k = 0; k < 2; ++k) read_values(in, numbers[k], counts[k]);

  rans.resize(contexts * kRansSlots);
  for (size_t c = 0; c < contexts; ++c) {
    uint16_t frequencies[256];
    for (uint16_t& frequency : frequencies) frequency = static_cast<uint16_t>(in.u16());
    in.require(rans_valid(frequencies), "frequencies of scales that do not add up");
    rans_decoding(frequencies, rans.data() + c * kRansSlots);
    rans_frequencies_.insert(rans_frequencies_.end(), frequencies, frequencies + 256);
  }
  const size_t tables = size_t{keys} * column_classes, alphabet = schema.alphabet();
  const size_t symbols = size_t{1} << (schema.bits - schema.low);
  in.require(in.left() == tables * alphabet, "it has another size");
  lanes.resize(tables * 4 * alphabet);
  for (size_t t = 0; t < tables; ++t) {
    const uint8_t* frequencies = in.take(alphabet);
    in.require(lanes_valid(frequencies, alphabet), "frequencies of codes that do not add up");
    in.require(std::all_of(frequencies + symbols, frequencies + alphabet, [](uint8_t f) { return f == 0; }),
               "a frequency of no code");
    lanes_decoding(frequencies, alphabet, lanes.data() + t * 4 * alphabet);
  }
}

void QuantModel::prepare_encoding() {
  if (!lanes_codes.empty()) return;
  for (NumberCode& number : numbers) make_ranks(number);
  rans_codes.resize(contexts);
  commonest.resize(contexts);
  for (size_t c = 0; c < contexts; ++c) {
    const uint16_t* frequencies = rans_frequencies_.data() + 256 * c;
    rans_encoding(frequencies, rans_codes[c]);
    commonest[c] = static_cast<uint8_t>(std::max_element(frequencies, frequencies + 256) - frequencies);
  }
  const size_t alphabet = schema.alphabet();
  lanes_codes.resize(size_t{keys} * column_classes);
  for (size_t t = 0; t < lanes_codes.size(); ++t) {
    lanes_encoding(lanes.data() + t * 4 * alphabet, alphabet, lanes_codes[t]);
    const uint8_t* frequency = lanes_codes[t].frequency;
    all_codes &= std::all_of(frequency, frequency + (1u << (schema.bits - schema.low)),
                             [](uint8_t f) { return f != 0; });
  }
}

}  // namespace qzf
