// The second half of blocks.inl: from fields and codes to blocks.

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
