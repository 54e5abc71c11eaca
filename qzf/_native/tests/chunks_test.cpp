// Compares every instruction set with scalar on whole chunks: random models of every type and form, chunks
// that suit them, streams that are cut or damaged, and tables that are. Buffers have exactly the size that
// may be touched, so that a sanitizer sees a byte too many.
//
// Usage: chunks_test [rounds] [seed]; fails with exit code 1 and the seed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "dispatch.h"
#include "quant/chunk.h"
#include "values/chunk.h"

namespace {

using Bytes = std::vector<std::uint8_t>;
using Streams = std::vector<Bytes>;
using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t n) { return static_cast<std::size_t>(random() % n); }

Bytes noise(Random& random, std::size_t size, std::size_t limit = 256) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(below(random, limit));
  return bytes;
}

void append16(Bytes& out, std::size_t value) {
  out.push_back(static_cast<std::uint8_t>(value));
  out.push_back(static_cast<std::uint8_t>(value >> 8));
}

// Frequencies of `size` symbols that add up to `total`, each below it: of all of the first `symbols`, which
// are two or more, or with `sparse` of some of them.
std::vector<unsigned> random_frequencies(Random& random, std::size_t size, std::size_t symbols,
                                         unsigned total, bool sparse) {
  std::vector<std::size_t> live(symbols);
  std::iota(live.begin(), live.end(), std::size_t{0});
  std::shuffle(live.begin(), live.end(), random);
  if (sparse) live.resize(2 + below(random, symbols - 1));
  std::vector<unsigned> frequencies(size);
  for (const std::size_t symbol : live) frequencies[symbol] = 1;
  const std::size_t skew = 1 + below(random, 3);
  const unsigned most = static_cast<unsigned>(1 + below(random, total));
  for (unsigned left = total - static_cast<unsigned>(live.size()); left > 0;) {
    std::size_t i = live.size();
    for (std::size_t k = 0; k < skew; ++k) i = below(random, i) + 1;
    unsigned& frequency = frequencies[live[i - 1]];
    const unsigned some =
        std::min({left, static_cast<unsigned>(1 + below(random, most)), total - 1 - frequency});
    frequency += some;
    left -= some;
  }
  return frequencies;
}

// --- what is compared
// ---------------------------------------------------------------------------------------

struct Outcome {
  std::string fault;
  Bytes out;  // empty where there is a fault
  bool operator==(const Outcome& other) const { return fault == other.fault && out == other.out; }
};

// A chunk and its model. Both functions do all of their work with one instruction set.
struct Subject {
  std::string name;
  Bytes data;
  bool suits;                                      // the model can express the chunk; else it may or may not
  Streams empty;                                   // no streams, but as many as the transform has
  std::function<Streams(const qzf::Isa&)> encode;  // none where the model cannot express the chunk
  std::function<Outcome(const qzf::Isa&, const Streams&)> decode;
  std::function<Bytes(const qzf::Isa&)> statistics;
};

bool differs(const qzf::Isa& isa, const Subject& subject, const char* what) {
  std::fprintf(stderr, "%s: %s differs: %s, %zu bytes\n", isa.name, what, subject.name.c_str(),
               subject.data.size());
  return false;
}

bool same_everywhere(const Subject& subject, const Streams& streams, const char* what) {
  const std::vector<qzf::Isa>& isas = qzf::available_isas();
  const Outcome oracle = subject.decode(isas[0], streams);
  for (const qzf::Isa& isa : isas) {
    if (&isa != &isas[0] && !(subject.decode(isa, streams) == oracle)) return differs(isa, subject, what);
  }
  return true;
}

// Encodes and decodes by every instruction set. `streams` are left empty where the model cannot express the
// chunk.
bool check_round_trip(const Subject& subject, Streams& streams) {
  const std::vector<qzf::Isa>& isas = qzf::available_isas();
  streams = subject.encode(isas[0]);
  const Bytes statistics = subject.statistics(isas[0]);
  if (subject.suits && streams.empty()) return differs(isas[0], subject, "what can be expressed");
  for (const qzf::Isa& isa : isas) {
    if (subject.encode(isa) != streams) return differs(isa, subject, "encoding");
    if (subject.statistics(isa) != statistics) return differs(isa, subject, "counting");
    if (streams.empty()) continue;
    const Outcome outcome = subject.decode(isa, streams);
    if (!outcome.fault.empty() || outcome.out != subject.data) return differs(isa, subject, "decoding");
  }
  return true;
}

