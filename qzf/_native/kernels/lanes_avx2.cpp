// AVX2. The states of 32 lanes are two vectors, their low and their high bytes; the low byte is the slot.
// Bytes of the stream go to 8 lanes at a time, by a table with a row for each mask of those that need one.
#include <immintrin.h>

#include <cstring>

#include "kernels/lanes.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint32_t;
using std::uint8_t;

constexpr size_t kHalf = 32;                               // lanes of a vector: half a group
constexpr size_t kMostBytes = kSets * kGroup * kMaxSteps;  // of a round
constexpr uint8_t kNoClasses[kMaxSteps] = {};

size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
__m256i fill(unsigned byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
void store(uint8_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
__m128i load_half(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
__m256i twice(__m128i v) { return _mm256_broadcastsi128_si256(v); }
uint32_t mask_of(__m256i v) { return static_cast<uint32_t>(_mm256_movemask_epi8(v)); }
size_t count(uint32_t mask) { return static_cast<size_t>(__builtin_popcount(mask)); }
__m256i at_least(__m256i a, __m256i b) { return _mm256_cmpeq_epi8(_mm256_max_epu8(a, b), a); }

// Bytes 255 in places from `begin` to `end`, of which either may lie outside.
__m256i between(size_t begin, size_t end) {
  uint8_t bytes[kHalf];
  for (size_t i = 0; i < kHalf; ++i) bytes[i] = i >= begin && i < end ? 255 : 0;
  return load(bytes);
}

// Indices for vpshufb by masks of 8 lanes: `expand` gives each lane of the mask the next byte, `compress`
// puts the bytes of the mask's lanes together. 16 bytes are loaded, so there are 8 more at the end.
struct Places {
  alignas(64) uint8_t expand[256 * 8 + 8];
  alignas(64) uint8_t compress[256 * 8 + 8];
};
constexpr Places make_places() {
  Places places{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned n = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      places.expand[8 * mask + lane] = static_cast<uint8_t>(n);
      if (mask >> lane & 1) places.compress[8 * mask + n++] = static_cast<uint8_t>(lane);
    }
  }
  return places;
}
constexpr Places kPlaces = make_places();

const uint8_t* classes_of(const LanesPlan& plan, size_t group) {
  return plan.classes ? plan.classes[group] : kNoClasses;
}

// A row of 16 or 32 bytes in registers.
template <unsigned kBits>
struct Row {
  __m256i first, second;
  Row() = default;
  explicit Row(const uint8_t* p)
      : first(twice(load_half(p))), second(twice(load_half(p + (kBits == 5) * 16))) {}
  // Bit 7 of the indices must be clear.
  __m256i operator[](__m256i index) const {
    const __m256i low = _mm256_shuffle_epi8(first, index);
    if (kBits == 4) return low;
    return _mm256_blendv_epi8(low, _mm256_shuffle_epi8(second, index), _mm256_slli_epi16(index, 3));
  }
};

struct States {
  __m256i low, high;
};

using Symbols = uint8_t[kSets][kMaxSteps][kGroup];

// Transposes kRows x 16 bytes within each half of the vectors, without moving halves: v[i] then holds what is
// in column 16 / kRows * i and the next ones.
template <size_t kRows>
void transpose(__m256i (&v)[kRows]) {
  for (size_t round = 1; round < kRows; round *= 2) {
    __m256i next[kRows];
    for (size_t i = 0; i < kRows / 2; ++i) {
      next[2 * i] = _mm256_unpacklo_epi8(v[i], v[i + kRows / 2]);
      next[2 * i + 1] = _mm256_unpackhi_epi8(v[i], v[i + kRows / 2]);
    }
    for (size_t i = 0; i < kRows; ++i) v[i] = next[i];
  }
}

// --- decoding ----------------------------------------------------------------------------------------------

// Bytes of even and of odd places as 16-bit numbers.
__m256i even(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi16(255)); }
__m256i odd(__m256i v) { return _mm256_srli_epi16(v, 8); }
// The low and the high bytes of such numbers.
__m256i lows(__m256i even, __m256i odd) {
  return _mm256_blendv_epi8(even, _mm256_slli_epi16(odd, 8), _mm256_set1_epi16(-256));
}
__m256i highs(__m256i even, __m256i odd) {
  return _mm256_blendv_epi8(_mm256_srli_epi16(even, 8), odd, _mm256_set1_epi16(-256));
}

// 8 bytes at `at`, in order to the lanes of the mask.
__m128i expand(const uint8_t* at, uint32_t mask) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  return _mm_shuffle_epi8(bytes, load_half(kPlaces.expand + 8 * (mask & 255)));
}

