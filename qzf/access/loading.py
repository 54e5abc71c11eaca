"""Decoding of ranges to buffers: which chunks hold them, and threads that share in the work."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from qzf.access.cache import ChunkCache
from qzf.container.reader import ContainerReader
from qzf.format.ids import ALIGNMENT, RECORD_HEADER_SIZE
from qzf.parallel import ordered_map
from qzf.scratch import scratch

__all__ = ["Job", "Loader", "Piece", "Want"]

#: Fewer chunks than this are decoded in the calling thread.
_PARALLEL_CHUNKS: Final = 3
#: How often a thread comes for more, at least where there is as much; and the most chunks that it gets.
_SHARES: Final = 16
_MOST_CHUNKS: Final = 8


class Want(NamedTuple):
    """A range to decode to ``room``; ``start`` counts decoded bytes of the container, as ``Index.starts``."""

    start: int
    room: memoryview


class Piece(NamedTuple):
    """A part of a chunk to decode to ``room``: its bytes from ``skip`` on."""

    chunk: int
    skip: int
    room: memoryview


#: What a thread does in one go.
Job = Sequence[Piece]


class Loader:
    """Decodes ranges of a container to buffers, with a cache of decoded chunks if ``cache`` is given."""

    def __init__(self, reader: ContainerReader, threads: int, cache: ChunkCache | None = None) -> None:
        self._reader, self.threads, self._cache = reader, threads, cache

    def fill(self, wants: Iterable[Want]) -> None:
        """Decode ranges, all threads sharing in it where there is enough to do. Raises ``DamageError``."""
        jobs = self.jobs(wants)
        chunks = sum(len(job) for job in jobs)
        for _ in ordered_map(self.run, self.ahead(jobs), self.threads if chunks >= _PARALLEL_CHUNKS else 1):
            pass

    def ahead(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """The jobs; storage is told of each when it is taken, some time before it is done."""
        for job in jobs:
            for offset, size in self._extents(job):
                self._reader.source.will_need(offset, size)
            yield job

    def _extents(self, job: Job) -> Iterator[tuple[int, int]]:
        """Where the records of a job are, (offset, size); what lies side by side is one."""
        chunks, begin, end = self._reader.index.chunks, 0, 0
        for piece in job:
            entry = chunks[piece.chunk]
            if not end <= entry.offset <= end + ALIGNMENT:
                if end > begin:
                    yield begin, end - begin
                begin = entry.offset
            end = entry.offset + RECORD_HEADER_SIZE + entry.stored_size
        if end > begin:
            yield begin, end - begin

    def jobs(self, wants: Iterable[Want]) -> list[Job]:
        """What is to be done to fill ranges, in their order and in parts that threads can take on."""
        pieces = [piece for want in wants for piece in self._pieces(want)]
        # Of many chunks a thread takes some at a time, but not so many that others run out of them.
        some = min(max(len(pieces) // (_SHARES * self.threads), 1), _MOST_CHUNKS)
        return [pieces[at : at + some] for at in range(0, len(pieces), some)]

    def run(self, job: Job) -> None:
        """Do a job, in the calling thread."""
        for chunk, skip, room in job:
            self._read(chunk, skip, room)

    def _pieces(self, want: Want) -> Iterator[Piece]:
        starts, at, room = self._reader.index.starts, want.start, want.room
        chunk = bisect_right(starts, at) - 1
        while room:
            skip = at - starts[chunk]
            size = min(starts[chunk + 1] - at, len(room))
            yield Piece(chunk, skip, room[:size])
            room, at, chunk = room[size:], at + size, chunk + 1

    def _read(self, chunk: int, skip: int, room: memoryview) -> None:
        size = self._reader.index.chunks[chunk].decoded_size
        if self._cache is None:
            if len(room) == size:
                self._reader.read_chunk(chunk, room)
            else:
                with scratch(size) as whole:
                    self._reader.read_chunk(chunk, whole)
                    room[:] = whole[skip : skip + len(room)]
            return
        data = self._cache.get(chunk)
        if data is None:
            data = self._reader.read_chunk(chunk)
            self._cache.put(chunk, data)
        room[:] = data[skip : skip + len(room)]
