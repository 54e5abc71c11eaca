// The kernels of blocks.h in plain loops of fixed length, from which the compiler makes vector code. Included
// once by the file of each instruction set, inside an anonymous namespace, so that no code is shared.

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

inline uint8_t byte(unsigned value) { return static_cast<uint8_t>(value); }

inline uint16_t load16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}

inline uint32_t load32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

inline void store16(uint8_t* p, uint16_t value) { std::memcpy(p, &value, 2); }
inline void store32(uint8_t* p, uint32_t value) { std::memcpy(p, &value, 4); }

// `bits` (at most 10) bits from bit `at` on.
inline unsigned get_bits(const uint8_t* packed, size_t at, unsigned bits) {
  return load32(packed + at / 8) >> at % 8 & ((1u << bits) - 1);
}

// 16 bytes at once; compilers make of it what the instruction set has.
typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef uint64_t Words2 __attribute__((vector_size(16)));

inline Bytes16 load(const uint8_t* p) {
  Bytes16 v;
  std::memcpy(&v, p, 16);
  return v;
}

inline void store(uint8_t* p, Bytes16 v) { std::memcpy(p, &v, 16); }

inline uint64_t load64(const uint8_t* p) {
  uint64_t value;
  std::memcpy(&value, p, 8);
  return value;
}

// The 16 codes of a record of 8 bytes.
inline Bytes16 nibbles16(const uint8_t* record) {
  const uint64_t word = load64(record), low = 0x0f0f0f0f0f0f0f0full;
  return reinterpret_cast<Bytes16>(Words2{word & low, word >> 4 & low});
}

// The 32 codes of a record of 16 bytes.
inline void expand32(const uint8_t* record, uint8_t* codes) {
  const Bytes16 v = load(record);
  store(codes, v & 15);
  store(codes + 16, v >> 4);
}

// The first byte eight times, then the second eight times.
inline Bytes16 spread(const uint8_t* two) {
  const uint64_t ones = 0x0101010101010101ull;
  return reinterpret_cast<Bytes16>(Words2{two[0] * ones, two[1] * ones});
}

// An 8 x 8 matrix of bits, byte r bit c <-> byte c bit r (Warren, Hacker's Delight, 7-3).
inline uint64_t transpose8(uint64_t x) {
  uint64_t t = (x ^ x >> 7) & 0x00AA00AA00AA00AAull;
  x ^= t ^ t << 7;
  t = (x ^ x >> 14) & 0x0000CCCC0000CCCCull;
  x ^= t ^ t << 14;
  t = (x ^ x >> 28) & 0x00000000F0F0F0F0ull;
  return x ^ t ^ t << 28;
}

// --- scales of K-quants: 8 scales and 8 minima of 6 bits in 12 bytes -----------------------------------------

inline void split_scales6(const uint8_t* packed, uint8_t* __restrict scales, uint8_t* __restrict mins) {
  const uint32_t a = load32(packed), b = load32(packed + 4), c = load32(packed + 8);
  const uint32_t low4 = 0x0f0f0f0f, low6 = 0x3f3f3f3f, top2 = 0x30303030;
  store32(scales, a & low6);
  store32(mins, b & low6);
  store32(scales + 4, (c & low4) | (a >> 2 & top2));
  store32(mins + 4, (c >> 4 & low4) | (b >> 2 & top2));
}

inline void merge_scales6(const uint8_t* scales, const uint8_t* mins, uint8_t* __restrict packed) {
  for (size_t j = 0; j < 4; ++j) {
    packed[j] = byte((scales[j] & 63u) | (scales[j + 4] & 0x30u) << 2);
    packed[j + 4] = byte((mins[j] & 63u) | (mins[j + 4] & 0x30u) << 2);
    packed[j + 8] = byte((scales[j + 4] & 15u) | (mins[j + 4] & 15u) << 4);
  }
}

// Q3_K's 16 scales of 6 bits in 12 bytes: low 4 bits of scale j in byte j mod 8, high 2 bits in byte 8 + j mod 4.
inline void split_scales3(const uint8_t* packed, uint8_t* __restrict scales) {
  for (size_t j = 0; j < 16; ++j) {
    const unsigned low = packed[j % 8] >> (j / 8 * 4) & 15u, high = packed[8 + j % 4] >> (j / 4 * 2) & 3u;
    scales[j] = byte(low | high << 4);
  }
}

inline void merge_scales3(const uint8_t* scales, uint8_t* __restrict packed) {
  for (size_t j = 0; j < 8; ++j) packed[j] = byte((scales[j] & 15u) | (scales[j + 8] & 15u) << 4);
  for (size_t j = 0; j < 4; ++j) {
    unsigned high = 0;
    for (size_t k = 0; k < 4; ++k) high |= (scales[j + 4 * k] >> 4 & 3u) << 2 * k;
    packed[8 + j] = byte(high);
  }
}

