"""Golden containers with chunks of the transform ``strings``."""

from __future__ import annotations

from typing import Final

from tools.vectors.builder import Builder, Tensor, Verbatim, leb128, noise, stored, strings, whole
from tools.vectors.parts import Parts, raw, zstd

__all__ = ["strings_parts", "strings_tensor_parts"]

_WORDS: Final = [b"", *(noise("words", 500)[i : i + 1 + i % 7].hex().encode() for i in range(400)), b""]
#: Lengths on either side of those that take another byte.
_EDGES: Final = [b"", *(b"e" * size for size in (127, 128, 16_383, 16_384, (1 << 21) - 1, 1 << 21))]


def strings_parts() -> Parts:
    """Raw and coded streams, every size of a length, strings of no bytes, no text at all."""
    lengths, text = b"".join(leb128(len(word)) for word in _WORDS), b"".join(_WORDS)
    chunks = [
        stored(b"head"),
        strings(_WORDS),
        strings(_WORDS, zstd(lengths), raw(text)),
        strings(_EDGES),
        strings(_EDGES[::-1], zstd(b"".join(leb128(len(each)) for each in reversed(_EDGES)), 19)),
        strings([b""] * 40, raw(bytes(40)), raw(b"")),
        strings([b""] * 40, zstd(bytes(40)), zstd(b"")),
        strings([noise("raw", 20)] * 10, text=raw(noise("raw", 20) * 10)),
        whole(bytes(300)),
    ]
    builder = Builder()
    builder.member("strings.bin", [Verbatim(chunks)])
    return builder.parts()


def strings_tensor_parts() -> Parts:
    """A tensor may hold strings too; its chunks begin where its rows do."""
    chunks = [strings(_WORDS), stored(noise("w", 64))]
    size = sum(len(chunk.data) for chunk in chunks)
    builder = Builder()
    builder.member("w.bin", [Verbatim([stored(b"head")]), Tensor("w", "U8", [size], 1, chunks)])
    return builder.parts()
