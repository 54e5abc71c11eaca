// Which instruction sets this machine has, and which one is used.
#pragma once

#include <string>
#include <vector>

#include "dequant/kernels.h"
#include "kernels/blocks.h"
#include "kernels/counts.h"
#include "kernels/fields.h"
#include "kernels/lanes.h"
#include "kernels/numbers.h"
#include "kernels/rans.h"

namespace qzf {

struct Isa {
  const char* name;
  const FieldsKernels* fields;
  const BlocksKernels* blocks;
  const LanesKernels* lanes;
  const CountsKernels* counts;
  const RansKernels* rans;
  const NumbersKernels* numbers;
  const DequantKernels* dequant;
};

// What this build and this machine (processor and operating system) have, slowest first; never empty.
const std::vector<Isa>& available_isas();

// The one called `name`. Throws std::invalid_argument where this machine does not have it.
const Isa& isa(const std::string& name);

// The last of available_isas(), or the one that the environment variable QZF_FORCE_ISA names, read at the
// first call. Throws std::invalid_argument, at every call, where that one is not available.
const Isa& active_isa();

}  // namespace qzf
