// AVX-512 F, BW and VL. A row is four vectors of 8 lanes: what limits it is the time from a state to the
// next, which vectors of 16 lanes make longer.
#ifdef QZF_SIMDE  // the test program can emulate AVX-512
#include "tests/simde_avx512.h"
#else
#include <immintrin.h>
#endif

#include "kernels/rans.h"

#define QZF_INLINE inline __attribute__((always_inline))  // GCC merges steps that are alike, and calls them

namespace qzf {
namespace {

using std::ptrdiff_t;
using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr ptrdiff_t kRowBytes = 2 * static_cast<ptrdiff_t>(kRansLanes);  // the most that a row can take

__m256i fill(int number) { return _mm256_set1_epi32(number); }

// Loads one by one: faster than a gather on Zen 5.
__m128i pair(const uint32_t* table, uint64_t indices) {
  const __m128i low = _mm_cvtsi32_si128(static_cast<int>(table[static_cast<uint32_t>(indices)]));
  return _mm_insert_epi32(low, static_cast<int>(table[indices >> 32]), 1);
}
__m128i four(const uint32_t* table, __m128i indices) {
  const auto low = static_cast<uint64_t>(_mm_cvtsi128_si64(indices));
  const auto high = static_cast<uint64_t>(_mm_extract_epi64(indices, 1));
  return _mm_unpacklo_epi64(pair(table, low), pair(table, high));
}
__m256i look_up(const uint32_t* table, __m256i indices) {
  const __m128i low = four(table, _mm256_castsi256_si128(indices));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                 four(table, _mm256_extracti128_si256(indices, 1)), 1);
}

// Where words come from. kChecked: they may run out.
struct Words {
  const uint8_t* at;
  const uint8_t* end;

  template <bool kChecked>
  __m256i peek() const {
    if (!kChecked) return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    const ptrdiff_t bytes = end - at < 16 ? end - at : 16;
    const auto there = static_cast<__mmask16>((1u << bytes) - 1);
    return _mm256_cvtepu16_epi32(_mm_maskz_loadu_epi8(there, at));
  }
};

// Lanes 8 * kGroup to 8 * kGroup + 7 go from one state to the next. Their symbols are in the top bytes of
// `entry`. With kEach every lane has a context, and else `table` is the one of them all.
template <int kGroup, bool kEach, bool kChecked>
QZF_INLINE bool step(__m256i& state, Words& words, const uint32_t* table, const uint8_t* contexts,
                     __m256i& entry) {
  __m256i index = _mm256_and_si256(state, fill(kRansSlots - 1));
  if (kEach) {
    const __m128i context = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(contexts + 8 * kGroup));
    index = _mm256_or_si256(index, _mm256_slli_epi32(_mm256_cvtepu8_epi32(context), 12));
  }
  entry = look_up(table, index);
  const __m256i frequency = _mm256_and_si256(entry, fill(0xfff));
  const __m256i rank = _mm256_and_si256(_mm256_srli_epi32(entry, 12), fill(0xfff));
  const __m256i next = _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(state, 12)), rank);
  const __mmask8 refill = _mm256_cmplt_epu32_mask(next, fill(0x10000));
  const auto bytes = static_cast<ptrdiff_t>(2 * _mm_popcnt_u64(refill));
  if (kChecked && words.end - words.at < bytes) return false;
  const __m256i low = _mm256_mask_expand_epi32(next, refill, words.peek<kChecked>());
  state = _mm256_or_si256(low, _mm256_maskz_slli_epi32(refill, next, 16));
  words.at += bytes;
  return true;
}

void store_symbols(uint8_t* out, __m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i ab = _mm256_packus_epi32(_mm256_srli_epi32(a, 24), _mm256_srli_epi32(b, 24));
  const __m256i cd = _mm256_packus_epi32(_mm256_srli_epi32(c, 24), _mm256_srli_epi32(d, 24));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i symbols = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), symbols);
}

__m256i load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
void store(uint32_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }

