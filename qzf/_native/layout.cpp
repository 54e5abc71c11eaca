#include "layout.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

namespace qzf {
namespace {

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// Adds a part to the row at `offset`, which is made if it is not there.
void add_part(std::vector<Row>& rows, std::size_t offset, const RowPart& part) {
  auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& each) { return each.offset == offset; });
  if (row == rows.end()) row = rows.insert(rows.end(), Row{offset, 0, {}});
  row->parts[row->count++] = part;  // there is room: parts have bits of their own
}

unsigned ones(unsigned bits) { return (1u << bits) - 1; }

}  // namespace

Layout::Layout(std::size_t block) : block_(block), used_(block <= kMaxBlock ? block : 0) {
  require(block >= 1 && block <= kMaxBlock, "a block has 1 to 65536 bytes");
}

void Layout::require_open() const { require(!frozen_, "the layout is frozen"); }

void Layout::claim(Bits& used, std::size_t offset, std::size_t count, unsigned bits,
                   std::size_t shift) const {
  require(count >= 1 && count <= block_ && offset <= block_ - count, "a step reaches outside of the block");
  require(bits >= 1 && bits <= 8 && shift <= 8 - bits, "a step reaches outside of a byte");
  const auto mask = static_cast<std::uint8_t>(((1u << bits) - 1) << shift);
  for (std::size_t i = offset; i < offset + count; ++i) {
    if (used[i] & mask) {
      throw std::invalid_argument("a bit of byte " + std::to_string(i) + " of the block is used twice");
    }
    used[i] |= mask;
  }
}

void Layout::add(Bits used, Step step, std::vector<std::size_t> widths) {
  steps_.push_back(std::move(step));
  widths_.insert(widths_.end(), widths.begin(), widths.end());
  used_ = std::move(used);
}

void Layout::copy(std::size_t offset, std::size_t width) {
  require_open();
  Bits used = used_;
  claim(used, offset, width, 8, 0);
  add(std::move(used), {widths_.size(), Copy{offset, width}}, {width});
}

void Layout::planes(std::size_t size, bool rotate) {
  require_open();
  require(size == 2 || size == 4 || size == 8, "planes are of numbers of 2, 4 or 8 bytes");
  require(size == block_, "planes need a block that is one number");
  Bits used = used_;
  claim(used, 0, size, 8, 0);
  add(std::move(used), {widths_.size(), Planes{size, rotate}}, std::vector<std::size_t>(size, 1));
}

void Layout::codes(std::size_t lanes, unsigned low_bits, unsigned high_bits,
                   const std::vector<std::array<std::size_t, 4>>& planes) {
  require_open();
  require(!planes.empty(), "codes need a plane");
  require(low_bits <= 8 && high_bits <= 8 && low_bits + high_bits <= 8, "a code has at most 8 bits");
  Bits used = used_;
  Codes step{lanes, low_bits, high_bits, {}, {}, low_bits + high_bits == 8};
  for (const auto& [low, low_shift, high, high_shift] : planes) {
    claim(used, low, lanes, low_bits, low_shift);
    claim(used, high, lanes, high_bits, high_shift);
    const auto low_at = static_cast<unsigned>(low_shift), high_at = static_cast<unsigned>(high_shift);
    const std::size_t code = lanes * step.planes.size();
    step.planes.push_back({low, low_at, high, high_at});
    step.bytes = step.bytes && low == high && low_at == 0 && high_at == low_bits;
    add_part(step.rows, low, {code, 0, ones(low_bits), low_at});
    add_part(step.rows, high, {code, low_bits, ones(high_bits), high_at});
  }
  add(std::move(used), {widths_.size(), std::move(step)}, {lanes * planes.size()});
}

void Layout::mask_codes(std::size_t lanes, unsigned low_bits,
                        const std::vector<std::array<std::size_t, 3>>& planes) {
  require_open();
  require(!planes.empty(), "codes need a plane");
  require(lanes % 8 == 0, "the lanes of mask codes are a multiple of 8");
  require(low_bits <= 7, "a code has at most 8 bits");
  Bits used = used_;
  MaskCodes step{lanes, low_bits, {}, {}};
  for (const auto& [low, low_shift, mask] : planes) {
    claim(used, low, lanes, low_bits, low_shift);
    claim(used, mask, lanes / 8, 8, 0);
    const auto low_at = static_cast<unsigned>(low_shift);
    add_part(step.rows, low, {lanes * step.planes.size(), 0, ones(low_bits), low_at});
    step.planes.push_back({low, low_at, mask});
  }
  add(std::move(used), {widths_.size(), std::move(step)}, {lanes * planes.size()});
}

void Layout::freeze() {
  require_open();
  const auto unused =
      std::find_if(used_.begin(), used_.end(), [](std::uint8_t bits) { return bits != 0xff; });
  if (unused != used_.end()) {
    throw std::invalid_argument("a bit of byte " + std::to_string(unused - used_.begin()) +
                                " of the block is not used");
  }
  shared_ = rows_meet();
  frozen_ = true;
}