// IQ4_XS: low 4 bits of scale j in half j mod 2 of byte j / 2, high 2 bits in a 16-bit word.
inline void split_scales4xs(const uint8_t* block, uint8_t* __restrict scales) {
  const unsigned high = load16(block + 2);
  for (size_t j = 0; j < 8; ++j) {
    scales[j] = byte((block[4 + j / 2] >> j % 2 * 4 & 15u) | (high >> 2 * j & 3u) << 4);
  }
}

inline void merge_scales4xs(const uint8_t* scales, uint8_t* __restrict block) {
  unsigned high = 0;
  for (size_t j = 0; j < 8; ++j) high |= (scales[j] >> 4 & 3u) << 2 * j;
  store16(block + 2, static_cast<uint16_t>(high));
  for (size_t j = 0; j < 4; ++j) block[4 + j] = byte((scales[2 * j] & 15u) | (scales[2 * j + 1] & 15u) << 4);
}

// --- splitting ----------------------------------------------------------------------------------------------

// Planes of `kBits` bits: code p x kLanes + l is bits kBits p .. of byte l.
template <size_t kLanes, unsigned kBits, size_t kPlanes>
inline void split_planes(const uint8_t* packed, uint8_t* codes) {
  constexpr uint8_t kMask = (1u << kBits) - 1;
  if (kLanes == 8) {
    for (size_t p = 0; p < kPlanes; ++p) {
      for (size_t l = 0; l < kLanes; ++l) codes[p * kLanes + l] = packed[l] >> kBits * p & kMask;
    }
    return;
  }
  for (size_t l = 0; l < kLanes; l += 16) {
    const Bytes16 v = load(packed + l);
    for (size_t p = 0; p < kPlanes; ++p) store(codes + p * kLanes + l, v >> static_cast<uint8_t>(kBits * p) & kMask);
  }
}

// 32 codes: 4 bits from a record, and above them one from a mask. Each instruction set has its own.
inline void split_q5(const uint8_t* mask, const uint8_t* record, uint8_t* codes);

inline void split_q3k(const uint8_t* b, uint8_t* __restrict codes) {
  for (size_t h = 0; h < 2; ++h) split_planes<32, 2, 4>(b + 32 + 32 * h, codes + 128 * h);
  for (size_t p = 0; p < 8; ++p) {
    for (size_t l = 0; l < 32; ++l) codes[32 * p + l] = byte(codes[32 * p + l] | (b[l] >> p & 1u) << 2);
  }
}

inline void split_q45k(const uint8_t* qs, uint8_t* __restrict codes) {
  for (size_t p = 0; p < 4; ++p) split_planes<32, 4, 2>(qs + 32 * p, codes + 64 * p);
}

inline void split_q6k(const uint8_t* b, uint8_t* codes) {
  for (size_t h = 0; h < 2; ++h) {
    for (size_t l = 0; l < 32; l += 16) {
      const Bytes16 even = load(b + 64 * h + l), odd = load(b + 64 * h + 32 + l), top = load(b + 128 + 32 * h + l);
      uint8_t* out = codes + 128 * h + l;
      store(out, (even & 15) | (top & 3) << 4);
      store(out + 32, (odd & 15) | (top >> 2 & 3) << 4);
      store(out + 64, even >> 4 | (top >> 4 & 3) << 4);
      store(out + 96, odd >> 4 | (top >> 6) << 4);
    }
  }
}

