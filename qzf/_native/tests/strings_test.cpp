// Strings taken apart and put together, against plain code on either side: sequences of strings of all
// lengths, the same with bytes changed, and streams that anyone may have made. Buffers have exactly their
// sizes, so that a sanitizer sees a byte too many.
//
// Usage: strings_test [rounds] [seed]; fails with exit code 1 and the seed.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "strings/chunk.h"

namespace {

using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t n) { return static_cast<std::size_t>(random() % n); }

// A copy of exactly its size on the heap; a vector may have room behind its end.
struct Exact {
  explicit Exact(const Bytes& from) : data(new std::uint8_t[from.size()]), size(from.size()) {
    for (std::size_t i = 0; i < size; ++i) data[i] = from[i];
  }
  qzf::Span span() const { return {data.get(), size}; }

  std::unique_ptr<std::uint8_t[]> data;
  std::size_t size;
};

void put_length(Bytes& out, std::uint64_t length) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(length >> (8 * i)));
}

Bytes random_chunk(Random& random) {
  static const std::size_t edges[] = {0, 0, 1, 7, 8, 127, 128, 129, 16383, 16384, 70000};
  Bytes chunk;
  for (std::size_t n = below(random, 12); n > 0; --n) {
    const std::size_t length =
        below(random, 4) != 0 ? below(random, 30) : edges[below(random, std::size(edges))];
    put_length(chunk, length);
    for (std::size_t i = 0; i < length; ++i) chunk.push_back(static_cast<std::uint8_t>(random()));
  }
  return chunk;
}

void damage(Random& random, Bytes& data) {
  static const std::uint64_t lengths[] = {~std::uint64_t{0}, ~std::uint64_t{0} - 7, std::uint64_t{1} << 63,
                                          std::uint64_t{1} << 32, std::uint64_t{1} << 28};
  for (std::size_t n = below(random, 3); n > 0; --n) {
    const std::size_t at = below(random, data.size() + 1);
    switch (below(random, 4)) {
      case 0: data.resize(at); break;
      case 1:
        data.insert(data.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::uint8_t>(random()));
        break;
      case 2: {
        Bytes length;
        put_length(length, lengths[below(random, std::size(lengths))]);
        data.insert(data.begin() + static_cast<std::ptrdiff_t>(at), length.begin(), length.end());
        break;
      }
      default:
        if (at < data.size()) data[at] ^= static_cast<std::uint8_t>(1u << below(random, 8));
    }
  }
}

// What the streams stand for, by the text of the format; none where they break it.
std::optional<Bytes> joined(const Bytes& lengths, const Bytes& text) {
  Bytes chunk;
  std::size_t begin = 0, from = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] >= 0x80) continue;
    if (i - begin >= 4 || (i != begin && lengths[i] == 0)) return std::nullopt;
    std::size_t length = 0;
    for (std::size_t k = i + 1; k-- > begin;) length = length << 7 | (lengths[k] & 0x7f);
    if (length > text.size() - from) return std::nullopt;
    put_length(chunk, length);
    chunk.insert(chunk.end(), text.begin() + static_cast<std::ptrdiff_t>(from),
                 text.begin() + static_cast<std::ptrdiff_t>(from + length));
    from += length;
    begin = i + 1;
  }
  if (begin != lengths.size() || from != text.size()) return std::nullopt;
  return chunk;
}

bool check_merge(const Bytes& lengths, const Bytes& text, std::size_t size) {
  const Exact first(lengths), second(text), out{Bytes(size)};
  const char* fault = qzf::strings_merge(first.span(), second.span(), out.data.get(), size);
  const std::optional<Bytes> expected = joined(lengths, text);
  if (!expected || expected->size() != size) return fault != nullptr;
  return fault == nullptr && Bytes(out.data.get(), out.data.get() + size) == *expected;
}

// The walk against one by one; of an exact copy, so that a sanitizer sees a byte too many.
bool check_walk(const Bytes& data, std::size_t count) {
  const Exact from(data);
  const qzf::StringsWalk walk = qzf::strings_walk(from.span(), count);
  std::uint64_t at = 0;
  std::size_t walked = 0;
  for (; walked < count && at <= data.size() && data.size() - at >= 8; ++walked) {
    std::uint64_t length = 0;
    for (std::size_t i = 8; i-- > 0;) length = length << 8 | data[at + i];
    const std::uint64_t end = at + 8 + length;
    at = length > ~std::uint64_t{0} - 8 - at ? ~std::uint64_t{0} : end;
  }
  return walk.walked == walked && walk.next == at;
}

bool check_round(Random& random) {
  Bytes chunk = random_chunk(random);
  const bool whole = below(random, 2) == 0;
  if (!whole) damage(random, chunk);
  if (!check_walk(chunk, below(random, 15))) return false;
  const Exact from(chunk);
  qzf::StringsApart apart;
  if (qzf::strings_split(from.span(), apart)) {
    if (joined(apart.lengths, apart.text) != chunk) return false;
    if (!check_merge(apart.lengths, apart.text, chunk.size())) return false;
  } else if (whole) {
    return false;
  }
  damage(random, apart.lengths);
  damage(random, apart.text);
  const std::optional<Bytes> now = joined(apart.lengths, apart.text);
  const std::size_t size = below(random, 2) == 0 && now ? now->size() : chunk.size();
  return check_merge(apart.lengths, apart.text, size) && check_merge(apart.lengths, apart.text, size + 1) &&
         (size == 0 || check_merge(apart.lengths, apart.text, size - 1));
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1000;
  const std::size_t seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : std::random_device{}();
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
