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
  for (size_t j = 0; j < 4; ++j) {
    scales[j] = packed[j] & 63;
    mins[j] = packed[j + 4] & 63;
    scales[j + 4] = byte((packed[j + 8] & 15u) | packed[j] >> 6 << 4);
    mins[j + 4] = byte(packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4);
  }
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

inline void split_q5_bits(const uint8_t* mask, uint8_t* __restrict codes) {
  const uint32_t bits = load32(mask);
  for (size_t l = 0; l < 32; ++l) codes[l] = byte(codes[l] | (bits >> l & 1u) << 4);
}

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

void split_block(Block type, const uint8_t* b, size_t i, const BlockScales& s, uint8_t* __restrict codes) {
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
      split_planes<16, 4, 2>(b + 6, codes);
      return split_q5_bits(b + 2, codes);
    case Block::kQ5_1:
      number(0, 0);
      number(1, 2);
      split_planes<16, 4, 2>(b + 8, codes);
      return split_q5_bits(b + 4, codes);
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

void split(const BlockShape& shape, const uint8_t* blocks, size_t n, const BlockScales& scales,
           uint8_t* codes) noexcept {
  for (size_t i = 0; i < n; ++i) {
    split_block(shape.type, blocks + i * shape.size, i, scales, codes + i * shape.codes);
  }
}

// --- merging ------------------------------------------------------------------------------------------------

// Codes of one lane in place, without a branch on where they are: element e of 32 is a half of byte e mod 16 of
// `qs`, and with kBits = 5 bit e of `mask` too.
template <unsigned kBits>
struct Lane32 {
  uint8_t* qs;
  uint32_t mask;

  unsigned get(unsigned e) const {
    return (qs[e % 16] >> e / 16 * 4 & 15u) | (kBits == 5 ? (mask >> e & 1u) << 4 : 0u);
  }
  void set(unsigned e, unsigned code) {
    const unsigned shift = e / 16 * 4;
    qs[e % 16] = byte((qs[e % 16] & ~(15u << shift)) | (code & 15u) << shift);
    if (kBits == 5) mask = (mask & ~(1u << e)) | code >> 4 << e;
  }
};

// Undoes the exchange of the extrema with the last elements, which hold nothing yet.
template <unsigned kBits, unsigned kExtrema>
inline bool put_extrema(Lane32<kBits>& lane, unsigned position, unsigned low, unsigned high) {
  const unsigned first = position & 31, second = position >> 5;
  if (kExtrema == 2) {
    lane.set(30, lane.get(second));
    lane.set(second, high);
  }
  lane.set(31, lane.get(first));
  lane.set(first, low);
  return kExtrema == 1 || second != 31;
}

// Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4: `kScale` bytes of scales, a mask with kBits = 5, then the nibbles.
template <unsigned kBits, unsigned kExtrema, unsigned kNeutral, size_t kScale>
bool merge_legacy(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  constexpr size_t kMask = kBits == 5 ? 4 : 0, kSize = kScale + kMask + 16;
  bool ok = true;
  for (size_t i = 0; i < n; ++i, b += kSize) {
    if (kScale == 1) b[0] = s.scales[i];
    if (kScale >= 2) store16(b, s.numbers[0][i]);
    if (kScale >= 4) store16(b + 2, s.numbers[1][i]);
    uint8_t* qs = b + kScale + kMask;
    std::memcpy(qs, c.records + 16 * i, 16);
    if (kBits == 5) std::memcpy(b + kScale, c.highs + 4 * i, 4);
    if (kExtrema == 0 || c.positions == nullptr) continue;
    Lane32<kBits> lane{qs, kBits == 5 ? load32(c.highs + 4 * i) : 0u};
    const bool zero = (s.numbers[0][i] & 0x7fff) == 0;
    const unsigned low = zero ? kNeutral : 0, high = zero ? 0 : (1u << kBits) - 1;
    const unsigned position = get_bits(c.positions, 5 * kExtrema * i, 5 * kExtrema);
    ok &= put_extrema<kBits, kExtrema>(lane, position, low, high);
    if (kBits == 5) store32(b + kScale, lane.mask);
  }
  return ok;
}

void merge_q8_0(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  for (size_t i = 0; i < n; ++i, b += 34) {
    store16(b, s.numbers[0][i]);
    const uint8_t *record = c.records + 16 * i, *low = c.low + 16 * i;
    uint8_t* q = b + 2;
    const Bytes16 high = load(record), bits = load(low);
    store(q, (high << 4 | (bits & 15)) ^ 0x80);
    store(q + 16, ((high & 0xf0) | bits >> 4) ^ 0x80);
    if (c.positions == nullptr) continue;
    const unsigned more = c.positions[i / 4] >> i % 4 * 2 & 3u;
    const unsigned position = low[15] >> 4 | (more & 1u) << 4;
    const bool zero = (s.numbers[0][i] & 0x7fff) == 0;
    q[31] = q[position];
    q[position] = zero ? byte(0) : more & 2u ? byte(0x81) : byte(0x7f);
  }
}

// 64 weights of Q4_K and Q5_K: two lanes of 32, one in the low, one in the high halves of 32 bytes.
inline void merge_pair(const uint8_t* a, const uint8_t* b, uint8_t* qs) {
  const Bytes16 low = load(a), high = load(b);
  store(qs, (low & 15) | high << 4);
  store(qs + 16, low >> 4 | (high & 0xf0));
}

template <bool kFive>
void merge_q45k(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  constexpr size_t kQs = kFive ? 48 : 16, kSize = kQs + 128;
  for (size_t i = 0; i < n; ++i, b += kSize) {
    store16(b, s.numbers[0][i]);
    store16(b + 2, s.numbers[1][i]);
    merge_scales6(s.scales + 8 * i, s.mins + 8 * i, b + 4);
    const uint8_t* records = c.records + 128 * i;
    for (size_t p = 0; p < 4; ++p) merge_pair(records + 32 * p, records + 32 * p + 16, b + kQs + 32 * p);
    if (!kFive) continue;
    const uint8_t* highs = c.highs + 32 * i;
    for (size_t k = 0; k < 4; ++k) {
      uint64_t rows = 0;
      for (size_t p = 0; p < 8; ++p) rows |= uint64_t{highs[4 * p + k]} << 8 * p;
      rows = transpose8(rows);
      std::memcpy(b + 16 + 8 * k, &rows, 8);
    }
  }
}

// A lane of Q6_K: 16 codes of which the low 3 bits of the record are bits 1 to 3, its top bit and `high` bits 4
// and 5, and `low` bit 0.
inline void expand_q6k(const uint8_t* record, const uint8_t* high, const uint8_t* low, uint8_t* codes) {
  const Bytes16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const Bytes16 top = reinterpret_cast<Bytes16>((spread(high) & bit) != 0);
  const Bytes16 lowest = reinterpret_cast<Bytes16>((spread(low) & bit) != 0);
  store(codes, nibbles16(record) << 1 | (top & 32) | (lowest & 1));
}

void merge_q6k(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  uint8_t codes[256];
  for (size_t i = 0; i < n; ++i, b += 210) {
    for (size_t lane = 0; lane < 16; ++lane) {
      const size_t at = 16 * i + lane;
      expand_q6k(c.records + 8 * at, c.highs + 2 * at, c.low + 2 * at, codes + 16 * lane);
    }
    for (size_t h = 0; h < 2; ++h) {
      const uint8_t* in = codes + 128 * h;
      for (size_t l = 0; l < 32; l += 16) {
        const Bytes16 p0 = load(in + l), p1 = load(in + 32 + l), p2 = load(in + 64 + l), p3 = load(in + 96 + l);
        store(b + 64 * h + l, (p0 & 15) | p2 << 4);
        store(b + 64 * h + 32 + l, (p1 & 15) | p3 << 4);
        store(b + 128 + 32 * h + l, p0 >> 4 | (p1 >> 4) << 2 | (p2 >> 4) << 4 | (p3 >> 4) << 6);
      }
    }
    std::memcpy(b + 192, s.scales + 16 * i, 16);
    store16(b + 208, s.numbers[0][i]);
  }
}

// Four planes of 32 codes of 2 bits.
inline void merge_planes2(const uint8_t* codes, uint8_t* qs) {
  for (size_t l = 0; l < 32; l += 16) {
    const Bytes16 low = (load(codes + l) & 3) | (load(codes + 32 + l) & 3) << 2;
    store(qs + l, low | (load(codes + 64 + l) & 3) << 4 | (load(codes + 96 + l) & 3) << 6);
  }
}

void merge_q2k(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  uint8_t codes[256];
  for (size_t i = 0; i < n; ++i, b += 84) {
    for (size_t lane = 0; lane < 16; ++lane) store(codes + 16 * lane, nibbles16(c.records + 8 * (16 * i + lane)));
    std::memcpy(b, s.scales + 16 * i, 16);
    for (size_t h = 0; h < 2; ++h) merge_planes2(codes + 128 * h, b + 16 + 32 * h);
    store16(b + 80, s.numbers[0][i]);
    store16(b + 82, s.numbers[1][i]);
  }
}

void merge_q3k(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  uint8_t codes[256];
  for (size_t i = 0; i < n; ++i, b += 110) {
    for (size_t lane = 0; lane < 16; ++lane) store(codes + 16 * lane, nibbles16(c.records + 8 * (16 * i + lane)));
    for (size_t l = 0; l < 32; l += 16) {
      Bytes16 mask = {};
      for (size_t p = 0; p < 8; ++p) mask |= (load(codes + 32 * p + l) >> 2 & 1) << static_cast<uint8_t>(p);
      store(b + l, mask);
    }
    for (size_t h = 0; h < 2; ++h) merge_planes2(codes + 128 * h, b + 32 + 32 * h);
    merge_scales3(s.scales + 16 * i, b + 96);
    store16(b + 108, s.numbers[0][i]);
  }
}

void merge_tq2_0(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  uint8_t codes[256];
  for (size_t i = 0; i < n; ++i, b += 66) {
    for (size_t lane = 0; lane < 8; ++lane) expand32(c.records + 16 * (8 * i + lane), codes + 32 * lane);
    for (size_t h = 0; h < 2; ++h) merge_planes2(codes + 128 * h, b + 32 * h);
    store16(b + 64, s.numbers[0][i]);
  }
}

void merge_iq4_xs(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  for (size_t i = 0; i < n; ++i, b += 136) {
    store16(b, s.numbers[0][i]);
    merge_scales4xs(s.scales + 8 * i, b);
    std::memcpy(b + 8, c.records + 128 * i, 128);
  }
}

void merge_nvfp4(const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) {
  for (size_t i = 0; i < n; ++i, b += 36) {
    std::memcpy(b, s.scales + 4 * i, 4);
    std::memcpy(b + 4, c.records + 32 * i, 32);
  }
}

bool merge(Block type, const BlockScales& s, const BlockCodes& c, size_t n, uint8_t* b) noexcept {
  switch (type) {
    case Block::kQ4_0: return merge_legacy<4, 1, 8, 2>(s, c, n, b);
    case Block::kQ4_1: return merge_legacy<4, 2, 0, 4>(s, c, n, b);
    case Block::kQ5_0: return merge_legacy<5, 1, 16, 2>(s, c, n, b);
    case Block::kQ5_1: return merge_legacy<5, 2, 0, 4>(s, c, n, b);
    case Block::kIQ4NL: return merge_legacy<4, 0, 0, 2>(s, c, n, b);
    case Block::kMXFP4: return merge_legacy<4, 0, 0, 1>(s, c, n, b);
    case Block::kQ8_0: return merge_q8_0(s, c, n, b), true;
    case Block::kQ2K: return merge_q2k(s, c, n, b), true;
    case Block::kQ3K: return merge_q3k(s, c, n, b), true;
    case Block::kQ4K: return merge_q45k<false>(s, c, n, b), true;
    case Block::kQ5K: return merge_q45k<true>(s, c, n, b), true;
    case Block::kQ6K: return merge_q6k(s, c, n, b), true;
    case Block::kIQ4XS: return merge_iq4_xs(s, c, n, b), true;
    case Block::kTQ2_0: return merge_tq2_0(s, c, n, b), true;
    case Block::kNVFP4: return merge_nvfp4(s, c, n, b), true;
  }
  return false;
}

void split_low(unsigned bits, size_t elements, size_t lanes, uint8_t* codes, uint8_t* low) noexcept {
  for (size_t lane = 0; lane < lanes; ++lane, codes += elements) {
    if (bits == 4) {
      const Bytes16 first = load(codes), second = load(codes + 16);
      store(low, (first & 15) | second << 4);
      store(codes, first >> 4);
      store(codes + 16, second >> 4);
      low += 16;
      continue;
    }
    for (size_t i = 0; i < elements; i += 16) {
      const Bytes16 all = load(codes + i);
      const Words2 odd = reinterpret_cast<Words2>(all & 1);
      for (size_t k = 0; k < 2; ++k) *low++ = byte(static_cast<unsigned>(odd[k] * 0x0102040810204080ull >> 56));
      store(codes + i, all >> 1);
    }
  }
}

// --- classes of scales --------------------------------------------------------------------------------------

void index(const uint16_t* a, const uint16_t* b, std::int32_t add, unsigned shift, uint8_t most, size_t n,
           uint8_t* __restrict out) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const std::int32_t value = (a[i] - b[i] + add) >> shift;
    const std::int32_t low = value < 0 ? 0 : value;
    out[i] = byte(static_cast<unsigned>(low > most ? most : low));
  }
}
