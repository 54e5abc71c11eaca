#include "quant/schema.h"

#include <stdexcept>

namespace qzf {

const std::vector<QuantSchema>& quant_schemas() {
  static const std::vector<QuantSchema> schemas = {
      // name, {type, bytes, codes}, numbers, scales, mins, elements, bits, low, extrema, lane scale
      {"Q4_0", {Block::kQ4_0, 18, 32}, 1, 0, 0, 32, 4, 0, 1, LaneScale::kNumber},
      {"Q4_1", {Block::kQ4_1, 20, 32}, 2, 0, 0, 32, 4, 0, 2, LaneScale::kNumber},
      {"Q5_0", {Block::kQ5_0, 22, 32}, 1, 0, 0, 32, 5, 0, 1, LaneScale::kNumber},
      {"Q5_1", {Block::kQ5_1, 24, 32}, 2, 0, 0, 32, 5, 0, 2, LaneScale::kNumber},
      {"Q8_0", {Block::kQ8_0, 34, 32}, 1, 0, 0, 32, 8, 4, 1, LaneScale::kNumber},
      {"Q2_K", {Block::kQ2K, 84, 256}, 2, 16, 0, 16, 2, 0, 0, LaneScale::kNibbles},
      {"Q3_K", {Block::kQ3K, 110, 256}, 1, 16, 0, 16, 3, 0, 0, LaneScale::kOffset32},
      {"Q4_K", {Block::kQ4K, 144, 256}, 2, 8, 8, 32, 4, 0, 0, LaneScale::kProduct},
      {"Q5_K", {Block::kQ5K, 176, 256}, 2, 8, 8, 32, 5, 0, 0, LaneScale::kProduct},
      {"Q6_K", {Block::kQ6K, 210, 256}, 1, 16, 0, 16, 6, 1, 0, LaneScale::kSigned},
      {"IQ4_NL", {Block::kIQ4NL, 18, 32}, 1, 0, 0, 32, 4, 0, 0, LaneScale::kNumber},
      {"IQ4_XS", {Block::kIQ4XS, 136, 256}, 1, 8, 0, 32, 4, 0, 0, LaneScale::kOffset32},
      {"TQ2_0", {Block::kTQ2_0, 66, 256}, 1, 0, 0, 32, 2, 0, 0, LaneScale::kNumber},
      {"MXFP4", {Block::kMXFP4, 17, 32}, 0, 1, 0, 32, 4, 0, 0, LaneScale::kE8M0},
      {"NVFP4", {Block::kNVFP4, 36, 64}, 0, 4, 0, 16, 4, 0, 0, LaneScale::kUE4M3},
  };
  return schemas;
}

const QuantSchema& quant_schema(const std::string& name) {
  for (const QuantSchema& schema : quant_schemas()) {
    if (name == schema.name) return schema;
  }
  throw std::invalid_argument("the quant transform does not know " + name);
}

}  // namespace qzf
