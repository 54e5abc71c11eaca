// Compares every instruction set with the scalar kernels of rans and of numbers: on whole streams, on streams
// cut at every place and on damaged ones. Buffers have exactly the size that a kernel may touch, so that a
// sanitizer sees a byte too many.
//
// Usage: rans_test [rounds] [seed]; fails with exit code 1 and the seed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "dispatch.h"
#include "tables.h"

namespace {

using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t n) { return static_cast<std::size_t>(random() % n); }

Bytes noise(Random& random, std::size_t size) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

// --- streams: sections of symbols after one another -------------------------------------------------------

struct Section {
  std::size_t run;
  Bytes contexts;
  Bytes symbols;
};

struct Stream {
  std::vector<std::uint32_t> tables;
  std::vector<Section> sections;
  Bytes bytes;
};

// Frequencies from one extreme to the other: nearly all of them one symbol's, or each of them 16.
std::vector<std::uint16_t> random_frequencies(Random& random) {
  std::vector<std::uint16_t> frequencies(256);
  const std::size_t kind = below(random, 4), slots = qzf::kRansSlots;
  if (kind == 0) {
    frequencies[below(random, 128)] = static_cast<std::uint16_t>(slots - 1);
    frequencies[128 + below(random, 128)] = 1;
    return frequencies;
  }
  if (kind == 1) {
    std::fill(frequencies.begin(), frequencies.end(), static_cast<std::uint16_t>(slots / 256));
    return frequencies;
  }
  const std::size_t alphabet = kind == 2 ? 2 + below(random, 20) : 256, most = kind == 2 ? 2000 : 40;
  for (std::size_t left = slots; left > 0;) {
    std::uint16_t& frequency = frequencies[below(random, alphabet)];
    const std::size_t some = std::min({left, 1 + below(random, most), slots - 1 - frequency});
    frequency = static_cast<std::uint16_t>(frequency + some);
    left -= some;
  }
  return frequencies;
}

// Symbols as their frequencies have it, or all as likely, or always the rarest, which takes most words.
std::uint8_t random_symbol(Random& random, const std::uint32_t* table, std::size_t kind) {
  const auto symbol = [](std::uint32_t entry) { return static_cast<std::uint8_t>(entry >> 24); };
  if (kind == 0) return symbol(table[below(random, qzf::kRansSlots)]);
  std::uint32_t rarest = table[0];
  std::vector<std::uint8_t> all;
  for (std::size_t slot = 0; slot < qzf::kRansSlots; slot += table[slot] & 0xfff) {
    all.push_back(symbol(table[slot]));
    if ((table[slot] & 0xfff) < (rarest & 0xfff)) rarest = table[slot];
  }
  return kind == 1 ? all[below(random, all.size())] : symbol(rarest);
}

Section random_section(Random& random, const Stream& stream, std::size_t n) {
  static const std::size_t runs[] = {1, 1, 32, 64, 256, std::size_t{1} << 40};
  Section section;
  section.run = runs[below(random, std::size(runs))];
  section.contexts = Bytes(n / section.run + (n % section.run != 0));
  const std::size_t contexts = stream.tables.size() / qzf::kRansSlots, kind = below(random, 3);
  for (std::uint8_t& context : section.contexts) {
    context = static_cast<std::uint8_t>(below(random, contexts));
  }
  section.symbols = Bytes(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t context = section.contexts[i / section.run];
    section.symbols[i] = random_symbol(random, &stream.tables[context * qzf::kRansSlots], kind);
  }
  return section;
}

// The stream of sections; empty where a symbol has no frequency.
Bytes write(const qzf::RansKernels& kernels, const std::vector<qzf::RansCode>& codes,
            const std::vector<Section>& sections) {
  std::size_t most = 0;
  for (const Section& section : sections) most += section.symbols.size();
  std::vector<std::uint16_t> room;
  qzf::RansWriter writer(kernels, room, most);
  for (std::size_t s = sections.size(); s-- > 0;) {
    const Section& section = sections[s];
    if (!writer.add(codes.data(), {section.contexts.data(), section.run}, section.symbols.data(),
                    section.symbols.size())) {
      return {};
    }
  }
  Bytes bytes;
  writer.finish(bytes);
  return bytes;
}

