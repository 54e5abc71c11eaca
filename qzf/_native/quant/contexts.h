// What the scales of a chunk say of each other, for encoder and decoder alike.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/lanes_order.h"

namespace qzf {

constexpr std::size_t kTailsHead = 12;                     // row_blocks, and two counts of exceptions
constexpr std::size_t kException = 6;                      // place, pattern
constexpr std::size_t kOneContext = std::size_t{1} << 40;  // a run that no stream reaches the end of

// Contexts of the symbols of n second numbers, from the first ones.
void second_contexts(const QuantModel& model, const std::uint16_t* first, std::size_t n,
                     std::uint8_t* contexts);

// Contexts of the integer minima of n blocks, in s.contexts: a minimum is about scale x d / dmin, and the
// logarithm of that is its context. The logarithms of scales are there.
void min_contexts(const Isa& isa, const QuantModel& model, std::size_t n, QuantScratch& s);

// Bytes of a lane's low bits.
inline std::size_t low_size(const QuantSchema& schema) { return schema.low * schema.elements / 8; }

// Whether there are classes of columns where the model asks for them, and for rows of this length.
bool columns_fit(const QuantModel& model, const ColumnClasses& columns, std::size_t row_blocks);

}  // namespace qzf
