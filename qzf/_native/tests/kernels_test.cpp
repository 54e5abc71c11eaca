// Compares every instruction set with the scalar kernels on random layouts, bit for bit. Buffers have exactly
// the size that a kernel may touch, so that a sanitizer sees a byte too many.
//
// Usage: kernels_test [layouts] [seed]; fails with exit code 1 and the seed.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "dispatch.h"
#include "layout.h"

namespace {

using qzf::Layout;
using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t n) { return static_cast<std::size_t>(random() % n); }

Bytes noise(Random& random, std::size_t size) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

// --- layouts: fields after one another, each of a random kind ---------------------------------------------

struct Region {
  enum Kind { kCopy, kCodes, kMask, kPacked6, kPacked5 } kind;
  std::size_t lanes;
  unsigned low_bits;
  unsigned high_bits;
  std::size_t low_fields;
  std::size_t high_fields;
  bool apart;  // a step of its own for each plane
};

// Codes use all bits of their bytes only where low and high bits divide 8: one plane for each low part of
// each low field, which must be as many as there are high parts.
Region random_region(Random& random) {
  static const std::size_t widths[] = {1, 2, 3, 4, 5, 8, 12, 16, 20, 32, 33, 48, 64, 96, 100, 128, 200, 256};
  static const unsigned divisors[] = {1, 2, 4};
  Region region{};
  region.kind = static_cast<Region::Kind>(below(random, 5));
  if (region.kind == Region::kCopy) {
    region.lanes = widths[below(random, std::size(widths))];
    return region;
  }
  if (region.kind == Region::kPacked6 || region.kind == Region::kPacked5) {
    region.lanes = 1 + below(random, 140);
    return region;
  }
  region.apart = below(random, 4) == 0;
  region.low_bits = divisors[below(random, 3)];
  region.high_bits = divisors[below(random, 3)];
  const std::size_t planes = 8 * (1 + below(random, 2));
  region.low_fields = planes * region.low_bits / 8;
  region.high_fields = planes * region.high_bits / 8;
  region.lanes = region.kind == Region::kMask ? 8 * (1 + below(random, 20)) : 1 + below(random, 140);
  return region;
}

std::size_t region_bytes(const Region& region) {
  switch (region.kind) {
    case Region::kPacked6: return 3 * region.lanes;
    case Region::kPacked5: return 5 * region.lanes;
    case Region::kCopy: return region.lanes;
    case Region::kCodes: return region.lanes * (region.low_fields + region.high_fields);
    default:
      return region.lanes * region.low_fields + region.lanes / 8 * (region.low_fields * 8 / region.low_bits);
  }
}

void add_region(Layout& layout, const Region& region, std::size_t at) {
  if (region.kind == Region::kCopy) return layout.copy(at, region.lanes);
  const std::size_t a = at, b = a + region.lanes, c = b + region.lanes, d = c + region.lanes,
                    e = d + region.lanes;
  // Rows of three and of five parts, where low and high bits share bytes.
  if (region.kind == Region::kPacked6) {
    return layout.codes(region.lanes, 2, 4, {{a, 0, a, 4}, {a, 2, b, 0}, {c, 0, b, 4}, {c, 2, c, 4}});
  }
  if (region.kind == Region::kPacked5) {
    return layout.codes(region.lanes, 1, 4,
                        {{a, 0, a, 4},
                         {a, 1, b, 0},
                         {a, 2, b, 4},
                         {a, 3, c, 0},
                         {c, 4, d, 0},
                         {c, 5, d, 4},
                         {c, 6, e, 0},
                         {c, 7, e, 4}});
  }
  const std::size_t high = at + region.lanes * region.low_fields;
  const std::size_t low_parts = 8 / region.low_bits, planes = region.low_fields * low_parts;
  std::vector<std::array<std::size_t, 4>> codes;
  std::vector<std::array<std::size_t, 3>> masks;
  for (std::size_t p = 0; p < planes; ++p) {
    const std::size_t low = at + region.lanes * (p / low_parts), low_shift = p % low_parts * region.low_bits;
    masks.push_back({low, low_shift, high + region.lanes / 8 * p});
    if (region.kind == Region::kMask) continue;
    const std::size_t high_parts = 8 / region.high_bits;
    codes.push_back(
        {low, low_shift, high + region.lanes * (p / high_parts), p % high_parts * region.high_bits});
  }
  const std::size_t together = region.apart ? 1 : planes;
  for (std::size_t p = 0; p < planes; p += together) {
    if (region.kind == Region::kMask) {
      layout.mask_codes(region.lanes, region.low_bits, {&masks[p], &masks[p] + together});
    } else {
      layout.codes(region.lanes, region.low_bits, region.high_bits, {&codes[p], &codes[p] + together});
    }
  }
}

