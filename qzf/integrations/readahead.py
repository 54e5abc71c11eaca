"""Members as files that are read from the front or anywhere: chunks decoded ahead, and kept for a while.

A program reads a file in pieces far smaller than a chunk, mostly one after another. So chunks are decoded
whole, by threads, some way ahead of a reader that goes forward; and whoever waits for a chunk works on what
is to be done, as in `qzf.parallel`. Buffers are used again: new memory costs more than decoding to it.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from qzf.container.reader import ContainerReader
from qzf.errors import NotFoundError, OptionError
from qzf.format.ids import RECORD_HEADER_SIZE
from qzf.limits import KIB, MIB
from qzf.parallel import default_threads

__all__ = ["DEFAULT_CACHE", "MemberReader", "ReadAhead"]

#: Bytes of decoded chunks that are kept: some 128 of them, more than threads and readers use at a time.
DEFAULT_CACHE: Final = 64 * MIB
#: How far a reader may skip, either way, and still count as going forward: a kernel that reads ahead asks for
#: several pieces at once, and they may arrive in any order.
_SKIP: Final = MIB

#: Buffers from this size on are used again; smaller chunks are few.
_LARGE: Final = 64 * KIB

_WAITING, _BUSY, _DONE = range(3)


class _Chunk:
    """A chunk that somebody has asked for. ``users`` are at its buffer now, which keeps it there."""

    __slots__ = ("buffer", "chunk", "error", "left", "reader", "room", "size", "state", "taken", "users")

    def __init__(self, reader: ContainerReader, chunk: int, size: int, room: int) -> None:
        self.reader, self.chunk, self.size = reader, chunk, size
        self.room = room  # bytes that its buffer takes
        self.left = size  # bytes that nobody has read, if none is read twice
        self.state, self.users, self.taken = _WAITING, 0, False
        self.buffer: memoryview | None = None
        self.error: Exception | None = None


class ReadAhead:
    """Threads that decode chunks, of any number of containers, and the chunks that they have decoded.

    At most ``cache_bytes`` of those are kept, or else as many as were being read at a time; with ``once``
    none that has been read in whole, as the reader keeps what it has read. Less is faster: buffers that were
    used a moment ago are in the processor's cache. Safe to use from many threads. Starts no thread before
    something is read forward, and leaves none when closed.
    """

    def __init__(
        self, threads: int | None = None, cache_bytes: int = DEFAULT_CACHE, *, once: bool = False
    ) -> None:
        if not isinstance(cache_bytes, int) or cache_bytes < 0:
            raise OptionError(f"cache_bytes must be a number of bytes, not {cache_bytes!r}")
        self.cache_bytes: Final = cache_bytes
        self.threads: Final = default_threads(threads)
        self._once = once
        self._helpers: list[threading.Thread] = []
        #: By container and number; the one used last stands last.
        self._chunks: OrderedDict[tuple[int, int], _Chunk] = OrderedDict()
        self._queue: deque[_Chunk] = deque()
        self._spare: dict[int, list[memoryview]] = {}  # by size
        self._held = 0
        self._closed = False
        self._lock = threading.Lock()
        self._added, self._done = threading.Condition(self._lock), threading.Condition(self._lock)

    def open(self, reader: ContainerReader, member: str) -> MemberReader:
        """A member of a container as a file. Raises ``NotFoundError``."""
        return MemberReader(self, reader, member)

    def forget(self) -> None:
        """Forget the chunks that nobody reads, and give their memory back."""
        with self._lock:
            for chunk in list(self._chunks.values()):
                if chunk.state == _DONE and not chunk.users:
                    self._drop(chunk)
            self._spare.clear()

    def close(self) -> None:
        """End all threads and forget all chunks. Reading afterwards raises ``OptionError``."""
        with self._lock:
            self._closed = True
            self._queue.clear()
            self._added.notify_all()
        for helper in self._helpers:
            helper.join()
        self._helpers.clear()
        with self._lock:
            self._chunks.clear()
            self._spare.clear()
            self._done.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- for members ------------------------------------------------------------------------------

    def expect(self, reader: ContainerReader, first: int, last: int) -> None:
        """Have the chunks ``first`` to ``last`` - 1 decoded, as far as there is room for them."""
        added = list[int]()
        with self._lock:
            for number in range(first, last):
                chunk = self._chunks.get((id(reader), number))
                if chunk is not None:
                    self._chunks.move_to_end((id(reader), number))
                    continue
                chunk = self._new(reader, number)
                # What is read now stays, and what was decoded ahead for others: it would be in vain.
                if not self._make_room(
                    chunk.room, lambda old: old.taken and (old.reader is not reader or old.chunk < first)
                ):
                    break
                self._add(chunk)
                self._queue.append(chunk)
                self._added.notify()
                added.append(number)
            if self._queue:
                self._start()
        for number in added:
            entry = reader.index.chunks[number]
            reader.source.will_need(entry.offset, RECORD_HEADER_SIZE + entry.stored_size)

    def take(self, reader: ContainerReader, number: int) -> _Chunk:
        """A chunk, decoded; ``give`` it back. Raises what decoding it raised."""
        with self._lock:
            self._check_open()
            chunk = self._chunks.get((id(reader), number))
            if chunk is None:
                chunk = self._new(reader, number)
                self._make_room(chunk.room)
                self._add(chunk)
            else:
                self._chunks.move_to_end((id(reader), number))
            chunk.users, chunk.taken = chunk.users + 1, True
            mine = chunk.state == _WAITING
            if mine:
                chunk.state = _BUSY  # whoever finds it in the queue passes it by
        try:
            if mine:
                self._decode(chunk)
            while chunk.state != _DONE:
                self._help_or_wait(chunk)
            if chunk.error is not None:
                raise chunk.error
        except BaseException:
            self.give(chunk)
            raise
        return chunk

    def give(self, chunk: _Chunk, size: int = 0) -> None:
        """Note that ``size`` bytes of a chunk have been read."""
        with self._lock:
            chunk.users -= 1
            chunk.left -= size
            # What could not be decoded is tried again next time.
            over = chunk.error is not None or (self._once and chunk.left <= 0 and not chunk.users)
            if over and self._chunks.get((id(chunk.reader), chunk.chunk)) is chunk:
                self._drop(chunk)

    # --- inside, all with the lock held but where it says otherwise ---------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise OptionError("reading from what is closed")

    def _new(self, reader: ContainerReader, number: int) -> _Chunk:
        size, usual = reader.index.chunks[number].decoded_size, reader.index.catalog.chunk_size
        # Buffers of one size, which fit each other's chunks; for small chunks they would be a waste.
        return _Chunk(reader, number, size, usual if usual // 2 < size <= usual else size)

    def _add(self, chunk: _Chunk) -> None:
        self._chunks[id(chunk.reader), chunk.chunk] = chunk
        self._held += chunk.room

    def _drop(self, chunk: _Chunk) -> None:
        del self._chunks[id(chunk.reader), chunk.chunk]
        self._held -= chunk.room
        if chunk.buffer is not None and chunk.room >= _LARGE:
            self._spare.setdefault(chunk.room, []).append(chunk.buffer)
        chunk.buffer = None

    def _make_room(self, size: int, among: Callable[[_Chunk], bool] = lambda chunk: True) -> bool:
        """Forget chunks that nobody reads, oldest first, until ``size`` bytes more may be held.

        Tells whether they may; ``among`` tells which chunks may be forgotten.
        """
        excess, victims = self._held + size - self.cache_bytes, list[_Chunk]()
        for chunk in self._chunks.values():
            if excess <= 0:
                break
            if chunk.state == _DONE and not chunk.users and among(chunk):
                victims.append(chunk)
                excess -= chunk.room
        for chunk in victims:
            self._drop(chunk)
        return excess <= 0

    def _start(self) -> None:
        """Start the threads."""
        while len(self._helpers) < self.threads and not self._closed:
            name = f"qzf-ahead-{len(self._helpers)}"
            helper = threading.Thread(target=self._help, name=name, daemon=True)
            self._helpers.append(helper)
            helper.start()

    def _next(self) -> _Chunk | None:
        while self._queue:
            chunk = self._queue.popleft()
            if chunk.state == _WAITING:
                chunk.state = _BUSY
                return chunk
        return None

    def _help(self) -> None:
        """What a thread does; without the lock."""
        while True:
            with self._added:
                while (chunk := self._next()) is None:
                    if self._closed:
                        return
                    self._added.wait()
            self._decode(chunk)
            del chunk

    def _help_or_wait(self, chunk: _Chunk) -> None:
        """Work on another chunk while ``chunk`` is in work elsewhere; without the lock."""
        with self._done:
            other = self._next()
            if other is None and chunk.state != _DONE:
                self._check_open()
                self._done.wait()
        if other is not None:
            self._decode(other)

    def _room(self, size: int) -> memoryview:
        """A buffer of ``size`` bytes; without the lock."""
        with self._lock:
            spare = self._spare.get(size)
            if spare:
                return spare.pop()
        # Straight from the kernel, so that it goes back there when it is dropped.
        if size >= _LARGE:
            return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return memoryview(bytearray(size))

    def _decode(self, chunk: _Chunk) -> None:
        """Decode a chunk that is this thread's to decode; without the lock."""
        buffer, error = self._room(chunk.room), None
        try:
            chunk.reader.read_chunk(chunk.chunk, buffer[: chunk.size])
        except Exception as caught:
            error = caught
        except BaseException:  # an interrupt: the chunk is as if never begun
            with self._lock:
                chunk.state = _DONE
                chunk.error = InterruptedError("interrupted")
                self._done.notify_all()
            raise
        with self._lock:
            chunk.buffer, chunk.error, chunk.state = buffer, error, _DONE
            self._done.notify_all()


