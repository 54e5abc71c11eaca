// The kernels of blocks.h, compiled for this file's instruction set.
#include <cstring>

#include "kernels/blocks.h"

namespace qzf {
namespace {
#include "kernels/blocks.inl"
#include "kernels/blocks_merge.inl"
}  // namespace

const BlocksKernels kBlocksAvx2 = {split, merge, split_low, logs, index};

}  // namespace qzf