template <Block type>
inline void split_block(const uint8_t* b, size_t i, const BlockScales& s, uint8_t* __restrict codes) {
  const auto number = [&](size_t k, size_t at) { s.numbers[k][i] = load16(b + at); };
  switch (type) {
    case Block::kQ4_0:
    case Block::kIQ4NL:
      number(0, 0);
      return split_planes<16, 4, 2>(b + 2, codes);
    case Block::kQ4_1:
      number(0, 0);
      number(1, 2);
      return split_planes<16, 4, 2>(b + 4, codes);
    case Block::kQ5_0:
      number(0, 0);
      return split_q5(b + 2, b + 6, codes);
    case Block::kQ5_1:
      number(0, 0);
      number(1, 2);
      return split_q5(b + 4, b + 8, codes);
    case Block::kQ8_0:
      number(0, 0);
      store(codes, load(b + 2) ^ 0x80);
      return store(codes + 16, load(b + 18) ^ 0x80);
    case Block::kQ2K:
      number(0, 80);
      number(1, 82);
      std::memcpy(s.scales + 16 * i, b, 16);
      for (size_t h = 0; h < 2; ++h) split_planes<32, 2, 4>(b + 16 + 32 * h, codes + 128 * h);
      return;
    case Block::kQ3K:
      number(0, 108);
      split_scales3(b + 96, s.scales + 16 * i);
      return split_q3k(b, codes);
    case Block::kQ4K:
    case Block::kQ5K:
      number(0, 0);
      number(1, 2);
      split_scales6(b + 4, s.scales + 8 * i, s.mins + 8 * i);
      if (type == Block::kQ4K) return split_q45k(b + 16, codes);
      split_q45k(b + 48, codes);
      for (size_t p = 0; p < 8; ++p) {
        for (size_t l = 0; l < 32; ++l) codes[32 * p + l] = byte(codes[32 * p + l] | (b[16 + l] >> p & 1u) << 4);
      }
      return;
    case Block::kQ6K:
      number(0, 208);
      std::memcpy(s.scales + 16 * i, b + 192, 16);
      return split_q6k(b, codes);
    case Block::kIQ4XS:
      number(0, 0);
      split_scales4xs(b, s.scales + 8 * i);
      for (size_t p = 0; p < 8; ++p) split_planes<16, 4, 2>(b + 8 + 16 * p, codes + 32 * p);
      return;
    case Block::kTQ2_0:
      number(0, 64);
      for (size_t h = 0; h < 2; ++h) split_planes<32, 2, 4>(b + 32 * h, codes + 128 * h);
      return;
    case Block::kMXFP4:
      s.scales[i] = b[0];
      return split_planes<16, 4, 2>(b + 1, codes);
    case Block::kNVFP4:
      std::memcpy(s.scales + 4 * i, b, 4);
      for (size_t p = 0; p < 4; ++p) split_planes<8, 4, 2>(b + 4 + 8 * p, codes + 16 * p);
      return;
  }
}

template <Block type>
void split_all(const BlockShape& shape, const uint8_t* blocks, size_t n, const BlockScales& scales,
               uint8_t* codes) {
  for (size_t i = 0; i < n; ++i, blocks += shape.size, codes += shape.codes) {
    split_block<type>(blocks, i, scales, codes);
  }
}

void split(const BlockShape& shape, const uint8_t* blocks, size_t n, const BlockScales& scales,
           uint8_t* codes) noexcept {
  const auto as = [&](auto all) { all(shape, blocks, n, scales, codes); };
  switch (shape.type) {
    case Block::kQ4_0:
    case Block::kIQ4NL: return as(split_all<Block::kQ4_0>);
    case Block::kQ4_1: return as(split_all<Block::kQ4_1>);
    case Block::kQ5_0: return as(split_all<Block::kQ5_0>);
    case Block::kQ5_1: return as(split_all<Block::kQ5_1>);
    case Block::kQ8_0: return as(split_all<Block::kQ8_0>);
    case Block::kQ2K: return as(split_all<Block::kQ2K>);
    case Block::kQ3K: return as(split_all<Block::kQ3K>);
    case Block::kQ4K: return as(split_all<Block::kQ4K>);
    case Block::kQ5K: return as(split_all<Block::kQ5K>);
    case Block::kQ6K: return as(split_all<Block::kQ6K>);
    case Block::kIQ4XS: return as(split_all<Block::kIQ4XS>);
    case Block::kTQ2_0: return as(split_all<Block::kTQ2_0>);
    case Block::kMXFP4: return as(split_all<Block::kMXFP4>);
    case Block::kNVFP4: return as(split_all<Block::kNVFP4>);
  }
}

// --- classes of scales --------------------------------------------------------------------------------------

// The bits of x as a float are, but for the bias, its logarithm with a straight line between the octaves.
inline std::int32_t log1024(uint8_t x) {
  const float number = x;
  std::int32_t bits;
  std::memcpy(&bits, &number, 4);
  const std::int32_t log = (bits >> 13) - (126 << 10);
  return log < 0 ? 0 : log;
}

template <size_t kLanes>
void lane_logs(const uint16_t* numbers, const uint8_t* __restrict integers, size_t n, uint16_t* __restrict out) {
  for (size_t i = 0; i < n; ++i) {
    const std::int32_t number = numbers[i] & 0x7fff;
    for (size_t j = 0; j < kLanes; ++j) {
      out[kLanes * i + j] = static_cast<uint16_t>(number + log1024(integers[kLanes * i + j]));
    }
  }
}

void logs(const uint16_t* numbers, const uint8_t* integers, size_t n, size_t lanes, uint16_t* out) noexcept {
  if (lanes == 8) {
    lane_logs<8>(numbers, integers, n, out);
  } else {
    lane_logs<16>(numbers, integers, n, out);
  }
}

void index(const uint16_t* a, const uint16_t* b, std::int32_t add, unsigned shift, uint8_t most, size_t n,
           uint8_t* __restrict out) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const std::int32_t value = (a[i] - b[i] + add) >> shift;
    const std::int32_t low = value < 0 ? 0 : value;
    out[i] = byte(static_cast<unsigned>(low > most ? most : low));
  }
}
