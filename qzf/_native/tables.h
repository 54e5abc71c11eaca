// From frequencies to the tables that the kernels of the codecs "rans" and "lanes" use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/lanes.h"
#include "kernels/rans.h"

namespace qzf {

// --- rans: 256 frequencies of 12 bits
// -----------------------------------------------------------------------

// Whether they are below kRansSlots and add up to it.
bool rans_valid(const std::uint16_t* frequencies) noexcept;

// Fills kRansSlots entries, as kernels/rans.h has them. The frequencies must be valid.
void rans_decoding(const std::uint16_t* frequencies, std::uint32_t* entries) noexcept;

void rans_encoding(const std::uint16_t* frequencies, RansCode& code) noexcept;

// Codes sections of symbols, each starting at lane 0. Sections are added from the last to the first.
class RansWriter {
 public:
  // `most` is the number of symbols of all sections; `room` is used until the stream is finished.
  RansWriter(const RansKernels& kernels, std::vector<std::uint16_t>& room, std::size_t most);

  // False, and the writer is of no more use, where a symbol has no frequency in its context.
  bool add(const RansCode* codes, const RansContexts& contexts, const std::uint8_t* symbols, std::size_t n);

  // The stream: states, then words.
  void finish(std::vector<std::uint8_t>& out) const;

 private:
  const RansKernels& kernels_;
  std::uint32_t states_[kRansLanes];
  const std::uint16_t* words_;  // the last ones first
  std::uint16_t* end_;
};

// Reads the states at the start of a stream. False where it is too short or holds an impossible state.
bool rans_open(const std::uint8_t* in, std::size_t size, RansReader& reader) noexcept;

// Whether the stream was read to its end, and left the states it was begun with.
bool rans_at_end(const RansReader& reader) noexcept;

// --- lanes: 16 or 32 frequencies of 8 bits
// ------------------------------------------------------------------

// Whether they add up to 256.
bool lanes_valid(const std::uint8_t* frequencies, std::size_t alphabet) noexcept;

// Fills the four rows of `alphabet` bytes that kernels/lanes.h describes. The frequencies must be valid.
void lanes_decoding(const std::uint8_t* frequencies, std::size_t alphabet, std::uint8_t* rows) noexcept;
void lanes_encoding(const std::uint8_t* rows, std::size_t alphabet, LanesCode& code) noexcept;

// Bytes that `encode` may need.
constexpr std::size_t lanes_bound(std::size_t lanes, std::size_t steps) {
  return lanes * steps + 2 * kSets * kGroup;
}

}  // namespace qzf
