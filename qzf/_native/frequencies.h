// Frequencies from counts, and what counted symbols cost: what shared tables are made by (encoder only).
// Every machine must make the same tables: whole numbers, and single operations on doubles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qzf {

constexpr std::size_t kMostSymbols = 256;

// log2 by operations that IEEE 754 rounds the same everywhere, which no library's does; exact for powers
// of 2.
double log2_everywhere(double x);

// How often each of `width` symbols (2 to kMostSymbols) was counted, row by row.
struct CountRows {
  const std::uint64_t* counts;
  std::size_t rows, width;

  const std::uint64_t* row(std::size_t i) const { return counts + i * width; }
};

// Frequencies that sum to `total` (at least `width`) and cost the counts little, each below `total`. What was
// counted gets at least 1; with `every` all symbols do, else those not counted get 0.
void quantize(const std::uint64_t* counts, std::size_t width, std::uint32_t total, bool every,
              std::uint16_t* frequencies);

// The same for counts that lean on others: 64 times themselves, plus what `lean` has for the symbol; all of
// the first `leaned` symbols get at least 1, the others 0.
void quantize_leaning(const std::uint64_t* counts, std::size_t width, const std::uint64_t* lean,
                      std::size_t leaned, std::uint32_t total, std::uint16_t* frequencies);

// 1/1024 bits that the counted symbols take at the entropy of their row.
std::uint64_t cost(const std::uint64_t* counts, std::size_t width);

// Which of at most `most` groups each row belongs to, in rising order: neighbours are joined where it costs
// least. `joined` gets the sums of the groups.
std::vector<std::uint8_t> join_rows(const CountRows& rows, std::size_t most,
                                    std::vector<std::uint64_t>& joined);

}  // namespace qzf
