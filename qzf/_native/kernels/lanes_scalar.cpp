// The oracle: the definition of spec/codecs/03-lanes.md, one lane after the other.
#include "kernels/lanes.h"

namespace qzf {
namespace {

using std::ptrdiff_t;
using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

constexpr uint32_t kLow = 256;  // states are from here to 65535

size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// --- decoding
// -----------------------------------------------------------------------------------------------

struct Reader {
  uint32_t state[kSets][kGroup];
  const uint8_t* at;
  const uint8_t* end;
};

// One step of one group, without a branch on the data: they would be guessed wrong every other time.
// kChecked: bytes may run out within it.
template <bool kChecked, unsigned kBits>
bool step(Reader& r, uint32_t* states, const uint8_t* table, size_t lanes, uint8_t* symbols) {
  constexpr uint32_t kAlphabet = 1u << kBits;
  const uint8_t* at = r.at;
  for (size_t lane = 0; lane < lanes; ++lane) {
    const uint32_t state = states[lane], slot = state & 255, bucket = slot & (kAlphabet - 1);
    const uint32_t alias = 0u - static_cast<uint32_t>(slot >= table[bucket]);  // all ones: the bucket's alias
    const uint32_t symbol = bucket ^ ((bucket ^ table[kAlphabet + bucket]) & alias);
    const uint32_t rank = ((slot >> kBits) + (table[2 * kAlphabet + bucket] & alias)) & 255;
    const uint32_t next = table[3 * kAlphabet + symbol] * (state >> 8) + rank;
    symbols[lane] = static_cast<uint8_t>(symbol);
    const uint32_t refill = next < kLow;
    if (kChecked && refill && at == r.end) return false;
    const uint32_t byte = kChecked && !refill ? 0 : *at;
    states[lane] = next << 8 * refill | (byte & (0u - refill));
    at += refill;
  }
  r.at = at;
  return true;
}

template <unsigned kBits>
bool any_step(Reader& r, uint32_t* states, const uint8_t* table, size_t lanes, uint8_t* symbols) {
  return r.end - r.at >= static_cast<ptrdiff_t>(kGroup) ? step<false, kBits>(r, states, table, lanes, symbols)
                                                        : step<true, kBits>(r, states, table, lanes, symbols);
}

// Symbols of a group, step by step, to the lanes' records.
void put_group(const LanesPlan& plan, const LanesOutput& out, const uint32_t* order, size_t lanes,
               const uint8_t (*symbols)[kGroup]) {
  const size_t half = plan.elements / 2;
  for (size_t lane = 0; lane < lanes; ++lane) {
    uint8_t* record = out.records + order[lane] * half;
    for (size_t i = 0; i < half; ++i) {
      record[i] = static_cast<uint8_t>((symbols[i][lane] & 15u) | symbols[half + i][lane] << 4);
    }
    uint8_t* high = out.highs + order[lane] * (plan.elements / 8);
    for (size_t i = 0; plan.alphabet > 16 && i < plan.elements / 8; ++i) {
      unsigned bits = 0;
      for (size_t k = 0; k < 8; ++k) bits |= (symbols[8 * i + k][lane] >> 4 & 1u) << k;
      high[i] = static_cast<uint8_t>(bits);
    }
  }
}

template <unsigned kBits>
bool decode_bits(const LanesPlan& plan, const uint8_t* tables, const uint8_t* in, size_t size,
                 const LanesOutput& out) {
  const size_t groups = (plan.lanes + kGroup - 1) / kGroup, sets = smaller(groups, kSets);
  if (size < sets * kGroup * 2) return false;
  Reader r;
  for (size_t i = 0; i < sets * kGroup; ++i) {
    r.state[i / kGroup][i % kGroup] = static_cast<uint32_t>(in[2 * i] | in[2 * i + 1] << 8);
    if (r.state[i / kGroup][i % kGroup] < kLow) return false;
  }
  r.at = in + sets * kGroup * 2;
  r.end = in + size;
  uint8_t symbols[kSets][kMaxSteps][kGroup] = {};  // what is behind the steps stays zero
  for (size_t first = 0; first < groups; first += kSets) {
    const size_t last = smaller(first + kSets, groups);
    for (size_t t = 0; t < plan.steps; ++t) {
      for (size_t g = first; g < last; ++g) {
        const size_t lanes = smaller(kGroup, plan.lanes - g * kGroup);
        const size_t table = plan.base[g] + (plan.classes ? plan.classes[g][t] : size_t{0});
        const uint8_t* rows = tables + (table * 4 << kBits);
        if (!any_step<kBits>(r, r.state[g - first], rows, lanes, symbols[g - first][t])) return false;
      }
    }
    for (size_t g = first; g < last; ++g) {
      put_group(plan, out, plan.order + g * kGroup, smaller(kGroup, plan.lanes - g * kGroup),
                symbols[g - first]);
    }
  }
  uint32_t differ = 0;
  for (size_t i = 0; i < sets * kGroup; ++i) differ |= r.state[i / kGroup][i % kGroup] ^ kLow;
  return differ == 0 && r.at == r.end;
}

bool decode(const LanesPlan& plan, const uint8_t* tables, const uint8_t* in, size_t size,
            const LanesOutput& out) noexcept {
  return plan.alphabet == 16 ? decode_bits<4>(plan, tables, in, size, out)
                             : decode_bits<5>(plan, tables, in, size, out);
}

// --- encoding: all in reverse, so that decoding goes forward
// ------------------------------------------------

size_t encode(const LanesPlan& plan, const LanesCode* codes, const uint8_t* symbols, uint8_t* out,
              size_t capacity) noexcept {
  const size_t groups = (plan.lanes + kGroup - 1) / kGroup, sets = smaller(groups, kSets);
  uint32_t states[kSets][kGroup];
  for (auto& set : states) {
    for (uint32_t& state : set) state = kLow;
  }
  uint8_t* at = out + capacity;
  for (size_t first = (groups - 1) / kSets * kSets;; first -= kSets) {
    for (size_t t = plan.steps; t-- > 0;) {
      for (size_t g = smaller(first + kSets, groups); g-- > first;) {
        const size_t lanes = smaller(kGroup, plan.lanes - g * kGroup);
        const LanesCode& code = codes[plan.base[g] + (plan.classes ? plan.classes[g][t] : size_t{0})];
        const uint32_t* order = plan.order + g * kGroup;
        for (size_t lane = lanes; lane-- > 0;) {
          const uint32_t symbol = symbols[size_t{order[lane]} * plan.elements + t];
          const uint32_t frequency = code.frequency[symbol];
          uint32_t x = states[g - first][lane];
          const bool emit = x >= frequency << 8;
          at[-1] = static_cast<uint8_t>(x);  // there is room: at least one byte a symbol
          at -= emit;
          x = emit ? x >> 8 : x;
          const uint32_t q = static_cast<uint32_t>(std::uint64_t{x} * code.reciprocal[symbol] >> 24);
          states[g - first][lane] = q << 8 | code.slots[code.start[symbol] + (x - q * frequency)];
        }
      }
    }
    if (first == 0) break;
  }
  for (size_t i = sets * kGroup; i-- > 0;) {
    const uint32_t state = states[i / kGroup][i % kGroup];
    *--at = static_cast<uint8_t>(state >> 8);
    *--at = static_cast<uint8_t>(state);
  }
  return static_cast<size_t>(out + capacity - at);
}

}  // namespace

const LanesKernels kLanesScalar = {decode, encode};

}  // namespace qzf
