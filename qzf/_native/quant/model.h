// The shared table of kind "quant": how the chunks of one type are modelled (spec/tables/01-quant.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "quant/schema.h"
#include "tables.h"

namespace qzf {

// How the 16-bit patterns of a number become an 8-bit symbol and low bits.
struct NumberCode {
  unsigned shift = 0;                 // low bits
  std::uint16_t base = 0;             // value of rank 0, without a list
  std::vector<std::uint16_t> values;  // values by rank, or empty
  std::vector<std::uint16_t> ranks;   // encoding: rank of each of 65536 patterns; any where it has none

  std::size_t count() const { return values.empty() ? std::size_t{256} << shift : values.size(); }
  std::uint16_t value(std::size_t rank) const {
    return values.empty() ? static_cast<std::uint16_t>(base + rank) : values[rank];
  }
};

class QuantModel {
 public:
  // Throws std::invalid_argument for a table that breaks the rules. `table` is not kept.
  QuantModel(const QuantSchema& schema, const std::uint8_t* table, std::size_t size);

  const QuantSchema& schema;
  bool extrema = false;
  unsigned keys = 1;            // lane keys
  unsigned column_classes = 1;  // more than 1: the chunk names a table of columns too
  unsigned contexts = 1;        // of the symbols of scales
  NumberCode numbers[2];
  std::uint8_t ratio_keys[128];       // part of a key: minimum / scale
  std::uint8_t residual_keys[64];     // part of a key: scale against those of its row and column
  std::uint8_t second_contexts[256];  // context of the second number, by bits 7 to 14 of the first
  std::uint8_t min_contexts[128];     // context of an integer minimum, by what its value should be
  std::uint8_t scale_context = 0;
  std::vector<std::uint32_t> rans;  // decoding tables
  std::vector<std::uint8_t> lanes;

  unsigned steps() const { return schema.elements - (extrema ? schema.extrema : 0); }

  // Tables for encoding, made at the first call; not safe against a second first call.
  void prepare_encoding();
  std::vector<RansCode> rans_codes;
  std::vector<std::uint8_t> commonest;  // symbol of each context
  std::vector<LanesCode> lanes_codes;
  bool all_codes = true;  // every code has a frequency in every table: what encoding asks for

 private:
  std::vector<std::uint16_t> rans_frequencies_;
};

}  // namespace qzf
