// The Python face of the "strings" transform.
#include "binding.h"
#include "strings/chunk.h"

namespace qzf {
namespace {

nb::object split(nb::handle src) {
  const Buffer from(src, Buffer::Access::kRead);
  StringsApart apart;
  bool ok;
  {
    const nb::gil_scoped_release unlocked;
    ok = strings_split(span(from), apart);
  }
  if (!ok) return nb::none();
  return nb::make_tuple(to_bytes(apart.lengths), to_bytes(apart.text));
}

void merge(nb::handle lengths, nb::handle text, nb::handle out) {
  const Buffer first(lengths, Buffer::Access::kRead), second(text, Buffer::Access::kRead);
  const Buffer to(out, Buffer::Access::kWrite);
  require(!first.overlaps(to) && !second.overlaps(to), "a stream and out overlap");
  const char* fault;
  {
    const nb::gil_scoped_release unlocked;
    fault = strings_merge(span(first), span(second), to.data(), to.size());
  }
  if (fault != nullptr) throw std::invalid_argument(fault);
}

nb::object walk(nb::handle src, std::size_t count) {
  const Buffer from(src, Buffer::Access::kRead);
  const StringsWalk walked = strings_walk(span(from), count);
  return nb::make_tuple(walked.walked, walked.next);
}

}  // namespace

void bind_strings(nb::module_& m) {
  m.def("strings_split", split, nb::arg("src"),
        nb::sig("def strings_split(src: typing_extensions.Buffer) -> tuple[bytes, bytes] | None"),
        "Lengths and text of a sequence of strings, each a u64 length and its bytes; None where ``src`` is "
        "none.");
  m.def("strings_merge", merge, nb::arg("lengths"), nb::arg("text"), nb::arg("out"),
        nb::sig("def strings_merge(lengths: typing_extensions.Buffer, text: typing_extensions.Buffer, "
                "out: typing_extensions.Buffer) -> None"),
        "Inverse of ``strings_split``. ValueError says what is wrong with the streams, or their size with "
        "``out``.");
  m.def("strings_walk", walk, nb::arg("src"), nb::arg("count"),
        nb::sig("def strings_walk(src: typing_extensions.Buffer, count: int) -> tuple[int, int]"),
        "Walk over up to ``count`` strings that start in ``src``: how many they are, and where the next one "
        "would start, which may lie behind it (2**64 - 1: or further).");
}

}  // namespace qzf
