"""Decoding of ranges to buffers: which chunks hold them, and threads that share in the work."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Final, NamedTuple

from qzf.access.cache import ChunkCache
from qzf.container.reader import ContainerReader
from qzf.container.spans import MAX_SPAN, MIN_SPAN, extent, group, runs
from qzf.format.ids import ALIGNMENT, RECORD_HEADER_SIZE
from qzf.parallel import default_threads, ordered_map
from qzf.scratch import scratch
from qzf.storage import Span

__all__ = ["Job", "Loader", "Piece", "Want"]

#: Fewer chunks than this are decoded in the calling thread.
_PARALLEL_CHUNKS: Final = 3
#: How often a thread comes for more, at least where there is as much; and the most chunks that it gets.
_SHARES: Final = 16
_MOST_CHUNKS: Final = 8
#: Threads for a remote container, unless their number is given: they wait more than they work, and servers
#: give one connection less than a line carries.
_REMOTE_THREADS: Final = 8
#: Requests at a time for bytes that are handed on in their order, and what each decodes to at most: up to ten
#: of these are in memory.
_ITER_THREADS: Final = 4
_ITER_SPAN: Final = 2 * MIN_SPAN


class Want(NamedTuple):
    """A range to decode to ``room``; ``start`` counts decoded bytes of the container, as ``Index.starts``."""

    start: int
    room: memoryview


class Piece(NamedTuple):
    """A part of a chunk to decode to ``room``: its bytes from ``skip`` on."""

    chunk: int
    skip: int
    room: memoryview


class Tables(NamedTuple):
    """The shared tables of a remote container to load, those close to one of them."""

    table_id: int


_CHUNK_OF: Final = attrgetter("chunk")
#: What a thread does in one go; of a remote container, with one request. Pieces of a chunk stand together.
Job = Sequence[Piece] | Tables


class Loader:
    """Decodes ranges of a container to buffers, with a cache of decoded chunks if ``cache`` is given.

    ``threads`` bounds those that decode; by default there are as many as processors, or eight for a remote
    container.
    """

    def __init__(self, reader: ContainerReader, threads: int | None, cache: ChunkCache | None = None) -> None:
        self._reader, self._cache = reader, cache
        self._remote = reader.source.remote
        self.threads = default_threads(threads)
        if self._remote and threads is None:
            self.threads = max(self.threads, _REMOTE_THREADS)

    def fill(self, wants: Iterable[Want]) -> None:
        """Decode ranges, all threads sharing in it where there is enough to do. Raises ``DamageError``."""
        jobs = self.jobs(wants)
        parallel = len(jobs) >= (2 if self._remote else _PARALLEL_CHUNKS)
        for _ in ordered_map(self.run, self.ahead(jobs), self.threads if parallel else 1):
            pass

    def ahead(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """The jobs; storage is told of each when it is taken, some time before it is done."""
        for job in jobs:
            if not isinstance(job, Tables):
                for offset, size in self._extents(job):
                    self._reader.source.will_need(offset, size)
            yield job

    def _extents(self, job: Sequence[Piece]) -> Iterator[tuple[int, int]]:
        """Where the records of a job are, (offset, size); what lies side by side is one."""
        chunks, begin, end = self._reader.index.chunks, 0, 0
        for chunk, _ in groupby(job, key=_CHUNK_OF):
            entry = chunks[chunk]
            if not end <= entry.offset <= end + ALIGNMENT:
                if end > begin:
                    yield begin, end - begin
                begin = entry.offset
            end = entry.offset + RECORD_HEADER_SIZE + entry.stored_size
        if end > begin:
            yield begin, end - begin

    def announce(self, start: int, size: int) -> None:
        """Tell storage of a range that is going to be read."""
        starts, none = self._reader.index.starts, memoryview(b"")
        chunks = range(bisect_right(starts, start) - 1, bisect_left(starts, start + size))
        for _ in self.ahead([[Piece(chunk, 0, none) for chunk in chunks]]):
            pass

    def edges(self, start: int, size: int, row: int) -> list[int]:
        """Where a range can be parted so that no chunk is decoded twice, between rows of ``row`` bytes."""
        starts, found, last = self._reader.index.starts, list[int](), start
        least = MAX_SPAN // 4 if self._remote else 1
        for chunk in range(bisect_right(starts, start), bisect_right(starts, start + size - 1)):
            if starts[chunk] - last >= least and not (starts[chunk] - start) % row:
                found.append(last := starts[chunk])
        return found

    def jobs(self, wants: Iterable[Want]) -> list[Job]:
        """What is to be done to fill ranges, in parts that threads can take on; mostly in their order."""
        wants = list(wants)
        by_chunk: dict[int, list[Piece]] = {}  # many ranges may lie in one chunk, which is decoded once
        for want in wants:
            for piece in self._pieces(want):
                by_chunk.setdefault(piece.chunk, []).append(piece)
        if self._remote:
            return self._requests(by_chunk, whole=len(wants) == 1)
        # Of many chunks a thread takes some at a time, but not so many that others run out of them.
        some = min(max(len(by_chunk) // (_SHARES * self.threads), 1), _MOST_CHUNKS)
        parts = iter(by_chunk.values())
        return [list(chain(first, *islice(parts, some - 1))) for first in parts]

    def run(self, job: Job) -> None:
        """Do a job, in the calling thread: each chunk is decoded once, a remote one's with one request."""
        if isinstance(job, Tables):
            self._reader.load_tables(job.table_id)
            return
        with self._reader.span([piece.chunk for piece in job]) if self._remote else nullcontext() as span:
            for chunk, pieces in groupby(job, key=_CHUNK_OF):
                self._decode(chunk, list(pieces), span)

    def chunks(self, first: int, count: int) -> Iterator[memoryview]:
        """The decoded bytes of chunks one after another, decoded ahead of their use."""
        chunks = range(first, first + count)
        if not self._remote:
            yield from ordered_map(self._reader.read_chunk, chunks, self.threads)
            return
        parts = runs(chunks, self._reader.chunk_record, _ITER_SPAN)
        for some in ordered_map(self._fetched, parts, min(self.threads, _ITER_THREADS)):
            yield from some

    def _fetched(self, chunks: list[int]) -> list[memoryview]:
        with self._reader.span(chunks) as span:
            return [self._reader.read_chunk(chunk, span=span) for chunk in chunks]

    def _pieces(self, want: Want) -> Iterator[Piece]:
        starts, at, room = self._reader.index.starts, want.start, want.room
        chunk = bisect_right(starts, at) - 1
        while room:
            skip = at - starts[chunk]
            size = min(starts[chunk + 1] - at, len(room))
            yield Piece(chunk, skip, room[:size])
            room, at, chunk = room[size:], at + size, chunk + 1

    def _requests(self, by_chunk: dict[int, list[Piece]], whole: bool) -> list[Job]:
        """Pieces by place, in parts of one request each; two at most if they are one ``whole`` range."""
        for chunk in list(by_chunk):
            data = None if self._cache is None else self._cache.get(chunk)
            if data is not None:
                _share(data, by_chunk.pop(chunk))
        records = [self._reader.chunk_record(chunk) for chunk in by_chunk]
        total = sum(record.size for record in records)
        limit = max(min(total // self.threads, MAX_SPAN), MIN_SPAN)
        if whole and records:
            # The first part then has half of it or more.
            limit = max(limit, extent(sorted(records))[1] // 2 + max(record.size for record in records))
        jobs: list[Job] = [Tables(table_id) for table_id in self._reader.tables_ahead(by_chunk)]
        jobs += ([piece for one in some for piece in by_chunk[one.key]] for some in group(records, limit))
        return jobs

    def _decode(self, chunk: int, pieces: Sequence[Piece], span: Span | None) -> None:
        size = self._reader.index.chunks[chunk].decoded_size
        if self._cache is not None:
            data = self._cache.get(chunk)
            if data is None:
                data = self._reader.read_chunk(chunk, span=span)
                self._cache.put(chunk, data)
            _share(data, pieces)
        elif len(pieces) == 1 and len(pieces[0].room) == size:
            self._reader.read_chunk(chunk, pieces[0].room, span)
        else:
            with scratch(size) as whole:
                self._reader.read_chunk(chunk, whole, span)
                _share(whole, pieces)


def _share(data: memoryview, pieces: Iterable[Piece]) -> None:
    for _, skip, room in pieces:
        room[:] = data[skip : skip + len(room)]