void damage(Random& random, Bytes& bytes) {
  if (bytes.empty() || below(random, 12) == 0) {
    bytes.push_back(static_cast<std::uint8_t>(random()));
    return;
  }
  for (std::size_t i = 1 + below(random, 3); i > 0; --i) {
    const std::size_t near = below(random, 2) ? bytes.size() : std::min<std::size_t>(bytes.size(), 12);
    const std::size_t at = below(random, near), kind = below(random, 3);
    std::uint8_t& byte = bytes[at];
    byte = static_cast<std::uint8_t>(kind == 0   ? byte + 1
                                     : kind == 1 ? below(random, 2)
                                                 : below(random, 256));
  }
}

// Streams cut at `cuts` places each, or at all, and `damages` times made wrong otherwise.
bool check_damage(const Subject& subject, const Streams& streams, Random& random, std::size_t cuts,
                  std::size_t damages) {
  for (std::size_t s = 0; s < streams.size(); ++s) {
    const std::size_t size = streams[s].size();
    for (std::size_t i = 0; i < std::min(cuts, size); ++i) {
      Streams wrong = streams;
      wrong[s] = {streams[s].data(), streams[s].data() + (size <= cuts ? i : below(random, size))};
      if (subject.decode(qzf::available_isas()[0], wrong).fault.empty()) {
        return differs(qzf::available_isas()[0], subject, "a prefix");
      }
      if (!same_everywhere(subject, wrong, "a prefix")) return false;
    }
  }
  for (std::size_t i = 0; i < damages; ++i) {
    Streams wrong = streams;
    for (std::size_t k = 1 + below(random, 2); k > 0; --k) damage(random, wrong[below(random, wrong.size())]);
    if (!same_everywhere(subject, wrong, "what is damaged")) return false;
  }
  Streams random_streams = streams;
  Bytes& any = random_streams[below(random, streams.size())];
  any = noise(random, any.size());
  return same_everywhere(subject, random_streams, "what is random");
}

// --- quant
// --------------------------------------------------------------------------------------------------

struct Quant {
  const qzf::QuantSchema* schema;
  Bytes table, columns, blocks;
  std::size_t n, row_blocks;
  bool by_column, suits;
  std::vector<std::uint16_t> known[2];  // some of the values that each number's ranks reach
};

void append_map(Random& random, Bytes& table, std::size_t size, std::size_t limit) {
  const Bytes map = below(random, 3) ? noise(random, size, limit)
                                     : Bytes(size, static_cast<std::uint8_t>(below(random, limit)));
  table.insert(table.end(), map.begin(), map.end());
}

// A table by the rules of spec/tables/01-quant.md. Where `suits` stays true it can express any numbers,
// scales, minima and codes.
Bytes random_quant_table(Random& random, Quant& q, bool extrema, std::size_t keys, std::size_t classes) {
  static const std::size_t lists[] = {0, 0, 1, 20, 256, 700};
  const std::size_t contexts = below(random, 4) ? 1 + below(random, 5) : 1 + below(random, 64);
  const std::size_t ratios = 1 + below(random, keys), alphabet = q.schema->alphabet();
  std::size_t shifts[2], counts[2], bases[2];
  for (std::size_t k = 0; k < 2; ++k) {
    shifts[k] = below(random, 9);
    counts[k] = std::min(lists[below(random, std::size(lists))], std::size_t{256} << shifts[k]);
    bases[k] = counts[k] ? 0 : below(random, 65537 - (std::size_t{256} << shifts[k]));
  }
  Bytes table = {1, extrema, static_cast<std::uint8_t>(shifts[0]), static_cast<std::uint8_t>(shifts[1])};
  append16(table, bases[0]);
  append16(table, bases[1]);
  append16(table, keys);
  for (const std::size_t each : {classes, contexts, below(random, contexts), std::size_t{0}}) {
    table.push_back(static_cast<std::uint8_t>(each));
  }
  append16(table, counts[0]);
  append16(table, counts[1]);
  append_map(random, table, 128, ratios);
  append_map(random, table, 64, keys + 1 - ratios);
  append_map(random, table, 256, contexts);
  append_map(random, table, 128, contexts);
  for (std::size_t k = 0; k < 2; ++k) {
    for (std::size_t i = 0; i < counts[k]; ++i) {
      q.known[k].push_back(static_cast<std::uint16_t>(random()));
      append16(table, q.known[k].back());
    }
    for (std::size_t i = 0; counts[k] == 0 && i < 50; ++i) {
      q.known[k].push_back(
          static_cast<std::uint16_t>(bases[k] + below(random, std::size_t{256} << shifts[k])));
    }
  }
  for (std::size_t c = 0; c < contexts; ++c) {
    const bool sparse = below(random, 12) == 0;
    q.suits &= !sparse;
    for (const unsigned f : random_frequencies(random, 256, 256, qzf::kRansSlots, sparse)) append16(table, f);
  }
  const std::size_t codes = std::size_t{1} << (q.schema->bits - q.schema->low);
  for (std::size_t t = 0; t < keys * classes; ++t) {
    const bool sparse = below(random, 2000) == 0;
    q.suits &= !sparse;
    for (const unsigned f : random_frequencies(random, alphabet, codes, 256, sparse)) {
      table.push_back(static_cast<std::uint8_t>(f));
    }
  }
  return table;
}

