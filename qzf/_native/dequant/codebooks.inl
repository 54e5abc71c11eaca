// Blocks of the types with codebooks to float32; after blocks.inl.

// Negates the bytes of a point whose byte of `mask` is 0xff; none of them is zero, so none carries.
inline uint64_t negate(uint64_t point, uint64_t mask) {
  return (point ^ mask) + (mask & 0x0101010101010101u);
}

// d (1/2 + s) / 4 or / 2, rounded as gguf does.
inline float half_odd(float d, unsigned s, float factor) { return d * (0.5F + static_cast<float>(s)) * factor; }

struct IQ2_XXS {
  static constexpr size_t kWeights = 256, kBytes = 66;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const DequantGrids& grids = dequant_grids();
    const float d = load_half(b);
    for (size_t k = 0; k < 8; ++k) {
      const uint8_t* index = b + 2 + 8 * k;
      const uint32_t word = load32(index + 4);
      uint64_t points[4];
      for (size_t i = 0; i < 4; ++i)
        points[i] = negate(grids.iq2_xxs[index[i]], grids.masks[grids.signs[word >> 7 * i & 127]]);
      int8_t codes[32];
      std::memcpy(codes, points, sizeof codes);
      scale<32>(codes, half_odd(d, word >> 28, 0.25F), out + 32 * k);
    }
  }
};

struct IQ2_XS {
  static constexpr size_t kWeights = 256, kBytes = 74;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const DequantGrids& grids = dequant_grids();
    const float d = load_half(b);
    for (size_t k = 0; k < 16; ++k) {
      uint64_t points[2];
      for (size_t i = 0; i < 2; ++i) {
        const unsigned word = load16(b + 2 + 4 * k + 2 * i);
        points[i] = negate(grids.iq2_xs[word & 511], grids.masks[grids.signs[word >> 9]]);
      }
      int8_t codes[16];
      std::memcpy(codes, points, sizeof codes);
      scale<16>(codes, half_odd(d, b[66 + k / 2] >> k % 2 * 4 & 15, 0.25F), out + 16 * k);
    }
  }
};

struct IQ2_S {
  static constexpr size_t kWeights = 256, kBytes = 82;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const DequantGrids& grids = dequant_grids();
    const uint8_t *index = b + 2, *signs = b + 34, *high = b + 66;
    const float d = load_half(b);
    for (size_t k = 0; k < 16; ++k) {
      uint64_t points[2];
      for (size_t i = 0; i < 2; ++i) {
        const size_t at = 2 * k + i;
        const unsigned top = high[at / 4] >> at % 4 * 2 & 3;
        points[i] = negate(grids.iq2_s[index[at] | top << 8], grids.masks[signs[at]]);
      }
      int8_t codes[16];
      std::memcpy(codes, points, sizeof codes);
      scale<16>(codes, half_odd(d, b[74 + k / 2] >> k % 2 * 4 & 15, 0.25F), out + 16 * k);
    }
  }
};

// Two points of four make one of eight.
inline uint64_t pair(uint32_t first, uint32_t second) { return first | static_cast<uint64_t>(second) << 32; }

struct IQ3_XXS {
  static constexpr size_t kWeights = 256, kBytes = 98;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const DequantGrids& grids = dequant_grids();
    const float d = load_half(b);
    for (size_t k = 0; k < 8; ++k) {
      const uint8_t* index = b + 2 + 8 * k;
      const uint32_t word = load32(b + 66 + 4 * k);
      uint64_t points[4];
      for (size_t i = 0; i < 4; ++i) {
        const uint64_t point = pair(grids.iq3_xxs[index[2 * i]], grids.iq3_xxs[index[2 * i + 1]]);
        points[i] = negate(point, grids.masks[grids.signs[word >> 7 * i & 127]]);
      }
      int8_t codes[32];
      std::memcpy(codes, points, sizeof codes);
      scale<32>(codes, half_odd(d, word >> 28, 0.5F), out + 32 * k);
    }
  }
};

struct IQ3_S {
  static constexpr size_t kWeights = 256, kBytes = 110;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const DequantGrids& grids = dequant_grids();
    const float d = load_half(b);
    for (size_t k = 0; k < 8; ++k) {
      const uint8_t *index = b + 2 + 8 * k, *signs = b + 74 + 4 * k;
      const unsigned high = b[66 + k], s = b[106 + k / 2] >> k % 2 * 4 & 15;
      const auto point = [&](size_t i) { return grids.iq3_s[index[i] | (high >> i & 1) << 8]; };
      uint64_t points[4];
      for (size_t i = 0; i < 4; ++i)
        points[i] = negate(pair(point(2 * i), point(2 * i + 1)), grids.masks[signs[i]]);
      int8_t codes[32];
      std::memcpy(codes, points, sizeof codes);
      scale<32>(codes, d * static_cast<float>(1 + 2 * s), out + 32 * k);
    }
  }
};

// A point of IQ1, moved by 1/8 up or down.
inline void shifted(uint64_t point, bool down, float d, Floats* __restrict out) {
  const float delta = down ? -0.125F : 0.125F;
  int8_t codes[8];
  std::memcpy(codes, &point, sizeof codes);
  for (size_t i = 0; i < 8; ++i) out[i] = d * (static_cast<float>(codes[i]) + delta);
}

struct IQ1_S {
  static constexpr size_t kWeights = 256, kBytes = 50;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const DequantGrids& grids = dequant_grids();
    const float d = load_half(b);
    for (size_t k = 0; k < 8; ++k) {
      const unsigned high = load16(b + 34 + 2 * k);
      const float scaled = d * static_cast<float>(2 * (high >> 12 & 7) + 1);
      for (size_t i = 0; i < 4; ++i) {
        const unsigned index = b[2 + 4 * k + i] | (high >> 3 * i & 7) << 8;
        shifted(grids.iq1[index], high >> 15 != 0, scaled, out + 32 * k + 8 * i);
      }
    }
  }
};

struct IQ1_M {
  static constexpr size_t kWeights = 256, kBytes = 56;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const DequantGrids& grids = dequant_grids();
    const uint8_t* s = b + 48;
    // The fp16 scale lies in the top 4 bits of the 4 words of scales.
    const float d = half_to_float(static_cast<uint16_t>(
        load16(s) >> 12 | (load16(s + 2) >> 12) << 4 | (load16(s + 4) >> 12) << 8 | (load16(s + 6) >> 12) << 12));
    for (size_t k = 0; k < 16; ++k) {
      const float scaled = d * static_cast<float>(2 * (load16(s + k / 4 * 2) >> k % 4 * 3 & 7) + 1);
      for (size_t i = 0; i < 2; ++i) {
        const unsigned high = b[32 + k] >> 4 * i & 15, index = b[2 * k + i] | (high & 7) << 8;
        shifted(grids.iq1[index], (high & 8) != 0, scaled, out + 16 * k + 8 * i);
      }
    }
  }
};
