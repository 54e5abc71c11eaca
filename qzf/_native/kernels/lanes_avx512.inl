// What the files of AVX-512 that look at groups of lanes have in common, included by each inside an anonymous
// namespace.

using std::size_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr uint8_t kNoClasses[kMaxSteps] = {};

size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
__mmask64 first(size_t lanes) { return lanes >= 64 ? ~__mmask64{0} : (__mmask64{1} << lanes) - 1; }
__m512i fill(unsigned byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
__m512i load(const uint8_t* p) { return _mm512_loadu_si512(p); }
void store(uint8_t* p, __m512i v) { _mm512_storeu_si512(p, v); }
size_t count(__mmask64 mask) { return static_cast<size_t>(__builtin_popcountll(mask)); }

const uint8_t* classes_of(const LanesPlan& plan, size_t group) {
  return plan.classes ? plan.classes[group] : kNoClasses;
}

// Transposes kRows x 16 bytes within each quarter of the vectors, without moving quarters: v[i] then holds
// what is in column 16 / kRows * i and the next ones.
template <size_t kRows>
void transpose(__m512i (&v)[kRows]) {
  for (size_t round = 1; round < kRows; round *= 2) {
    __m512i next[kRows];
    for (size_t i = 0; i < kRows / 2; ++i) {
      next[2 * i] = _mm512_unpacklo_epi8(v[i], v[i + kRows / 2]);
      next[2 * i + 1] = _mm512_unpackhi_epi8(v[i], v[i + kRows / 2]);
    }
    std::memcpy(v, next, sizeof v);
  }
}

// symbols[step] are those of the lanes of a group, the last one first.
template <size_t kElements>
void get_group(const uint8_t* from, const uint32_t* order, size_t lanes,
               uint8_t (&symbols)[kMaxSteps][kGroup]) {
  uint32_t all[kGroup];
  if (lanes < kGroup) {  // what is not there counts not
    for (size_t i = 0; i < kGroup; ++i) all[i] = order[i < lanes ? i : 0];
    order = all;
  }
  const auto quarter = [&](size_t number, size_t i, size_t element) {
    const uint8_t* lane = from + order[kGroup - 1 - (number * 16 + i)] * kElements;
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(lane + element));
  };
  for (size_t element = 0; element < kElements; element += 16) {
    __m512i rows[16];
    for (size_t i = 0; i < 16; ++i) {
      rows[i] = _mm512_castsi128_si512(quarter(0, i, element));
      rows[i] = _mm512_inserti32x4(rows[i], quarter(1, i, element), 1);
      rows[i] = _mm512_inserti32x4(rows[i], quarter(2, i, element), 2);
      rows[i] = _mm512_inserti32x4(rows[i], quarter(3, i, element), 3);
    }
    transpose(rows);
    for (size_t i = 0; i < 16; ++i) store(symbols[element + i], rows[i]);
  }
}
