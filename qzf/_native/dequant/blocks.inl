// Blocks of each type to float32, for compilers to vectorize. Included by a file for each instruction set,
// which has before it: half_to_float, look_up16.
//
// Fields of blocks: qzf/quant. What they mean, and the order of operations: the dequantize_blocks methods of
// gguf/quants.py, from whose results those of no type differ in a bit.

// Floats at any address.
typedef float Floats __attribute__((aligned(1), may_alias));

inline uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
inline uint32_t load32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
inline float load_half(const uint8_t* p) { return half_to_float(load16(p)); }

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <size_t N>
inline void scale(const int8_t* __restrict codes, float d, Floats* __restrict out) {
  for (size_t i = 0; i < N; ++i) out[i] = d * static_cast<float>(codes[i]);
}

// --- 32 weights under one scale -----------------------------------------------------------------------

struct Q4_0 {
  static constexpr size_t kWeights = 32, kBytes = 18;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b);
    for (size_t i = 0; i < 16; ++i) out[i] = d * static_cast<float>((b[2 + i] & 15) - 8);
    for (size_t i = 0; i < 16; ++i) out[16 + i] = d * static_cast<float>((b[2 + i] >> 4) - 8);
  }
};

struct Q4_1 {
  static constexpr size_t kWeights = 32, kBytes = 20;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b), m = load_half(b + 2);
    for (size_t i = 0; i < 16; ++i) out[i] = d * static_cast<float>(b[4 + i] & 15) + m;
    for (size_t i = 0; i < 16; ++i) out[16 + i] = d * static_cast<float>(b[4 + i] >> 4) + m;
  }
};

// Codes of 5 bits, the fifth ones in a word.
inline void codes5(const uint8_t* __restrict high, const uint8_t* __restrict low, uint8_t* __restrict codes) {
  const uint32_t bits = load32(high);
  for (uint32_t i = 0; i < 16; ++i) codes[i] = static_cast<uint8_t>((low[i] & 15) | (bits >> i & 1) << 4);
  for (uint32_t i = 0; i < 16; ++i)
    codes[16 + i] = static_cast<uint8_t>(low[i] >> 4 | (bits >> (16 + i) & 1) << 4);
}

struct Q5_0 {
  static constexpr size_t kWeights = 32, kBytes = 22;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b);
    uint8_t codes[32];
    codes5(b + 2, b + 6, codes);
    for (size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(codes[i] - 16);
  }
};

struct Q5_1 {
  static constexpr size_t kWeights = 32, kBytes = 24;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b), m = load_half(b + 2);
    uint8_t codes[32];
    codes5(b + 4, b + 8, codes);
    for (size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(codes[i]) + m;
  }
};

struct Q8_0 {
  static constexpr size_t kWeights = 32, kBytes = 34;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b);
    for (size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(b[2 + i]));
  }
};

// --- superblocks of 256 weights -----------------------------------------------------------------------

struct Q2_K {
  static constexpr size_t kWeights = 256, kBytes = 84;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const uint8_t* q = b + 16;
    const float d = load_half(b + 80), dmin = load_half(b + 82);
    float ds[16], ms[16];
    for (size_t k = 0; k < 16; ++k) {
      ds[k] = d * static_cast<float>(b[k] & 15);
      ms[k] = dmin * static_cast<float>(b[k] >> 4);
    }
    for (size_t k = 0; k < 16; ++k) {
      const uint8_t* __restrict from = q + k / 8 * 32 + k % 2 * 16;
      const unsigned shift = k / 2 % 4 * 2;
      for (size_t i = 0; i < 16; ++i)
        out[16 * k + i] = ds[k] * static_cast<float>(from[i] >> shift & 3) - ms[k];
    }
  }
};

struct Q3_K {
  static constexpr size_t kWeights = 256, kBytes = 110;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const uint8_t *mask = b, *q = b + 32, *s = b + 96;
    const float d = load_half(b + 108);
    float ds[16];
    for (size_t k = 0; k < 16; ++k) {
      const int low = s[k % 8] >> k / 8 * 4 & 15, high = s[8 + k % 4] >> k / 4 * 2 & 3;
      ds[k] = d * static_cast<float>((low | high << 4) - 32);
    }
    for (size_t k = 0; k < 16; ++k) {
      const uint8_t* __restrict from = q + k / 8 * 32 + k % 2 * 16;
      const uint8_t* __restrict third = mask + k % 2 * 16;
      const unsigned shift = k / 2 % 4 * 2, bit = k / 2;
      for (size_t i = 0; i < 16; ++i) {
        const int code = (from[i] >> shift & 3) + (third[i] >> bit & 1) * 4 - 4;
        out[16 * k + i] = ds[k] * static_cast<float>(code);
      }
    }
  }
};

// Scales and minima of 6 bits, each times its factor.
inline void scales6(const uint8_t* __restrict b, float* __restrict ds, float* __restrict ms) {
  const float d = load_half(b), dmin = load_half(b + 2);
  const uint8_t* s = b + 4;
  for (size_t k = 0; k < 4; ++k) {
    ds[k] = d * static_cast<float>(s[k] & 63);
    ms[k] = dmin * static_cast<float>(s[4 + k] & 63);
    ds[4 + k] = d * static_cast<float>((s[8 + k] & 15) | (s[k] >> 2 & 48));
    ms[4 + k] = dmin * static_cast<float>(s[8 + k] >> 4 | (s[4 + k] >> 2 & 48));
  }
}