Layout random_layout(Random& random) {
  if (below(random, 4) == 0) {
    const std::size_t size = std::size_t{2} << below(random, 3);
    Layout layout(size);
    layout.planes(size, below(random, 2) == 0);
    layout.freeze();
    return layout;
  }
  std::vector<Region> regions(1 + below(random, 4));
  std::size_t block = 0;
  for (Region& region : regions) {
    region = random_region(random);
    block += region_bytes(region);
  }
  Layout layout(block);
  std::size_t at = 0;
  for (const Region& region : regions) {
    add_region(layout, region, at);
    at += region_bytes(region);
  }
  layout.freeze();
  return layout;
}

// --- comparison -------------------------------------------------------------------------------------------

// Each stream in memory of its own, starting `skew` bytes after an aligned place.
class Streams {
 public:
  Streams(const Layout& layout, std::size_t n, std::size_t skew) : skew_(skew) {
    for (const std::size_t width : layout.widths()) {
      sizes_.push_back(n * width);
      memory_.emplace_back(new std::uint8_t[skew + n * width]);
      std::memset(memory_.back().get(), 0xa5, skew + n * width);
    }
  }
  std::vector<std::uint8_t*> out() const {
    std::vector<std::uint8_t*> result;
    for (const auto& each : memory_) result.push_back(each.get() + skew_);
    return result;
  }
  std::vector<const std::uint8_t*> in() const {
    const auto pointers = out();
    return {pointers.begin(), pointers.end()};
  }
  bool same(const Streams& other) const {
    for (std::size_t k = 0; k < sizes_.size(); ++k) {
      if (std::memcmp(out()[k], other.out()[k], sizes_[k]) != 0) return false;
    }
    return true;
  }
  void randomize(Random& random) {
    for (std::size_t k = 0; k < sizes_.size(); ++k) {
      const Bytes bytes = noise(random, sizes_[k]);
      if (!bytes.empty()) std::memcpy(out()[k], bytes.data(), bytes.size());
    }
  }

 private:
  std::size_t skew_;
  std::vector<std::size_t> sizes_;
  std::vector<std::unique_ptr<std::uint8_t[]>> memory_;
};

bool check(const Layout& layout, std::size_t n, Random& random) {
  const Bytes blocks = noise(random, n * layout.block());
  Streams oracle(layout, n, 0);
  layout.split(qzf::kFieldsScalar, blocks.data(), oracle.out(), n);
  // Any bytes may come to be merged, not only what split has made.
  Streams wild(layout, n, 0);
  wild.randomize(random);
  Bytes wild_blocks(blocks.size(), 0xa5);
  layout.merge(qzf::kFieldsScalar, wild.in(), wild_blocks.data(), n);

  for (const qzf::Isa& isa : qzf::available_isas()) {
    Streams streams(layout, n, below(random, 32));
    layout.split(*isa.fields, blocks.data(), streams.out(), n);
    Bytes back(blocks.size(), 0xa5), back_wild(blocks.size(), 0x5a);
    layout.merge(*isa.fields, streams.in(), back.data(), n);
    layout.merge(*isa.fields, wild.in(), back_wild.data(), n);
    if (!streams.same(oracle) || back != blocks || back_wild != wild_blocks) {
      std::fprintf(stderr, "%s differs: block %zu, n %zu\n", isa.name, layout.block(), n);
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t layouts = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 200;
  const std::size_t seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : std::random_device{}();
  for (const qzf::Isa& isa : qzf::available_isas()) std::printf("%s ", isa.name);
  std::printf("layouts %zu seed %zu\n", layouts, seed);
  std::fflush(stdout);
  Random random(seed);
  for (std::size_t i = 0; i < layouts; ++i) {
    const Layout layout = random_layout(random);
    const std::size_t sizes[] = {0, 1, 2, 3, below(random, 70), 63 + below(random, 3), below(random, 300)};
    for (const std::size_t n : sizes) {
      if (!check(layout, n, random)) {
        std::fprintf(stderr, "layout %zu of seed %zu\n", i, seed);
        return 1;
      }
    }
    if (layout.block() <= 8 && !check(layout, 5000 + below(random, 5000), random)) return 1;
  }
  return 0;
}
