// What the "quant" transform knows of each GGML type (spec/qzf-format.md, section 4.4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/blocks.h"

namespace qzf {

// How the logarithm of a lane's scale follows from the fields.
enum class LaneScale : std::uint8_t {
  kNumber,    // the first number alone
  kProduct,   // first number times integer scale
  kSigned,    // likewise, the scale as a signed byte
  kOffset32,  // likewise, the scale less 32
  kNibbles,   // likewise, scale in the low, minimum in the high 4 bits of a byte
  kE8M0,      // a byte that is an exponent
  kUE4M3,     // a byte with 4 bits of exponent and 3 of mantissa
};

struct QuantSchema {
  const char* name;
  BlockShape shape;
  unsigned numbers;   // fp16 fields: 0 to 2
  unsigned scales;    // integer scales a block
  unsigned mins;      // integer minima a block
  unsigned elements;  // codes of a lane
  unsigned bits;      // bits of a code
  unsigned low;       // of which the lowest are stored as they are
  unsigned extrema;   // codes of a lane that are known to be extreme, where the quantizer keeps to it
  LaneScale scale;

  std::size_t lanes() const { return shape.codes / elements; }
  std::size_t alphabet() const { return bits - low > 4 ? 32 : 16; }
  bool signed_extremum() const { return low == 4; }
  // Bits of where a lane's extrema are, and how many of them are stored in a section of their own.
  unsigned position_bits() const { return 5 * extrema + (signed_extremum() ? 1 : 0); }
  unsigned packed_position_bits() const { return signed_extremum() ? 2 : position_bits(); }
};

const std::vector<QuantSchema>& quant_schemas();

// Throws std::invalid_argument for an unknown name.
const QuantSchema& quant_schema(const std::string& name);

}  // namespace qzf
