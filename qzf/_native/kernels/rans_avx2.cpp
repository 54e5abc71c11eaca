// AVX2. A row is four vectors of 8 lanes.
#include <immintrin.h>

#include <cstring>

#include "kernels/rans.h"

#define QZF_INLINE inline __attribute__((always_inline))  // GCC merges steps that are alike, and calls them

namespace qzf {
namespace {

using std::ptrdiff_t;
using std::size_t;
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

// For each set of 8 lanes: the bytes of words that its lanes take, in the order of lanes, and zeros
// elsewhere.
struct Spread {
  alignas(16) uint8_t bytes[256][16];
};

constexpr Spread make_spread() {
  Spread spread{};
  for (unsigned set = 0; set < 256; ++set) {
    unsigned word = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      const bool takes = (set >> lane & 1) != 0;
      spread.bytes[set][2 * lane] = static_cast<uint8_t>(takes ? 2 * word : 0x80);
      spread.bytes[set][2 * lane + 1] = static_cast<uint8_t>(takes ? 2 * word + 1 : 0x80);
      word += takes;
    }
  }
  return spread;
}

constexpr Spread kSpread = make_spread();

// Where words come from. They are loaded 8 at a time, past `end` too.
struct Words {
  const uint8_t* at;
  const uint8_t* end;
};

// Lanes 8 * kGroup to 8 * kGroup + 7 go from one state to the next. Their symbols are in the top bytes of
// `entry`. With kEach every lane has a context, and else `table` is the one of them all. With kChecked words
// may run out.
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
  const __m256i refill = _mm256_cmpeq_epi32(_mm256_srli_epi32(next, 16), _mm256_setzero_si256());
  const auto set = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(refill)));
  const auto bytes = static_cast<ptrdiff_t>(2 * _mm_popcnt_u64(set));
  if (kChecked && words.end - words.at < bytes) return false;
  const __m128i some = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words.at));
  const __m128i spread = _mm_load_si128(reinterpret_cast<const __m128i*>(kSpread.bytes[set]));
  const __m256i taken = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(some, spread));
  state = _mm256_or_si256(_mm256_sllv_epi32(next, _mm256_and_si256(refill, fill(16))), taken);
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

// The last rows read from a copy of the last words, which has room behind them.
template <bool kEach>
size_t decode_all_rows(RansReader& reader, const Rows& rows) {
  size_t row = decode_rows<kEach, false>(reader, rows, 0);
  if (row == rows.n) return row;
  uint8_t last[kRowBytes + 16] = {};
  const auto size = static_cast<size_t>(reader.end - reader.at);
  if (size > 0) std::memcpy(last, reader.at, size);
  const RansReader own = reader;
  reader.at = last;
  reader.end = last + size;
  row = decode_rows<kEach, true>(reader, rows, row);
  reader.at = own.at + (reader.at - last);
  reader.end = own.end;
  return row;
}

bool decode(RansReader& reader, const uint32_t* tables, const RansContexts& contexts, uint8_t* out,
            size_t n) noexcept {
  const Rows rows = {tables, contexts.contexts, contexts.run / kRansLanes, out, n / kRansLanes};
  const bool each = contexts.run == 1;
  const size_t row = each ? decode_all_rows<true>(reader, rows) : decode_all_rows<false>(reader, rows);
  if (row < rows.n) return false;
  const size_t whole = row * kRansLanes;
  if (whole == n) return true;
  const RansContexts rest = {contexts.contexts + whole / contexts.run, contexts.run};
  return kRansScalar.decode(reader, tables, rest, out + whole, n - whole);
}

std::uint16_t* encode(uint32_t* states, const RansCode* codes, const RansContexts& contexts,
                      const uint8_t* symbols, size_t n, std::uint16_t* words) noexcept {
  return kRansScalar.encode(states, codes, contexts, symbols, n, words);
}

}  // namespace

const RansKernels kRansAvx2 = {decode, encode};

}  // namespace qzf
