// Compares every instruction set with the scalar kernels that only the encoder uses: extrema, low bits,
// statistics of blocks and counts of symbols, at all lengths. Buffers have exactly the size that a kernel may
// touch, so that a sanitizer sees a byte too many.
//
// Usage: encode_test [rounds] [seed]; fails with exit code 1 and the seed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "dispatch.h"

namespace {

using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937_64;
using qzf::Isa;

std::size_t below(Random& random, std::size_t n) { return static_cast<std::size_t>(random() % n); }

Bytes noise(Random& random, std::size_t size, std::size_t limit = 256) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(below(random, limit));
  return bytes;
}

const Isa& oracle() { return qzf::available_isas()[0]; }

// run(isa) gives all that the kernel has written.
template <class Run>
bool same_everywhere(const char* what, std::size_t n, Run run) {
  const auto expected = run(oracle());
  for (const Isa& isa : qzf::available_isas()) {
    if (run(isa) == expected) continue;
    std::fprintf(stderr, "%s differs: %s, n %zu\n", isa.name, what, n);
    return false;
  }
  return true;
}

// --- blocks ----------------------------------------------------------------------------------------------

// What the extrema of a lane are, found one code after the other; -1 where one is not there.
int places_of(const qzf::ExtremeCodes& want, bool zero, Bytes codes) {
  const auto find = [&](std::uint8_t code, int count) {
    for (int i = 0; i < count; ++i) {
      if (codes[static_cast<std::size_t>(i)] == code) return i;
    }
    return -1;
  };
  const int first = find(want.first[zero], 32);
  if (want.kind == qzf::Extrema::kSigned && first < 0) {
    const int other = find(want.second[zero], 32);
    return other < 0 ? -1 : other | 32;
  }
  if (first < 0 || want.kind != qzf::Extrema::kTwo) return first;
  std::swap(codes[static_cast<std::size_t>(first)], codes[31]);
  const int second = find(want.second[zero], 31);
  return second < 0 ? -1 : first | second << 5;
}

bool check_extrema(Random& random, std::size_t n) {
  static const qzf::ExtremeCodes kinds[] = {{qzf::Extrema::kOne, {0, 8}, {0, 0}},
                                            {qzf::Extrema::kSigned, {255, 128}, {1, 128}},
                                            {qzf::Extrema::kTwo, {0, 0}, {15, 0}}};
  const qzf::ExtremeCodes& want = kinds[below(random, 3)];
  const std::size_t few = 2 + below(random, 60), free = want.kind == qzf::Extrema::kTwo ? 2 : 1;
  std::vector<std::uint16_t> numbers(n);
  Bytes codes(32 * n);
  bool all = true;
  std::vector<std::uint16_t> places;
  for (std::size_t lane = 0; lane < n; ++lane) {
    const bool zero = below(random, 4) == 0, lacks = below(random, 400) == 0;
    numbers[lane] = static_cast<std::uint16_t>(zero ? below(random, 2) << 15 : 1 + below(random, 0x7fff));
    std::uint8_t* at = &codes[32 * lane];
    for (std::size_t e = 0; e < 32; ++e) at[e] = static_cast<std::uint8_t>(2 + below(random, few));
    const std::size_t place = below(random, 32);
    const bool other = want.kind == qzf::Extrema::kSigned && below(random, 2) == 0;
    if (!lacks) at[place] = other ? want.second[zero] : want.first[zero];
    if (!lacks && free == 2) at[(place + 1 + below(random, 31)) % 32] = want.second[zero];
    const int found = places_of(want, zero, {at, at + 32});
    all = all && found >= 0;
    places.push_back(static_cast<std::uint16_t>(found));
  }
  return same_everywhere("extrema", n, [&](const Isa& isa) {
    Bytes left = codes;
    std::vector<std::uint16_t> found(n);
    const bool good = isa.blocks->take_extrema(want, numbers.data(), n, left.data(), found.data());
    if (good != all || (good && found != places)) return Bytes{0};
    for (std::size_t lane = 0; good && lane < n; ++lane) {  // what is free is not compared
      if (want.kind == qzf::Extrema::kSigned && (left[32 * lane + 31] & 15) != (places[lane] & 15))
        return Bytes{0};
      std::fill_n(&left[32 * lane + 32 - free], free, std::uint8_t{0});
    }
    return good ? left : Bytes{1};
  });
}

