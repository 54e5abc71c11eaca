// The steps of encoding that the statistics take too.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/lanes_order.h"

namespace qzf {

// Takes n blocks apart: fields, codes and the logarithms of the scales. With `extrema` the extreme codes are
// taken out, and their places go to s.places; false where a lane lacks one. With `low` the low bits of the
// codes go there, and the other bits are shifted down.
bool take_blocks(const Isa& isa, const QuantSchema& schema, bool extrema, const std::uint8_t* blocks,
                 std::size_t n, QuantScratch& s, std::uint8_t* low);

// A section of the heads.
struct HeadsSection {
  RansContexts contexts;
  const std::uint8_t* symbols;
  std::size_t size;
};

struct HeadsSections {
  HeadsSection sections[4];
  std::size_t count = 0;

  void add(const HeadsSection& section) { sections[count++] = section; }
  const HeadsSection* begin() const { return sections; }
  const HeadsSection* end() const { return sections + count; }
};

// The sections of the heads of n blocks that are taken apart; s.tails becomes the tails.
HeadsSections make_heads(const Isa& isa, const QuantModel& model, std::size_t n, std::size_t row_blocks,
                         QuantScratch& s);

}  // namespace qzf