// One step of half a group. Reads 32 bytes at `at` and moves it past those that were needed. Lanes that are
// not 255 in `lanes` keep their states.
template <unsigned kBits, bool kAllLanes>
__m256i step(States& states, const uint8_t* table, __m256i lanes, const uint8_t*& at) {
  const Row<kBits> thresholds(table), aliases(table + (1 << kBits)), offsets(table + (2 << kBits)),
      frequencies(table + (3 << kBits));
  const __m256i slot = states.low, bucket = _mm256_and_si256(slot, fill((1u << kBits) - 1));
  const __m256i other = at_least(slot, thresholds[bucket]);
  const __m256i symbol = _mm256_blendv_epi8(bucket, aliases[bucket], other);
  const __m256i j = _mm256_and_si256(_mm256_srli_epi16(slot, kBits), fill(255u >> kBits));
  const __m256i rank = _mm256_add_epi8(j, _mm256_and_si256(offsets[bucket], other));
  const __m256i frequency = frequencies[symbol];
  const __m256i next_even =
      _mm256_add_epi16(_mm256_mullo_epi16(even(frequency), even(states.high)), even(rank));
  const __m256i next_odd = _mm256_add_epi16(_mm256_mullo_epi16(odd(frequency), odd(states.high)), odd(rank));
  __m256i low = lows(next_even, next_odd), high = highs(next_even, next_odd);
  __m256i refill = _mm256_cmpeq_epi8(high, _mm256_setzero_si256());
  if (!kAllLanes) refill = _mm256_and_si256(refill, lanes);
  const uint32_t mask = mask_of(refill);
  const __m128i a = expand(at, mask), b = expand(at + count(mask & 0xff), mask >> 8),
                c = expand(at + count(mask & 0xffff), mask >> 16),
                d = expand(at + count(mask & 0xffffff), mask >> 24);
  const __m256i bytes = _mm256_set_m128i(_mm_unpacklo_epi64(c, d), _mm_unpacklo_epi64(a, b));
  at += count(mask);
  high = _mm256_blendv_epi8(high, low, refill);
  low = _mm256_blendv_epi8(low, bytes, refill);
  states.low = kAllLanes ? low : _mm256_blendv_epi8(states.low, low, lanes);
  states.high = kAllLanes ? high : _mm256_blendv_epi8(states.high, high, lanes);
  return symbol;
}

// Bytes by which the input is fetched ahead: the processor's own prefetching was seen to stop short of that.
constexpr size_t kPrefetch = 4096;

// Addresses as numbers, as they may lie beyond what there is: a prefetch cannot fail.
inline void fetch(std::uintptr_t from, size_t size) {
  for (size_t i = 0; i < size; i += 64) __builtin_prefetch(reinterpret_cast<const void*>(from + i));
}

template <unsigned kBits>
const uint8_t* full_round(const LanesPlan& plan, const uint8_t* tables, size_t group, States (*states)[2],
                          const uint8_t* at, Symbols& symbols) {
  const uint8_t *classes[kSets], *base[kSets];
  States now[kSets][2];
  for (size_t i = 0; i < kSets; ++i) {
    classes[i] = classes_of(plan, group + i);
    base[i] = tables + (size_t{plan.base[group + i]} * 4 << kBits);
    now[i][0] = states[i][0], now[i][1] = states[i][1];
  }
  const size_t rounds = plan.lanes / (kSets * kGroup),
               each = (plan.ahead_size + rounds * plan.steps - 1) / (rounds * plan.steps);
  std::uintptr_t ahead = reinterpret_cast<std::uintptr_t>(plan.ahead) + group / kSets * plan.steps * each;
  for (size_t t = 0; t < plan.steps; ++t) {
    fetch(reinterpret_cast<std::uintptr_t>(at) + kPrefetch, 128);
    fetch(ahead, each);
    ahead += each;
    for (size_t i = 0; i < kSets; ++i) {
      const uint8_t* table = base[i] + (size_t{classes[i][t]} * 4 << kBits);
      store(symbols[i][t], step<kBits, true>(now[i][0], table, __m256i{}, at));
      store(symbols[i][t] + kHalf, step<kBits, true>(now[i][1], table, __m256i{}, at));
    }
  }
  for (size_t i = 0; i < kSets; ++i) states[i][0] = now[i][0], states[i][1] = now[i][1];
  return at;
}

