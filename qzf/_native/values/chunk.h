// Chunks of plain numbers <-> the five streams of the "values" transform (spec/qzf-format.md, section 4.5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dispatch.h"
#include "span.h"
#include "values/model.h"

namespace qzf {

struct ValuesStreams {
  Span classes, symbols, extras, low, words;
};

// Decodes n numbers to `out`. Null, or what is wrong with the streams. Never reads or writes outside of the
// spans and of n whole numbers.
const char* values_decode(const Isa& isa, const ValuesModel& model, const ValuesStreams& streams,
                          std::uint8_t* out, std::size_t n);

struct ValuesEncoded {
  std::vector<std::uint8_t> classes, symbols, extras, low, words;
};

// Encodes n numbers, each `segment` (a multiple of 32) of them by the context that costs least. False where
// the model cannot express them. The model must have been prepared for encoding.
bool values_encode(const Isa& isa, const ValuesModel& model, const std::uint8_t* numbers, std::size_t n,
                   std::size_t segment, ValuesEncoded& out);

// The keys of n numbers.
void values_keys(const Isa& isa, Form form, const std::uint8_t* numbers, std::size_t n, std::uint16_t* keys);

}  // namespace qzf
