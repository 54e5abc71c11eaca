// AVX-512 F, BW, VL, VBMI and VBMI2. The states of 64 lanes are two vectors, their low and their high bytes;
// the low byte is the slot. Rows of tables are repeated to fill a register, so that vpermb, which heeds the
// lowest 6 bits of an index, takes whole slots.
#ifdef QZF_SIMDE  // the test program can emulate AVX-512
#include "tests/simde_avx512.h"
#else
#include <immintrin.h>
#endif

#include <cstring>

#include "kernels/lanes.h"

namespace qzf {
namespace {

#include "kernels/lanes_avx512.inl"

constexpr size_t kMostBytes = kSets * kGroup * kMaxSteps;  // of a round

__mmask64 zeros(__m512i v) { return _mm512_cmpeq_epi8_mask(v, _mm512_setzero_si512()); }

// Indices for permutations of bytes.
struct Places {
  alignas(64) uint8_t low[64];  // the low bytes of two vectors of 16-bit numbers, alternating
  alignas(64) uint8_t every[64];
};
constexpr Places make_places() {
  Places places{};
  for (unsigned i = 0; i < 64; ++i) {
    places.low[i] = static_cast<uint8_t>(i % 2 == 0 ? i : i - 1 + 64);
    places.every[i] = static_cast<uint8_t>(i);
  }
  return places;
}
constexpr Places kPlaces = make_places();

// Bytes of even and of odd places as 16-bit numbers.
__m512i even(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi16(255)); }
__m512i odd(__m512i v) { return _mm512_srli_epi16(v, 8); }
// The low and the high bytes of such numbers. (A shift and a blend take less time than vpermi2b, but keep the
// decoder's busiest ports busy; it can wait for the low bytes.)
__m512i lows(__m512i even, __m512i odd) { return _mm512_permutex2var_epi8(even, load(kPlaces.low), odd); }
__m512i highs(__m512i even, __m512i odd) {
  return _mm512_mask_mov_epi8(odd, 0x5555555555555555u, _mm512_srli_epi16(even, 8));
}

struct States {
  __m512i low, high;
};

// --- decoding ----------------------------------------------------------------------------------------------

template <unsigned kBits>
__m512i row(const uint8_t* table, size_t number) {
  const uint8_t* p = table + (number << kBits);
  return kBits == 4 ? _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))
                    : _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Symbols of slots, and the places of the slots among those of the symbol.
template <unsigned kBits>
void look_up(__m512i slot, const uint8_t* table, __m512i& symbol, __m512i& rank) {
  const __m512i bucket = _mm512_and_si512(slot, fill((1u << kBits) - 1));
  const __m512i j = _mm512_and_si512(_mm512_srli_epi16(slot, kBits), fill(255u >> kBits));
  if (kBits == 4) {
    // vpshufb takes less time than vpermb, and gives 0 where bit 7 of an index is set: where slot <
    // threshold, and so the average of the slot and 255 - threshold, rounded up, is below 128.
    const __m512i ones = _mm512_set1_epi8(-1);
    const __m512i mirrored = _mm512_shuffle_epi8(_mm512_xor_si512(row<kBits>(table, 0), ones), bucket);
    const __m512i other = _mm512_avg_epu8(slot, mirrored);
    const __m512i index = _mm512_ternarylogic_epi64(other, fill(128), bucket, 0xae);  // (~a & b) | c
    const __m512i places = _mm512_set4_epi32(0x0f0e0d0c, 0x0b0a0908, 0x07060504, 0x03020100);
    const __m512i change = _mm512_shuffle_epi8(_mm512_xor_si512(row<kBits>(table, 1), places), index);
    symbol = _mm512_xor_si512(bucket, change);
    rank = _mm512_add_epi8(j, _mm512_shuffle_epi8(row<kBits>(table, 2), index));
  } else {
    const __m512i threshold = _mm512_permutexvar_epi8(slot, row<kBits>(table, 0));
    const __mmask64 other = _mm512_cmpge_epu8_mask(slot, threshold);
    const __m512i alias = _mm512_permutexvar_epi8(slot, row<kBits>(table, 1));
    symbol = _mm512_mask_mov_epi8(bucket, other, alias);
    rank = _mm512_mask_add_epi8(j, other, j, _mm512_permutexvar_epi8(slot, row<kBits>(table, 2)));
  }
}