template <unsigned kBits>
const uint8_t* last_round(const LanesPlan& plan, const uint8_t* tables, size_t group, States (*states)[2],
                          const uint8_t* at, Symbols& symbols) {
  const size_t rest = plan.lanes - group * kGroup;
  for (size_t t = 0; t < plan.steps; ++t) {
    for (size_t i = 0; i < 2 * kSets && i * kHalf < rest; ++i) {
      const size_t set = i / 2, table = plan.base[group + set] + size_t{classes_of(plan, group + set)[t]};
      const __m256i symbol = step<kBits, false>(states[set][i % 2], tables + (table * 4 << kBits),
                                                between(0, rest - i * kHalf), at);
      store(symbols[set][t] + i % 2 * kHalf, symbol);
    }
  }
  return at;
}

// Writes column i of `rows`, kRows bytes, to item order[i] of an array.
template <size_t kRows>
void scatter(__m256i (&rows)[kRows], const uint32_t* order, size_t lanes, uint8_t* out) {
  transpose(rows);
  alignas(32) uint8_t columns[kRows][2][16];
  for (size_t i = 0; i < kRows; ++i) store(columns[i][0], rows[i]);
  constexpr size_t kEach = 16 / kRows;  // columns of half a vector
  if (lanes < kHalf) {
    for (size_t lane = 0; lane < lanes; ++lane) {
      const size_t i = lane % 16;
      std::memcpy(out + order[lane] * kRows, &columns[i / kEach][lane / 16][i % kEach * kRows], kRows);
    }
    return;
  }
  for (size_t half = 0; half < 2; ++half) {
    for (size_t i = 0; i < 16; ++i) {
      std::memcpy(out + order[half * 16 + i] * kRows, &columns[i / kEach][half][i % kEach * kRows], kRows);
    }
  }
}

// The symbols of half a group start at symbols[t][place].
template <unsigned kBits, size_t kElements>
void put_half(const uint8_t (&symbols)[kMaxSteps][kGroup], size_t place, const uint32_t* order, size_t lanes,
              const LanesOutput& out) {
  __m256i records[kElements / 2];
  for (size_t i = 0; i < kElements / 2; ++i) {
    const __m256i low = _mm256_and_si256(load(symbols[i] + place), fill(15));
    const __m256i high = _mm256_slli_epi16(load(symbols[i + kElements / 2] + place), 4);
    records[i] = _mm256_or_si256(low, _mm256_and_si256(high, fill(240)));
  }
  scatter(records, order, lanes, out.records);
  if (kBits == 4) return;
  __m256i highs[kElements / 8];
  for (size_t i = 0; i < kElements / 8; ++i) {
    highs[i] = _mm256_setzero_si256();
    for (unsigned bit = 0; bit < 8; ++bit) {
      const __m256i symbol = load(symbols[8 * i + bit] + place);
      const __m256i moved =
          bit < 4 ? _mm256_srli_epi16(symbol, 4 - bit % 4) : _mm256_slli_epi16(symbol, bit % 4);
      highs[i] = _mm256_or_si256(highs[i], _mm256_and_si256(moved, fill(1u << bit)));
    }
  }
  scatter(highs, order, lanes, out.highs);
}

// States from 32 numbers of 16 bits.
States open(const uint8_t* in) {
  const __m256i a = load(in), b = load(in + 32);
  return {_mm256_permute4x64_epi64(_mm256_packus_epi16(even(a), even(b)), 0xd8),
          _mm256_permute4x64_epi64(_mm256_packus_epi16(odd(a), odd(b)), 0xd8)};
}

