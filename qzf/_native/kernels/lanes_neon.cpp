// NEON. The states of 16 lanes are two vectors, their low and their high bytes; the low byte is the slot.
// Bytes of the stream go to 8 lanes at a time, by a table with a row for each mask of those that need one.
#include <arm_neon.h>

#include <cstring>

#include "kernels/lanes.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr size_t kLanes = 16;  // of a vector
constexpr size_t kVectors = kGroup / kLanes;
constexpr size_t kMostBytes = kSets * kGroup * kMaxSteps;  // of a round
constexpr uint8_t kNoClasses[kMaxSteps] = {};

size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
uint8x16_t fill(unsigned byte) { return vdupq_n_u8(static_cast<uint8_t>(byte)); }

// Indices that give each lane of a mask of 8 lanes the next byte.
struct Places {
  alignas(64) uint8_t expand[256][8];
};
constexpr Places make_places() {
  Places places{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned n = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      places.expand[mask][lane] = static_cast<uint8_t>(n);
      n += mask >> lane & 1;
    }
  }
  return places;
}
constexpr Places kPlaces = make_places();

const uint8_t* classes_of(const LanesPlan& plan, size_t group) {
  return plan.classes ? plan.classes[group] : kNoClasses;
}

// Bytes 255 in lanes below `n`, which may be more than there are.
uint8x16_t below(size_t n) {
  static constexpr uint8_t kEvery[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return vcltq_u8(vld1q_u8(kEvery), fill(static_cast<unsigned>(smaller(n, kLanes))));
}

template <unsigned kBits>
struct Row;
template <>
struct Row<4> {
  uint8x16_t row;
  explicit Row(const uint8_t* p) : row(vld1q_u8(p)) {}
  uint8x16_t operator[](uint8x16_t index) const { return vqtbl1q_u8(row, index); }
};
template <>
struct Row<5> {
  uint8x16x2_t row;
  explicit Row(const uint8_t* p) : row(vld1q_u8_x2(p)) {}
  uint8x16_t operator[](uint8x16_t index) const { return vqtbl2q_u8(row, index); }
};

// Of a group.
struct States {
  uint8x16_t low[kVectors], high[kVectors];
};

using Symbols = uint8_t[kSets][kMaxSteps][kGroup];

// A bit for each lane of a group from bytes that are 0 or 255.
uint64_t mask_of(const uint8x16_t (&v)[kVectors]) {
  const uint8x16_t bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  const uint8x16_t a = vpaddq_u8(vandq_u8(v[0], bits), vandq_u8(v[1], bits));
  const uint8x16_t b = vpaddq_u8(vandq_u8(v[2], bits), vandq_u8(v[3], bits));
  const uint8x16_t c = vpaddq_u8(a, b);
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(c, c)), 0);
}

// How many bits are set in each byte and those below it.
uint64_t counts_of(uint64_t mask) {
  return vget_lane_u64(vreinterpret_u64_u8(vcnt_u8(vcreate_u8(mask))), 0) * 0x0101010101010101;
}

// One step of one group. Reads 64 bytes at `at` and moves it past those that were needed. Of lanes from
// `lanes` on, states are kept.
template <unsigned kBits, bool kAllLanes>
void step(States& states, const uint8_t* table, size_t lanes, const uint8_t*& at, uint8_t* symbols) {
  const Row<kBits> thresholds(table), aliases(table + (1 << kBits)), offsets(table + (2 << kBits)),
      frequencies(table + (3 << kBits));
  uint8x16_t low[kVectors], high[kVectors], refill[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    const uint8x16_t slot = states.low[i], bucket = vandq_u8(slot, fill((1u << kBits) - 1));
    const uint8x16_t other = vcgeq_u8(slot, thresholds[bucket]);
    const uint8x16_t symbol = vbslq_u8(other, aliases[bucket], bucket);
    const uint8x16_t rank = vsraq_n_u8(vandq_u8(offsets[bucket], other), slot, kBits);
    const uint8x16_t frequency = frequencies[symbol];
    vst1q_u8(symbols + i * kLanes, symbol);
    const uint8x16_t first = vreinterpretq_u8_u16(
        vaddw_u8(vmull_u8(vget_low_u8(frequency), vget_low_u8(states.high[i])), vget_low_u8(rank)));
    const uint8x16_t second =
        vreinterpretq_u8_u16(vaddw_high_u8(vmull_high_u8(frequency, states.high[i]), rank));
    low[i] = vuzp1q_u8(first, second);
    high[i] = vuzp2q_u8(first, second);
    refill[i] = vceqzq_u8(high[i]);
    if (!kAllLanes) refill[i] = vandq_u8(refill[i], below(lanes < i * kLanes ? 0 : lanes - i * kLanes));
  }
  const uint64_t mask = mask_of(refill), counts = counts_of(mask);
  for (size_t i = 0; i < kVectors; ++i) {
    const size_t before = i == 0 ? 0 : counts >> (16 * i - 8) & 255;
    const size_t first = (counts >> 16 * i & 255) - before;
    const uint8x8_t a = vld1_u8(kPlaces.expand[mask >> 16 * i & 255]);
    const uint8x8_t b = vld1_u8(kPlaces.expand[mask >> (16 * i + 8) & 255]);
    const uint8x16_t places = vcombine_u8(a, vadd_u8(b, vdup_n_u8(static_cast<uint8_t>(first))));
    const uint8x16_t bytes = vqtbl1q_u8(vld1q_u8(at + before), places);
    high[i] = vbslq_u8(refill[i], low[i], high[i]);
    low[i] = vbslq_u8(refill[i], bytes, low[i]);
    if (!kAllLanes) {
      const uint8x16_t there = below(lanes < i * kLanes ? 0 : lanes - i * kLanes);
      low[i] = vbslq_u8(there, low[i], states.low[i]);
      high[i] = vbslq_u8(there, high[i], states.high[i]);
    }
    states.low[i] = low[i];
    states.high[i] = high[i];
  }
  at += counts >> 56;
}