// Where the fp16 fields are in a block.
std::size_t number_at(const qzf::QuantSchema& schema, std::size_t k) {
  switch (schema.shape.type) {
    case qzf::Block::kQ2K: return 80 + 2 * k;
    case qzf::Block::kQ3K: return 108;
    case qzf::Block::kQ6K: return 208;
    case qzf::Block::kTQ2_0: return 64;
    default: return 2 * k;
  }
}

// Sets one of the 32 codes of a block of a type that has extrema.
void set_code(const qzf::QuantSchema& schema, std::uint8_t* block, std::size_t e, unsigned code) {
  if (schema.bits == 8) {
    block[2 + e] = static_cast<std::uint8_t>(code ^ 0x80);
    return;
  }
  std::uint8_t* mask = block + 2 * schema.numbers;
  std::uint8_t& pair = mask[(schema.bits == 5 ? 4 : 0) + e % 16];
  pair = static_cast<std::uint8_t>(e < 16 ? (pair & 0xf0u) | (code & 15u) : (pair & 15u) | (code & 15u) << 4);
  if (schema.bits == 5)
    mask[e / 8] = static_cast<std::uint8_t>((mask[e / 8] & ~(1u << e % 8)) | code >> 4 << e % 8);
}

void set_extrema(Random& random, const qzf::QuantSchema& schema, std::uint8_t* block, bool zero) {
  const std::size_t first = below(random, 32), second = (first + 1 + below(random, 31)) % 32;
  const unsigned top = (1u << schema.bits) - 1, neutral = 1u << (schema.bits - 1);
  if (zero) {  // mostly the same everywhere, as quantizers leave it
    const bool all = below(random, 4) != 0;
    const unsigned code = schema.extrema == 2 ? 0 : neutral;
    for (std::size_t e = 0; e < 32; ++e) {
      if (all || e == first || e == second) set_code(schema, block, e, code);
    }
    return;
  }
  if (schema.bits == 8) return set_code(schema, block, first, below(random, 2) ? top : 1);
  set_code(schema, block, first, 0);
  if (schema.extrema == 2) set_code(schema, block, second, top);
}

Bytes random_blocks(Random& random, Quant& q, bool extrema) {
  const qzf::QuantSchema& schema = *q.schema;
  Bytes blocks = noise(random, q.n * schema.shape.size);
  const bool forget = below(random, 10) == 0;
  if (extrema) q.suits &= !forget;
  for (std::size_t i = 0; i < q.n; ++i) {
    std::uint8_t* block = blocks.data() + i * schema.shape.size;
    for (std::size_t k = 0; k < schema.numbers; ++k) {
      const std::size_t kind =
          below(random, 8);  // of 8 one is zero, one any pattern, the others are in the table
      const std::uint16_t listed = q.known[k][below(random, q.known[k].size())];
      const std::uint16_t value = kind == 0   ? static_cast<std::uint16_t>(below(random, 2) << 15)
                                  : kind == 1 ? static_cast<std::uint16_t>(random())
                                              : listed;
      block[number_at(schema, k)] = static_cast<std::uint8_t>(value);
      block[number_at(schema, k) + 1] = static_cast<std::uint8_t>(value >> 8);
    }
    if (schema.extrema == 0 || (forget && below(random, 8) == 0)) continue;
    set_extrema(random, schema, block, block[0] == 0 && (block[1] & 0x7f) == 0);
  }
  return blocks;
}