// Rows of 32 symbols. `run` is how many rows have one context; with kEach it is not used.
struct Rows {
  const uint32_t* tables;
  const uint8_t* contexts;
  size_t run;
  uint8_t* out;
  size_t n;
};

// Decodes rows from `row` on while the words of a whole row are there, with kChecked while those of the row
// are. Returns the first row that it has not decoded.
template <bool kEach, bool kChecked>
size_t decode_rows(RansReader& reader, const Rows& rows, size_t row) {
  __m256i a = load(reader.state), b = load(reader.state + 8);
  __m256i c = load(reader.state + 16), d = load(reader.state + 24);
  Words words = {reader.at, reader.end};
  const uint32_t* table = rows.tables;
  const uint8_t* contexts = rows.contexts + (kEach ? row * kRansLanes : row / rows.run);
  size_t left = kEach ? 0 : rows.run - row % rows.run;
  if (!kEach && row < rows.n) table = rows.tables + size_t{*contexts} * kRansSlots;
  for (; row < rows.n && (kChecked || words.end - words.at >= kRowBytes); ++row) {
    if (!kEach && left-- == 0) {
      table = rows.tables + size_t{*++contexts} * kRansSlots;
      left = rows.run - 1;
    }
    __m256i entries[4];
    const bool ok = step<0, kEach, kChecked>(a, words, table, contexts, entries[0]) &&
                    step<1, kEach, kChecked>(b, words, table, contexts, entries[1]) &&
                    step<2, kEach, kChecked>(c, words, table, contexts, entries[2]) &&
                    step<3, kEach, kChecked>(d, words, table, contexts, entries[3]);
    if (!ok) break;
    store_symbols(rows.out + row * kRansLanes, entries[0], entries[1], entries[2], entries[3]);
    if (kEach) contexts += kRansLanes;
  }
  store(reader.state, a);
  store(reader.state + 8, b);
  store(reader.state + 16, c);
  store(reader.state + 24, d);
  reader.at = words.at;
  return row;
}

bool decode(RansReader& reader, const uint32_t* tables, const RansContexts& contexts, uint8_t* out,
            size_t n) noexcept {
  const Rows rows = {tables, contexts.contexts, contexts.run / kRansLanes, out, n / kRansLanes};
  size_t row;
  if (contexts.run == 1) {
    row = decode_rows<true, false>(reader, rows, 0);
    row = decode_rows<true, true>(reader, rows, row);
  } else {
    row = decode_rows<false, false>(reader, rows, 0);
    row = decode_rows<false, true>(reader, rows, row);
  }
  if (row < rows.n) return false;
  const size_t whole = row * kRansLanes;
  if (whole == n) return true;
  const RansContexts rest = {contexts.contexts + whole / contexts.run, contexts.run};
  return kRansScalar.decode(reader, tables, rest, out + whole, n - whole);
}

// --- encoding: vectors of 16 lanes, the last one first, so that words leave in the order in which they are
// made

// Entries of the 16 lanes from `lane` on: reciprocals, and frequencies below starts. `symbols` are a row's,
// with kEach below their contexts.
struct Entries {
  __m512i reciprocals, others;
};

inline const double* entry(const RansSymbol* code, size_t index) {
  return reinterpret_cast<const double*>(code + index);
}

template <class Index>
QZF_INLINE Entries entries_of(const RansSymbol* code, const Index* symbols) {
  const auto two = [&](size_t i) {  // the entries of lanes i and i - 1
    const __m128d low = _mm_load_sd(entry(code, symbols[i]));
    return _mm_castpd_si128(_mm_loadh_pd(low, entry(code, symbols[i - 1])));
  };
  const auto eight = [&](size_t i) {  // two of each four lanes
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(two(i)), two(i - 4), 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(two(i - 8)), two(i - 12), 1);
    return _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
  };
  const __m512 a = eight(15), b = eight(13);
  return {_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
          _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd))};
}