void check_writing(const qzf::Isa& isa, const std::vector<qzf::RansCode>& codes,
                   const std::vector<Section>& sections, const Bytes& expected) {
  if (!expected.empty() && write(*isa.rans, codes, sections) == expected) return;
  std::fprintf(stderr, "%s differs: rans, encoding %zu sections\n", isa.name, sections.size());
  std::exit(1);
}

// A symbol without a frequency is refused wherever it stands.
void check_missing(Random& random, const std::vector<qzf::RansCode>& codes, std::vector<Section> sections) {
  Section& section = sections[below(random, sections.size())];
  if (section.symbols.empty()) return;
  const std::size_t at = below(random, section.symbols.size());
  const qzf::RansSymbol* symbols = codes[section.contexts[at / section.run]].symbols;
  std::size_t missing = below(random, 256);
  for (std::size_t i = 0; i < 256 && symbols[missing].frequency != 0; ++i) missing = (missing + 1) % 256;
  if (symbols[missing].frequency != 0) return;
  section.symbols[at] = static_cast<std::uint8_t>(missing);
  for (const qzf::Isa& isa : qzf::available_isas()) {
    if (write(*isa.rans, codes, sections).empty()) continue;
    std::fprintf(stderr, "%s writes a symbol that has no frequency\n", isa.name);
    std::exit(1);
  }
}

Stream random_stream(Random& random, const std::vector<std::size_t>& lengths) {
  Stream stream;
  const std::size_t contexts = 1 + below(random, below(random, 8) == 0 ? 256 : 4);
  std::vector<qzf::RansCode> codes(contexts);
  stream.tables.resize(contexts * qzf::kRansSlots);
  for (std::size_t c = 0; c < contexts; ++c) {
    const auto frequencies = random_frequencies(random);
    qzf::rans_encoding(frequencies.data(), codes[c]);
    qzf::rans_decoding(frequencies.data(), &stream.tables[c * qzf::kRansSlots]);
  }
  for (const std::size_t n : lengths) stream.sections.push_back(random_section(random, stream, n));
  stream.bytes = write(qzf::kRansScalar, codes, stream.sections);
  for (const qzf::Isa& isa : qzf::available_isas()) {
    check_writing(isa, codes, stream.sections, stream.bytes);
  }
  check_missing(random, codes, stream.sections);
  return stream;
}

// What came of reading a stream: the symbols of the sections that were accepted, and how it was left.
struct Outcome {
  std::vector<Bytes> symbols;
  std::vector<std::uint32_t> states;
  std::ptrdiff_t left = -1;

  bool operator==(const Outcome& other) const {
    return symbols == other.symbols && states == other.states && left == other.left;
  }
};

Outcome read(const qzf::RansKernels& kernels, const Stream& stream, const Bytes& bytes) {
  Outcome outcome;
  qzf::RansReader reader;
  if (!qzf::rans_open(bytes.data(), bytes.size(), reader)) return outcome;
  for (const Section& section : stream.sections) {
    Bytes symbols(section.symbols.size(), 0xa5);
    const qzf::RansContexts contexts = {section.contexts.data(), section.run};
    if (!kernels.decode(reader, stream.tables.data(), contexts, symbols.data(), symbols.size())) {
      return outcome;
    }
    outcome.symbols.push_back(symbols);
  }
  outcome.states.assign(std::begin(reader.state), std::end(reader.state));
  outcome.left = reader.end - reader.at;
  return outcome;
}

bool same_everywhere(const Stream& stream, const Bytes& bytes, const char* what) {
  const Outcome oracle = read(qzf::kRansScalar, stream, bytes);
  for (const qzf::Isa& isa : qzf::available_isas()) {
    if (read(*isa.rans, stream, bytes) == oracle) continue;
    std::fprintf(stderr, "%s differs: rans, %s stream of %zu bytes\n", isa.name, what, bytes.size());
    return false;
  }
  return true;
}