Quant random_quant(Random& random, const qzf::QuantSchema& schema) {
  static const std::size_t most_blocks[] = {6, 30, 200}, most_keys[] = {1, 2, 12, 12, 256};
  Quant q{};
  q.schema = &schema;
  q.suits = true;
  q.n = 1 + below(random, most_blocks[below(random, 3)]);
  do q.row_blocks = 1 + below(random, q.n);
  while (q.n % q.row_blocks != 0);
  q.by_column = below(random, 2) == 1;
  const bool extrema = schema.extrema != 0 && below(random, 2) == 1;
  const std::size_t keys = 1 + below(random, most_keys[below(random, std::size(most_keys))]);
  const std::size_t classes = q.by_column ? 2 + below(random, 15) : 1;
  q.table = random_quant_table(random, q, extrema, keys, classes);
  q.blocks = random_blocks(random, q, extrema);
  if (q.by_column) q.columns = noise(random, q.row_blocks * schema.shape.codes, classes);
  if (below(random, 20) == 0) {  // columns that do not fit
    q.by_column = true;
    q.columns.resize(below(random, q.columns.size() + 1));
    q.suits = false;
  }
  return q;
}

qzf::Span span(const Bytes& bytes) { return {bytes.data(), bytes.size()}; }

Subject quant_subject(const Quant& q, const std::shared_ptr<qzf::QuantModel>& model) {
  static const std::uint8_t nothing = 0;
  model->prepare_encoding();
  const auto columns = [&q] {
    return qzf::ColumnClasses{q.by_column ? q.columns.empty() ? &nothing : q.columns.data() : nullptr,
                              q.columns.size()};
  };
  const auto encode = [&q, model, columns](const qzf::Isa& isa) -> Streams {
    qzf::QuantEncoded s;
    if (!quant_encode(isa, *model, columns(), q.blocks.data(), q.n, q.row_blocks, s)) return {};
    return {Bytes(s.heads), Bytes(s.tails), Bytes(s.codes), Bytes(s.rest)};
  };
  const auto decode = [&q, model, columns](const qzf::Isa& isa, const Streams& s) -> Outcome {
    Bytes out(q.blocks.size(), 0xa5);
    const char* fault = quant_decode(isa, *model, columns(), {span(s[0]), span(s[1]), span(s[2]), span(s[3])},
                                     out.data(), q.n);
    return fault ? Outcome{fault, {}} : Outcome{{}, out};
  };
  const auto statistics = [&q, model, columns](const qzf::Isa& isa) {
    const qzf::QuantSchema& schema = *q.schema;
    std::vector<std::uint64_t> heads(256 * model->contexts), sums(q.row_blocks * schema.shape.codes);
    std::vector<std::uint64_t> codes(std::size_t{model->keys} * model->column_classes * schema.alphabet());
    std::vector<std::uint16_t> numbers[2];
    for (std::size_t k = 0; k < 2; ++k) numbers[k].resize(k < schema.numbers ? q.n : 0);
    Bytes all = {
        quant_count(isa, *model, columns(), q.blocks.data(), q.n, q.row_blocks, heads.data(), codes.data()),
        quant_has_extrema(isa, schema, q.blocks.data(), q.n)};
    quant_deviations(isa, schema, q.blocks.data(), q.n, q.row_blocks, sums.data());
    quant_numbers(isa, schema, q.blocks.data(), q.n, numbers[0].data(), numbers[1].data());
    for (const auto* each : {&heads, &sums, &codes}) {
      for (const std::uint64_t value : *each) append16(all, value);
    }
    for (const auto& each : numbers) {
      for (const std::uint16_t value : each) append16(all, value);
    }
    return all;
  };
  return {q.schema->name, q.blocks, q.suits, Streams(4), encode, decode, statistics};
}

// --- values
// -------------------------------------------------------------------------------------------------

struct Values {
  qzf::Form form;
  Bytes table, numbers;
  std::size_t n, segment;
  bool suits;
};