template <unsigned kBits>
__m512i frequency_of(__m512i symbol, const uint8_t* table) {
  return kBits == 4 ? _mm512_shuffle_epi8(row<kBits>(table, 3), symbol)
                    : _mm512_permutexvar_epi8(symbol, row<kBits>(table, 3));
}

// One step of kCount groups; what takes long is done for all of them before what waits for it. Reads 64 bytes
// a group, and moves `at` past those that were needed. Lanes other than `lanes` keep their states.
template <unsigned kBits, bool kAllLanes, size_t kCount>
void step(States* states, const uint8_t* const* tables, __mmask64 lanes, const uint8_t*& at,
          uint8_t* const* symbols) {
  __m512i rank[kCount], frequency[kCount], low[kCount], high[kCount];
  __mmask64 refill[kCount];
  for (size_t i = 0; i < kCount; ++i) {
    __m512i symbol;
    look_up<kBits>(states[i].low, tables[i], symbol, rank[i]);
    frequency[i] = frequency_of<kBits>(symbol, tables[i]);
    store(symbols[i], symbol);
  }
  for (size_t i = 0; i < kCount; ++i) {
    const __m512i product_even = _mm512_mullo_epi16(even(frequency[i]), even(states[i].high));
    const __m512i product_odd = _mm512_mullo_epi16(odd(frequency[i]), odd(states[i].high));
    const __m512i next_even = _mm512_add_epi16(product_even, even(rank[i]));
    const __m512i next_odd = _mm512_add_epi16(product_odd, odd(rank[i]));
    low[i] = lows(next_even, next_odd);
    high[i] = highs(next_even, next_odd);
    if (!kAllLanes) high[i] = _mm512_mask_mov_epi8(fill(1), lanes, high[i]);
    refill[i] = zeros(high[i]);
  }
  for (size_t i = 0; i < kCount; ++i) {
    high[i] = _mm512_mask_mov_epi8(high[i], refill[i], low[i]);
    low[i] = _mm512_mask_expand_epi8(low[i], refill[i], load(at));
    at += count(refill[i]);
    states[i].low = kAllLanes ? low[i] : _mm512_mask_mov_epi8(states[i].low, lanes, low[i]);
    states[i].high = kAllLanes ? high[i] : _mm512_mask_mov_epi8(states[i].high, lanes, high[i]);
  }
}

using Symbols = uint8_t[kSets][kMaxSteps][kGroup];

// Bytes by which the input is fetched ahead: the processor's own prefetching was seen to stop short of that.
constexpr size_t kPrefetch = 4096;

// Addresses as numbers, as they may lie beyond what there is: a prefetch cannot fail.
inline void fetch(std::uintptr_t from, size_t size) {
  for (size_t i = 0; i < size; i += 64) __builtin_prefetch(reinterpret_cast<const void*>(from + i));
}

template <unsigned kBits>
const uint8_t* full_round(const LanesPlan& plan, const uint8_t* tables, size_t group, States* states,
                          const uint8_t* at, Symbols& symbols) {
  const uint8_t *classes[kSets], *base[kSets];
  for (size_t i = 0; i < kSets; ++i) {
    classes[i] = classes_of(plan, group + i);
    base[i] = tables + (size_t{plan.base[group + i]} * 4 << kBits);
  }
  States now[kSets];
  for (size_t i = 0; i < kSets; ++i) now[i] = states[i];
  const size_t rounds = plan.lanes / (kSets * kGroup),
               each = (plan.ahead_size + rounds * plan.steps - 1) / (rounds * plan.steps);
  std::uintptr_t ahead = reinterpret_cast<std::uintptr_t>(plan.ahead) + group / kSets * plan.steps * each;
  for (size_t t = 0; t < plan.steps; ++t) {
    fetch(reinterpret_cast<std::uintptr_t>(at) + kPrefetch, 128);
    fetch(ahead, each);
    ahead += each;
    const uint8_t* table[kSets];
    uint8_t* to[kSets];
    for (size_t i = 0; i < kSets; ++i) {
      table[i] = base[i] + (size_t{classes[i][t]} * 4 << kBits);
      to[i] = symbols[i][t];
    }
    step<kBits, true, kSets>(now, table, 0, at, to);
  }
  for (size_t i = 0; i < kSets; ++i) states[i] = now[i];
  return at;
}

