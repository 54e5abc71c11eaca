// The oracle: the definition of spec/codecs/02-rans.md, one lane after the other.
#include "kernels/rans.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

// One row: up to 32 symbols. kChecked: words may run out within it.
template <bool kChecked, bool kEach>
bool row(RansReader& r, const uint32_t* tables, const uint8_t* contexts, uint8_t* out, size_t n) {
  const uint8_t* at = r.at;
  const uint32_t* table = tables + size_t{contexts[0]} * kRansSlots;
  for (size_t lane = 0; lane < n; ++lane) {
    if (kEach) table = tables + size_t{contexts[lane]} * kRansSlots;
    const uint32_t state = r.state[lane];
    const uint32_t entry = table[state & (kRansSlots - 1)];
    out[lane] = static_cast<uint8_t>(entry >> 24);
    uint32_t next = (entry & 0xfff) * (state >> 12) + (entry >> 12 & 0xfff);
    const bool refill = next < 0x10000;
    if (kChecked && refill && r.end - at < 2) return false;
    if (!kChecked || refill) {
      const uint32_t word = static_cast<uint32_t>(at[0] | at[1] << 8);
      next = refill ? next << 16 | word : next;
    }
    at += refill ? 2 : 0;
    r.state[lane] = next;
  }
  r.at = at;
  return true;
}

bool decode(RansReader& reader, const uint32_t* tables, const RansContexts& contexts, uint8_t* out,
            size_t n) noexcept {
  const bool each = contexts.run == 1;
  for (size_t i = 0; i < n; i += kRansLanes) {
    const size_t count = n - i < kRansLanes ? n - i : kRansLanes;
    const uint8_t* context = contexts.contexts + (each ? i : i / contexts.run);
    const bool whole = reader.end - reader.at >= 2 * static_cast<std::ptrdiff_t>(kRansLanes);
    bool ok;
    if (each) {
      ok = whole ? row<false, true>(reader, tables, context, out + i, count)
                 : row<true, true>(reader, tables, context, out + i, count);
    } else {
      ok = whole ? row<false, false>(reader, tables, context, out + i, count)
                 : row<true, false>(reader, tables, context, out + i, count);
    }
    if (!ok) return false;
  }
  return true;
}

// One row: up to 32 symbols, the last one first.
template <bool kEach>
uint16_t* encode_row(uint32_t* states, const RansCode* codes, const uint8_t* contexts, const uint8_t* symbols,
                     size_t n, uint16_t* words) {
  const RansCode* code = codes + contexts[0];
  bool missing = false;
  for (size_t lane = n; lane-- > 0;) {
    if (kEach) code = codes + contexts[lane];
    const RansSymbol symbol = code->symbols[symbols[lane]];
    const uint64_t exact = code->exact[symbols[lane]];
    const uint32_t frequency = symbol.frequency;
    missing |= frequency == 0;
    uint32_t x = states[lane];
    const bool emit = x >> 20 >= frequency;
    *words = static_cast<uint16_t>(x);
    words += emit;
    x >>= emit ? 16 : 0;
    const uint32_t product = static_cast<uint32_t>(static_cast<unsigned __int128>(exact) * x >> 64);
    const uint32_t quotient = exact == 0 ? x : product;
    states[lane] = quotient * (uint32_t{kRansSlots} - frequency) + x + symbol.start;
  }
  return missing ? nullptr : words;
}

uint16_t* encode(uint32_t* states, const RansCode* codes, const RansContexts& contexts,
                 const uint8_t* symbols, size_t n, uint16_t* words) noexcept {
  const bool each = contexts.run == 1;
  for (size_t i = (n + kRansLanes - 1) / kRansLanes * kRansLanes; i > 0 && words != nullptr;) {
    i -= kRansLanes;
    const size_t count = n - i < kRansLanes ? n - i : kRansLanes;
    const uint8_t* context = contexts.contexts + (each ? i : i / contexts.run);
    words = each ? encode_row<true>(states, codes, context, symbols + i, count, words)
                 : encode_row<false>(states, codes, context, symbols + i, count, words);
  }
  return words;
}

}  // namespace

const RansKernels kRansScalar = {decode, encode};

}  // namespace qzf
