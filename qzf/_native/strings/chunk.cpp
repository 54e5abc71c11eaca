#include "strings/chunk.h"

#include <cstring>

#include "bits.h"

namespace qzf {
namespace {

constexpr std::size_t kHead = 8;     // bytes of a length in the chunk
constexpr std::size_t kLongest = 4;  // and the most in the stream

// Takes a length off the stream. Null, or what is wrong with it.
const char* take_length(const std::uint8_t*& at, const std::uint8_t* end, std::size_t& length) {
  length = 0;
  for (std::size_t i = 0; i < kLongest; ++i) {
    if (at == end) return "the lengths of strings end within one";
    const std::uint8_t byte = *at++;
    length |= static_cast<std::size_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80)
      return byte == 0 && i != 0 ? "a length of a string is not in its shortest form" : nullptr;
  }
  return "a length of a string has more than four bytes";
}

}  // namespace

bool strings_split(Span chunk, StringsApart& out) {
  out.lengths.reserve(chunk.size / kHead);
  out.text.reserve(chunk.size);
  const std::uint8_t* at = chunk.data;
  for (std::size_t left = chunk.size; left != 0;) {
    if (left < kHead) return false;
    std::uint64_t length = 0;
    for (std::size_t i = kHead; i-- > 0;) length = length << 8 | at[i];
    left -= kHead;
    if (length > left || length >> (7 * kLongest) != 0) return false;
    const std::size_t size = static_cast<std::size_t>(length);
    for (; length >= 0x80; length >>= 7) out.lengths.push_back(static_cast<std::uint8_t>(length | 0x80));
    out.lengths.push_back(static_cast<std::uint8_t>(length));
    out.text.insert(out.text.end(), at + kHead, at + kHead + size);
    at += kHead + size;
    left -= size;
  }
  return true;
}

const char* strings_merge(Span lengths, Span text, std::uint8_t* out, std::size_t size) {
  const std::uint8_t *at = lengths.data, *end = lengths.data + lengths.size, *from = text.data;
  std::size_t left = text.size;
  while (at != end) {
    std::size_t length;
    if (const char* fault = take_length(at, end, length)) return fault;
    if (size < kHead || size - kHead < length) return "the strings of a chunk are longer than the chunk";
    if (left < length) return "the strings of a chunk are longer than its text";
    for (std::size_t i = 0; i < kHead; ++i)
      out[i] = static_cast<std::uint8_t>(std::uint64_t{length} >> (8 * i));
    if (length != 0) std::memcpy(out + kHead, from, length);
    out += kHead + length;
    size -= kHead + length;
    from += length;
    left -= length;
  }
  if (size != 0) return "the strings of a chunk are shorter than the chunk";
  return left != 0 ? "the strings of a chunk are shorter than its text" : nullptr;
}

StringsWalk strings_walk(Span data, std::size_t count) {
  StringsWalk walk = {0, 0};
  while (walk.walked < count && walk.next <= data.size && data.size - walk.next >= kHead) {
    const std::uint64_t length = load64(data.data + walk.next), most = UINT64_MAX - walk.next - kHead;
    walk.next = length > most ? UINT64_MAX : walk.next + kHead + length;
    ++walk.walked;
  }
  return walk;
}

}  // namespace qzf