template <unsigned kBits>
const uint8_t* last_round(const LanesPlan& plan, const uint8_t* tables, size_t group, States* states,
                          const uint8_t* at, Symbols& symbols) {
  const size_t rest = plan.lanes - group * kGroup;
  for (size_t t = 0; t < plan.steps; ++t) {
    for (size_t i = 0; i * kGroup < rest; ++i) {
      const size_t number = plan.base[group + i] + size_t{classes_of(plan, group + i)[t]};
      const uint8_t* table = tables + (number * 4 << kBits);
      uint8_t* to = symbols[i][t];
      step<kBits, false, 1>(states + i, &table, first(rest - i * kGroup), at, &to);
    }
  }
  return at;
}

// Writes column i of `rows`, kRows bytes, to item order[i] of an array.
template <size_t kRows>
void scatter(__m512i (&rows)[kRows], const uint32_t* order, size_t lanes, uint8_t* out) {
  transpose(rows);
  alignas(64) uint8_t columns[kRows][4][16];
  for (size_t i = 0; i < kRows; ++i) store(columns[i][0], rows[i]);
  constexpr size_t kEach = 16 / kRows;  // columns of a quarter vector
  if (lanes < kGroup) {
    for (size_t lane = 0; lane < lanes; ++lane) {
      const size_t i = lane % 16;
      std::memcpy(out + order[lane] * kRows, &columns[i / kEach][lane / 16][i % kEach * kRows], kRows);
    }
    return;
  }
  for (size_t quarter = 0; quarter < 4; ++quarter) {
    for (size_t i = 0; i < 16; ++i) {
      std::memcpy(out + order[quarter * 16 + i] * kRows, &columns[i / kEach][quarter][i % kEach * kRows],
                  kRows);
    }
  }
}

template <unsigned kBits, size_t kElements>
void put_group(const uint8_t (&symbols)[kMaxSteps][kGroup], const uint32_t* order, size_t lanes,
               const LanesOutput& out) {
  constexpr size_t kHalf = kElements / 2;
  __m512i records[kHalf];
  for (size_t i = 0; i < kHalf; ++i) {
    const __m512i top = _mm512_slli_epi16(load(symbols[i + kHalf]), 4);
    // Where a mask bit is set from the low symbol, else from the high one: also drops bit 4 of both.
    records[i] = _mm512_ternarylogic_epi64(fill(15), load(symbols[i]), top, 0xca);
  }
  scatter(records, order, lanes, out.records);
  if (kBits == 4) return;
  __m512i highs[kElements / 8];
  for (size_t i = 0; i < kElements / 8; ++i) {
    highs[i] = _mm512_setzero_si512();
    for (unsigned bit = 0; bit < 8; ++bit) {
      const __m512i symbol = load(symbols[8 * i + bit]);
      const __m512i moved =
          bit < 4 ? _mm512_srli_epi16(symbol, 4 - bit % 4) : _mm512_slli_epi16(symbol, bit % 4);
      highs[i] = _mm512_ternarylogic_epi64(highs[i], moved, fill(1u << bit), 0xf8);  // a | (b & c)
    }
  }
  scatter(highs, order, lanes, out.highs);
}

