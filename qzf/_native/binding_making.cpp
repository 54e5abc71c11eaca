// The Python face of what shared tables are made by: counts, and what suits them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>

#include "binding.h"
#include "frequencies.h"
#include "quant/ranks.h"
#include "values/segments.h"

namespace qzf {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint64_t;
using std::uint8_t;
using MaybeName = std::optional<std::string>;
using Access = Buffer::Access;

template <typename T>
const T* items(const Buffer& buffer) {
  return reinterpret_cast<const T*>(buffer.data());
}

template <typename T>
nb::bytes as_bytes(const std::vector<T>& items) {
  return nb::bytes(reinterpret_cast<const char*>(items.data()), items.size() * sizeof(T));
}

CountRows count_rows(const Buffer& counts, size_t width) {
  require(width >= 2 && width <= kMostSymbols, "rows are of 2 to 256 symbols");
  require(counts.size() % (8 * width) == 0, "not a whole number of rows of counts");
  return {items<uint64_t>(counts), counts.size() / (8 * width), width};
}

nb::bytes py_quantize(nb::handle counts, size_t width, uint16_t total, bool every) {
  const Buffer from(counts, Access::kRead);
  const CountRows rows = count_rows(from, width);
  require(total >= width, "fewer slots than symbols");
  std::vector<uint16_t> out(rows.rows * width);
  {
    const nb::gil_scoped_release unlocked;
    for (size_t i = 0; i < rows.rows; ++i) quantize(rows.row(i), width, total, every, out.data() + i * width);
  }
  return as_bytes(out);
}

nb::bytes py_quantize_leaning(nb::handle counts, size_t width, nb::handle lean, uint16_t total) {
  const Buffer from(counts, Access::kRead), on(lean, Access::kRead);
  const CountRows rows = count_rows(from, width);
  const size_t leaned = on.size() / 8;
  require(on.size() % 8 == 0 && leaned >= 2 && leaned <= width && leaned <= total, "no such symbols");
  require(std::all_of(items<uint64_t>(on), items<uint64_t>(on) + leaned, [](uint64_t w) { return w != 0; }),
          "symbols lean on nothing");
  std::vector<uint16_t> out(rows.rows * width);
  {
    const nb::gil_scoped_release unlocked;
    for (size_t i = 0; i < rows.rows; ++i)
      quantize_leaning(rows.row(i), width, items<uint64_t>(on), leaned, total, out.data() + i * width);
  }
  return as_bytes(out);
}

uint64_t py_cost(nb::handle counts, size_t width) {
  const Buffer from(counts, Access::kRead);
  const CountRows rows = count_rows(from, width);
  const nb::gil_scoped_release unlocked;
  uint64_t bits = 0;
  for (size_t i = 0; i < rows.rows; ++i) bits += cost(rows.row(i), width);
  return bits >> 10;
}

void py_add_counts(nb::handle to, nb::handle counts) {
  const Buffer into(to, Access::kWrite), from(counts, Access::kRead);
  require(into.size() == from.size() && into.size() % 8 == 0, "counts of another size");
  auto* sums = reinterpret_cast<uint64_t*>(into.data());
  for (size_t i = 0; i < into.size() / 8; ++i) sums[i] += items<uint64_t>(from)[i];
}

nb::bytes py_sum_counts(nb::handle counts, size_t width) {
  const Buffer from(counts, Access::kRead);
  const CountRows rows = count_rows(from, width);
  std::vector<uint64_t> sums(width);
  for (size_t i = 0; i < rows.rows; ++i) {
    for (size_t s = 0; s < width; ++s) sums[s] += rows.row(i)[s];
  }
  return as_bytes(sums);
}

nb::tuple py_join_counts(nb::handle counts, size_t width, size_t most) {
  const Buffer from(counts, Access::kRead);
  const CountRows rows = count_rows(from, width);
  require(most >= 1 && rows.rows <= 256, "not from 1 to 256 rows, or no group");
  std::vector<uint8_t> groups;
  std::vector<uint64_t> joined;
  {
    const nb::gil_scoped_release unlocked;
    groups = join_rows(rows, most, joined);
  }
  return nb::make_tuple(to_bytes(groups), as_bytes(joined));
}

nb::tuple py_rank_patterns(nb::handle patterns, bool alone) {
  const Buffer from(patterns, Access::kRead);
  require(from.size() != 0 && from.size() % 2 == 0, "no patterns of 16 bits");
  Ranking ranking;
  {
    const nb::gil_scoped_release unlocked;
    ranking = rank_patterns(items<uint16_t>(from), from.size() / 2, alone);
  }
  return nb::make_tuple(ranking.shift, ranking.base, as_bytes(ranking.values));
}

nb::bytes py_pattern_parts(nb::handle patterns, size_t parts) {
  const Buffer from(patterns, Access::kRead);
  require(from.size() != 0 && from.size() % 2 == 0 && parts >= 1 && parts <= 256, "no patterns, or no parts");
  std::vector<uint8_t> out(256);
  pattern_parts(items<uint16_t>(from), from.size() / 2, parts, out.data());
  return to_bytes(out);
}

nb::bytes py_column_classes(nb::handle deviations, size_t classes) {
  const Buffer from(deviations, Access::kRead);
  require(from.size() % 8 == 0 && classes >= 1 && classes <= 256, "no deviations, or no classes");
  std::vector<uint8_t> out(from.size() / 8);
  column_classes(items<uint64_t>(from), out.size(), classes, out.data());
  return to_bytes(out);
}

Form form_of(unsigned form) {
  require(form <= 3, "no such form");
  return static_cast<Form>(form);
}

size_t numbers_of(Form form, const Buffer& buffer) {
  const size_t width = form_sizes(form).width;
  require(buffer.size() % width == 0, "not a whole number of numbers");
  return buffer.size() / width;
}

void py_count_keys(unsigned form_id, nb::handle src, nb::handle counts, const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const Form form = form_of(form_id);
  const Buffer from(src, Access::kRead), to(counts, Access::kWrite);
  const size_t n = numbers_of(form, from);
  require(to.size() == size_t{8} << form_sizes(form).key_bits, "not a count for each key");
  const nb::gil_scoped_release unlocked;
  count_keys(isa, form, from.data(), n, reinterpret_cast<uint64_t*>(to.data()));
}

nb::bytes py_count_segments(unsigned form_id, nb::handle symbols, nb::handle src, size_t segment, size_t step,
                            const MaybeName& isa_name) {
  const Isa& isa = chosen_isa(isa_name);
  const Form form = form_of(form_id);
  const Buffer by_key(symbols, Access::kRead), from(src, Access::kRead);
  const size_t n = numbers_of(form, from);
  require(by_key.size() == size_t{1} << form_sizes(form).key_bits, "not a symbol for each key");
  require(segment >= 1 && segment <= 0xffff && step >= 1, "no segments of that size");
  std::vector<uint16_t> counts;
  {
    const nb::gil_scoped_release unlocked;
    counts = count_segments(isa, form, by_key.data(), from.data(), n, segment, step);
  }
  return as_bytes(counts);
}

nb::bytes py_segment_contexts(nb::handle counts, size_t contexts, size_t last, bool every) {
  const Buffer from(counts, Access::kRead);
  require(from.size() % 512 == 0, "not 256 counts of 16 bits a segment");
  require(contexts >= 1 && contexts <= 16 && last < 256, "no such contexts or symbol");
  std::vector<uint16_t> out;
  {
    const nb::gil_scoped_release unlocked;
    out = segment_contexts(items<uint16_t>(from), from.size() / 512, contexts, last, every);
  }
  return as_bytes(out);
}

}  // namespace