// All steps of up to four groups, from which on `lanes` remain.
template <unsigned kBits, bool kAllLanes>
const uint8_t* decode_round(const LanesPlan& plan, const uint8_t* tables, size_t group, States* states,
                            const uint8_t* at, Symbols& symbols) {
  const size_t rest = plan.lanes - group * kGroup;
  const size_t sets = kAllLanes ? kSets : (rest + kGroup - 1) / kGroup;
  for (size_t t = 0; t < plan.steps; ++t) {
    for (size_t i = 0; i < sets; ++i) {
      const size_t table = plan.base[group + i] + size_t{classes_of(plan, group + i)[t]};
      step<kBits, kAllLanes>(states[i], tables + (table * 4 << kBits), rest - i * kGroup, at, symbols[i][t]);
    }
  }
  return at;
}

// Writes column i of `rows`, kRows bytes, to item order[i] of an array.
template <size_t kRows>
void scatter(uint8x16_t (&rows)[kRows], const uint32_t* order, size_t lanes, uint8_t* out) {
  for (size_t round = 1; round < kRows; round *= 2) {
    uint8x16_t next[kRows];
    for (size_t i = 0; i < kRows / 2; ++i) {
      next[2 * i] = vzip1q_u8(rows[i], rows[i + kRows / 2]);
      next[2 * i + 1] = vzip2q_u8(rows[i], rows[i + kRows / 2]);
    }
    for (size_t i = 0; i < kRows; ++i) rows[i] = next[i];
  }
  uint8_t columns[kLanes][kRows];
  for (size_t i = 0; i < kRows; ++i) vst1q_u8(columns[0] + i * kLanes, rows[i]);
  if (lanes < kLanes) {
    for (size_t lane = 0; lane < lanes; ++lane) std::memcpy(out + order[lane] * kRows, columns[lane], kRows);
  } else {
    for (size_t lane = 0; lane < kLanes; ++lane) std::memcpy(out + order[lane] * kRows, columns[lane], kRows);
  }
}

// The symbols of some lanes start at symbols[t][place].
template <unsigned kBits, size_t kElements>
void put_lanes(const uint8_t (&symbols)[kMaxSteps][kGroup], size_t place, const uint32_t* order, size_t lanes,
               const LanesOutput& out) {
  uint8x16_t records[kElements / 2];
  for (size_t i = 0; i < kElements / 2; ++i) {
    const uint8x16_t low = vld1q_u8(symbols[i] + place), high = vld1q_u8(symbols[i + kElements / 2] + place);
    records[i] = vsliq_n_u8(low, high, 4);
  }
  scatter(records, order, lanes, out.records);
  if (kBits == 4) return;
  uint8x16_t highs[kElements / 8];
  for (size_t i = 0; i < kElements / 8; ++i) {
    highs[i] = fill(0);
    for (size_t bit = 8; bit-- > 0;) {  // each symbol's bit 4 to bit 0
      const uint8x16_t symbol = vshrq_n_u8(vld1q_u8(symbols[8 * i + bit] + place), 4);
      highs[i] = vsliq_n_u8(symbol, highs[i], 1);
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
  uint8x16_t wrong = fill(0);
  for (size_t i = 0; i < sets * kVectors; ++i) {
    const uint8x16x2_t bytes = vld2q_u8(in + i * 2 * kLanes);
    states[i / kVectors].low[i % kVectors] = bytes.val[0];
    states[i / kVectors].high[i % kVectors] = bytes.val[1];
    wrong = vorrq_u8(wrong, vceqzq_u8(bytes.val[1]));
  }
  if (vmaxvq_u8(wrong) != 0) return false;

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
    at = lanes == kSets * kGroup ? decode_round<kBits, true>(plan, tables, group, states, at, symbols)
                                 : decode_round<kBits, false>(plan, tables, group, states, at, symbols);
    if (at > end) return false;
    for (size_t i = 0; i * kLanes < lanes; ++i) {
      put_lanes<kBits, kElements>(symbols[i / kVectors], i % kVectors * kLanes,
                                  plan.order + group * kGroup + i * kLanes, lanes - i * kLanes, out);
    }
  }
  for (size_t i = 0; i < sets * kVectors; ++i) {
    const States& set = states[i / kVectors];
    wrong = vorrq_u8(wrong, vorrq_u8(set.low[i % kVectors], veorq_u8(set.high[i % kVectors], fill(1))));
  }
  return vmaxvq_u8(wrong) == 0 && at == end;
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

size_t encode(const LanesPlan& plan, const LanesCode* codes, const uint8_t* symbols, uint8_t* out,
              size_t capacity) noexcept {
  return kLanesScalar.encode(plan, codes, symbols, out, capacity);
}

}  // namespace

const LanesKernels kLanesNeon = {decode, encode};

}  // namespace qzf