template <unsigned kBits, size_t kElements>
bool decode_as(const LanesPlan& plan, const uint8_t* tables, const uint8_t* in, size_t size,
               const LanesOutput& out) {
  const size_t groups = (plan.lanes + kGroup - 1) / kGroup, sets = smaller(groups, kSets);
  if (size < sets * kGroup * 2) return false;
  States states[kSets];
  __mmask64 wrong = 0;
  for (size_t i = 0; i < sets; ++i) {
    const __m512i a = load(in + i * 128), b = load(in + i * 128 + 64);
    const __m512i every = load(kPlaces.every), places = _mm512_add_epi8(every, every);
    states[i].low = _mm512_permutex2var_epi8(a, places, b);
    states[i].high = _mm512_permutex2var_epi8(a, _mm512_add_epi8(places, fill(1)), b);
    wrong |= zeros(states[i].high);
  }
  if (wrong != 0) return false;

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
    for (size_t i = 0; i * kGroup < lanes; ++i) {
      put_group<kBits, kElements>(symbols[i], plan.order + (group + i) * kGroup,
                                  smaller(lanes - i * kGroup, kGroup), out);
    }
  }
  for (size_t i = 0; i < sets; ++i) {
    wrong |= ~zeros(states[i].low) | ~zeros(_mm512_xor_si512(states[i].high, fill(1)));
  }
  return wrong == 0 && at == end;
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
// Lanes stand in descending order in a vector, so that bytes leave in the order in which the encoder makes
// them; a round's bytes are gathered on the stack and then turned around.

struct Quotients {
  __m512i quotient, rest;
};

// Numbers of 16 bits by frequencies. The reciprocals make a quotient that is right or 1 too small.
Quotients divide(__m512i x, __m512i frequency, __m512i reciprocal) {
  const __m512i quotient = _mm512_mulhi_epu16(x, reciprocal);
  const __m512i rest = _mm512_sub_epi16(x, _mm512_mullo_epi16(quotient, frequency));
  const __mmask32 more = _mm512_cmpge_epu16_mask(rest, frequency);
  return {_mm512_mask_add_epi16(quotient, more, quotient, _mm512_set1_epi16(1)),
          _mm512_mask_sub_epi16(rest, more, rest, frequency)};
}

// One step of one group. Writes 64 bytes at `at` and moves it past those that count.
template <bool kAllLanes>
void encode_step(States& states, const LanesCode& code, __m512i symbol, __mmask64 lanes, uint8_t*& at) {
  const __m512i frequencies = row<5>(code.frequency, 0), starts = row<5>(code.start, 0);
  const __m512i reciprocals = _mm512_loadu_si512(code.lower);
  const __m512i frequency = _mm512_permutexvar_epi8(symbol, frequencies);
  const __m512i start = _mm512_permutexvar_epi8(symbol, starts);
  __mmask64 emit = _mm512_cmpge_epu8_mask(states.high, frequency);
  if (!kAllLanes) emit &= lanes;
  store(at, _mm512_maskz_compress_epi8(emit, states.low));
  at += count(emit);
  const __m512i low = _mm512_mask_mov_epi8(states.low, emit, states.high);
  const __m512i high = _mm512_maskz_mov_epi8(~emit, states.high);
  const Quotients a = divide(_mm512_or_si512(even(low), _mm512_slli_epi16(high, 8)), even(frequency),
                             _mm512_permutexvar_epi16(symbol, reciprocals));
  const Quotients b = divide(_mm512_mask_mov_epi8(high, 0x5555555555555555u, odd(low)), odd(frequency),
                             _mm512_permutexvar_epi16(odd(symbol), reciprocals));
  const __m512i place = _mm512_add_epi8(start, lows(a.rest, b.rest));
  const __m512i below = _mm512_permutex2var_epi8(load(code.slots), place, load(code.slots + 64));
  const __m512i above = _mm512_permutex2var_epi8(load(code.slots + 128), place, load(code.slots + 192));
  const __m512i slot = _mm512_mask_mov_epi8(below, _mm512_movepi8_mask(place), above);
  const __m512i quotient = lows(a.quotient, b.quotient);
  states.low = kAllLanes ? slot : _mm512_mask_mov_epi8(states.low, lanes, slot);
  states.high = kAllLanes ? quotient : _mm512_mask_mov_epi8(states.high, lanes, quotient);
}