Bytes random_values_table(Random& random, qzf::Form form, unsigned& key0, std::size_t& plain, bool& escape) {
  const unsigned key_bits = qzf::form_sizes(form).key_bits;
  const std::size_t contexts = 1 + below(random, 16);
  std::size_t coarse = below(random, 4) ? below(random, 60) : 0;
  key0 = static_cast<unsigned>(below(random, std::size_t{1} << key_bits));
  plain = below(random, 8) ? below(random, 257 - coarse) : 256 - coarse;
  escape = coarse > 0 && below(random, 4) != 0;
  if (plain + coarse < 2) plain = 2;
  Bytes table = {2, static_cast<std::uint8_t>(form)};
  append16(table, key0);
  append16(table, plain);
  table.push_back(static_cast<std::uint8_t>(contexts));
  table.push_back(static_cast<std::uint8_t>(coarse));
  const std::size_t at = below(random, coarse + 1);  // of the escape
  for (std::size_t i = 0; i < coarse; ++i) {
    const std::size_t bits = escape && i == at % coarse ? key_bits : below(random, key_bits);
    append16(table, below(random, (std::size_t{1} << key_bits) - (std::size_t{1} << bits) + 1));
    table.push_back(static_cast<std::uint8_t>(bits));
  }
  for (std::size_t c = 0; c < contexts; ++c) {
    std::vector<unsigned> frequencies =
        random_frequencies(random, 256, plain + coarse, qzf::kRansSlots, below(random, 2) == 0);
    if (escape && frequencies[plain + at % coarse] == 0) {
      std::swap(frequencies[plain + at % coarse], *std::max_element(frequencies.begin(), frequencies.end()));
    }
    for (const unsigned f : frequencies) append16(table, f);
  }
  return table;
}

// A number from its key and raw bits, as kernels/numbers.h has it.
void append_number(Bytes& out, qzf::Form form, std::uint32_t key, std::uint32_t raw) {
  const qzf::FormSizes sizes = qzf::form_sizes(form);
  const std::size_t bits = 8 * sizes.width;
  std::uint32_t number = key;
  if (form != qzf::Form::kByte) {
    const std::uint32_t turned =
        key << (bits - sizes.key_bits) | (raw & ((1u << (bits - sizes.key_bits)) - 1));
    number = turned >> 1 | turned << (bits - 1);
  }
  for (std::size_t b = 0; b < sizes.width; ++b) out.push_back(static_cast<std::uint8_t>(number >> 8 * b));
}

Values random_values(Random& random, qzf::Form form) {
  static const std::size_t most[] = {5, 63, 300, 3000};
  Values v{};
  v.form = form;
  unsigned key0;
  std::size_t plain;
  bool escape;
  v.table = random_values_table(random, form, key0, plain, escape);
  v.n = 1 + below(random, most[below(random, 4)]);
  v.segment = 32 * (1 + below(random, below(random, 2) ? 4 : 2047));
  v.suits = escape;
  const unsigned key_mask = (1u << qzf::form_sizes(form).key_bits) - 1;
  const std::size_t rare = 1 + below(random, 50);
  for (std::size_t i = 0; i < v.n; ++i) {
    const std::size_t key = plain != 0 && below(random, rare) ? key0 + below(random, plain) : random();
    append_number(v.numbers, form, static_cast<std::uint32_t>(key) & key_mask,
                  static_cast<std::uint32_t>(random()));
  }
  v.numbers = Bytes(v.numbers);  // of exact size
  return v;
}

Subject values_subject(const Values& v, const std::shared_ptr<qzf::ValuesModel>& model) {
  model->prepare_encoding();
  const std::size_t n =
      v.numbers.size() / qzf::form_sizes(model->form).width;  // a damaged table has any form
  const auto encode = [&v, model, n](const qzf::Isa& isa) -> Streams {
    qzf::ValuesEncoded s;
    if (!values_encode(isa, *model, v.numbers.data(), n, v.segment, s)) return {};
    return {Bytes(s.classes), Bytes(s.symbols), Bytes(s.extras), Bytes(s.low), Bytes(s.words)};
  };
  const auto decode = [model, n](const qzf::Isa& isa, const Streams& s) -> Outcome {
    Bytes out(n * qzf::form_sizes(model->form).width, 0xa5);
    const char* fault = values_decode(
        isa, *model, {span(s[0]), span(s[1]), span(s[2]), span(s[3]), span(s[4])}, out.data(), n);
    return fault ? Outcome{fault, {}} : Outcome{{}, out};
  };
  const auto statistics = [&v, model, n](const qzf::Isa& isa) {
    std::vector<std::uint16_t> keys(n);
    values_keys(isa, model->form, v.numbers.data(), n, keys.data());
    Bytes all;
    for (const std::uint16_t key : keys) append16(all, key);
    return all;
  };
  const std::size_t size = n * qzf::form_sizes(model->form).width;
  Bytes data(v.numbers.data(), v.numbers.data() + size);
  return {"form " + std::to_string(static_cast<int>(v.form)),
          data,
          v.suits,
          Streams(5),
          encode,
          decode,
          statistics};
}

