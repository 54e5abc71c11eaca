// NEON has no gather: entries are loaded one by one. A row is eight vectors of 4 lanes.
#include <arm_neon.h>

#include <cstring>

#include "kernels/rans.h"

#define QZF_INLINE inline __attribute__((always_inline))  // GCC merges steps that are alike, and calls them

namespace qzf {
namespace {

using std::ptrdiff_t;
using std::size_t;
using std::uint32_t;
using std::uint8_t;

constexpr ptrdiff_t kRowBytes = 2 * static_cast<ptrdiff_t>(kRansLanes);  // the most that a row can take
constexpr size_t kGroups = kRansLanes / 4;

uint32x4_t fill(uint32_t number) { return vdupq_n_u32(number); }

// With kEach every lane has a context, and else `table` is the one of them all.
template <bool kEach>
QZF_INLINE uint32x4_t look_up(const uint32_t* table, uint32x4_t indices, const uint8_t* contexts) {
  size_t i[4] = {vgetq_lane_u32(indices, 0), vgetq_lane_u32(indices, 1), vgetq_lane_u32(indices, 2),
                 vgetq_lane_u32(indices, 3)};
  if (kEach) {
    for (size_t lane = 0; lane < 4; ++lane) i[lane] += size_t{contexts[lane]} * kRansSlots;
  }
  uint32x4_t entries = vld1q_lane_u32(table + i[0], fill(0), 0);
  entries = vld1q_lane_u32(table + i[1], entries, 1);
  entries = vld1q_lane_u32(table + i[2], entries, 2);
  return vld1q_lane_u32(table + i[3], entries, 3);
}

// For each set of 4 lanes: the bytes of words that its lanes take, in the order of lanes; elsewhere bytes
// that are not there, which become zeros.
struct Spread {
  alignas(16) uint8_t bytes[16][16];
  uint8_t taken[16];  // in bytes
};

constexpr Spread make_spread() {
  Spread spread{};
  for (unsigned set = 0; set < 16; ++set) {
    unsigned word = 0;
    for (unsigned lane = 0; lane < 4; ++lane) {
      const bool takes = (set >> lane & 1) != 0;
      spread.bytes[set][4 * lane] = static_cast<uint8_t>(takes ? 2 * word : 0xff);
      spread.bytes[set][4 * lane + 1] = static_cast<uint8_t>(takes ? 2 * word + 1 : 0xff);
      spread.bytes[set][4 * lane + 2] = spread.bytes[set][4 * lane + 3] = 0xff;
      word += takes;
    }
    spread.taken[set] = static_cast<uint8_t>(2 * word);
  }
  return spread;
}

constexpr Spread kSpread = make_spread();
constexpr uint32_t kBits[4] = {1, 2, 4, 8};

// Where words come from. They are loaded 4 at a time, past `end` too.
struct Words {
  const uint8_t* at;
  const uint8_t* end;
};

// Lanes 4 * kGroup to 4 * kGroup + 3 go from one state to the next. Their symbols are in the top bytes of
// `entry`. With kChecked words may run out.
template <size_t kGroup, bool kEach, bool kChecked>
QZF_INLINE bool step(uint32x4_t& state, Words& words, const uint32_t* table, const uint8_t* contexts,
                     uint32x4_t& entry) {
  entry =
      look_up<kEach>(table, vandq_u32(state, fill(kRansSlots - 1)), kEach ? contexts + 4 * kGroup : nullptr);
  const uint32x4_t frequency = vandq_u32(entry, fill(0xfff));
  const uint32x4_t rank = vandq_u32(vshrq_n_u32(entry, 12), fill(0xfff));
  const uint32x4_t next = vmlaq_u32(rank, frequency, vshrq_n_u32(state, 12));
  const uint32x4_t refill = vcltq_u32(next, fill(0x10000));
  const uint32_t set = vaddvq_u32(vandq_u32(refill, vld1q_u32(kBits)));
  if (kChecked && words.end - words.at < kSpread.taken[set]) return false;
  const uint8x16_t some = vcombine_u8(vld1_u8(words.at), vdup_n_u8(0));
  const uint8x16_t taken = vqtbl1q_u8(some, vld1q_u8(kSpread.bytes[set]));
  const uint32x4_t kept = vbslq_u32(refill, vshlq_n_u32(next, 16), next);
  state = vorrq_u32(kept, vreinterpretq_u32_u8(taken));
  words.at += kSpread.taken[set];
  return true;
}

// The top bytes of 16 entries.
uint8x16_t symbols_of(const uint32x4_t* entries) {
  const uint16x8_t low = vuzp2q_u16(vreinterpretq_u16_u32(entries[0]), vreinterpretq_u16_u32(entries[1]));
  const uint16x8_t high = vuzp2q_u16(vreinterpretq_u16_u32(entries[2]), vreinterpretq_u16_u32(entries[3]));
  return vuzp2q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
}

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
  uint32x4_t states[kGroups];
  for (size_t group = 0; group < kGroups; ++group) states[group] = vld1q_u32(reader.state + 4 * group);
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
    uint32x4_t entries[kGroups];
    const bool ok = step<0, kEach, kChecked>(states[0], words, table, contexts, entries[0]) &&
                    step<1, kEach, kChecked>(states[1], words, table, contexts, entries[1]) &&
                    step<2, kEach, kChecked>(states[2], words, table, contexts, entries[2]) &&
                    step<3, kEach, kChecked>(states[3], words, table, contexts, entries[3]) &&
                    step<4, kEach, kChecked>(states[4], words, table, contexts, entries[4]) &&
                    step<5, kEach, kChecked>(states[5], words, table, contexts, entries[5]) &&
                    step<6, kEach, kChecked>(states[6], words, table, contexts, entries[6]) &&
                    step<7, kEach, kChecked>(states[7], words, table, contexts, entries[7]);
    if (!ok) break;
    vst1q_u8(rows.out + row * kRansLanes, symbols_of(entries));
    vst1q_u8(rows.out + row * kRansLanes + 16, symbols_of(entries + 4));
    if (kEach) contexts += kRansLanes;
  }
  for (size_t group = 0; group < kGroups; ++group) vst1q_u32(reader.state + 4 * group, states[group]);
  reader.at = words.at;
  return row;
}

// The last rows read from a copy of the last words, which has room behind them.
template <bool kEach>
size_t decode_all_rows(RansReader& reader, const Rows& rows) {
  size_t row = decode_rows<kEach, false>(reader, rows, 0);
  if (row == rows.n) return row;
  uint8_t last[kRowBytes + 8] = {};
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

const RansKernels kRansNeon = {decode, encode};

}  // namespace qzf
