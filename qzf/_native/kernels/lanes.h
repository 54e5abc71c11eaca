// The table of kernels of codec 3, "lanes": codes of quantization blocks, a block (or sub-block) a lane, 64
// lanes a group, four groups at a time, 16-bit states, 8-bit probabilities, byte renormalisation
// (spec/codecs/03-lanes.md). Declarations only, as in fields.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qzf {

constexpr std::size_t kGroup = 64;     // lanes of a group
constexpr std::size_t kSets = 4;       // groups that are coded together, each with its own states
constexpr std::size_t kMaxSteps = 32;  // symbols of a lane
constexpr std::size_t kMaxAlphabet = 32;

// What encoder and decoder share: which lanes stand together, and by which table each step is coded.
//
// Position p in the order of coding holds lane order[p]; group g holds positions 64 g to 64 g + 63. Step t of
// group g is coded by table base[g] + classes[g][t]; where there are no column classes, `classes` is null and
// the table is base[g].
struct LanesPlan {
  std::size_t lanes;
  std::size_t steps;     // symbols coded of each lane: elements, less up to 2
  std::size_t elements;  // 16 or 32: how lanes are laid out in memory
  std::size_t alphabet;  // 16 or 32
  const std::uint32_t* order;
  const std::uint16_t* base;
  const std::uint8_t* const* classes;
  // What the caller reads next: kernels may prefetch it as they go, as the work here waits for no memory.
  const std::uint8_t* ahead = nullptr;
  std::size_t ahead_size = 0;
};

// Decoding tables, one after another: each has four rows of `alphabet` bytes. With bucket = slot mod alphabet
// and j = slot / alphabet: where slot < threshold[bucket], the symbol is bucket and its rank j; else the
// symbol is alias[bucket] and its rank (j + offset[bucket]) mod 256. frequency[symbol] is the last row.
//
// Records, by lane: `elements` / 2 bytes, byte i with the low 4 bits of symbol i in its low half and those of
// symbol i + elements / 2 in its high half. Highs, by lane, for an alphabet of 32 only: `elements` / 8 bytes,
// bit e of the little-endian number is bit 4 of symbol e. Symbols from `steps` on are zero.
struct LanesOutput {
  std::uint8_t* records;
  std::uint8_t* highs;
};

// Encoding tables, one after another.
struct LanesCode {
  std::uint8_t frequency[kMaxAlphabet];
  std::uint8_t start[kMaxAlphabet];        // first place of the symbol's slots in `slots`
  std::uint8_t slots[256];                 // slots[start[s] + rank]
  std::uint16_t lower[kMaxAlphabet];       // x / frequency = x * lower >> 16, or one more, for x < 65536
  std::uint32_t reciprocal[kMaxAlphabet];  // x / frequency = x * reciprocal >> 24 for x < 65536
};

struct LanesKernels {
  // Decodes a whole stream of `size` bytes at `in`. False where it does not hold exactly these symbols.
  bool (*decode)(const LanesPlan& plan, const std::uint8_t* tables, const std::uint8_t* in, std::size_t size,
                 const LanesOutput& out) noexcept;

  // Encodes symbols[lane * elements + step] to the end of the `capacity` bytes at `out`; returns how many.
  // All symbols must have a frequency. `capacity` is at least lanes_bound(lanes, steps).
  std::size_t (*encode)(const LanesPlan& plan, const LanesCode* codes, const std::uint8_t* symbols,
                        std::uint8_t* out, std::size_t capacity) noexcept;
};

extern const LanesKernels kLanesScalar;
extern const LanesKernels kLanesAvx2;
extern const LanesKernels kLanesAvx512;  // needs AVX512_VBMI and VBMI2 too
extern const LanesKernels kLanesNeon;

}  // namespace qzf
