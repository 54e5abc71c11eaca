"""Working memory that a thread uses again and again.

New memory is not cheap: the kernel clears and maps each page of it when it is first touched, and the
allocator gives buffers of a chunk's size back to the kernel as soon as they are free. On chunks of
512 KiB that took more time than decoding them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from qzf.limits import MIB

__all__ = ["Buffers", "scratch"]

#: Larger buffers are not kept, so that a thread that met a huge chunk does not hold on to its memory.
_KEEP: Final = 8 * MIB


class _Local(threading.local):
    def __init__(self) -> None:
        self.free: list[memoryview] = []


_local = _Local()


@contextmanager
def scratch(size: int) -> Iterator[memoryview]:
    """A buffer of ``size`` bytes with unspecified content, for use within the block only."""
    free = _local.free
    buffer = free.pop() if free else None
    if buffer is None or len(buffer) < size:
        buffer = memoryview(bytearray(size))
    try:
        yield buffer[:size]
    finally:
        if len(buffer) <= _KEEP:
            free.append(buffer)


class Buffers:
    """Working memory that goes from thread to thread, and back when the last of them is through with it."""

    def __init__(self) -> None:
        self._free: deque[memoryview] = deque()

    def take(self, size: int) -> memoryview:
        """A buffer of at least ``size`` bytes with unspecified content."""
        try:
            buffer = self._free.pop()
        except IndexError:
            return memoryview(bytearray(size))
        return buffer if len(buffer) >= size else memoryview(bytearray(size))

    def give(self, buffer: memoryview) -> None:
        """Have what ``take`` returned used again."""
        if 0 < len(buffer) <= _KEEP:
            self._free.append(buffer)