template <unsigned kBits, size_t kElements>
bool decode_as(const LanesPlan& plan, const uint8_t* tables, const uint8_t* in, size_t size,
               const LanesOutput& out) {
  const size_t groups = (plan.lanes + kGroup - 1) / kGroup, sets = smaller(groups, kSets);
  if (size < sets * kGroup * 2) return false;
  States states[kSets][2];
  __m256i wrong = _mm256_setzero_si256();
  for (size_t i = 0; i < 2 * sets; ++i) {
    States& half = states[i / 2][i % 2] = open(in + i * 2 * kHalf);
    wrong = _mm256_or_si256(wrong, _mm256_cmpeq_epi8(half.high, _mm256_setzero_si256()));
  }
  if (mask_of(wrong) != 0) return false;

  alignas(64) Symbols symbols;
  for (auto& set : symbols) std::memset(*set + plan.steps * kGroup, 0, (kMaxSteps - plan.steps) * kGroup);
  const uint8_t *at = in + sets * kGroup * 2, *end = in + size;
  // A round may look 64 bytes ahead of what it needs. Where so much is not left, go on in a copy with zeros
  // at its end: too many bytes for the last whole round on it, and one more.
  constexpr size_t kAhead = kMostBytes + 64;
  alignas(64) uint8_t copy[2 * kAhead];
  bool copied = false;
  for (size_t group = 0; group < groups; group += kSets) {
    const size_t left = static_cast<size_t>(end - at);
    if (!copied && left < kAhead) {
      copied = true;
      std::memcpy(copy, at, left);
      std::memset(copy + left, 0, kAhead);
      at = copy;
      end = copy + left;
    }
    const size_t lanes = smaller(plan.lanes - group * kGroup, kSets * kGroup);
    at = lanes == kSets * kGroup ? full_round<kBits>(plan, tables, group, states, at, symbols)
                                 : last_round<kBits>(plan, tables, group, states, at, symbols);
    if (at > end) return false;
    for (size_t i = 0; i * kHalf < lanes; ++i) {
      put_half<kBits, kElements>(symbols[i / 2], i % 2 * kHalf, plan.order + group * kGroup + i * kHalf,
                                 lanes - i * kHalf, out);
    }
  }
  for (size_t i = 0; i < 2 * sets; ++i) {
    const States& half = states[i / 2][i % 2];
    wrong = _mm256_or_si256(wrong, _mm256_or_si256(half.low, _mm256_xor_si256(half.high, fill(1))));
  }
  return _mm256_testz_si256(wrong, wrong) != 0 && at == end;
}

bool decode(const LanesPlan& plan, const uint8_t* tables, const uint8_t* in, size_t size,
            const LanesOutput& out) noexcept {
  if (plan.alphabet == 16) {
    return plan.elements == 16 ? decode_as<4, 16>(plan, tables, in, size, out)
                               : decode_as<4, 32>(plan, tables, in, size, out);
  }
  return plan.elements == 16 ? decode_as<5, 16>(plan, tables, in, size, out)
                             : decode_as<5, 32>(plan, tables, in, size, out);
}

// --- encoding: all in reverse ------------------------------------------------------------------------------
//
// Lanes stand in descending order in vectors, so that bytes leave in the order in which the encoder makes
// them; a round's bytes are gathered on the stack and then turned around.

// 65536 / frequency of 16 frequencies, but 65535 for 1: the low bytes and then the high bytes.
__m256i reciprocals_of(const uint32_t* reciprocals) {
  const __m256i a = _mm256_srli_epi32(load(reciprocals), 8), b = _mm256_srli_epi32(load(reciprocals + 8), 8);
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
  return _mm256_permute4x64_epi64(_mm256_packus_epi16(even(words), odd(words)), 0xd8);
}

template <unsigned kBits>
struct Code {
  Row<kBits> frequencies, starts, low_reciprocals, high_reciprocals;
  const uint8_t* slots;

  explicit Code(const LanesCode& code) : frequencies(code.frequency), starts(code.start), slots(code.slots) {
    const __m256i a = reciprocals_of(code.reciprocal);
    const __m256i b = kBits == 4 ? a : reciprocals_of(code.reciprocal + 16);
    low_reciprocals.first = _mm256_permute2x128_si256(a, a, 0x00);
    low_reciprocals.second = _mm256_permute2x128_si256(b, b, 0x00);
    high_reciprocals.first = _mm256_permute2x128_si256(a, a, 0x11);
    high_reciprocals.second = _mm256_permute2x128_si256(b, b, 0x11);
  }

  __m256i slots_at(__m256i place) const {
    const __m256i index = _mm256_and_si256(place, fill(15));
    __m256i found[16];
    for (size_t i = 0; i < 16; ++i) found[i] = _mm256_shuffle_epi8(twice(load_half(slots + 16 * i)), index);
    for (int bit = 4; bit < 8; ++bit) {  // vpblendvb looks at bit 7
      const __m256i upper = _mm256_slli_epi16(place, 7 - bit);
      for (size_t i = 0; i < (128u >> bit); ++i) {
        found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], upper);
      }
    }
    return found[0];
  }
};

