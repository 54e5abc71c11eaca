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

__m512i _mm512_maskz_loadu_epi8(__mmask64 k, const void* p) { return load_lanes<__m512i>(k, p); }
__m256i _mm256_maskz_loadu_epi8(__mmask32 k, const void* p) { return load_lanes<__m256i>(k, p); }
__m128i _mm_maskz_loadu_epi8(__mmask16 k, const void* p) { return load_lanes<__m128i>(k, p); }
void _mm512_mask_storeu_epi8(void* p, __mmask64 k, __m512i v) { store_lanes(p, k, v); }
void _mm256_mask_storeu_epi8(void* p, __mmask32 k, __m256i v) { store_lanes(p, k, v); }
void _mm_mask_storeu_epi8(void* p, __mmask16 k, __m128i v) { store_lanes(p, k, v); }

__m512i _mm512_cvtepu8_epi16(__m256i v) { return convert<std::uint8_t, std::uint16_t, __m512i>(v); }
__m512i _mm512_cvtepu8_epi32(__m128i v) { return convert<std::uint8_t, std::uint32_t, __m512i>(v); }
__m512i _mm512_cvtepu8_epi64(__m128i v) { return convert<std::uint8_t, std::uint64_t, __m512i>(v); }
__m128i _mm512_cvtepi32_epi8(__m512i v) { return convert<std::uint32_t, std::uint8_t, __m128i>(v); }
__m128i _mm512_cvtepi64_epi8(__m512i v) { return convert<std::uint64_t, std::uint8_t, __m128i>(v); }

}  // namespace
