"""A forward cursor over a GGUF header: primitive values, each checked against the file's size.

All multi-byte values are little-endian. The header is read through a window of owned bytes, so that the
same code serves remote sources and a file that shrinks meanwhile is an error instead of SIGBUS.
"""

from __future__ import annotations

import struct
from typing import Final

from qzf.errors import GgufError
from qzf.limits import GGUF_STOP
from qzf.storage import ByteSource
from qzf.transforms.strings import walk_strings

__all__ = ["Cursor"]

#: Bytes per read of the header; the window fits the L2 cache together with what is made from it.
WINDOW: Final = 256 * 1024
#: Bytes walked over at a time; the walk ends behind the last string whose length they hold.
_PIECE: Final = GGUF_STOP + 8

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


class Cursor:
    """Reads at ``at`` (byte offset in the file) and moves on. Every error is a GgufError with its offset."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._window = b""
        self._base = 0
        self.size: Final = source.size
        self.at = 0

    @property
    def remaining(self) -> int:
        """Bytes from here to the end of the file."""
        return self.size - self.at

    def error(self, message: str, *, offset: int | None = None, tensor: str | None = None) -> GgufError:
        """Make (not raise) an error at ``offset``, by default here."""
        at = self.at if offset is None else offset
        return GgufError(message, file=self._source.name, offset=at, tensor=tensor)

    def u32(self, what: str) -> int:
        """Read an unsigned 32-bit integer; ``what`` names it in errors."""
        index = self._load(4, what)
        self.at += 4
        return int(_U32.unpack_from(self._window, index)[0])

    def u64(self, what: str) -> int:
        """Read an unsigned 64-bit integer."""
        index = self._load(8, what)
        self.at += 8
        return int(_U64.unpack_from(self._window, index)[0])

    def take(self, count: int, what: str) -> bytes:
        """Read ``count`` bytes. The caller has bounded ``count``; the file's end is checked here."""
        index = self._load(count, what)
        self.at += count
        return self._window[index : index + count]

    def skip(self, count: int, what: str) -> None:
        """Move on by ``count`` bytes without reading them."""
        if count > self.remaining:
            raise self._ends_inside(what)
        self.at += count

    def length(self, what: str, limit: int | None = None) -> int:
        """Read a string's length in bytes, check it against the file's end and ``limit``."""
        start = self.at
        length = self.u64(f"the length of {what}")
        if length > self.remaining:
            raise self.error(
                f"{what} is {length} bytes long, the file has {self.remaining} more", offset=start
            )
        if limit is not None and length > limit:
            raise self.error(f"{what} is {length} bytes long, the limit is {limit}", offset=start)
        return length

    def skip_strings(self, count: int, what: str, stops: int) -> list[int]:
        """Move on by ``count`` strings; their lengths are all that is looked at.

        Returns up to ``stops`` places where strings begin, more than ``limits.GGUF_STOP`` apart, from the
        start on: a piece of so many bytes is walked over at a time.
        """
        found: list[int] = []
        last = self.at
        while count:
            start = self.at
            index = self._load(8, f"the length of a string in {what}")
            walked, index = walk_strings(self._window[index : index + _PIECE], count)
            if index <= self.remaining:
                self.at += index
                count -= walked
                if self.at - last > GGUF_STOP and count and len(found) < stops:
                    last = self.at
                    found.append(last)
                continue
            # The last length walked over points past the end: walk again, one by one, to say where.
            self.at = start
            for _ in range(walked):
                self.skip(self.length(f"a string in {what}"), what)
        return found

    def _load(self, count: int, what: str) -> int:
        """Make sure that ``count`` bytes from here on are in the window; return where in it they start."""
        index = self.at - self._base
        if index + count <= len(self._window):
            return index
        if count > self.remaining:
            raise self._ends_inside(what)
        self._window = self._source.read(self.at, min(max(count, WINDOW), self.remaining))
        self._base = self.at
        return 0

    def _ends_inside(self, what: str) -> GgufError:
        return self.error(f"the file ends inside {what}: {self.remaining} more bytes")