struct Quotients {
  __m256i quotient, rest;
};

// Numbers of 16 bits by frequencies. The reciprocals make a quotient that is right or 1 too small.
Quotients divide(__m256i x, __m256i frequency, __m256i reciprocal) {
  const __m256i quotient = _mm256_mulhi_epu16(x, reciprocal);
  const __m256i rest = _mm256_sub_epi16(x, _mm256_mullo_epi16(quotient, frequency));
  const __m256i less = _mm256_cmpgt_epi16(frequency, rest);  // all of them are below 512
  return {_mm256_add_epi16(quotient, _mm256_add_epi16(less, _mm256_set1_epi16(1))),
          _mm256_sub_epi16(rest, _mm256_andnot_si256(less, frequency))};
}

// Those of the lower 8 bytes that are in the mask.
void compress(uint8_t* at, __m128i bytes, uint32_t mask) {
  const __m128i together = _mm_shuffle_epi8(bytes, load_half(kPlaces.compress + 8 * (mask & 255)));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(at), together);
}

// One step of half a group. Writes 32 bytes at `at` and moves it past those that count.
template <unsigned kBits, bool kAllLanes>
void encode_step(States& states, const Code<kBits>& code, __m256i symbol, __m256i lanes, uint8_t*& at) {
  const __m256i frequency = code.frequencies[symbol], zero = _mm256_setzero_si256();
  const __m256i low_reciprocal = code.low_reciprocals[symbol],
                high_reciprocal = code.high_reciprocals[symbol];
  __m256i emit = at_least(states.high, frequency);
  if (!kAllLanes) emit = _mm256_and_si256(emit, lanes);
  const uint32_t mask = mask_of(emit);
  const __m128i ab = _mm256_castsi256_si128(states.low), cd = _mm256_extracti128_si256(states.low, 1);
  compress(at, ab, mask);
  compress(at + count(mask & 0xff), _mm_unpackhi_epi64(ab, ab), mask >> 8);
  compress(at + count(mask & 0xffff), cd, mask >> 16);
  compress(at + count(mask & 0xffffff), _mm_unpackhi_epi64(cd, cd), mask >> 24);
  at += count(mask);
  const __m256i low = _mm256_blendv_epi8(states.low, states.high, emit);
  const __m256i high = _mm256_andnot_si256(emit, states.high);
  const Quotients a = divide(_mm256_unpacklo_epi8(low, high), _mm256_unpacklo_epi8(frequency, zero),
                             _mm256_unpacklo_epi8(low_reciprocal, high_reciprocal));
  const Quotients b = divide(_mm256_unpackhi_epi8(low, high), _mm256_unpackhi_epi8(frequency, zero),
                             _mm256_unpackhi_epi8(low_reciprocal, high_reciprocal));
  const __m256i rest = _mm256_packus_epi16(a.rest, b.rest);
  const __m256i slot = code.slots_at(_mm256_add_epi8(code.starts[symbol], rest));
  const __m256i quotient = _mm256_packus_epi16(a.quotient, b.quotient);
  states.low = kAllLanes ? slot : _mm256_blendv_epi8(states.low, slot, lanes);
  states.high = kAllLanes ? quotient : _mm256_blendv_epi8(states.high, quotient, lanes);
}

// symbols[step] are those of the lanes of a group, the last one first.
template <unsigned kBits, size_t kElements>
void get_group(const uint8_t* from, const uint32_t* order, size_t lanes,
               uint8_t (&symbols)[kMaxSteps][kGroup]) {
  const auto half = [&](size_t place, size_t element) {
    const size_t lane = order[place < lanes ? place : 0];  // what is not there counts not
    return load_half(from + lane * kElements + element);
  };
  for (size_t element = 0; element < kElements; element += 16) {
    for (size_t at = 0; at < kGroup; at += kHalf) {
      __m256i rows[16];
      for (size_t i = 0; i < 16; ++i) {
        const size_t place = kGroup - 1 - at - i;
        rows[i] = _mm256_set_m128i(half(place - 16, element), half(place, element));
      }
      transpose(rows);
      for (size_t i = 0; i < 16; ++i) {
        // An index for vpshufb, whatever the bytes are that no step codes.
        store(symbols[element + i] + at, _mm256_and_si256(rows[i], fill((1u << kBits) - 1)));
      }
    }
  }
}

