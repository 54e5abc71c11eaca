// A chunk that is a sequence of strings, each a u64 length and so many bytes <-> lengths and text apart
// (spec/qzf-format.md, section 4.6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "span.h"

namespace qzf {

struct StringsApart {
  std::vector<std::uint8_t> lengths, text;
};

// Takes a chunk apart. False where it is not exactly a sequence of strings, or one has 2^28 bytes or more.
bool strings_split(Span chunk, StringsApart& out);

// Puts `size` bytes together at `out`. Null, or what is wrong with the streams. Never reads or writes outside
// of the spans and of these bytes.
const char* strings_merge(Span lengths, Span text, std::uint8_t* out, std::size_t size);

// Walks over up to `count` strings that start in `data`, of which it reads the lengths only. Where the next
// one would start, which may lie behind the data; 2^64 - 1 for any place from there on.
struct StringsWalk {
  std::size_t walked;
  std::uint64_t next;
};
StringsWalk strings_walk(Span data, std::size_t count);

}  // namespace qzf
