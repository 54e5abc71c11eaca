// The Python face of the "values" transform: models of plain numbers, and chunks by them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "binding.h"
#include "values/chunk.h"

namespace qzf {
namespace {

using MaybeName = std::optional<std::string>;

std::size_t numbers_of(Form form, const Buffer& buffer) {
  const std::size_t width = form_sizes(form).width;
  require(buffer.size() != 0 && buffer.size() % width == 0, "not a whole number of numbers, or none");
  return buffer.size() / width;
}

void make_model(ValuesModel* self, nb::handle table) {
  const Buffer from(table, Buffer::Access::kRead);
  new (self) ValuesModel(from.data(), from.size());
}

void decode(const ValuesModel& model, nb::handle classes, nb::handle symbols, nb::handle extras,
            nb::handle low, nb::handle words, nb::handle out, const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const Buffer in[5] = {{classes, Buffer::Access::kRead},
                        {symbols, Buffer::Access::kRead},
                        {extras, Buffer::Access::kRead},
                        {low, Buffer::Access::kRead},
                        {words, Buffer::Access::kRead}};
  const Buffer to(out, Buffer::Access::kWrite);
  for (const Buffer& each : in) require(!each.overlaps(to), "a stream and out overlap");
  const std::size_t n = numbers_of(model.form, to);
  const char* fault;
  {
    const nb::gil_scoped_release unlocked;
    fault = values_decode(isa, model, {span(in[0]), span(in[1]), span(in[2]), span(in[3]), span(in[4])},
                          to.data(), n);
  }
  if (fault != nullptr) throw std::invalid_argument(fault);
}

nb::object encode(ValuesModel& model, nb::handle src, std::size_t segment, const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const Buffer from(src, Buffer::Access::kRead);
  const std::size_t n = numbers_of(model.form, from);
  model.prepare_encoding();  // under the GIL, so only once
  ValuesEncoded s;
  bool ok;
  {
    const nb::gil_scoped_release unlocked;
    ok = values_encode(isa, model, from.data(), n, segment, s);
  }
  if (!ok) return nb::none();
  return nb::make_tuple(to_bytes(s.classes), to_bytes(s.symbols), to_bytes(s.extras), to_bytes(s.low),
                        to_bytes(s.words));
}

}  // namespace

void bind_values(nb::module_& m) {
  nb::class_<ValuesModel>(m, "ValuesModel",
                          "How numbers of a type are modelled: a shared table of kind 2 (spec, tables).\n\n"
                          "ValueError for a table that breaks the rules. Safe to use from many threads.")
      .def("__init__", make_model, nb::arg("table"),
           nb::sig("def __init__(self, table: typing_extensions.Buffer) -> None"))
      .def("decode", decode, nb::arg("classes"), nb::arg("symbols"), nb::arg("extras"), nb::arg("low"),
           nb::arg("words"), nb::arg("out"), nb::arg("isa") = nb::none(),
           nb::sig("def decode(self, classes: typing_extensions.Buffer, symbols: typing_extensions.Buffer, "
                   "extras: typing_extensions.Buffer, low: typing_extensions.Buffer, words: "
                   "typing_extensions.Buffer, "
                   "out: typing_extensions.Buffer, isa: str | None = None) -> None"),
           "Decode the streams to ``out``: whole numbers. ValueError says what is wrong with them.")
      .def("encode", encode, nb::arg("src"), nb::arg("segment"), nb::arg("isa") = nb::none(),
           nb::sig("def encode(self, src: typing_extensions.Buffer, segment: int, isa: str | None = None) "
                   "-> tuple[bytes, bytes, bytes, bytes, bytes] | None"),
           "The streams of whole numbers, a context for every ``segment`` of them; None where the model "
           "cannot "
           "express them.")
      .def_prop_ro(
          "width", [](const ValuesModel& self) { return form_sizes(self.form).width; }, "Bytes of a number.");
}

}  // namespace qzf