// Writes the bytes of a round, the last one first, at `at`, and returns where they end.
template <unsigned kBits, bool kAllLanes>
uint8_t* encode_round(const LanesPlan& plan, const LanesCode* codes, size_t group, States (*states)[2],
                      const Symbols& symbols, uint8_t* at) {
  const size_t rest = plan.lanes - group * kGroup;
  const size_t sets = kAllLanes ? kSets : (rest + kGroup - 1) / kGroup;
  for (size_t t = plan.steps; t-- > 0;) {
    for (size_t i = sets; i-- > 0;) {
      const Code<kBits> code(codes[plan.base[group + i] + size_t{classes_of(plan, group + i)[t]}]);
      for (size_t k = 0; k < 2; ++k) {
        __m256i lanes = _mm256_setzero_si256();
        if (!kAllLanes) {
          const size_t absent = kGroup - smaller(rest - i * kGroup, kGroup), before = k * kHalf;
          lanes = between(absent < before ? 0 : absent - before, kHalf);
        }
        encode_step<kBits, kAllLanes>(states[i][k], code, load(symbols[i][t] + k * kHalf), lanes, at);
      }
    }
  }
  return at;
}

// Writes bytes in reverse order before `end`, and returns where they begin.
uint8_t* put_reversed(const uint8_t* bytes, size_t size, uint8_t* end) {
  const __m128i reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  size_t i = 0;
  for (; i + 16 <= size; i += 16) {
    end -= 16;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(end), _mm_shuffle_epi8(load_half(bytes + i), reverse));
  }
  for (; i < size; ++i) *--end = bytes[i];
  return end;
}

template <unsigned kBits, size_t kElements>
size_t encode_as(const LanesPlan& plan, const LanesCode* codes, const uint8_t* from, uint8_t* out,
                 size_t capacity) {
  const size_t groups = (plan.lanes + kGroup - 1) / kGroup, sets = smaller(groups, kSets);
  States states[kSets][2];
  for (auto& set : states) set[0] = set[1] = {_mm256_setzero_si256(), fill(1)};
  alignas(64) Symbols symbols;
  alignas(64) uint8_t bytes[kMostBytes + 64];
  uint8_t* at = out + capacity;
  for (size_t group = (groups - 1) / kSets * kSets;; group -= kSets) {
    const size_t lanes = smaller(plan.lanes - group * kGroup, kSets * kGroup);
    for (size_t i = 0; i * kGroup < lanes; ++i) {
      get_group<kBits, kElements>(from, plan.order + (group + i) * kGroup,
                                  smaller(lanes - i * kGroup, kGroup), symbols[i]);
    }
    const uint8_t* end = lanes == kSets * kGroup
                             ? encode_round<kBits, true>(plan, codes, group, states, symbols, bytes)
                             : encode_round<kBits, false>(plan, codes, group, states, symbols, bytes);
    at = put_reversed(bytes, static_cast<size_t>(end - bytes), at);
    if (group == 0) break;
  }
  for (size_t i = sets; i-- > 0;) {  // high byte, low byte, from the last lane to the first
    for (const States& half : states[i]) {
      uint8_t low[kHalf], high[kHalf];
      store(low, half.low);
      store(high, half.high);
      for (size_t lane = 0; lane < kHalf; ++lane) {
        *--at = high[lane];
        *--at = low[lane];
      }
    }
  }
  return static_cast<size_t>(out + capacity - at);
}

size_t encode(const LanesPlan& plan, const LanesCode* codes, const uint8_t* symbols, uint8_t* out,
              size_t capacity) noexcept {
  if (plan.alphabet == 16) {
    return plan.elements == 16 ? encode_as<4, 16>(plan, codes, symbols, out, capacity)
                               : encode_as<4, 32>(plan, codes, symbols, out, capacity);
  }
  return plan.elements == 16 ? encode_as<5, 16>(plan, codes, symbols, out, capacity)
                             : encode_as<5, 32>(plan, codes, symbols, out, capacity);
}

}  // namespace

const LanesKernels kLanesAvx2 = {decode, encode};

}  // namespace qzf
