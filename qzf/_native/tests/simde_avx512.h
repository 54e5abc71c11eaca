// AVX-512 for a machine without it: SIMDe, and in plain C++ the few intrinsics that SIMDe 0.8 lacks. For the
// test program alone.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <cstdint>
#include <cstring>

namespace {

template <class Vector>
Vector load_lanes(unsigned long long lanes, const void* p) {
  std::uint8_t bytes[sizeof(Vector)] = {};
  for (std::size_t i = 0; i < sizeof bytes; ++i) {
    if (lanes >> i & 1) bytes[i] = static_cast<const std::uint8_t*>(p)[i];
  }
  Vector v;
  std::memcpy(&v, bytes, sizeof v);
  return v;
}

template <class Vector>
void store_lanes(void* p, unsigned long long lanes, Vector v) {
  std::uint8_t bytes[sizeof(Vector)];
  std::memcpy(bytes, &v, sizeof v);
  for (std::size_t i = 0; i < sizeof bytes; ++i) {
    if (lanes >> i & 1) static_cast<std::uint8_t*>(p)[i] = bytes[i];
  }
}

// Numbers of type From become numbers of type To; those that `to` has no room for are dropped, those that
// `from` does not fill become zero.
template <class From, class To, class ToVector, class FromVector>
ToVector convert(FromVector from) {
  From in[sizeof from / sizeof(From)];
  To out[sizeof(ToVector) / sizeof(To)] = {};
  std::memcpy(in, &from, sizeof from);
  for (std::size_t i = 0; i < sizeof in / sizeof *in && i < sizeof out / sizeof *out; ++i) {
    out[i] = static_cast<To>(in[i]);
  }
  ToVector to;
  std::memcpy(&to, out, sizeof to);
  return to;
}

inline __m512i _mm512_maskz_loadu_epi8(__mmask64 k, const void* p) { return load_lanes<__m512i>(k, p); }
inline __m256i _mm256_maskz_loadu_epi8(__mmask32 k, const void* p) { return load_lanes<__m256i>(k, p); }
inline __m128i _mm_maskz_loadu_epi8(__mmask16 k, const void* p) { return load_lanes<__m128i>(k, p); }
inline void _mm512_mask_storeu_epi8(void* p, __mmask64 k, __m512i v) { store_lanes(p, k, v); }
inline void _mm256_mask_storeu_epi8(void* p, __mmask32 k, __m256i v) { store_lanes(p, k, v); }
inline void _mm_mask_storeu_epi8(void* p, __mmask16 k, __m128i v) { store_lanes(p, k, v); }

inline __m512i _mm512_cvtepu8_epi16(__m256i v) { return convert<std::uint8_t, std::uint16_t, __m512i>(v); }
inline __m512i _mm512_cvtepu8_epi32(__m128i v) { return convert<std::uint8_t, std::uint32_t, __m512i>(v); }
inline __m512i _mm512_cvtepu8_epi64(__m128i v) { return convert<std::uint8_t, std::uint64_t, __m512i>(v); }
inline __m128i _mm512_cvtepi32_epi8(__m512i v) { return convert<std::uint32_t, std::uint8_t, __m128i>(v); }
inline __m128i _mm512_cvtepi64_epi8(__m512i v) { return convert<std::uint64_t, std::uint8_t, __m128i>(v); }

// Those of `bytes` whose bit in k is set, together at the start; or the first bytes apart, to the places of
// k.
inline __m512i _mm512_maskz_compress_epi8(__mmask64 k, __m512i bytes) {
  std::uint8_t in[64], out[64] = {};
  std::memcpy(in, &bytes, sizeof in);
  std::size_t n = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    if (k >> i & 1) out[n++] = in[i];
  }
  return load_lanes<__m512i>(~0ull, out);
}
inline __m512i _mm512_mask_expand_epi8(__m512i src, __mmask64 k, __m512i bytes) {
  std::uint8_t in[64], out[64];
  std::memcpy(in, &bytes, sizeof in);
  std::memcpy(out, &src, sizeof out);
  std::size_t n = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    if (k >> i & 1) out[i] = in[n++];
  }
  return load_lanes<__m512i>(~0ull, out);
}

inline __m512i _mm512_mask_sub_epi16(__m512i src, __mmask32 k, __m512i a, __m512i b) {
  return _mm512_mask_mov_epi16(src, k, _mm512_sub_epi16(a, b));
}
inline __m512i _mm512_mulhi_epu16(__m512i a, __m512i b) {
  std::uint16_t x[32], y[32];
  std::memcpy(x, &a, sizeof x);
  std::memcpy(y, &b, sizeof y);
  for (std::size_t i = 0; i < 32; ++i) x[i] = static_cast<std::uint16_t>(std::uint32_t{x[i]} * y[i] >> 16);
  return load_lanes<__m512i>(~0ull, x);
}

using __mmask8 = std::uint8_t;

inline __mmask8 _mm256_cmplt_epu32_mask(__m256i a, __m256i b) {
  std::uint32_t x[8], y[8];
  std::memcpy(x, &a, sizeof a);
  std::memcpy(y, &b, sizeof b);
  unsigned k = 0;
  for (unsigned i = 0; i < 8; ++i) k |= unsigned{x[i] < y[i]} << i;
  return static_cast<__mmask8>(k);
}
inline __m256i _mm256_maskz_slli_epi32(__mmask8 k, __m256i v, unsigned bits) {
  return _mm256_maskz_mov_epi32(k, _mm256_slli_epi32(v, static_cast<int>(bits)));
}
inline int _mm_popcnt_u32(std::uint32_t x) { return __builtin_popcount(x); }
inline long long _mm_popcnt_u64(std::uint64_t x) { return __builtin_popcountll(x); }
inline __m256i _mm512_cvtepi32_epi16(__m512i v) { return convert<std::uint32_t, std::uint16_t, __m256i>(v); }

}  // namespace