struct Q4_K {
  static constexpr size_t kWeights = 256, kBytes = 144;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    float ds[8], ms[8];
    scales6(b, ds, ms);
    for (size_t k = 0; k < 8; k += 2) {
      const uint8_t* __restrict q = b + 16 + 16 * k;
      Floats* __restrict low = out + 32 * k;
      Floats* __restrict high = low + 32;
      for (size_t i = 0; i < 32; ++i) low[i] = ds[k] * static_cast<float>(q[i] & 15) - ms[k];
      for (size_t i = 0; i < 32; ++i) high[i] = ds[k + 1] * static_cast<float>(q[i] >> 4) - ms[k + 1];
    }
  }
};

struct Q5_K {
  static constexpr size_t kWeights = 256, kBytes = 176;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const uint8_t* __restrict fifth = b + 16;
    float ds[8], ms[8];
    scales6(b, ds, ms);
    for (unsigned k = 0; k < 8; ++k) {
      const uint8_t* __restrict q = b + 48 + k / 2 * 32;
      const unsigned shift = k % 2 * 4;
      for (size_t i = 0; i < 32; ++i) {
        const int code = (q[i] >> shift & 15) | (fifth[i] >> k & 1) << 4;
        out[32 * k + i] = ds[k] * static_cast<float>(code) - ms[k];
      }
    }
  }
};

struct Q6_K {
  static constexpr size_t kWeights = 256, kBytes = 210;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b + 208);
    float ds[16];
    for (size_t k = 0; k < 16; ++k) ds[k] = d * static_cast<float>(static_cast<int8_t>(b[192 + k]));
    for (size_t k = 0; k < 16; ++k) {
      const uint8_t* __restrict low = b + k / 8 * 64 + k % 4 * 16;
      const uint8_t* __restrict high = b + 128 + k / 8 * 32 + k % 2 * 16;
      const unsigned low_shift = k / 4 % 2 * 4, high_shift = k / 2 % 4 * 2;
      for (size_t i = 0; i < 16; ++i) {
        const int code = ((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32;
        out[16 * k + i] = ds[k] * static_cast<float>(code);
      }
    }
  }
};

struct TQ1_0 {
  static constexpr size_t kWeights = 256, kBytes = 54;
  // A byte times a power of 3, modulo 256, has the next digit in its top: 0, 1 or 2.
  template <size_t N>
  static void digits(const uint8_t* __restrict q, unsigned power, float d, Floats* __restrict out) {
    for (size_t i = 0; i < N; ++i)
      out[i] = d * static_cast<float>(static_cast<int>((q[i] * power & 255) * 3 >> 8) - 1);
  }
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b + 52);
    unsigned power = 1;
    for (size_t k = 0; k < 5; ++k, power *= 3) {
      digits<32>(b, power, d, out + 32 * k);
      digits<16>(b + 32, power, d, out + 160 + 16 * k);
      if (k < 4) digits<4>(b + 48, power, d, out + 240 + 4 * k);
    }
  }
};

struct TQ2_0 {
  static constexpr size_t kWeights = 256, kBytes = 66;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b + 64);
    for (size_t k = 0; k < 8; ++k) {
      const uint8_t* __restrict q = b + k / 4 * 32;
      const unsigned shift = k % 4 * 2;
      for (size_t i = 0; i < 32; ++i) out[32 * k + i] = d * static_cast<float>((q[i] >> shift & 3) - 1);
    }
  }
};

// --- 4-bit codes that are looked up -------------------------------------------------------------------

// E2M1 values, doubled: OCP Microscaling Formats (MX) Specification, 5.3.3.
alignas(16) constexpr int8_t kE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
// kvalues_iq4nl of ggml-common.h.
alignas(16) constexpr int8_t kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

struct MXFP4 {
  static constexpr size_t kWeights = 32, kBytes = 17;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    // Half of 2^(e - 127); below the normal numbers for e < 2.
    const uint32_t e = b[0];
    const float d = from_bits(e < 2 ? uint32_t{0x00200000} << e : (e - 1) << 23);
    int8_t codes[32];
    look_up16(kE2m1, b + 1, codes);
    scale<32>(codes, d, out);
  }
};

struct NVFP4 {
  static constexpr size_t kWeights = 64, kBytes = 36;
  // Half of an unsigned E4M3 number. The top bit is ignored, but where it is set 127 is no zero.
  static float half_e4m3(uint8_t x) {
    if (x == 0 || x == 127) return 0.0F;
    const uint32_t exponent = x >> 3 & 15, mantissa = x & 7;
    if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10F;
    return from_bits((exponent + 119) << 23 | mantissa << 20);
  }
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    int8_t codes[2][32];
    look_up16(kE2m1, b + 4, codes[0]);
    look_up16(kE2m1, b + 20, codes[1]);
    for (size_t k = 0; k < 4; ++k) {
      const float d = half_e4m3(b[k]);
      const int8_t* low = codes[k / 2] + k % 2 * 8;
      scale<8>(low, d, out + 16 * k);
      scale<8>(low + 16, d, out + 16 * k + 8);
    }
  }
};

struct IQ4_NL {
  static constexpr size_t kWeights = 32, kBytes = 18;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    int8_t codes[32];
    look_up16(kIq4, b + 2, codes);
    scale<32>(codes, load_half(b), out);
  }
};

struct IQ4_XS {
  static constexpr size_t kWeights = 256, kBytes = 136;
  static void decode(const uint8_t* __restrict b, Floats* __restrict out) {
    const float d = load_half(b);
    const unsigned high = load16(b + 2);
    for (size_t k = 0; k < 8; ++k) {
      const int low = b[4 + k / 2] >> k % 2 * 4 & 15;
      const float scaled = d * static_cast<float>((low | static_cast<int>(high >> 2 * k & 3) << 4) - 32);
      int8_t codes[32];
      look_up16(kIq4, b + 8 + 16 * k, codes);
      scale<32>(codes, scaled, out + 32 * k);
    }
  }
};
