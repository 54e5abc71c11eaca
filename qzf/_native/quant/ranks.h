// How the 16-bit numbers of a type are ranked, and which contexts and classes suit a sample (encoder only).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qzf {

// A list of values, or a base; and how many low bits a rank has.
struct Ranking {
  unsigned shift;
  std::uint16_t base;
  std::vector<std::uint16_t> values;
};

// A ranking that suits a sample of n patterns, at least one.
//
// Of many values those seen only once are left to be exceptions. A list of few values is in the order of how
// common they are where that makes low bits more even, and only for a number whose symbols have no context
// (`alone`), as symbols say little of the value then.
Ranking rank_patterns(const std::uint16_t* patterns, std::size_t n, bool alone);

// Which of `parts` equally common parts of a sample each value of bits 7 to 14 of its patterns falls in.
void pattern_parts(const std::uint16_t* patterns, std::size_t n, std::size_t parts, std::uint8_t* by_value);

// Classes of columns by how far their codes lie from zero: equally many columns in each.
void column_classes(const std::uint64_t* deviations, std::size_t columns, std::size_t classes,
                    std::uint8_t* by_column);

}  // namespace qzf
