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
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "dispatch.h"
#include "quant/chunk.h"
#include "quant/lanes_order.h"
#include "tests/chunk_cases.h"
#include "values/chunk.h"

namespace {

using Streams = std::vector<Bytes>;

// --- what is compared ------------------------------------------------------------------------------------

struct Outcome {
  std::string fault;
  Bytes out;  // empty where there is a fault
  bool operator==(const Outcome& other) const { return fault == other.fault && out == other.out; }
};

// A chunk and its model. All functions do their work with one instruction set.
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

// --- quant -----------------------------------------------------------------------------------------------

qzf::Span span(const Bytes& bytes) { return {bytes.data(), bytes.size()}; }

Subject quant_subject(const Quant& q, const std::shared_ptr<qzf::QuantModel>& model) {
  static const std::uint8_t nothing = 0;
  model->prepare_encoding();
  const auto columns = [&q] {
    return qzf::ColumnClasses{q.by_column ? q.columns.empty() ? &nothing : q.columns.data() : nullptr,
                              q.columns.size()};
  };
  const auto encode = [&q, model, columns](const qzf::Isa& isa) -> Streams {
    const qzf::QuantLease lease;
    qzf::QuantStreams s;
    if (!quant_encode(isa, *model, columns(), q.blocks.data(), q.n, q.row_blocks, lease, s)) return {};
    const auto bytes = [](const qzf::Span& span) { return Bytes(span.data, span.data + span.size); };
    return {bytes(s.heads), bytes(s.tails), bytes(s.codes), bytes(s.rest)};
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
        quant_look(isa, schema, q.blocks.data(), q.n, numbers[0].data(), numbers[1].data())};
    quant_deviations(isa, schema, q.blocks.data(), q.n, q.row_blocks, sums.data());
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

// --- values ----------------------------------------------------------------------------------------------

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

// --- rounds ----------------------------------------------------------------------------------------------

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
