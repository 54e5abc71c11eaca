#include "values/model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "cursor.h"

namespace qzf {

using std::size_t;
using std::uint16_t;
using std::uint8_t;

namespace {
constexpr uint8_t kKind = 2;
}  // namespace

FormSizes form_sizes(Form form) {
  switch (form) {
    case Form::k2n: return {2, 12};
    case Form::k2b: return {2, 8};
    case Form::k4: return {4, 12};
    default: return {1, 8};
  }
}

size_t FormSizes::low(Form form, size_t n) {
  switch (form) {
    case Form::k2n:
    case Form::k4: return (n + 1) / 2;
    case Form::k2b: return n;
    default: return 0;
  }
}

ValuesModel::ValuesModel(const uint8_t* table, size_t size) {
  Cursor in(table, size, "values table: ");
  in.require(in.u8() == kKind, "it is of another kind");
  const unsigned form_id = in.u8();
  in.require(form_id <= 3, "its form is unknown");
  form = static_cast<Form>(form_id);
  key0 = static_cast<uint16_t>(in.u16());
  plain = in.u16();
  contexts = in.u8();
  const size_t count = in.u8();
  in.require(key0 <= key_mask() && contexts >= 1 && contexts <= kContextsPadded,
             "key or contexts out of range");
  in.require(plain + count >= 1 && plain + count <= 256, "the number of symbols is out of range");
  for (size_t i = 0; i < count; ++i) {
    const unsigned base = in.u16(), bits = in.u8();
    in.require(bits <= 12 && base + (1u << bits) <= key_mask() + 1, "a symbol for keys that are not there");
    coarse.push_back({static_cast<uint16_t>(base), static_cast<uint8_t>(bits)});
  }
  in.require(in.left() == contexts * 512, "it has another size");
  rans.resize(contexts * kRansSlots);
  for (size_t c = 0; c < contexts; ++c) {
    uint16_t frequencies[256];
    for (uint16_t& frequency : frequencies) frequency = static_cast<uint16_t>(in.u16());
    in.require(rans_valid(frequencies), "frequencies that do not add up");
    in.require(
        std::all_of(frequencies + plain + count, std::end(frequencies), [](uint16_t f) { return f == 0; }),
        "a frequency of no symbol");
    rans_decoding(frequencies, rans.data() + c * kRansSlots);
    frequencies_.insert(frequencies_.end(), frequencies, frequencies + 256);
  }
}

void ValuesModel::prepare_encoding() {
  if (!codes.empty()) return;
  const unsigned keys = key_mask() + 1;
  symbols.assign(keys, 0);
  std::vector<uint8_t> reach(keys, 255);  // bits of the symbol chosen so far
  for (unsigned s = 0; s < plain; ++s) {
    symbols[(key0 + s) & key_mask()] = static_cast<uint8_t>(s);
    reach[(key0 + s) & key_mask()] = 0;
  }
  for (size_t i = 0; i < coarse.size(); ++i) {
    const Coarse& each = coarse[i];
    if (1u << each.bits == keys) escape = static_cast<int>(plain + i);
    for (unsigned key = each.base; key < each.base + (1u << each.bits); ++key) {
      if (each.bits >= reach[key]) continue;
      symbols[key] = static_cast<uint8_t>(plain + i);
      reach[key] = each.bits;
    }
  }
  known.resize(keys);
  std::transform(reach.begin(), reach.end(), known.begin(), [](uint8_t bits) { return bits != 255; });
  complete = std::all_of(known.begin(), known.end(), [](uint8_t yes) { return yes != 0; });
  uint16_t logs[kRansSlots];
  logs[0] = kMostCost;
  for (size_t f = 1; f < kRansSlots; ++f) {
    logs[f] = static_cast<uint16_t>(std::lround(16 * (12 - std::log2(static_cast<double>(f)))));
  }
  costs.assign(256 * kContextsPadded, kMostCost);
  special.assign(256 * contexts, 0);
  for (size_t c = 0; c < contexts; ++c) {
    const uint16_t* frequencies = frequencies_.data() + 256 * c;
    const unsigned by_escape =
        escape < 0 ? kMostCost : logs[frequencies[escape]] + 16 * form_sizes(form).key_bits;
    for (size_t s = 0; s < 256; ++s) {  // what has no frequency is coded by the escape
      const unsigned cost = frequencies[s] != 0 ? logs[frequencies[s]] : by_escape;
      costs[s * kContextsPadded + c] = static_cast<uint16_t>(std::min<unsigned>(cost, kMostCost));
      special[256 * c + s] = frequencies[s] == 0 || s >= plain;
    }
  }
  codes.resize(contexts);
  for (size_t c = 0; c < contexts; ++c) rans_encoding(frequencies_.data() + 256 * c, codes[c]);
}

}  // namespace qzf
