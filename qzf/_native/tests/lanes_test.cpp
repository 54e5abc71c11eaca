// Compares every instruction set with the scalar kernels of the codec "lanes" on random plans: bytes made,
// symbols found, and what is refused of damaged streams. Buffers have exactly the size that a kernel may
// touch, so that a sanitizer sees a byte too many.
//
// Usage: lanes_test [rounds] [seed]; fails with exit code 1 and the seed.
#include "kernels/lanes.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "tables.h"

namespace {

using qzf::LanesCode;
using qzf::LanesKernels;
using qzf::LanesPlan;
using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t n) { return static_cast<std::size_t>(random() % n); }

struct Isa {
  const char* name;
  const LanesKernels* lanes;
};

std::vector<Isa> available_isas() {
  std::vector<Isa> isas = {{"scalar", &qzf::kLanesScalar}};
#if defined(QZF_X86)
  if (__builtin_cpu_supports("avx2")) isas.push_back({"avx2", &qzf::kLanesAvx2});
#ifdef QZF_SIMDE
  isas.push_back({"avx512", &qzf::kLanesAvx512});
#else
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
      __builtin_cpu_supports("avx512vbmi2")) {
    isas.push_back({"avx512", &qzf::kLanesAvx512});
  }
#endif
#elif defined(QZF_NEON)
  isas.push_back({"neon", &qzf::kLanesNeon});
#endif
  return isas;
}

// --- plans
// --------------------------------------------------------------------------------------------------

// Frequencies that add up to 256: of few symbols or of all, alike or not.
Bytes random_frequencies(Random& random, std::size_t alphabet) {
  Bytes frequencies(alphabet);
  if (below(random, 4) == 0) {  // as far apart as can be
    const std::size_t large = below(random, alphabet);
    frequencies[large] = 255;
    frequencies[(large + 1 + below(random, alphabet - 1)) % alphabet] = 1;
    return frequencies;
  }
  const std::size_t zeros = below(random, 2) * below(random, alphabet - 1), skew = 1 + below(random, 4);
  std::vector<std::size_t> used(alphabet);
  std::iota(used.begin(), used.end(), std::size_t{0});
  for (std::size_t i = 0; i < zeros; ++i)
    used.erase(used.begin() + static_cast<long>(below(random, used.size())));
  std::size_t sum = used.size();
  for (const std::size_t s : used) frequencies[s] = 1;
  while (sum < 256) {
    std::size_t i = used.size();
    for (std::size_t k = 0; k < skew; ++k) i = below(random, i) + 1;
    std::uint8_t& frequency = frequencies[used[i - 1]];
    const std::size_t more = frequency < 255 ? 1 : 0;
    frequency = static_cast<std::uint8_t>(frequency + more);
    sum += more;
  }
  return frequencies;
}

struct Case {
  std::size_t lanes, steps, elements, alphabet;
  std::vector<std::uint32_t> order;
  std::vector<std::uint16_t> base;
  std::vector<Bytes> class_rows;
  std::vector<const std::uint8_t*> classes;  // empty where there are none
  std::vector<LanesCode> codes;
  Bytes tables, symbols;

  LanesPlan plan() const {
    return {lanes,
            steps,
            elements,
            alphabet,
            order.data(),
            base.data(),
            classes.empty() ? nullptr : classes.data()};
  }
};

void make_symbols(Case& c, const std::vector<Bytes>& frequencies, Random& random) {
  const std::size_t kind = below(random, 3);
  c.symbols.resize(c.lanes * c.elements);
  for (std::uint8_t& symbol : c.symbols)
    symbol = static_cast<std::uint8_t>(random());  // also where none is coded
  for (std::size_t p = 0; p < c.lanes; ++p) {
    for (std::size_t t = 0; t < c.steps; ++t) {
      const std::size_t group = p / qzf::kGroup;
      const Bytes& frequency = frequencies[c.base[group] + (c.classes.empty() ? 0u : c.classes[group][t])];
      std::size_t symbol = 0;
      if (kind == 0) {  // as likely as the table says
        for (std::size_t slot = below(random, 256); slot >= frequency[symbol]; ++symbol)
          slot -= frequency[symbol];
      } else {  // any symbol, or mostly the last one
        do symbol = kind == 1 || below(random, 8) == 0 ? below(random, c.alphabet) : symbol + c.alphabet - 1;
        while (frequency[symbol %= c.alphabet] == 0);
      }
      c.symbols[c.order[p] * c.elements + t] = static_cast<std::uint8_t>(symbol);
    }
  }
}

