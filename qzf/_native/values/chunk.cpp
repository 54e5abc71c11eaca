#include "values/chunk.h"

#include <algorithm>
#include <cstring>

#include "bits.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

constexpr size_t kClassesHead = 2;  // numbers of a segment

// Room for one chunk's work, kept by a thread from chunk to chunk.
struct Scratch {
  std::vector<uint8_t> symbols, packed;
  std::vector<uint16_t> keys, words;
  std::vector<uint32_t> positions;
};

Scratch& of_thread() {
  thread_local Scratch scratch;
  return scratch;
}

// The thread's room, for the time of one call: a chunk far above the usual size leaves nothing behind.
class Lease {
 public:
  Lease() : scratch_(of_thread()) {}
  ~Lease() {
    if (scratch_.symbols.capacity() > kKeep) scratch_ = Scratch();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  Scratch& operator*() const { return scratch_; }

 private:
  static constexpr size_t kKeep = 1 << 22;
  Scratch& scratch_;
};

uint16_t rotate_right(uint16_t value) { return static_cast<uint16_t>(value >> 1 | value << 15); }
uint32_t rotate_right(uint32_t value) { return value >> 1 | value << 31; }

// Writes number i from its key and its raw bits.
void put_number(Form form, size_t i, uint32_t key, const ValuesStreams& in, uint8_t* out) {
  const auto nibble = [&] { return static_cast<uint32_t>(in.low.data[i / 2] >> i % 2 * 4 & 15); };
  switch (form) {
    case Form::kByte: out[i] = static_cast<uint8_t>(key); return;
    case Form::k2n:
    case Form::k2b: {
      const uint32_t raw = form == Form::k2n ? key << 4 | nibble() : key << 8 | in.low.data[i];
      const uint16_t number = rotate_right(static_cast<uint16_t>(raw));
      out[2 * i] = static_cast<uint8_t>(number);
      out[2 * i + 1] = static_cast<uint8_t>(number >> 8);
      return;
    }
    case Form::k4: {
      const uint32_t word = static_cast<uint32_t>(in.words.data[2 * i] | in.words.data[2 * i + 1] << 8);
      const uint32_t number = rotate_right(key << 20 | nibble() << 16 | word);
      for (size_t b = 0; b < 4; ++b) out[4 * i + b] = static_cast<uint8_t>(number >> 8 * b);
    }
  }
}

void merge(const NumbersKernels& kernels, const ValuesModel& model, const ValuesStreams& in,
           const uint8_t* symbols, uint8_t* out, size_t n) {
  switch (model.form) {
    case Form::kByte:
      for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(symbols[i] + model.key0);
      return;
    case Form::k2n: return kernels.merge2n(symbols, n, model.key0, in.low.data, out);
    case Form::k2b: return kernels.merge2b(symbols, n, model.key0, in.low.data, out);
    case Form::k4: return kernels.merge4(symbols, n, model.key0, in.words.data, in.low.data, out);
  }
}

// Gives the numbers whose symbols stand for several keys the right one; some at a time, so that the list of
// their places stays small.
const char* refine(const Isa& isa, const ValuesModel& model, const ValuesStreams& in, uint8_t* out, size_t n,
                   Scratch& s) {
  constexpr size_t kPart = 1 << 16;
  const uint8_t* extras = padded(s.packed, in.extras.data, in.extras.size);
  size_t at = 0;
  s.positions.resize(kPart);
  for (size_t first = 0; first < n && !model.coarse.empty(); first += kPart) {
    const uint8_t* symbols = s.symbols.data() + first;
    const size_t count = std::min(kPart, n - first);
    const size_t found =
        isa.numbers->find_above(symbols, count, static_cast<uint8_t>(model.plain), s.positions.data());
    for (size_t k = 0; k < found; ++k) {
      const size_t i = s.positions[k];
      const ValuesModel::Coarse& coarse = model.coarse[symbols[i] - model.plain];
      if (at + coarse.bits > 8 * in.extras.size) return "the extra bits are cut short";
      put_number(model.form, first + i, coarse.base + get_bits(extras, at, coarse.bits), in, out);
      at += coarse.bits;
    }
  }
  return (at + 7) / 8 == in.extras.size ? nullptr : "there are too many extra bits";
}

}  // namespace

const char* values_decode(const Isa& isa, const ValuesModel& model, const ValuesStreams& in, uint8_t* out,
                          size_t n) {
  if (in.classes.size < kClassesHead) return "the classes are cut short";
  const size_t segment = static_cast<size_t>(in.classes.data[0] | in.classes.data[1] << 8);
  const uint8_t* classes = in.classes.data + kClassesHead;
  if (segment == 0 || segment % kRansLanes != 0) return "a segment of an impossible size";
  if (in.classes.size != kClassesHead + (n + segment - 1) / segment) return "the number of classes is wrong";
  if (!std::all_of(classes, in.classes.data + in.classes.size,
                   [&](uint8_t c) { return c < model.contexts; })) {
    return "a class that is not in the table";
  }
  if (in.low.size != FormSizes::low(model.form, n) || in.words.size != FormSizes::words(model.form, n)) {
    return "the raw bits have another size";
  }
  const Lease lease;
  Scratch& s = *lease;
  s.symbols.resize(n);
  RansReader reader;
  if (!rans_open(in.symbols.data, in.symbols.size, reader) ||
      !isa.rans->decode(reader, model.rans.data(), {classes, segment}, s.symbols.data(), n) ||
      !rans_at_end(reader)) {
    return "the symbols do not end where they should";
  }
  merge(*isa.numbers, model, in, s.symbols.data(), out, n);
  return refine(isa, model, in, out, n, s);
}

