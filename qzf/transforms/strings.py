"""The ``strings`` transform: a sequence of strings, each a u64 length and its bytes <-> lengths and text.

Format: spec/qzf-format.md, section 4.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from qzf import _core
from qzf.errors import ChunkError
from qzf.scratch import scratch
from qzf.transforms.modeled import CodedStream, decode_plain

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["decode_strings", "split_strings", "walk_strings"]

#: Bytes of a length in the chunk; the stream has at least one for each.
_HEAD: Final = 8


def split_strings(data: Buffer) -> tuple[bytes, bytes] | None:
    """Lengths and text of ``data``; None where it is not exactly a sequence of strings."""
    return _core.strings_split(data)


def walk_strings(window: Buffer, count: int) -> tuple[int, int]:
    """Walk over up to ``count`` strings that start in ``window``.

    Returns how many, and where the next one would start, which may lie beyond the window (2**64 - 1: or
    further).
    """
    return _core.strings_walk(window, count)


def decode_strings(streams: Sequence[CodedStream], tables: int, out: memoryview) -> None:
    """Decode the streams of a chunk, which names so many ``tables``, to ``out``. Raises ``ChunkError``."""
    if len(streams) != 2 or tables:
        raise ChunkError("a strings chunk has other streams or tables")
    lengths, text = streams
    if not (1 <= lengths.size <= len(out) // _HEAD and text.size <= len(out) - _HEAD):
        raise ChunkError("the streams of a strings chunk have other sizes than its strings need")
    with scratch(lengths.size + text.size) as space:
        first, second = decode_plain(streams, space, "strings")
        try:
            _core.strings_merge(first, second, out)
        except ValueError as error:
            raise ChunkError(str(error)) from None
