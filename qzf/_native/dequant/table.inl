// The table of an instruction set; after blocks.inl, codebooks.inl and narrow_half, which rounds float32 to
// float16.

inline void narrow_bfloat(const Floats* __restrict in, size_t n, uint8_t* __restrict out) {
  for (size_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, in + i, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    const uint16_t kept = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
    std::memcpy(out + 2 * i, &kept, sizeof kept);
  }
}

inline Floats* floats(void* at) { return static_cast<Floats*>(at); }

using Narrow = void (*)(const Floats* in, size_t n, uint8_t* out);

template <class Type>
void to_float32(const uint8_t* blocks, size_t n, uint8_t* out) noexcept {
  for (size_t i = 0; i < n; ++i)
    Type::decode(blocks + i * Type::kBytes, floats(out) + i * Type::kWeights);
}

template <class Type, Narrow narrow>
void to_16_bits(const uint8_t* blocks, size_t n, uint8_t* out) noexcept {
  alignas(64) float tile[Type::kWeights];
  for (size_t i = 0; i < n; ++i) {
    Type::decode(blocks + i * Type::kBytes, floats(tile));
    narrow(floats(tile), Type::kWeights, out + i * Type::kWeights * 2);
  }
}

// Types without blocks.
template <size_t Width>
void same(const uint8_t* in, size_t n, uint8_t* out) noexcept {
  if (n != 0) std::memcpy(out, in, n * Width);
}

template <Narrow narrow>
void narrow_floats(const uint8_t* in, size_t n, uint8_t* out) noexcept {
  narrow(reinterpret_cast<const Floats*>(in), n, out);
}

void widen_bfloats(const uint8_t* __restrict in, size_t n, uint8_t* __restrict out) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(load16(in + 2 * i)) << 16;
    std::memcpy(out + 4 * i, &bits, sizeof bits);
  }
}

void widen_halves(const uint8_t* __restrict in, size_t n, uint8_t* __restrict out) noexcept {
  for (size_t i = 0; i < n; ++i) floats(out)[i] = load_half(in + 2 * i);
}

template <Dequantize widen, Narrow narrow>
void through_float32(const uint8_t* in, size_t n, uint8_t* out) noexcept {
  alignas(64) uint8_t tile[4 * 256];
  for (size_t at = 0; at < n; at += 256) {
    const size_t some = n - at < 256 ? n - at : 256;
    widen(in + 2 * at, some, tile);
    narrow(floats(tile), some, out + 2 * at);
  }
}

template <class Type>
constexpr DequantType blocks(const char* name) {
  return {name, Type::kWeights, Type::kBytes, to_float32<Type>, to_16_bits<Type, narrow_half>,
          to_16_bits<Type, narrow_bfloat>};
}

constexpr DequantType kTypes[] = {
    {"F32", 1, 4, same<4>, narrow_floats<narrow_half>, narrow_floats<narrow_bfloat>},
    {"F16", 1, 2, widen_halves, same<2>, through_float32<widen_halves, narrow_bfloat>},
    {"BF16", 1, 2, widen_bfloats, through_float32<widen_bfloats, narrow_half>, same<2>},
    blocks<Q4_0>("Q4_0"),
    blocks<Q4_1>("Q4_1"),
    blocks<Q5_0>("Q5_0"),
    blocks<Q5_1>("Q5_1"),
    blocks<Q8_0>("Q8_0"),
    blocks<Q2_K>("Q2_K"),
    blocks<Q3_K>("Q3_K"),
    blocks<Q4_K>("Q4_K"),
    blocks<Q5_K>("Q5_K"),
    blocks<Q6_K>("Q6_K"),
    blocks<IQ1_S>("IQ1_S"),
    blocks<IQ1_M>("IQ1_M"),
    blocks<IQ2_XXS>("IQ2_XXS"),
    blocks<IQ2_XS>("IQ2_XS"),
    blocks<IQ2_S>("IQ2_S"),
    blocks<IQ3_XXS>("IQ3_XXS"),
    blocks<IQ3_S>("IQ3_S"),
    blocks<IQ4_NL>("IQ4_NL"),
    blocks<IQ4_XS>("IQ4_XS"),
    blocks<TQ1_0>("TQ1_0"),
    blocks<TQ2_0>("TQ2_0"),
    blocks<MXFP4>("MXFP4"),
    blocks<NVFP4>("NVFP4"),
};
