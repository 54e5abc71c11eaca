// A block layout: which bits of a block go to which stream, checked once and then executed by kernels.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "kernels/fields.h"

namespace qzf {

// Steps are added in the order of their streams, then freeze() makes the layout usable and constant. All
// checks throw std::invalid_argument. The steps' meaning: fields.h, and normatively the format's text.
class Layout {
 public:
  static constexpr std::size_t kMaxBlock = 1 << 16;  // keeps all later arithmetic far from overflow

  explicit Layout(std::size_t block);

  void copy(std::size_t offset, std::size_t width);
  void planes(std::size_t size, bool rotate);
  void codes(std::size_t lanes, unsigned low_bits, unsigned high_bits,
             const std::vector<std::array<std::size_t, 4>>& planes);
  void mask_codes(std::size_t lanes, unsigned low_bits,
                  const std::vector<std::array<std::size_t, 3>>& planes);

  // Checks that every bit of the block is used; that none is used twice is checked by each step.
  void freeze();

  bool frozen() const { return frozen_; }
  std::size_t block() const { return block_; }
  const std::vector<std::size_t>& widths() const { return widths_; }  // bytes a block, by stream
  std::size_t total_width() const;

  // n blocks <-> streams; stream k has n * widths()[k] bytes. The layout must be frozen. No memory overlaps.
  void split(const FieldsKernels& kernels, const std::uint8_t* blocks,
             const std::vector<std::uint8_t*>& streams, std::size_t n) const noexcept;
  void merge(const FieldsKernels& kernels, const std::vector<const std::uint8_t*>& streams,
             std::uint8_t* blocks, std::size_t n) const noexcept;

 private:
  struct Copy {
    std::size_t offset;
    std::size_t width;
  };
  struct Planes {
    std::size_t size;
    bool rotate;
  };
  struct Codes {
    std::size_t lanes;
    unsigned low_bits;
    unsigned high_bits;
    std::vector<CodesPlane> planes;
    std::vector<Row> rows;
    bool bytes;  // all codes are bytes as they stand: copied, since few lanes make slow rows
  };
  struct MaskCodes {
    std::size_t lanes;
    unsigned low_bits;
    std::vector<MaskPlane> planes;
    std::vector<Row> rows;  // of the low bits
  };
  struct Step {
    std::size_t stream;  // number of its first stream
    std::variant<Copy, Planes, Codes, MaskCodes> what;
  };
  struct Splitter;
  struct Merger;

  // A step's claims are made on a copy, so that a step that is refused leaves nothing behind.
  using Bits = std::vector<std::uint8_t>;
  void claim(Bits& used, std::size_t offset, std::size_t count, unsigned bits, std::size_t shift) const;
  void add(Bits used, Step step, std::vector<std::size_t> widths);
  void require_open() const;
  bool rows_meet() const;
  std::size_t tile() const;

  std::size_t block_;
  bool frozen_ = false;
  bool shared_ = false;  // some byte's bits come from two rows, so rows are added to bytes cleared before
  Bits used_;
  std::vector<Step> steps_;
  std::vector<std::size_t> widths_;
};

}  // namespace qzf