namespace {

// Takes numbers apart; `low` and `words` get the sizes that the form gives them.
void split(const NumbersKernels& kernels, Form form, const uint8_t* numbers, size_t n, uint16_t* keys,
           std::vector<uint8_t>& low, std::vector<uint8_t>& words) {
  low.resize(FormSizes::low(form, n));
  words.resize(FormSizes::words(form, n));
  switch (form) {
    case Form::kByte: std::copy(numbers, numbers + n, keys); return;
    case Form::k2n: return kernels.split2n(numbers, n, keys, low.data());
    case Form::k2b: return kernels.split2b(numbers, n, keys, low.data());
    case Form::k4: return kernels.split4(numbers, n, keys, words.data(), low.data());
  }
}

// The context that codes these symbols at least cost.
size_t best_context(const ValuesModel& model, const uint8_t* symbols, size_t n) {
  constexpr size_t kPadded = ValuesModel::kContextsPadded, kFit = 0xffff / ValuesModel::kMostCost;
  const uint16_t* costs = model.costs.data();
  uint32_t sums[kPadded] = {};
  for (size_t first = 0; first < n; first += kFit) {
    uint16_t part[kPadded] = {};
    for (size_t i = first; i < std::min(first + kFit, n); ++i) {
      const uint16_t* cost = costs + symbols[i] * kPadded;
      for (size_t c = 0; c < kPadded; ++c) part[c] = static_cast<uint16_t>(part[c] + cost[c]);
    }
    for (size_t c = 0; c < kPadded; ++c) sums[c] += part[c];
  }
  return static_cast<size_t>(std::min_element(sums, sums + model.contexts) - sums);
}

// Replaces symbols that the context cannot code by the escape, and notes the extra bits of those that stand
// for several keys. False where there is no way.
bool write_extras(const ValuesModel& model, size_t context, const uint16_t* keys, size_t n, uint8_t* symbols,
                  BitWriter& extras) {
  const uint8_t* special = model.special.data() + 256 * context;
  const RansSymbol* codes = model.codes[context].symbols;
  for (size_t i = 0; i < n; ++i) {
    if (!special[symbols[i]]) continue;
    if (codes[symbols[i]].frequency == 0) {
      if (model.escape < 0 || codes[model.escape].frequency == 0) return false;
      symbols[i] = static_cast<uint8_t>(model.escape);
    }
    if (symbols[i] < model.plain) continue;
    const ValuesModel::Coarse& coarse = model.coarse[symbols[i] - model.plain];
    extras.put(static_cast<uint32_t>(keys[i] - coarse.base), coarse.bits);
  }
  return true;
}

}  // namespace

void values_keys(const Isa& isa, Form form, const uint8_t* numbers, size_t n, uint16_t* keys) {
  std::vector<uint8_t> low, words;
  split(*isa.numbers, form, numbers, n, keys, low, words);
}

bool values_encode(const Isa& isa, const ValuesModel& model, const uint8_t* numbers, size_t n, size_t segment,
                   ValuesEncoded& out) {
  if (segment == 0 || segment % kRansLanes != 0 || segment > 0xffe0) return false;
  const Lease lease;
  Scratch& s = *lease;
  s.keys.resize(n);
  s.symbols.resize(n);
  split(*isa.numbers, model.form, numbers, n, s.keys.data(), out.low, out.words);
  if (!model.complete &&
      std::any_of(s.keys.begin(), s.keys.end(), [&](uint16_t key) { return !model.known[key]; })) {
    return false;
  }
  uint8_t* symbols = s.symbols.data();
  const uint16_t* keys = s.keys.data();
  const uint8_t* by_key = model.symbols.data();
  for (size_t i = 0; i < n; ++i) symbols[i] = by_key[keys[i]];
  out.classes = {static_cast<uint8_t>(segment), static_cast<uint8_t>(segment >> 8)};
  BitWriter extras(out.extras);
  for (size_t first = 0; first < n; first += segment) {
    const size_t count = std::min(segment, n - first);
    const size_t context = best_context(model, symbols + first, count);
    if (!write_extras(model, context, keys + first, count, symbols + first, extras)) return false;
    out.classes.push_back(static_cast<uint8_t>(context));
  }
  extras.finish();
  RansWriter writer(*isa.rans, s.words, n);
  if (!writer.add(model.codes.data(), {out.classes.data() + kClassesHead, segment}, s.symbols.data(), n))
    return false;
  writer.finish(out.symbols);
  return true;
}

}  // namespace qzf
