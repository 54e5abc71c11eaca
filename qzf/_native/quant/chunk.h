// Chunks of quantization blocks <-> the four streams of the "quant" transform (spec/qzf-format.md,
// section 4.4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dispatch.h"
#include "quant/model.h"
#include "span.h"

namespace qzf {

struct QuantStreams {
  Span heads, tails, codes, rest;
};

// Classes of columns, one byte an element of a row: the content of a table of columns. `data` null without.
using ColumnClasses = Span;

// Decodes n blocks to `out`. Null, or what is wrong with the streams. Never reads or writes outside of the
// spans and of n whole blocks.
const char* quant_decode(const Isa& isa, const QuantModel& model, const ColumnClasses& columns,
                         const QuantStreams& streams, std::uint8_t* out, std::size_t n);

class QuantLease;

// Encodes n blocks, of which row_blocks make a row. False where the model cannot express them. The model must
// have been prepared for encoding. `out` lies in the lease's room: it is good until the thread's next call.
bool quant_encode(const Isa& isa, const QuantModel& model, const ColumnClasses& columns,
                  const std::uint8_t* blocks, std::size_t n, std::size_t row_blocks, const QuantLease& lease,
                  QuantStreams& out);

// Adds up how often the model's contexts and tables would code each symbol: contexts x 256 and tables x
// alphabet counts. False, with nothing added, where the blocks do not have the extrema that the model asks
// for.
bool quant_count(const Isa& isa, const QuantModel& model, const ColumnClasses& columns,
                 const std::uint8_t* blocks, std::size_t n, std::size_t row_blocks, std::uint64_t* heads,
                 std::uint64_t* codes);

// The fp16 fields of n blocks; whether all lanes have the extrema that quantizers of this type leave.
bool quant_look(const Isa& isa, const QuantSchema& schema, const std::uint8_t* blocks, std::size_t n,
                std::uint16_t* first, std::uint16_t* second);

// Adds to sums[column] how far the codes of a column lie from the zero point of their lanes, in 1/16 of a
// code.
void quant_deviations(const Isa& isa, const QuantSchema& schema, const std::uint8_t* blocks, std::size_t n,
                      std::size_t row_blocks, std::uint64_t* sums);

}  // namespace qzf