class MemberReader:
    """The original bytes of a member, read at any offset by one reader or by some that go together.

    ``name`` and ``size`` in bytes are the member's. Reads raise what ``ContainerReader.read_chunk`` does.
    """

    def __init__(self, ahead: ReadAhead, reader: ContainerReader, member: str) -> None:
        entry = next((entry for entry in reader.index.members if entry.name == member), None)
        if entry is None:
            raise NotFoundError(f"there is no member {member!r}", file=reader.source.name)
        self.name: Final = member
        self.size: Final = entry.size
        self._ahead, self._reader = ahead, reader
        self._starts = reader.index.starts
        self._base = self._starts[entry.first_chunk]
        self._last = entry.first_chunk + entry.chunk_count
        chunk_size = max(reader.index.catalog.chunk_size, 1)
        # Two chunks a thread are enough to keep all busy; but they must not drive out what is read.
        window = min((2 * ahead.threads + 2) * chunk_size, ahead.cache_bytes - chunk_size)
        self._window = window if window >= chunk_size else 0
        self._next = self._run = 0
        self._expected = -1

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` (bytes, writable) from ``offset`` on; returns how many bytes there were."""
        if offset < 0:
            raise OptionError(f"offset {offset} is below zero", member=self.name)
        size = max(min(len(buffer), self.size - offset), 0)
        if size == 0:
            return 0
        at, end = self._base + offset, self._base + offset + size
        number = bisect_right(self._starts, at) - 1
        self._look_ahead(number, offset, end)
        while at < end:
            chunk = self._ahead.take(self._reader, number)
            try:
                start, stop = self._starts[number], min(self._starts[number + 1], end)
                done = at - self._base - offset
                assert chunk.buffer is not None
                buffer[done : done + stop - at] = chunk.buffer[at - start : stop - start]
            finally:
                self._ahead.give(chunk, stop - at)
            at, number = stop, number + 1
        return size

    def _look_ahead(self, number: int, offset: int, end: int) -> None:
        """Have decoded what this read takes and, if it goes on where the last one ended, what comes next."""
        size = end - self._base - offset
        forward = -_SKIP <= offset - self._next <= _SKIP
        # The farther it has gone on, the farther it will.
        self._run = self._run + size if forward else 0
        self._next = max(self._next, offset + size) if forward else offset + size
        until = end + min(self._run, self._window)
        last = min(bisect_right(self._starts, until - 1), self._last)
        if last > number + 1 and last != self._expected:
            self._ahead.expect(self._reader, number, last)
        self._expected = last