Case random_case(Random& random, std::size_t lanes) {
  static const std::size_t steps[2][6] = {{1, 14, 15, 16, 15, 16}, {1, 16, 30, 31, 32, 32}};
  Case c{};
  const std::size_t wide = below(random, 2), span = 1 + below(random, 5), tables = span + below(random, 20);
  const std::size_t groups = (lanes + qzf::kGroup - 1) / qzf::kGroup;
  c.lanes = lanes;
  c.elements = wide ? 32 : 16;
  c.steps = below(random, 4) == 0 ? 1 + below(random, c.elements) : steps[wide][below(random, 6)];
  c.alphabet = below(random, 2) ? 32 : 16;
  c.order.resize(lanes);
  std::iota(c.order.begin(), c.order.end(), 0u);
  for (std::size_t i = lanes; i > 1; --i) std::swap(c.order[i - 1], c.order[below(random, i)]);
  std::vector<Bytes> frequencies;
  c.tables.resize(tables * 4 * c.alphabet);
  c.codes.resize(tables);
  for (std::size_t k = 0; k < tables; ++k) {
    frequencies.push_back(random_frequencies(random, c.alphabet));
    std::uint8_t* rows = c.tables.data() + k * 4 * c.alphabet;
    qzf::lanes_decoding(frequencies.back().data(), c.alphabet, rows);
    qzf::lanes_encoding(rows, c.alphabet, c.codes[k]);
  }
  for (std::size_t g = 0; g < groups; ++g) {
    c.base.push_back(static_cast<std::uint16_t>(below(random, tables - span + 1)));
    c.class_rows.emplace_back(c.steps);
    for (std::uint8_t& each : c.class_rows.back()) each = static_cast<std::uint8_t>(below(random, span));
  }
  if (below(random, 2)) {
    for (const Bytes& row : c.class_rows) c.classes.push_back(row.data());
  }
  make_symbols(c, frequencies, random);
  return c;
}

// --- comparison
// ---------------------------------------------------------------------------------------------

// Memory of exactly this size.
std::unique_ptr<std::uint8_t[]> memory(std::size_t size) {
  std::unique_ptr<std::uint8_t[]> bytes(new std::uint8_t[size]);
  std::memset(bytes.get(), 0xa5, size);
  return bytes;
}

Bytes encode(const LanesKernels& kernels, const Case& c) {
  const std::size_t capacity = qzf::lanes_bound(c.lanes, c.steps);
  const auto out = memory(capacity);
  const std::size_t size = kernels.encode(c.plan(), c.codes.data(), c.symbols.data(), out.get(), capacity);
  return {out.get() + (capacity - size), out.get() + capacity};
}

struct Decoded {
  bool right;
  Bytes records, highs;
  bool operator==(const Decoded& other) const {  // what was written counts only where all was right
    return right == other.right && (!right || (records == other.records && highs == other.highs));
  }
};

Decoded decode(const LanesKernels& kernels, const Case& c, const Bytes& stream) {
  const std::size_t records_size = c.lanes * c.elements / 2;
  const std::size_t highs_size = c.alphabet == 32 ? c.lanes * c.elements / 8 : 0;
  const auto in = memory(stream.size()), records = memory(records_size), highs = memory(highs_size);
  if (!stream.empty()) std::memcpy(in.get(), stream.data(), stream.size());
  const bool right =
      kernels.decode(c.plan(), c.tables.data(), in.get(), stream.size(), {records.get(), highs.get()});
  return {right, {records.get(), records.get() + records_size}, {highs.get(), highs.get() + highs_size}};
}

