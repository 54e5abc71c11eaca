// The Python face of the "quant" transform: models of types, and chunks by them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>

#include "binding.h"
#include "quant/chunk.h"
#include "quant/lanes_order.h"

namespace qzf {
namespace {

using MaybeName = std::optional<std::string>;

// A view of an optional buffer; no data where it is None.
class MaybeBuffer {
 public:
  explicit MaybeBuffer(nb::handle object) {
    if (!object.is_none()) buffer_.emplace(object, Buffer::Access::kRead);
  }
  ColumnClasses span() const {
    return buffer_ ? ColumnClasses{buffer_->data(), buffer_->size()} : ColumnClasses{nullptr, 0};
  }

 private:
  std::optional<Buffer> buffer_;
};

std::size_t blocks_of(const QuantSchema& schema, const Buffer& buffer) {
  require(buffer.size() != 0 && buffer.size() % schema.shape.size == 0,
          "not a whole number of blocks, or none");
  return buffer.size() / schema.shape.size;
}

void decode(const QuantModel& model, nb::handle columns, nb::handle heads, nb::handle tails, nb::handle codes,
            nb::handle rest, nb::handle out, const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const MaybeBuffer classes(columns);
  const Buffer in[4] = {{heads, Buffer::Access::kRead},
                        {tails, Buffer::Access::kRead},
                        {codes, Buffer::Access::kRead},
                        {rest, Buffer::Access::kRead}};
  const Buffer to(out, Buffer::Access::kWrite);
  for (const Buffer& each : in) require(!each.overlaps(to), "a stream and out overlap");
  const std::size_t n = blocks_of(model.schema, to);
  const char* fault;
  {
    const nb::gil_scoped_release unlocked;
    fault = quant_decode(isa, model, classes.span(), {span(in[0]), span(in[1]), span(in[2]), span(in[3])},
                         to.data(), n);
  }
  if (fault != nullptr) throw std::invalid_argument(fault);
}

// A new object from Python's C interface, which returns null for an error.
nb::object made(PyObject* object) {
  if (object == nullptr) nb::raise_python_error();
  return nb::steal(object);
}

// Views of the streams in one bytes object, one behind the other.
nb::tuple joined(const QuantStreams& streams) {
  const Span parts[4] = {streams.heads, streams.tails, streams.codes, streams.rest};
  Py_ssize_t size = 0, at = 0;
  for (const Span& part : parts) size += static_cast<Py_ssize_t>(part.size);
  const nb::object whole = made(PyBytes_FromStringAndSize(nullptr, size));
  char* to = PyBytes_AsString(whole.ptr());
  {
    const nb::gil_scoped_release unlocked;  // nobody else knows of the object
    for (const Span& part : parts) to = std::copy_n(reinterpret_cast<const char*>(part.data), part.size, to);
  }
  const nb::object view = made(PyMemoryView_FromObject(whole.ptr()));
  nb::object views[4];
  for (std::size_t k = 0; k < 4; ++k) {
    const auto end = at + static_cast<Py_ssize_t>(parts[k].size);
    views[k] = made(PySequence_GetSlice(view.ptr(), at, end));
    at = end;
  }
  return nb::make_tuple(views[0], views[1], views[2], views[3]);
}

nb::object encode(QuantModel& model, nb::handle columns, nb::handle src, std::size_t row_blocks,
                  const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const MaybeBuffer classes(columns);
  const Buffer from(src, Buffer::Access::kRead);
  const std::size_t n = blocks_of(model.schema, from);
  model.prepare_encoding();  // under the GIL, so only once
  const QuantLease lease;
  QuantStreams streams;
  bool ok;
  {
    const nb::gil_scoped_release unlocked;
    ok = quant_encode(isa, model, classes.span(), from.data(), n, row_blocks, lease, streams);
  }
  if (!ok) return nb::none();
  return joined(streams);
}

bool count(QuantModel& model, nb::handle columns, nb::handle src, std::size_t row_blocks, nb::handle heads,
           nb::handle codes, const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const MaybeBuffer classes(columns);
  const Buffer from(src, Buffer::Access::kRead);
  const Buffer head_counts(heads, Buffer::Access::kWrite), code_counts(codes, Buffer::Access::kWrite);
  const std::size_t tables = std::size_t{model.keys} * model.column_classes * model.schema.alphabet();
  require(head_counts.size() == 8 * 256 * std::size_t{model.contexts}, "head counts of another size");
  require(code_counts.size() == 8 * tables, "code counts of another size");
  const std::size_t n = blocks_of(model.schema, from);
  model.prepare_encoding();
  const nb::gil_scoped_release unlocked;
  return quant_count(isa, model, classes.span(), from.data(), n, row_blocks,
                     reinterpret_cast<std::uint64_t*>(head_counts.data()),
                     reinterpret_cast<std::uint64_t*>(code_counts.data()));
}

bool look(const std::string& name, nb::handle src, nb::handle first, nb::handle second,
          const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const QuantSchema& schema = quant_schema(name);
  const Buffer from(src, Buffer::Access::kRead), to(first, Buffer::Access::kWrite),
      to2(second, Buffer::Access::kWrite);
  const std::size_t n = blocks_of(schema, from);
  require(to.size() == (schema.numbers > 0 ? 2 * n : 0) && to2.size() == (schema.numbers > 1 ? 2 * n : 0),
          "output of another size");
  const nb::gil_scoped_release unlocked;
  return quant_look(isa, schema, from.data(), n, reinterpret_cast<std::uint16_t*>(to.data()),
                    reinterpret_cast<std::uint16_t*>(to2.data()));
}

void deviations(const std::string& name, nb::handle src, std::size_t row_blocks, nb::handle sums,
                const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const QuantSchema& schema = quant_schema(name);
  const Buffer from(src, Buffer::Access::kRead), to(sums, Buffer::Access::kWrite);
  const std::size_t n = blocks_of(schema, from);
  require(row_blocks != 0 && n % row_blocks == 0 && to.size() == 8 * row_blocks * schema.shape.codes,
          "sums of another size than the columns");
  const nb::gil_scoped_release unlocked;
  quant_deviations(isa, schema, from.data(), n, row_blocks, reinterpret_cast<std::uint64_t*>(to.data()));
}

void make_model(QuantModel* self, const std::string& name, nb::handle table) {
  const Buffer from(table, Buffer::Access::kRead);
  new (self) QuantModel(quant_schema(name), from.data(), from.size());
}

nb::tuple schema_row(const QuantSchema& s) {
  return nb::make_tuple(s.name, s.shape.size, s.shape.codes, s.elements, s.bits, s.low, s.numbers, s.scales,
                        s.mins, s.extrema, s.alphabet());
}

}  // namespace

void bind_quant(nb::module_& m) {
  m.def(
      "quant_schemas",
      [] {
        nb::list rows;
        for (const QuantSchema& schema : quant_schemas()) rows.append(schema_row(schema));
        return rows;
      },
      nb::sig("def quant_schemas() -> list[tuple[str, int, int, int, int, int, int, int, int, int, int]]"),
      "The types that the quant transform knows: name, bytes and codes of a block, codes of a lane, bits of "
      "a code, "
      "low bits, numbers, integer scales, integer minima, extrema of a lane, size of the alphabet.");
  m.def("quant_look", look, nb::arg("name"), nb::arg("src"), nb::arg("first"), nb::arg("second"),
        nb::arg("isa") = nb::none(),
        nb::sig("def quant_look(name: str, src: typing_extensions.Buffer, first: typing_extensions.Buffer, "
                "second: typing_extensions.Buffer, isa: str | None = None) -> bool"),
        "The fp16 fields of blocks as 16-bit patterns; a field that the type lacks has an empty buffer. "
        "Returns whether every block holds the extreme codes that its type's quantizer leaves.");
  m.def("quant_deviations", deviations, nb::arg("name"), nb::arg("src"), nb::arg("row_blocks"),
        nb::arg("sums"), nb::arg("isa") = nb::none(),
        nb::sig("def quant_deviations(name: str, src: typing_extensions.Buffer, row_blocks: int, "
                "sums: typing_extensions.Buffer, isa: str | None = None) -> None"),
        "Add to ``sums`` (uint64, one a column) how far codes lie from zero, in 1/16.");
  nb::class_<QuantModel>(m, "QuantModel",
                         "How the chunks of a type are modelled: a shared table of kind 1 (spec, tables).\n\n"
                         "ValueError for a table that breaks the rules. Safe to use from many threads.")
      .def("__init__", make_model, nb::arg("name"), nb::arg("table"),
           nb::sig("def __init__(self, name: str, table: typing_extensions.Buffer) -> None"))
      .def("decode", decode, nb::arg("columns").none(), nb::arg("heads"), nb::arg("tails"), nb::arg("codes"),
           nb::arg("rest"), nb::arg("out"), nb::arg("isa") = nb::none(),
           nb::sig(
               "def decode(self, columns: typing_extensions.Buffer | None, heads: typing_extensions.Buffer, "
               "tails: typing_extensions.Buffer, codes: typing_extensions.Buffer, "
               "rest: typing_extensions.Buffer, out: typing_extensions.Buffer, isa: str | None = None) -> "
               "None"),
           "Decode the streams to ``out``: whole blocks. ValueError says what is wrong with them.")
      .def(
          "encode", encode, nb::arg("columns").none(), nb::arg("src"), nb::arg("row_blocks"),
          nb::arg("isa") = nb::none(),
          nb::sig("def encode(self, columns: typing_extensions.Buffer | None, src: typing_extensions.Buffer, "
                  "row_blocks: int, isa: str | None = None) -> tuple[memoryview, memoryview, memoryview, "
                  "memoryview] | None"),
          "The streams of whole blocks, or None where the model cannot express them. They are views of one "
          "bytes "
          "object, one behind the other.")
      .def(
          "count", count, nb::arg("columns").none(), nb::arg("src"), nb::arg("row_blocks"), nb::arg("heads"),
          nb::arg("codes"), nb::arg("isa") = nb::none(),
          nb::sig("def count(self, columns: typing_extensions.Buffer | None, src: typing_extensions.Buffer, "
                  "row_blocks: int, heads: typing_extensions.Buffer, codes: typing_extensions.Buffer, "
                  "isa: str | None = None) -> bool"),
          "Add up symbols by context and by table (uint64); False where the model cannot express the blocks.")
      .def_prop_ro(
          "steps", [](const QuantModel& self) { return self.steps(); }, "Codes of a lane that are coded.")
      .def_prop_ro(
          "extrema", [](const QuantModel& self) { return self.extrema; },
          "Extrema are left out of the codes.")
      .def_prop_ro(
          "column_classes", [](const QuantModel& self) { return self.column_classes; },
          "Classes of columns; above 1 chunks need a table of columns.");
}

}  // namespace qzf
