// The kernels of blocks.h, compiled for this file's instruction set.
#include <cstring>

#include "kernels/blocks.h"

namespace qzf {
namespace {
#include "kernels/blocks.inl"
#include "kernels/blocks_merge.inl"

inline void split_q5(const uint8_t* mask, const uint8_t* record, uint8_t* codes) {
  const Bytes16 bits = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128}, v = load(record);
  const auto high = [&](size_t at) {
    return reinterpret_cast<Bytes16>((spread(mask + at) & bits) != 0) & 16;
  };
  store(codes, (v & 15) | high(0));
  store(codes + 16, v >> 4 | high(2));
}

// One bit of each byte, the lowest, together.
inline uint32_t odd16(Bytes16 v) {
  const Words2 odd = reinterpret_cast<Words2>(v & 1);
  const uint64_t together = 0x0102040810204080ull;
  return static_cast<uint32_t>(odd[0] * together >> 56 | odd[1] * together >> 56 << 8);
}
inline uint32_t odd16(const uint8_t* codes) { return odd16(load(codes)); }

inline uint32_t equal32(const uint8_t* codes, uint8_t code) {
  const auto equal16 = [&](Bytes16 v) { return odd16(reinterpret_cast<Bytes16>(v == code)); };
  return equal16(load(codes)) | equal16(load(codes + 16)) << 16;
}

#include "kernels/blocks_encode.inl"
}  // namespace

const BlocksKernels kBlocksScalar = {split, merge, split_low, take_extrema, logs, index, deviations};

}  // namespace qzf