bool decodes(const Stream& stream) {
  const Outcome outcome = read(qzf::kRansScalar, stream, stream.bytes);
  bool same = outcome.symbols.size() == stream.sections.size() && outcome.left == 0;
  for (std::size_t s = 0; same && s < stream.sections.size(); ++s) {
    same = outcome.symbols[s] == stream.sections[s].symbols;
  }
  same = same && std::all_of(outcome.states.begin(), outcome.states.end(),
                             [](std::uint32_t state) { return state == 0x10000; });
  if (!same) std::fprintf(stderr, "scalar does not give the symbols back\n");
  return same && same_everywhere(stream, stream.bytes, "whole");
}

// Cuts at every place, or at `most` random ones.
bool check_stream(const Stream& stream, Random& random, std::size_t most) {
  if (!decodes(stream)) return false;
  const std::size_t size = stream.bytes.size(), cuts = std::min(size, most);
  for (std::size_t i = 0; i < cuts; ++i) {
    const std::size_t cut = cuts == size ? i : below(random, size);
    const Bytes bytes(stream.bytes.begin(), stream.bytes.begin() + static_cast<std::ptrdiff_t>(cut));
    if (!same_everywhere(stream, bytes, "cut")) return false;
  }
  for (std::size_t i = 0; i < 20; ++i) {
    Bytes bytes = stream.bytes;
    for (std::size_t k = below(random, 4) + 1; k-- > 0;) {
      bytes[below(random, size)] = static_cast<std::uint8_t>(random());
    }
    if (!same_everywhere(stream, bytes, "damaged")) return false;
  }
  // States and words that no writer has made.
  return same_everywhere(stream, noise(random, below(random, size + 100)), "random");
}

bool check_rans(Random& random, std::size_t rounds) {
  for (std::size_t n = 0; n <= 200; ++n) {
    if (!check_stream(random_stream(random, {n}), random, ~std::size_t{0})) return false;
  }
  for (std::size_t round = 0; round < rounds; ++round) {
    std::vector<std::size_t> lengths(1 + below(random, 5));
    for (std::size_t& length : lengths) length = below(random, below(random, 3) == 0 ? 4000 : 150);
    if (!check_stream(random_stream(random, lengths), random, 60)) return false;
  }
  return true;
}

// --- numbers ----------------------------------------------------------------------------------------------

// All that the kernels take and give, in memory that starts `skew` bytes after an aligned place.
struct Numbers {
  std::size_t n, skew;
  std::uint16_t key0 = 0;
  Bytes symbols, nibbles, bytes, words, out2n, out2b, out4;
  std::vector<std::uint16_t> keys2n, keys2b, keys4;
  Bytes raw2n, raw2b, words4, nibbles4;

  Numbers(std::size_t numbers, std::size_t place)
      : n(numbers),
        skew(place),
        symbols(place + n),
        nibbles(place + (n + 1) / 2),
        bytes(place + n),
        words(place + 2 * n),
        out2n(place + 2 * n, 0xa5),
        out2b(place + 2 * n, 0xa5),
        out4(place + 4 * n, 0xa5),
        keys2n(n, 0xa5a5),
        keys2b(n, 0xa5a5),
        keys4(n, 0xa5a5),
        raw2n(place + (n + 1) / 2, 0xa5),
        raw2b(place + n, 0xa5),
        words4(place + 2 * n, 0xa5),
        nibbles4(place + (n + 1) / 2, 0xa5) {}

  void randomize(Random& random) {
    key0 = static_cast<std::uint16_t>(random());
    for (Bytes* each : {&symbols, &nibbles, &bytes, &words}) *each = noise(random, each->size());
  }

  void run(const qzf::NumbersKernels& kernels) {
    const auto at = [this](Bytes& memory) { return memory.data() + skew; };
    kernels.merge2n(at(symbols), n, key0, at(nibbles), at(out2n));
    kernels.merge2b(at(symbols), n, key0, at(bytes), at(out2b));
    kernels.merge4(at(symbols), n, key0, at(words), at(nibbles), at(out4));
    kernels.split2n(at(out2n), n, keys2n.data(), at(raw2n));
    kernels.split2b(at(out2b), n, keys2b.data(), at(raw2b));
    kernels.split4(at(out4), n, keys4.data(), at(words4), at(nibbles4));
  }

