// Which lanes are coded together, by which tables: keys of lanes from their scales, and the order by keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "quant/chunk.h"

namespace qzf {

// Room for one chunk's work, kept by a thread from chunk to chunk.
struct QuantScratch {
  std::vector<std::uint16_t> numbers[2];
  std::vector<std::uint8_t> scales, mins;
  std::vector<std::uint8_t> symbols, contexts, packed;
  std::vector<std::uint8_t> records, highs, codes;
  std::vector<std::uint8_t> second, ranks[2], rank_bits;  // encoding: contexts, symbols and low bits
  std::vector<std::uint8_t> exceptions[2], heads, tails, rest, room;
  std::vector<std::uint16_t> words, places, centers;
  std::vector<std::uint16_t> logs, min_logs, means;
  std::vector<std::uint8_t> keys, index;
  std::vector<std::uint32_t> order, counts;
  std::vector<std::uint16_t> base;
  std::vector<const std::uint8_t*> classes;

  void resize(const QuantSchema& schema, std::size_t n);
  // The fields from block `first` on.
  BlockScales fields(const QuantSchema& schema, std::size_t first = 0) {
    return {{numbers[0].data() + (schema.numbers > 0 ? first : 0),
             numbers[1].data() + (schema.numbers > 1 ? first : 0)},
            scales.data() + first * schema.scales,
            mins.data() + first * schema.mins};
  }
};

// The thread's room, for the time of one call: a chunk far above the usual size leaves nothing behind.
class QuantLease {
 public:
  QuantLease();
  ~QuantLease();
  QuantLease(const QuantLease&) = delete;
  QuantLease& operator=(const QuantLease&) = delete;

  QuantScratch& operator*() const { return scratch_; }

 private:
  QuantScratch& scratch_;
};

// Fills logs from the first number and the integer scales: log2 in 1/1024 of an octave, with a straight line
// between the octaves as the bits of a float have it, plus 1024 for the integer; an integer 0 counts 0.
void scale_logs(const Isa& isa, const QuantSchema& schema, std::size_t n, QuantScratch& scratch);

// Fills keys, order, base and classes from the fields, and returns the plan. `columns` fits the rows; logs
// are there.
LanesPlan lanes_plan(const Isa& isa, const QuantModel& model, const ColumnClasses& columns, std::size_t n,
                     std::size_t row_blocks, QuantScratch& scratch);

// Where zero lies in each lane of a type with minima, in 1/16 of a code: 16 x minimum / scale, about. Encoder
// only.
void lane_centers(const Isa& isa, const QuantSchema& schema, std::size_t n, QuantScratch& scratch,
                  std::uint16_t* centers);

// Bytes of a table of columns for rows of this many blocks.
inline std::size_t column_count(const QuantSchema& schema, std::size_t row_blocks) {
  return row_blocks * schema.shape.codes;
}

}  // namespace qzf
