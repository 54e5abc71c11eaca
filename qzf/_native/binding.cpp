// The Python face of the core: checks sizes and overlaps, releases the GIL, maps failures to ValueError.
#include "binding.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "layout.h"

namespace qzf {
namespace {

const FieldsKernels& kernels(const std::optional<std::string>& name) { return *chosen_isa(name).fields; }

void split(const Layout& layout, nb::handle src, nb::handle out, const std::optional<std::string>& isa_name) {
  require(layout.frozen(), "the layout is not frozen");
  const FieldsKernels& table = kernels(isa_name);
  const Buffer from(src, Buffer::Access::kRead);
  const Buffer to(out, Buffer::Access::kWrite);
  require(from.size() % layout.block() == 0, "src is not a whole number of blocks");
  const std::size_t n = from.size() / layout.block();
  require(to.size() / layout.total_width() == n && to.size() % layout.total_width() == 0,
          "out has not the size of all streams");
  require(!from.overlaps(to), "src and out overlap");

  std::vector<std::uint8_t*> streams;
  std::uint8_t* at = to.data();
  for (const std::size_t width : layout.widths()) {
    streams.push_back(at);
    at += n * width;
  }
  const nb::gil_scoped_release unlocked;
  layout.split(table, from.data(), streams, n);
}

void merge(const Layout& layout, const std::vector<nb::object>& streams, nb::handle out,
           const std::optional<std::string>& isa_name) {
  require(layout.frozen(), "the layout is not frozen");
  const FieldsKernels& table = kernels(isa_name);
  const Buffer to(out, Buffer::Access::kWrite);
  require(to.size() % layout.block() == 0, "out is not a whole number of blocks");
  require(streams.size() == layout.widths().size(), "the layout has another number of streams");
  const std::size_t n = to.size() / layout.block();

  std::vector<Buffer> held;
  std::vector<const std::uint8_t*> from;
  held.reserve(streams.size());
  for (std::size_t k = 0; k < streams.size(); ++k) {
    held.emplace_back(streams[k], Buffer::Access::kRead);
    require(held[k].size() == n * layout.widths()[k], "a stream has not the size that out asks for");
    require(!held[k].overlaps(to), "a stream and out overlap");
    from.push_back(held[k].data());
  }
  const nb::gil_scoped_release unlocked;
  layout.merge(table, from, to.data(), n);
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const Isa& each : available_isas()) names.emplace_back(each.name);
  return names;
}

nb::tuple widths(const Layout& layout) {
  nb::list list;
  for (const std::size_t width : layout.widths()) list.append(width);
  return nb::tuple(list);
}

using CodesPlanes = std::vector<std::array<std::size_t, 4>>;
using MaskPlanes = std::vector<std::array<std::size_t, 3>>;

void bind_layout(nb::module_& m) {
  const auto same = nb::rv_policy::none;  // the builder methods return their own object
  nb::class_<Layout>(
      m, "Layout",
      "A block layout: steps are added in the order of their streams, then frozen.\n\n"
      "The steps are those of ``qzf.transforms.layouts``. ValueError where a step reaches outside "
      "of\nthe block, uses a bit that another step uses, or comes after ``freeze``.")
      .def(nb::init<std::size_t>(), nb::arg("block"))
      .def(
          "copy",
          [](Layout& self, std::size_t offset, std::size_t width) -> Layout& {
            self.copy(offset, width);
            return self;
          },
          nb::arg("offset"), nb::arg("width"), same)
      .def(
          "planes",
          [](Layout& self, std::size_t size, bool rotate) -> Layout& {
            self.planes(size, rotate);
            return self;
          },
          nb::arg("size"), nb::arg("rotate"), same)
      .def(
          "codes",
          [](Layout& self, std::size_t lanes, unsigned low_bits, unsigned high_bits,
             const CodesPlanes& planes) -> Layout& {
            self.codes(lanes, low_bits, high_bits, planes);
            return self;
          },
          nb::arg("lanes"), nb::arg("low_bits"), nb::arg("high_bits"), nb::arg("planes"), same,
          nb::sig("def codes(self, lanes: int, low_bits: int, high_bits: int, "
                  "planes: collections.abc.Sequence[tuple[int, int, int, int]]) -> Layout"))
      .def(
          "mask_codes",
          [](Layout& self, std::size_t lanes, unsigned low_bits, const MaskPlanes& planes) -> Layout& {
            self.mask_codes(lanes, low_bits, planes);
            return self;
          },
          nb::arg("lanes"), nb::arg("low_bits"), nb::arg("planes"), same,
          nb::sig("def mask_codes(self, lanes: int, low_bits: int, "
                  "planes: collections.abc.Sequence[tuple[int, int, int]]) -> Layout"))
      .def(
          "freeze",
          [](Layout& self) -> Layout& {
            self.freeze();
            return self;
          },
          same, "Make the layout usable and constant. ValueError where a bit of the block is not used.")
      .def("split", split, nb::arg("src"), nb::arg("out"), nb::arg("isa") = nb::none(),
           nb::sig("def split(self, src: typing_extensions.Buffer, out: typing_extensions.Buffer, "
                   "isa: str | None = None) -> None"),
           "Split the n blocks of ``src`` into ``out``: n * sum(widths) bytes, the streams one after "
           "another.\n\n"
           "ValueError for wrong sizes, buffers that overlap, are not contiguous or not writable.")
      .def("merge", merge, nb::arg("streams"), nb::arg("out"), nb::arg("isa") = nb::none(),
           nb::sig("def merge(self, streams: collections.abc.Sequence[typing_extensions.Buffer], "
                   "out: typing_extensions.Buffer, isa: str | None = None) -> None"),
           "Inverse of ``split``: stream k has n * widths[k] bytes, ``out`` n * block. Errors as there.")
      .def_prop_ro("block", &Layout::block, "Bytes of a block.")
      .def_prop_ro("widths", widths, nb::sig("def widths(self) -> tuple[int, ...]"),
                   "Bytes a block of each stream, in order.");
}

}  // namespace
}  // namespace qzf

NB_MODULE(_core, m) {
  m.doc() = "The compiled core: kernels, chosen once for the instruction set of this machine.";
  m.def(
      "active_isa", [] { return std::string(qzf::active_isa().name); },
      "The instruction set in use: the widest there is, or what QZF_FORCE_ISA names (else ValueError).");
  m.def("available_isas", qzf::isa_names, "The instruction sets of this machine, ``scalar`` first.");
  qzf::bind_layout(m);
  qzf::bind_quant(m);
  qzf::bind_values(m);
  qzf::bind_strings(m);
  qzf::bind_dequant(m);
  qzf::bind_making(m);
}
