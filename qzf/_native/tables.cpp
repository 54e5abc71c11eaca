#include "tables.h"

#include <algorithm>

namespace qzf {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

// --- rans
// ---------------------------------------------------------------------------------------------------

namespace {
constexpr uint32_t kRansLow = 1u << 16;
}

bool rans_valid(const uint16_t* frequencies) noexcept {
  uint32_t sum = 0;
  for (size_t s = 0; s < 256; ++s) {
    if (frequencies[s] >= kRansSlots) return false;
    sum += frequencies[s];
  }
  return sum == kRansSlots;
}

void rans_decoding(const uint16_t* frequencies, uint32_t* entries) noexcept {
  for (uint32_t s = 0; s < 256; ++s) {
    const uint32_t frequency = frequencies[s];
    for (uint32_t rank = 0; rank < frequency; ++rank) *entries++ = frequency | rank << 12 | s << 24;
  }
}

void rans_encoding(const uint16_t* frequencies, RansCode& code) noexcept {
  uint32_t start = 0;
  for (size_t s = 0; s < 256; ++s) {
    const uint32_t frequency = frequencies[s];
    const uint32_t reciprocal = frequency == 0 ? 0 : ~uint32_t{0} / frequency;
    code.symbols[s] = {reciprocal, static_cast<uint16_t>(frequency), static_cast<uint16_t>(start)};
    code.exact[s] = frequency < 2 ? 0 : ~uint64_t{0} / frequency + 1;
    start += frequency;
  }
}

RansWriter::RansWriter(const RansKernels& kernels, std::vector<uint16_t>& room, size_t most)
    : kernels_(kernels) {
  std::fill(std::begin(states_), std::end(states_), kRansLow);
  room.resize(most + kRansAhead);  // at most one word a symbol
  words_ = end_ = room.data();
}

bool RansWriter::add(const RansCode* codes, const RansContexts& contexts, const uint8_t* symbols, size_t n) {
  end_ = kernels_.encode(states_, codes, contexts, symbols, n, end_);
  return end_ != nullptr;
}

void RansWriter::finish(std::vector<uint8_t>& out) const {
  const size_t words = static_cast<size_t>(end_ - words_);
  out.resize(4 * kRansLanes + 2 * words);
  uint8_t* at = out.data();
  for (const uint32_t state : states_) {
    for (unsigned shift = 0; shift < 32; shift += 8) *at++ = static_cast<uint8_t>(state >> shift);
  }
  for (size_t i = 0; i < words; ++i) {
    const uint16_t word = words_[words - 1 - i];
    at[2 * i] = static_cast<uint8_t>(word);
    at[2 * i + 1] = static_cast<uint8_t>(word >> 8);
  }
}

bool rans_open(const uint8_t* in, size_t size, RansReader& reader) noexcept {
  if (size < 4 * kRansLanes) return false;
  for (uint32_t& state : reader.state) {
    state = 0;
    for (unsigned shift = 0; shift < 32; shift += 8) state |= uint32_t{*in++} << shift;
    if (state < kRansLow) return false;
  }
  reader.at = in;
  reader.end = in + (size - 4 * kRansLanes);
  return true;
}

bool rans_at_end(const RansReader& reader) noexcept {
  return reader.at == reader.end && std::all_of(std::begin(reader.state), std::end(reader.state),
                                                [](uint32_t state) { return state == kRansLow; });
}

// --- lanes
// --------------------------------------------------------------------------------------------------

bool lanes_valid(const uint8_t* frequencies, size_t alphabet) noexcept {
  uint32_t sum = 0;
  for (size_t s = 0; s < alphabet; ++s) sum += frequencies[s];
  return sum == 256;
}

// The alias method (Walker 1974, Vose 1991) with the choices fixed by the spec: buckets that lack slots are
// filled first come, first served, each by the first symbol that has slots to spare.
void lanes_decoding(const uint8_t* frequencies, size_t alphabet, uint8_t* rows) noexcept {
  const size_t capacity = 256 / alphabet;
  size_t left[kMaxAlphabet], own[kMaxAlphabet], alias[kMaxAlphabet], lacking[kMaxAlphabet];
  size_t first = 0, count = 0, large = 0;
  for (size_t s = 0; s < alphabet; ++s) {
    left[s] = own[s] = frequencies[s];
    alias[s] = s;
    if (left[s] < capacity) lacking[count++] = s;
  }
  while (first < count) {
    const size_t b = lacking[first++];
    own[b] = left[b];
    while (left[large] < capacity) ++large;
    alias[b] = large;
    left[large] -= capacity - own[b];
    if (left[large] < capacity) lacking[count++] = large;
  }
  uint8_t *threshold = rows, *aliases = rows + alphabet, *offset = aliases + alphabet;
  size_t next[kMaxAlphabet];
  for (size_t s = 0; s < alphabet; ++s) {
    if (alias[s] == s) own[s] = capacity;
    next[s] = own[s];
  }
  for (size_t b = 0; b < alphabet; ++b) {
    const bool full = alias[b] == b;  // then its own symbol is the alias too, with ranks that start at 0
    threshold[b] = static_cast<uint8_t>(full ? 0 : own[b] * alphabet);
    aliases[b] = static_cast<uint8_t>(alias[b]);
    offset[b] = static_cast<uint8_t>(full ? 0 : next[alias[b]] - own[b]);
    if (!full) next[alias[b]] += capacity - own[b];
  }
  std::copy(frequencies, frequencies + alphabet, rows + 3 * alphabet);
}

void lanes_encoding(const uint8_t* rows, size_t alphabet, LanesCode& code) noexcept {
  const uint8_t *threshold = rows, *alias = rows + alphabet, *offset = alias + alphabet;
  const uint8_t* frequency = offset + alphabet;
  size_t start = 0;
  for (size_t s = 0; s < kMaxAlphabet; ++s) {
    code.frequency[s] = s < alphabet ? frequency[s] : uint8_t{0};
    code.start[s] = static_cast<uint8_t>(start);
    code.reciprocal[s] =
        code.frequency[s] == 0 ? 0 : ((1u << 24) + code.frequency[s] - 1) / code.frequency[s];
    code.lower[s] = static_cast<uint16_t>(code.frequency[s] == 0 ? 0 : 0xffffu / code.frequency[s]);
    start += code.frequency[s];
  }
  for (size_t slot = 0; slot < 256; ++slot) {
    const size_t bucket = slot % alphabet, j = slot / alphabet;
    const bool own = slot < threshold[bucket];
    const size_t symbol = own ? bucket : alias[bucket];
    const size_t rank = own ? j : (j + offset[bucket]) & 255;
    code.slots[(code.start[symbol] + rank) & 255] = static_cast<uint8_t>(slot);
  }
}

}  // namespace qzf