void bind_making(nb::module_& m) {
  m.def("quantize", py_quantize, nb::arg("counts"), nb::arg("width"), nb::arg("total"),
        nb::arg("every") = false,
        nb::sig("def quantize(counts: typing_extensions.Buffer, width: int, total: int, every: bool = False) "
                "-> bytes"),
        "Frequencies (uint16) of rows of ``width`` counts (uint64), which sum to ``total``. What was counted "
        "gets at least 1; with ``every`` all symbols do, else those not counted get 0.");
  m.def("quantize_leaning", py_quantize_leaning, nb::arg("counts"), nb::arg("width"), nb::arg("lean"),
        nb::arg("total"),
        nb::sig("def quantize_leaning(counts: typing_extensions.Buffer, width: int, lean: "
                "typing_extensions.Buffer, total: int) -> bytes"),
        "The same of 64 times the counts plus ``lean`` (uint64, one a symbol); symbols it lacks get 0.");
  m.def("cost", py_cost, nb::arg("counts"), nb::arg("width"),
        nb::sig("def cost(counts: typing_extensions.Buffer, width: int) -> int"),
        "Bits that counted symbols take at the entropy of their rows; the same on every machine.");
  m.def("add_counts", py_add_counts, nb::arg("to"), nb::arg("counts"),
        nb::sig("def add_counts(to: typing_extensions.Buffer, counts: typing_extensions.Buffer) -> None"),
        "Add counts (uint64) to others.");
  m.def("sum_counts", py_sum_counts, nb::arg("counts"), nb::arg("width"),
        nb::sig("def sum_counts(counts: typing_extensions.Buffer, width: int) -> bytes"),
        "The sum of all rows of ``width`` counts (uint64).");
  m.def("join_counts", py_join_counts, nb::arg("counts"), nb::arg("width"), nb::arg("most"),
        nb::sig("def join_counts(counts: typing_extensions.Buffer, width: int, most: int) -> tuple[bytes, "
                "bytes]"),
        "Join neighbouring rows of counts (uint64) where it costs least until there are at most ``most``. "
        "Returns which group each row belongs to, and the sums of the groups.");
  m.def(
      "rank_patterns", py_rank_patterns, nb::arg("patterns"), nb::arg("alone"),
      nb::sig("def rank_patterns(patterns: typing_extensions.Buffer, alone: bool) -> tuple[int, int, bytes]"),
      "A ranking that suits 16-bit patterns: low bits of a rank, value of rank 0, or a list of values. "
      "``alone``: their symbols have no context.");
  m.def("pattern_parts", py_pattern_parts, nb::arg("patterns"), nb::arg("parts"),
        nb::sig("def pattern_parts(patterns: typing_extensions.Buffer, parts: int) -> bytes"),
        "Which of ``parts`` equally common parts of 16-bit patterns each value of their bits 7 to 14 is in.");
  m.def("column_classes", py_column_classes, nb::arg("deviations"), nb::arg("classes"),
        nb::sig("def column_classes(deviations: typing_extensions.Buffer, classes: int) -> bytes"),
        "Classes of columns by how far their codes lie from zero (uint64): equally many columns in each.");
  m.def("values_count_keys", py_count_keys, nb::arg("form"), nb::arg("src"), nb::arg("counts"),
        nb::arg("isa") = nb::none(),
        nb::sig("def values_count_keys(form: int, src: typing_extensions.Buffer, counts: "
                "typing_extensions.Buffer, isa: str | None = None) -> None"),
        "Add to ``counts`` (uint64, one a key) how often each key occurs.");
  m.def("values_count_segments", py_count_segments, nb::arg("form"), nb::arg("symbols"), nb::arg("src"),
        nb::arg("segment"), nb::arg("step"), nb::arg("isa") = nb::none(),
        nb::sig("def values_count_segments(form: int, symbols: typing_extensions.Buffer, src: "
                "typing_extensions.Buffer, segment: int, step: int, isa: str | None = None) -> bytes"),
        "How often each symbol occurs (uint16, 256 a segment) in every ``step``th of the whole segments; "
        "``symbols`` has one a key.");
  m.def(
      "values_contexts", py_segment_contexts, nb::arg("counts"), nb::arg("contexts"), nb::arg("last"),
      nb::arg("every"),
      nb::sig("def values_contexts(counts: typing_extensions.Buffer, contexts: int, last: int, every: bool) "
              "-> bytes"),
      "Frequencies (uint16, 256 a context) that suit segments with these counts, in up to ``contexts`` "
      "contexts. Symbol ``last`` has some in each; with ``every``, all have.");
}

}  // namespace qzf
