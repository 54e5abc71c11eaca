// The kernels of blocks.h, compiled for this file's instruction set.
#include <cstring>

#include "kernels/blocks.h"

namespace qzf {
namespace {
#include "kernels/blocks.inl"
}  // namespace

const BlocksKernels kBlocksScalar = {split, merge, split_low, index};

}  // namespace qzf