Decoded expected(const Case& c) {
  Decoded all{true, Bytes(c.lanes * c.elements / 2), Bytes(c.alphabet == 32 ? c.lanes * c.elements / 8 : 0)};
  for (std::size_t lane = 0; lane < c.lanes; ++lane) {
    for (std::size_t t = 0; t < c.steps; ++t) {
      const unsigned symbol = c.symbols[lane * c.elements + t];
      const std::size_t half = c.elements / 2;
      all.records[lane * half + t % half] |= static_cast<std::uint8_t>((symbol & 15) << (t < half ? 0 : 4));
      if (symbol >> 4) all.highs[lane * c.elements / 8 + t / 8] |= static_cast<std::uint8_t>(1 << t % 8);
    }
  }
  return all;
}

Bytes damaged(Bytes stream, Random& random) {
  switch (below(random, 4)) {
    case 0: stream.resize(below(random, stream.size())); break;
    case 1: stream.insert(stream.end(), 1 + below(random, 100), static_cast<std::uint8_t>(random())); break;
    case 2: stream[below(random, qzf::kGroup) * 2 + 1] = static_cast<std::uint8_t>(below(random, 2)); break;
    default:
      for (std::size_t i = 1 + below(random, 3); i > 0; --i) {
        stream[below(random, stream.size())] = static_cast<std::uint8_t>(random());
      }
  }
  return stream;
}

bool check(const std::vector<Isa>& isas, const Case& c, std::size_t damages, bool prefixes, Random& random) {
  const auto differs = [&](const Isa& isa, const char* what) {
    std::fprintf(stderr, "%s: %s differs: lanes %zu, steps %zu of %zu, alphabet %zu, classes %d\n", isa.name,
                 what, c.lanes, c.steps, c.elements, c.alphabet, !c.classes.empty());
    return false;
  };
  const Bytes stream = encode(qzf::kLanesScalar, c);
  const Decoded symbols = expected(c);
  for (const Isa& isa : isas) {
    if (encode(*isa.lanes, c) != stream) return differs(isa, "encoding");
    if (!(decode(*isa.lanes, c, stream) == symbols)) return differs(isa, "decoding");
  }
  for (std::size_t size = 0; prefixes && size < stream.size(); ++size) {
    for (const Isa& isa : isas) {
      if (decode(*isa.lanes, c, {stream.data(), stream.data() + size}).right) return differs(isa, "a prefix");
    }
  }
  for (std::size_t i = 0; i < damages; ++i) {
    const Bytes wrong = damaged(stream, random);
    const Decoded oracle = decode(qzf::kLanesScalar, c, wrong);
    for (const Isa& isa : isas) {
      if (!(decode(*isa.lanes, c, wrong) == oracle)) return differs(isa, "what is damaged");
    }
  }
  return true;
}

bool check_round(const std::vector<Isa>& isas, Random& random) {
  for (std::size_t lanes = 1; lanes <= 300; ++lanes) {
    if (!check(isas, random_case(random, lanes), 6, false, random)) return false;
  }
  for (const std::size_t lanes : {511, 512, 513, 1000, 2047, 4096, 5001}) {
    if (!check(isas, random_case(random, lanes), 4, false, random)) return false;
  }
  for (const std::size_t lanes : {1, 63, 65, 128, 200, 257}) {
    Case c = random_case(random, lanes);
    while (c.lanes * c.steps > 1000 && c.steps > 2) c = random_case(random, lanes);
    if (!check(isas, c, 40, true, random)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10;
  const std::size_t seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : std::random_device{}();
  const std::vector<Isa> isas = available_isas();
  for (const Isa& isa : isas) std::printf("%s ", isa.name);
  std::printf("rounds %zu seed %zu\n", rounds, seed);
  std::fflush(stdout);
  Random random(seed);
  for (std::size_t i = 0; i < rounds; ++i) {
    if (!check_round(isas, random)) {
      std::fprintf(stderr, "round %zu of seed %zu\n", i, seed);
      return 1;
    }
  }
  return 0;
}