// Writes 16 words at `words` and moves it past those that count; adds to `missing` the lanes whose symbol has
// no frequency.
QZF_INLINE void encode_step(__m512i& state, const Entries& entries, uint16_t*& words, __mmask16& missing) {
  const __m512i frequency = _mm512_and_si512(entries.others, _mm512_set1_epi32(0xffff));
  const __m512i start = _mm512_srli_epi32(entries.others, 16);
  missing = static_cast<__mmask16>(missing | _mm512_cmpeq_epi32_mask(frequency, _mm512_setzero_si512()));
  const __mmask16 emit = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(state, 20), frequency);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words),
                      _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(emit, state)));
  words += _mm_popcnt_u32(emit);
  const __m512i x = _mm512_mask_mov_epi32(state, emit, _mm512_srli_epi32(state, 16));
  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(x, entries.reciprocals), 32);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(entries.reciprocals, 32));
  const __m512i quotient = _mm512_mask_mov_epi32(even, 0xaaaa, odd);
  const __m512i rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, frequency));
  const __mmask16 more = _mm512_cmpge_epu32_mask(rest, frequency);
  const __m512i next = _mm512_add_epi32(_mm512_slli_epi32(quotient, 12), _mm512_add_epi32(rest, start));
  const __m512i change = _mm512_sub_epi32(_mm512_set1_epi32(kRansSlots), frequency);
  state = _mm512_mask_add_epi32(next, more, next, change);
}

__m512i descending(__m512i v) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), v);
}

// Places of the symbols of 32 lanes among the entries of all contexts.
constexpr size_t kCodeEntries = sizeof(RansCode) / sizeof(RansSymbol);
void join(const uint8_t* symbols, const uint8_t* contexts, uint32_t* places) {
  const __m512i each = _mm512_set1_epi32(kCodeEntries);
  const auto sixteen = [](const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  };
  for (size_t i = 0; i < kRansLanes; i += 16) {
    const __m512i first = _mm512_mullo_epi32(sixteen(contexts + i), each);
    _mm512_store_si512(places + i, _mm512_add_epi32(first, sixteen(symbols + i)));
  }
}

template <bool kEach>
uint16_t* encode_rows(uint32_t* states, const RansCode* codes, const RansContexts& contexts,
                      const uint8_t* symbols, size_t rows, uint16_t* words) {
  __m512i low = descending(_mm512_loadu_si512(states)), high = descending(_mm512_loadu_si512(states + 16));
  __mmask16 missing = 0;
  for (size_t row = rows; row-- > 0;) {
    const uint8_t* ours = symbols + row * kRansLanes;
    if (kEach) {
      alignas(64) uint32_t places[kRansLanes];
      join(ours, contexts.contexts + row * kRansLanes, places);
      encode_step(high, entries_of(codes->symbols, places + 16), words, missing);
      encode_step(low, entries_of(codes->symbols, places), words, missing);
    } else {
      const RansSymbol* code = codes[contexts.contexts[row * kRansLanes / contexts.run]].symbols;
      encode_step(high, entries_of(code, ours + 16), words, missing);
      encode_step(low, entries_of(code, ours), words, missing);
    }
  }
  _mm512_storeu_si512(states, descending(low));
  _mm512_storeu_si512(states + 16, descending(high));
  return missing == 0 ? words : nullptr;
}

uint16_t* encode(uint32_t* states, const RansCode* codes, const RansContexts& contexts,
                 const uint8_t* symbols, size_t n, uint16_t* words) noexcept {
  const size_t rows = n / kRansLanes, whole = rows * kRansLanes;
  if (whole != n) {
    const RansContexts rest = {contexts.contexts + whole / contexts.run, contexts.run};
    words = kRansScalar.encode(states, codes, rest, symbols + whole, n - whole, words);
    if (words == nullptr) return nullptr;
  }
  return contexts.run == 1 ? encode_rows<true>(states, codes, contexts, symbols, rows, words)
                           : encode_rows<false>(states, codes, contexts, symbols, rows, words);
}

}  // namespace

const RansKernels kRansAvx512 = {decode, encode};

}  // namespace qzf
