// The Python face of dequantization.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "binding.h"

namespace qzf {
namespace {

using Row = std::tuple<std::string, std::size_t, std::size_t>;

std::vector<Row> types() {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < kDequantScalar.count; ++i) {
    const DequantType& type = kDequantScalar.types[i];
    rows.emplace_back(type.name, type.weights, type.bytes);
  }
  return rows;
}

const DequantType& type_named(const DequantKernels& kernels, const std::string& name) {
  for (std::size_t i = 0; i < kernels.count; ++i) {
    if (name == kernels.types[i].name) return kernels.types[i];
  }
  throw std::invalid_argument("no such type");
}

void dequantize(const std::string& name, const std::string& dtype, nb::handle src, nb::handle out,
                const std::optional<std::string>& isa_name) {
  const DequantType& type = type_named(*chosen_isa(isa_name).dequant, name);
  const bool half = dtype == "float16", bfloat = dtype == "bfloat16";
  require(half || bfloat || dtype == "float32", "no such dtype");
  const Buffer from(src, Buffer::Access::kRead);
  const Buffer to(out, Buffer::Access::kWrite);
  require(from.size() % type.bytes == 0, "src is not a whole number of blocks");
  const std::size_t n = from.size() / type.bytes, weight = half || bfloat ? 2 : 4;
  // By division, as the product may be too large.
  require(to.size() % (type.weights * weight) == 0 && to.size() / (type.weights * weight) == n,
          "out has not the size of the weights");
  require(!from.overlaps(to), "src and out overlap");
  const Dequantize kernel = half ? type.to_float16 : bfloat ? type.to_bfloat16 : type.to_float32;
  const nb::gil_scoped_release unlocked;
  kernel(from.data(), n, to.data());
}

}  // namespace

void bind_dequant(nb::module_& m) {
  m.def("dequant_types", types, "The types that can be dequantized: name, weights and bytes of a block.");
  m.def("dequantize", dequantize, nb::arg("name"), nb::arg("dtype"), nb::arg("src"), nb::arg("out"),
        nb::arg("isa") = nb::none(),
        nb::sig("def dequantize(name: str, dtype: str, src: typing_extensions.Buffer, "
                "out: typing_extensions.Buffer, isa: str | None = None) -> None"),
        "Write the weights of the blocks ``src`` to ``out`` as float32, float16 or bfloat16.\n\n"
        "ValueError for another name or dtype, wrong sizes, and buffers that overlap, are not contiguous or "
        "not\n"
        "writable.");
}

}  // namespace qzf