bool Layout::rows_meet() const {
  std::vector<bool> taken(block_);
  const auto meet = [&](const std::vector<Row>& rows, std::size_t lanes) {
    for (const Row& row : rows) {
      const auto first = taken.begin() + static_cast<std::ptrdiff_t>(row.offset);
      const auto last = first + static_cast<std::ptrdiff_t>(lanes);
      if (std::find(first, last, true) != last) return true;
      std::fill(first, last, true);
    }
    return false;
  };
  for (const Step& step : steps_) {
    const auto* codes = std::get_if<Codes>(&step.what);
    const auto* masked = std::get_if<MaskCodes>(&step.what);
    if (codes != nullptr && meet(codes->rows, codes->lanes)) return true;
    if (masked != nullptr && meet(masked->rows, masked->lanes)) return true;
  }
  return false;
}

std::size_t Layout::total_width() const {
  return std::accumulate(widths_.begin(), widths_.end(), std::size_t{0});
}

// Steps run one after another over a tile, which must stay in the first-level cache meanwhile; 64 blocks at
// least, so that a step's fixed cost is spread.
std::size_t Layout::tile() const {
  constexpr std::size_t kTileBytes = 12 << 10;
  return std::max(kTileBytes / block_ / 64 * 64, std::size_t{64});
}

// One step on one tile: n blocks from the block numbered `first` on.
struct Layout::Splitter {
  const Layout& layout;
  const FieldsKernels& kernels;
  const std::uint8_t* blocks;
  const std::vector<std::uint8_t*>& streams;
  std::size_t first;
  std::size_t n;
  std::size_t stream;

  const std::uint8_t* source() const { return blocks + first * layout.block_; }
  std::size_t width() const { return layout.widths_[stream]; }
  std::uint8_t* target() const { return streams[stream] + first * width(); }

  void operator()(const Copy& step) const {
    kernels.copy(source() + step.offset, layout.block_, target(), step.width, step.width, n);
  }
  void operator()(const Planes& step) const {
    std::uint8_t* planes[8];
    for (std::size_t k = 0; k < step.size; ++k) planes[k] = streams[stream + k] + first;
    kernels.split_planes(source(), planes, step.size, step.rotate, n);
  }
  void operator()(const Codes& step) const {
    if (step.bytes) {
      for (std::size_t k = 0; k < step.planes.size(); ++k) {
        kernels.copy(source() + step.planes[k].low, layout.block_, target() + k * step.lanes, width(),
                     step.lanes, n);
      }
      return;
    }
    const CodesStep all{step.lanes, step.low_bits, step.high_bits, step.planes.data(), step.planes.size()};
    kernels.split_codes(all, 0, source(), layout.block_, target(), width(), n);
  }
  void operator()(const MaskCodes& step) const {
    const MaskStep all{step.lanes, step.low_bits, step.planes.data(), step.planes.size()};
    kernels.split_masks(all, 0, source(), layout.block_, target(), width(), n);
  }
};

struct Layout::Merger {
  const Layout& layout;
  const FieldsKernels& kernels;
  const std::vector<const std::uint8_t*>& streams;
  std::uint8_t* blocks;
  std::size_t first;
  std::size_t n;
  std::size_t stream;

  std::uint8_t* target() const { return blocks + first * layout.block_; }
  std::size_t width() const { return layout.widths_[stream]; }
  const std::uint8_t* source() const { return streams[stream] + first * width(); }

  void operator()(const Copy& step) const {
    kernels.copy(source(), step.width, target() + step.offset, layout.block_, step.width, n);
  }
  void operator()(const Planes& step) const {
    const std::uint8_t* planes[8];
    for (std::size_t k = 0; k < step.size; ++k) planes[k] = streams[stream + k] + first;
    kernels.merge_planes(planes, target(), step.size, step.rotate, n);
  }
  void operator()(const Codes& step) const {
    if (!step.bytes) return merge_rows(step.lanes, step.rows);
    for (std::size_t k = 0; k < step.planes.size(); ++k) {
      kernels.copy(source() + k * step.lanes, width(), target() + step.planes[k].low, layout.block_,
                   step.lanes, n);
    }
  }
  void operator()(const MaskCodes& step) const {
    merge_rows(step.lanes, step.rows);
    const MaskStep all{step.lanes, step.low_bits, step.planes.data(), step.planes.size()};
    kernels.merge_masks(all, 0, source(), width(), target(), layout.block_, n);
  }
  void merge_rows(std::size_t lanes, const std::vector<Row>& rows) const {
    const RowsStep all{lanes, rows.data(), rows.size(), layout.shared_};
    kernels.merge_rows(all, 0, source(), width(), target(), layout.block_, n);
  }
};

void Layout::split(const FieldsKernels& kernels, const std::uint8_t* blocks,
                   const std::vector<std::uint8_t*>& streams, std::size_t n) const noexcept {
  for (std::size_t first = 0, step_n; first < n; first += step_n) {
    step_n = std::min(tile(), n - first);
    for (const Step& step : steps_) {
      std::visit(Splitter{*this, kernels, blocks, streams, first, step_n, step.stream}, step.what);
    }
  }
}

void Layout::merge(const FieldsKernels& kernels, const std::vector<const std::uint8_t*>& streams,
                   std::uint8_t* blocks, std::size_t n) const noexcept {
  for (std::size_t first = 0, step_n; first < n; first += step_n) {
    step_n = std::min(tile(), n - first);
    if (shared_) std::memset(blocks + first * block_, 0, step_n * block_);
    for (const Step& step : steps_) {
      std::visit(Merger{*this, kernels, streams, blocks, first, step_n, step.stream}, step.what);
    }
  }
}

}  // namespace qzf
