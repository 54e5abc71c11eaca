// Contexts of plain numbers: each segment of a sample chooses the one that codes it best (encoder only).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dispatch.h"
#include "values/model.h"

namespace qzf {

// Adds to `counts`, 2^key_bits of them, how often each key occurs among n numbers.
void count_keys(const Isa& isa, Form form, const std::uint8_t* numbers, std::size_t n, std::uint64_t* counts);

// How often each symbol occurs in every `step`th of the whole segments of n numbers: 256 counts each.
std::vector<std::uint16_t> count_segments(const Isa& isa, Form form, const std::uint8_t* symbol_of_key,
                                          const std::uint8_t* numbers, std::size_t n, std::size_t segment,
                                          std::size_t step);

// Frequencies, 256 a context, that suit segments with these counts: up to `contexts` (1 to 16), found by
// k-means with the cost of coding as distance. Every context has some for symbol `last`; with `every`, for
// all.
std::vector<std::uint16_t> segment_contexts(const std::uint16_t* counts, std::size_t segments,
                                            std::size_t contexts, std::size_t last, bool every);

}  // namespace qzf
