// The table of kernels of the "fields" transform. Declarations only: files compiled for different
// instruction sets include this, and an inline function here could be linked from the wrong one.
//
// Kernels allocate nothing and cannot fail: layout.cpp has checked all offsets and sizes. They read and
// write exactly the bytes named, at any alignment. Bits within a byte count from the least significant.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qzf {

// One stream of codes, one byte a code: for each plane in turn `lanes` codes a block.
//
// A code is `low_bits` bits of byte (low + lane) from bit `low_shift` up, below `high_bits` bits of byte
// (high + lane) from bit `high_shift` up.
struct CodesPlane {
  std::size_t low;
  unsigned low_shift;
  std::size_t high;
  unsigned high_shift;
};

struct CodesStep {
  std::size_t lanes;
  unsigned low_bits;
  unsigned high_bits;
  const CodesPlane* planes;
  std::size_t count;
};

// Likewise, but a code's highest bit is bit (lane mod 8) of byte (mask + lane / 8); `lanes` is a multiple
// of 8.
struct MaskPlane {
  std::size_t low;
  unsigned low_shift;
  std::size_t mask;
};

struct MaskStep {
  std::size_t lanes;
  unsigned low_bits;
  const MaskPlane* planes;
  std::size_t count;
};

// The way back, by target, so that each byte of a block is written once: `lanes` bytes from `offset` on, put
// together from bits of codes. A part's code is byte (codes + lane); its bits ((code >> right) & mask) <<
// left.
struct RowPart {
  std::size_t codes;
  unsigned right;
  unsigned mask;
  unsigned left;
};

struct Row {
  std::size_t offset;
  std::size_t count;
  RowPart parts[8];  // at most one for each bit
};

struct RowsStep {
  std::size_t lanes;
  const Row* rows;
  std::size_t count;
  bool add;  // keep the bits that are set in the target already
};

struct FieldsKernels {
  // Copies n runs of `width` bytes that lie `src_step` apart to places `dst_step` apart.
  void (*copy)(const std::uint8_t* src, std::size_t src_step, std::uint8_t* dst, std::size_t dst_step,
               std::size_t width, std::size_t n) noexcept;

  // n little-endian numbers of `size` (2, 4 or 8) bytes <-> `size` planes of n bytes, lowest first; with
  // `rotate` each number is rotated left by one bit before it is split, and right after it is merged.
  void (*split_planes)(const std::uint8_t* src, std::uint8_t* const* planes, std::size_t size, bool rotate,
                       std::size_t n) noexcept;
  void (*merge_planes)(const std::uint8_t* const* planes, std::uint8_t* dst, std::size_t size, bool rotate,
                       std::size_t n) noexcept;

  // n blocks, `block` bytes apart <-> codes, `width` bytes apart for each block. Lanes below `lane` are left
  // out. merge_masks writes the mask bytes alone.
  void (*split_codes)(const CodesStep& step, std::size_t lane, const std::uint8_t* blocks, std::size_t block,
                      std::uint8_t* codes, std::size_t width, std::size_t n) noexcept;
  void (*split_masks)(const MaskStep& step, std::size_t lane, const std::uint8_t* blocks, std::size_t block,
                      std::uint8_t* codes, std::size_t width, std::size_t n) noexcept;
  void (*merge_rows)(const RowsStep& step, std::size_t lane, const std::uint8_t* codes, std::size_t width,
                     std::uint8_t* blocks, std::size_t block, std::size_t n) noexcept;
  void (*merge_masks)(const MaskStep& step, std::size_t lane, const std::uint8_t* codes, std::size_t width,
                      std::uint8_t* blocks, std::size_t block, std::size_t n) noexcept;
};

// Each is defined in its own file, and only on machines that can have it. Vector kernels hand what is left
// over (tails, widths without a special case) to the scalar ones.
extern const FieldsKernels kFieldsScalar;
extern const FieldsKernels kFieldsAvx2;
extern const FieldsKernels kFieldsAvx512;
extern const FieldsKernels kFieldsNeon;

}  // namespace qzf
