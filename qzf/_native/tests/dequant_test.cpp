// Blocks of all types to floats: each instruction set against scalar, on noise in buffers of exactly their
// size, so that a sanitizer sees a byte too many. The digest of all floats that are made is the same on every
// machine, as each operation is rounded by itself.
//
// Usage: dequant_test [rounds] [seed]; fails with exit code 1 and the seed.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "dispatch.h"

namespace {

using Random = std::mt19937_64;
using Memory = std::unique_ptr<std::uint8_t[]>;

Memory memory(std::size_t size) { return Memory(new std::uint8_t[size]); }

std::uint64_t load(const std::uint8_t* from, std::size_t width) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < width; ++i) value |= std::uint64_t{from[i]} << 8 * i;
  return value;
}

struct Target {
  qzf::Dequantize qzf::DequantType::* kernel;
  std::size_t width;
  std::uint64_t infinity, mantissa;
};

constexpr Target kTargets[] = {{&qzf::DequantType::to_float32, 4, 0x7f800000, 0x7fffff},
                               {&qzf::DequantType::to_float16, 2, 0x7c00, 0x3ff},
                               {&qzf::DequantType::to_bfloat16, 2, 0x7f80, 0x7f}};

// Adds what `type` makes of the blocks to the digest; false where an instruction set makes something else.
bool compare(std::size_t type, const std::uint8_t* blocks, std::size_t n, std::uint64_t& digest) {
  const qzf::DequantType& scalar = qzf::kDequantScalar.types[type];
  for (const Target& target : kTargets) {
    const std::size_t count = n * scalar.weights, size = count * target.width;
    const std::uint64_t sizes = target.infinity | target.mantissa;
    const auto seen = [&](const Memory& from, std::size_t i) {
      const std::uint64_t bits = load(from.get() + i * target.width, target.width);
      return (bits & sizes) > target.infinity ? target.infinity + 1 : bits;
    };
    const Memory first = memory(size);
    (scalar.*target.kernel)(blocks, n, first.get());
    for (std::size_t i = 0; i < count; ++i) digest = (digest ^ seen(first, i)) * 0x100000001b3;
    for (const qzf::Isa& isa : qzf::available_isas()) {
      const qzf::DequantType& other = isa.dequant->types[type];
      const Memory second = memory(size);
      (other.*target.kernel)(blocks, n, second.get());
      for (std::size_t i = 0; i < count; ++i) {
        if (seen(first, i) == seen(second, i) && std::string(other.name) == scalar.name) continue;
        std::fprintf(stderr, "%s: %s differs from scalar at %zu\n", scalar.name, isa.name, i);
        return false;
      }
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const long rounds = argc > 1 ? std::atol(argv[1]) : 20;
  const unsigned long seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1;
  Random random(seed);
  std::uint64_t digest = 0xcbf29ce484222325;
  for (long round = 0; round < rounds; ++round) {
    for (std::size_t type = 0; type < qzf::kDequantScalar.count; ++type) {
      const std::size_t n = random() % 20, size = n * qzf::kDequantScalar.types[type].bytes;
      const Memory blocks = memory(size);
      for (std::size_t i = 0; i < size; ++i) blocks[i] = static_cast<std::uint8_t>(random());
      if (compare(type, blocks.get(), n, digest)) continue;
      std::fprintf(stderr, "round %ld, seed %lu\n", round, seed);
      return 1;
    }
  }
  std::printf("types %zu digest %016llx\n", qzf::kDequantScalar.count,
              static_cast<unsigned long long>(digest));
}