bool check_low(Random& random, std::size_t n) {
  const std::size_t wide = below(random, 2), elements = wide ? 32 : 16, bits = wide ? 4 : 1;
  const Bytes codes = noise(random, n * elements);
  return same_everywhere("low bits", n, [&](const Isa& isa) {
    Bytes left = codes, low(n * elements * bits / 8);
    isa.blocks->split_low(static_cast<unsigned>(bits), elements, n, left.data(), low.data());
    left.insert(left.end(), low.begin(), low.end());
    return left;
  });
}

bool check_deviations(Random& random, std::size_t row) {
  const std::size_t elements = below(random, 2) ? 32 : 16, rows = below(random, 9);
  const Bytes codes = noise(random, rows * row * elements);
  std::vector<std::uint16_t> centers(rows * row);
  for (std::uint16_t& center : centers) center = static_cast<std::uint16_t>(below(random, 1 << 15));
  return same_everywhere("deviations", row, [&](const Isa& isa) {
    std::vector<std::uint32_t> sums(row * elements, 7);
    isa.blocks->deviations(codes.data(), elements, centers.data(), rows, row, sums.data());
    return sums;
  });
}

// --- counts ----------------------------------------------------------------------------------------------

bool check_look_up(Random& random, std::size_t n) {
  const Bytes map = noise(random, 128), index = noise(random, n, 128);
  return same_everywhere("looking up", n, [&](const Isa& isa) {
    Bytes out(n), in_place = index;
    isa.counts->look_up(map.data(), index.data(), n, out.data());
    isa.counts->look_up(map.data(), in_place.data(), n, in_place.data());
    return out == in_place ? out : Bytes(n + 1);
  });
}

bool check_count(Random& random, std::size_t lanes) {
  const std::size_t elements = below(random, 2) ? 32 : 16, alphabet = below(random, 2) ? 32 : 16;
  const std::size_t groups = (lanes + qzf::kGroup - 1) / qzf::kGroup, tables = 1 + below(random, 30);
  const std::size_t steps = 1 + below(random, elements), classes = 1 + below(random, tables);
  const auto shift = static_cast<unsigned>(below(random, alphabet == 32 ? 4 : 5));
  const Bytes symbols = noise(random, lanes * elements, alphabet << shift);
  std::vector<std::uint32_t> order(lanes);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<std::uint16_t> base(groups);
  std::vector<Bytes> rows;
  std::vector<const std::uint8_t*> of_group;
  for (std::uint16_t& each : base) {
    each = static_cast<std::uint16_t>(below(random, tables - classes + 1));
    rows.push_back(noise(random, steps, classes));
  }
  for (const Bytes& row : rows) of_group.push_back(row.data());
  const qzf::LanesPlan plan = {lanes,
                               steps,
                               elements,
                               alphabet,
                               order.data(),
                               base.data(),
                               below(random, 2) ? of_group.data() : nullptr};
  return same_everywhere("counting", lanes, [&](const Isa& isa) {
    std::vector<std::uint64_t> counts(tables * alphabet, 3);
    isa.counts->count(plan, symbols.data(), shift, counts.data());
    const std::uint64_t sum = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
    return sum == 3 * counts.size() + lanes * steps ? counts : std::vector<std::uint64_t>{};
  });
}

bool check_round(Random& random) {
  for (std::size_t n = 1; n <= 300; ++n) {
    if (!check_extrema(random, n) || !check_low(random, 2 * n) || !check_deviations(random, n % 40 + 1) ||
        !check_look_up(random, n) || !check_count(random, n)) {
      return false;
    }
  }
  return check_extrema(random, 2000) && check_low(random, 2000) && check_look_up(random, 5000) &&
         check_count(random, 2000);
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10;
  const std::size_t seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : std::random_device{}();
  for (const Isa& isa : qzf::available_isas()) std::printf("%s ", isa.name);
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
