"""Decoded chunks that were used lately, within a limit of bytes."""

from __future__ import annotations

from collections import OrderedDict

from qzf.parallel import ForkSafeLock

__all__ = ["ChunkCache"]


class ChunkCache:
    """The most recently used decoded chunks, of at most ``limit`` bytes in all; safe from many threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._chunks: OrderedDict[int, memoryview] = OrderedDict()
        self._size = 0
        self._lock = ForkSafeLock()

    def get(self, chunk: int) -> memoryview | None:
        """The bytes of a chunk, if they are there; they are not to be written to."""
        with self._lock:
            data = self._chunks.get(chunk)
            if data is not None:
                self._chunks.move_to_end(chunk)
            return data

    def put(self, chunk: int, data: memoryview) -> None:
        """Keep the bytes of a chunk, which nobody changes from now on."""
        if len(data) > self.limit:
            return
        with self._lock:
            old = self._chunks.pop(chunk, None)
            self._size += len(data) - (0 if old is None else len(old))
            self._chunks[chunk] = data
            while self._size > self.limit:
                self._size -= len(self._chunks.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._chunks.clear()
            self._size = 0
