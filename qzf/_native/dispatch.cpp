#include "dispatch.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#ifdef QZF_X86
#include <cpuid.h>
#endif

namespace qzf {
namespace {

#ifdef QZF_X86

struct Registers {
  std::uint32_t a, b, c, d;
};

Registers cpuid(std::uint32_t leaf) {
  Registers r{};
  __cpuid_count(leaf, 0, r.a, r.b, r.c, r.d);
  return r;
}

// By hand, as the intrinsic would need -mxsave for the whole file.
std::uint64_t enabled_state() {
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

constexpr std::uint32_t bit(int n) { return std::uint32_t{1} << n; }

struct X86Features {
  bool avx2 = false;
  bool avx512 = false;
  bool vbmi2 = false;  // AVX512_VBMI and AVX512_VBMI2
};

// Bit numbers: Intel SDM volume 2A, CPUID; volume 1, "XCR0". The processor's word is not enough: an
// operating system that does not save the wide registers leaves their XCR0 bits zero.
X86Features x86_features() {
  X86Features found;
  // F16C is wanted with AVX2: every processor that has this has that.
  const std::uint32_t osxsave_avx_f16c = bit(27) | bit(28) | bit(29);
  if (cpuid(0).a < 7 || (cpuid(1).c & osxsave_avx_f16c) != osxsave_avx_f16c) return found;
  const std::uint64_t state = enabled_state();
  const Registers leaf7 = cpuid(7);
  const std::uint32_t features = leaf7.b, vbmi_both = bit(1) | bit(6);
  const std::uint32_t f_bw_vl = bit(16) | bit(30) | bit(31);
  found.avx2 = (state & 0x06) == 0x06 && (features & bit(5)) != 0;
  found.avx512 = found.avx2 && (state & 0xe6) == 0xe6 && (features & f_bw_vl) == f_bw_vl;
  found.vbmi2 = found.avx512 && (leaf7.c & vbmi_both) == vbmi_both;
  return found;
}

#endif  // QZF_X86

std::vector<Isa> find_isas() {
  std::vector<Isa> found = {{"scalar", &kFieldsScalar, &kBlocksScalar, &kLanesScalar, &kCountsScalar,
                             &kRansScalar, &kNumbersScalar, &kDequantScalar}};
#if defined(QZF_X86)
  const X86Features has = x86_features();
  if (has.avx2)
    found.push_back({"avx2", &kFieldsAvx2, &kBlocksAvx2, &kLanesAvx2, &kCountsScalar, &kRansAvx2,
                     &kNumbersAvx2, &kDequantAvx2});
#ifdef QZF_SIMDE
  const bool avx512 = true;
#else
  const bool avx512 = has.avx512;
#endif
  // The first processors with AVX-512 (Skylake-X) lack the byte permutations that the lanes need.
#ifdef QZF_SIMDE
  const bool vbmi2 = true;
#else
  const bool vbmi2 = has.vbmi2;
#endif
  const LanesKernels* lanes = vbmi2 ? &kLanesAvx512 : &kLanesAvx2;
  const CountsKernels* counts = vbmi2 ? &kCountsAvx512 : &kCountsScalar;
  if (avx512)
    found.push_back({"avx512", &kFieldsAvx512, &kBlocksAvx512, lanes, counts, &kRansAvx512, &kNumbersAvx512,
                     &kDequantAvx2});
#elif defined(QZF_NEON)
  found.push_back({"neon", &kFieldsNeon, &kBlocksScalar, &kLanesNeon, &kCountsScalar, &kRansNeon,
                   &kNumbersNeon, &kDequantScalar});  // every 64-bit ARM has it
#endif
  return found;
}

std::string forced_isa() {
  const char* name = std::getenv("QZF_FORCE_ISA");
  return name == nullptr ? "" : name;
}

}  // namespace

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> isas = find_isas();
  return isas;
}

const Isa& isa(const std::string& name) {
  std::string names;
  for (const Isa& candidate : available_isas()) {
    if (name == candidate.name) return candidate;
    names += names.empty() ? "" : ", ";
    names += candidate.name;
  }
  throw std::invalid_argument("instruction set '" + name + "' is not available here; there are: " + names);
}

const Isa& active_isa() {
  static const std::string forced = forced_isa();
  if (forced.empty()) return available_isas().back();
  try {
    return isa(forced);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string("QZF_FORCE_ISA: ") + error.what());
  }
}

}  // namespace qzf