// --- rounds
// -------------------------------------------------------------------------------------------------

// `make` builds the subject of a table; null where the table breaks the rules.
bool check_tables(const std::function<std::unique_ptr<Subject>(const Bytes&)>& make, const Bytes& table,
                  const Streams& streams, Random& random) {
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t size = below(random, below(random, 2) ? table.size() : 30);
    if (make({table.data(), table.data() + size}) == nullptr) continue;
    std::fprintf(stderr, "a table that is cut is accepted\n");
    return false;
  }
  for (std::size_t i = 0; i < 12; ++i) {
    Bytes wrong = table;
    damage(random, wrong);
    const std::unique_ptr<Subject> subject = make(wrong);
    Streams again;
    if (subject == nullptr) continue;
    if (!check_round_trip(*subject, again)) return false;
    if (!same_everywhere(*subject, streams.empty() ? subject->empty : streams, "a damaged table"))
      return false;
  }
  return true;
}

bool check(const std::function<std::unique_ptr<Subject>(const Bytes&)>& make, const Bytes& table, bool suits,
           Random& random) {
  const std::unique_ptr<Subject> subject = make(table);
  if (subject == nullptr) {
    std::fprintf(stderr, "a table is not accepted\n");
    return false;
  }
  Streams streams;
  subject->suits = suits;
  if (!check_round_trip(*subject, streams)) return false;
  const bool small = subject->data.size() < 1000;
  if (!streams.empty() && !check_damage(*subject, streams, random, small ? 40 : 5, small ? 40 : 15))
    return false;
  return check_tables(make, table, streams, random);
}

// Room for a table of exactly its size, and a subject whose model can express the chunk or not.
template <class Case, class Make>
std::function<std::unique_ptr<Subject>(const Bytes&)> maker(const Case& of, Make make) {
  return [&of, make](const Bytes& table) -> std::unique_ptr<Subject> {
    const Bytes exact(table);
    try {
      auto subject = std::make_unique<Subject>(make(of, exact));
      subject->suits = false;
      return subject;
    } catch (const std::invalid_argument&) {
      return nullptr;
    }
  };
}

bool check_round(Random& random) {
  for (const qzf::QuantSchema& schema : qzf::quant_schemas()) {
    for (int i = 0; i < 8; ++i) {
      const Quant q = random_quant(random, schema);
      const auto make = maker(q, [](const Quant& of, const Bytes& table) {
        return quant_subject(of, std::make_shared<qzf::QuantModel>(*of.schema, table.data(), table.size()));
      });
      if (!check(make, q.table, q.suits, random)) return false;
    }
  }
  for (const qzf::Form form : {qzf::Form::kByte, qzf::Form::k2n, qzf::Form::k2b, qzf::Form::k4}) {
    for (int i = 0; i < 20; ++i) {
      const Values v = random_values(random, form);
      const auto make = maker(v, [](const Values& of, const Bytes& table) {
        return values_subject(of, std::make_shared<qzf::ValuesModel>(table.data(), table.size()));
      });
      if (!check(make, v.table, v.suits, random)) return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10;
  const std::size_t seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : std::random_device{}();
  for (const qzf::Isa& isa : qzf::available_isas()) std::printf("%s ", isa.name);
  std::printf("rounds %zu seed %zu\n", rounds, seed);
  std::fflush(stdout);
  Random random(seed);
  for (std::size_t i = 0; i < rounds; ++i) {
    if (!check_round(random)) {
      std::fprintf(stderr, "round %zu of seed %zu\n", i, seed);
      return 1;
    }
  }
  return 0;
}