// Both write the bytes of a round, the last one first, at `at`, and return where they end.
uint8_t* encode_full_round(const LanesPlan& plan, const LanesCode* codes, size_t group, States* states,
                           const Symbols& symbols, uint8_t* at) {
  States now[kSets];
  for (size_t i = 0; i < kSets; ++i) now[i] = states[i];
  for (size_t t = plan.steps; t-- > 0;) {
    for (size_t i = kSets; i-- > 0;) {
      const size_t code = plan.base[group + i] + size_t{classes_of(plan, group + i)[t]};
      encode_step<true>(now[i], codes[code], load(symbols[i][t]), 0, at);
    }
  }
  for (size_t i = 0; i < kSets; ++i) states[i] = now[i];
  return at;
}

uint8_t* encode_last_round(const LanesPlan& plan, const LanesCode* codes, size_t group, States* states,
                           const Symbols& symbols, uint8_t* at) {
  const size_t rest = plan.lanes - group * kGroup, sets = (rest + kGroup - 1) / kGroup;
  for (size_t t = plan.steps; t-- > 0;) {
    for (size_t i = sets; i-- > 0;) {
      const size_t code = plan.base[group + i] + size_t{classes_of(plan, group + i)[t]};
      const __mmask64 lanes = ~first(kGroup - smaller(rest - i * kGroup, kGroup));
      encode_step<false>(states[i], codes[code], load(symbols[i][t]), lanes, at);
    }
  }
  return at;
}

// Writes bytes in reverse order before `end`, and returns where they begin.
uint8_t* put_reversed(const uint8_t* bytes, size_t size, uint8_t* end) {
  for (size_t i = 0; i < size; i += 64) {
    const size_t some = smaller(size - i, 64);
    const __m512i places = _mm512_sub_epi8(fill(static_cast<unsigned>(some - 1)), load(kPlaces.every));
    end -= some;
    _mm512_mask_storeu_epi8(end, first(some), _mm512_permutexvar_epi8(places, load(bytes + i)));
  }
  return end;
}

template <size_t kElements>
size_t encode_as(const LanesPlan& plan, const LanesCode* codes, const uint8_t* from, uint8_t* out,
                 size_t capacity) {
  const size_t groups = (plan.lanes + kGroup - 1) / kGroup, sets = smaller(groups, kSets);
  States states[kSets];
  for (States& set : states) set = {_mm512_setzero_si512(), fill(1)};
  alignas(64) Symbols symbols;
  alignas(64) uint8_t bytes[kMostBytes + 64];
  uint8_t* at = out + capacity;
  for (size_t group = (groups - 1) / kSets * kSets;; group -= kSets) {
    const size_t lanes = smaller(plan.lanes - group * kGroup, kSets * kGroup);
    for (size_t i = 0; i * kGroup < lanes; ++i) {
      get_group<kElements>(from, plan.order + (group + i) * kGroup, smaller(lanes - i * kGroup, kGroup),
                           symbols[i]);
    }
    const uint8_t* end = lanes == kSets * kGroup
                             ? encode_full_round(plan, codes, group, states, symbols, bytes)
                             : encode_last_round(plan, codes, group, states, symbols, bytes);
    at = put_reversed(bytes, static_cast<size_t>(end - bytes), at);
    if (group == 0) break;
  }
  for (size_t i = sets; i-- > 0;) {
    uint8_t state[kGroup][2];
    store(bytes, states[i].low);
    store(bytes + kGroup, states[i].high);
    for (size_t lane = 0; lane < kGroup; ++lane) {
      state[lane][0] = bytes[kGroup - 1 - lane];
      state[lane][1] = bytes[2 * kGroup - 1 - lane];
    }
    at -= sizeof state;
    std::memcpy(at, state, sizeof state);
  }
  return static_cast<size_t>(out + capacity - at);
}

size_t encode(const LanesPlan& plan, const LanesCode* codes, const uint8_t* symbols, uint8_t* out,
              size_t capacity) noexcept {
  return plan.elements == 16 ? encode_as<16>(plan, codes, symbols, out, capacity)
                             : encode_as<32>(plan, codes, symbols, out, capacity);
}

}  // namespace

const LanesKernels kLanesAvx512 = {decode, encode};

}  // namespace qzf