  bool same(const Numbers& other) const {
    return out2n == other.out2n && out2b == other.out2b && out4 == other.out4 && keys2n == other.keys2n &&
           keys2b == other.keys2b && keys4 == other.keys4 && raw2n == other.raw2n && raw2b == other.raw2b &&
           words4 == other.words4 && nibbles4 == other.nibbles4;
  }

  // Whether splitting has given back what was merged; that is so only where skew is 0.
  bool undone() const {
    Bytes even = nibbles;
    if (n % 2 != 0) even.back() &= 0xf;
    bool keys = true;
    for (std::size_t i = 0; i < n; ++i) {
      const unsigned key = unsigned{key0} + symbols[i];
      keys = keys && keys2n[i] == (key & 0xfff) && keys2b[i] == (key & 0xff) && keys4[i] == (key & 0xfff);
    }
    return keys && raw2n == even && raw2b == bytes && words4 == words && nibbles4 == even;
  }
};

bool check_merge_and_split(std::size_t n, Random& random) {
  Numbers oracle(n, 0);
  oracle.randomize(random);
  const Numbers fresh = oracle;
  oracle.run(qzf::kNumbersScalar);
  bool good = oracle.undone();
  if (!good) std::fprintf(stderr, "scalar does not split what it merged: n %zu\n", n);
  // A bit pattern written out: symbols, key and raw bits of 1.0 as bfloat16 and as float.
  const std::uint8_t one[] = {0}, nibble[] = {0}, low[] = {0, 0};
  std::uint8_t bfloat[2], single[4];
  qzf::kNumbersScalar.merge2n(one, 1, 127 << 4, nibble, bfloat);
  qzf::kNumbersScalar.merge4(one, 1, 127 << 4, low, nibble, single);
  good = good && bfloat[0] == 0x80 && bfloat[1] == 0x3f && single[2] == 0x80 && single[3] == 0x3f;

  for (const qzf::Isa& isa : qzf::available_isas()) {
    Numbers numbers = fresh;
    numbers.run(*isa.numbers);
    Numbers skewed(n, 1 + below(random, 31));
    skewed.randomize(random);
    Numbers skewed_oracle = skewed;
    skewed.run(*isa.numbers);
    skewed_oracle.run(qzf::kNumbersScalar);
    if (numbers.same(oracle) && skewed.same(skewed_oracle)) continue;
    std::fprintf(stderr, "%s differs: numbers, n %zu\n", isa.name, n);
    good = false;
  }
  return good;
}

bool check_find(std::size_t n, Random& random) {
  static const std::uint8_t firsts[] = {0, 1, 128, 200, 247, 255};
  const std::uint8_t first = firsts[below(random, std::size(firsts))];
  Bytes symbols = noise(random, n);
  if (below(random, 2) == 0) std::fill(symbols.begin(), symbols.begin() + static_cast<long>(n / 2), 0);
  std::vector<std::uint32_t> expected;
  for (std::size_t i = 0; i < n; ++i) {
    if (symbols[i] >= first) expected.push_back(static_cast<std::uint32_t>(i));
  }
  for (const qzf::Isa& isa : qzf::available_isas()) {
    std::vector<std::uint32_t> positions(n);
    positions.resize(isa.numbers->find_above(symbols.data(), n, first, positions.data()));
    if (positions == expected) continue;
    std::fprintf(stderr, "%s differs: find_above, n %zu, first %u\n", isa.name, n, unsigned{first});
    return false;
  }
  return true;
}

bool check_numbers(Random& random) {
  for (std::size_t n = 0; n <= 300; ++n) {
    if (!check_merge_and_split(n, random)) return false;
    for (int i = 0; i < 6; ++i) {
      if (!check_find(n, random)) return false;
    }
  }
  return check_merge_and_split(5000 + below(random, 5000), random) && check_find(9999, random);
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 200;
  const std::size_t seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : std::random_device{}();
  for (const qzf::Isa& isa : qzf::available_isas()) std::printf("%s ", isa.name);
  std::printf("rounds %zu seed %zu\n", rounds, seed);
  std::fflush(stdout);
  Random random(seed);
  if (check_rans(random, rounds) && check_numbers(random)) return 0;
  std::fprintf(stderr, "seed %zu\n", seed);
  return 1;
}
