"""A member as a byte source: any range of the original file, decoded on demand."""

from __future__ import annotations

from bisect import bisect_right

from qzf.container.reader import ContainerReader
from qzf.container.spans import MIN_SPAN, runs
from qzf.errors import NotFoundError
from qzf.storage import SourceBase

__all__ = ["MemberSource"]


class MemberSource(SourceBase):
    """The original bytes of the member ``name``; only the chunks that a range touches are decoded.

    The chunk that was decoded last is kept, so that small reads one after another decode each chunk once. Of
    a remote container further chunks are read along with those that follow the last ones.
    Safe to use from many threads. Raises ``NotFoundError`` for an unknown name; reads raise what
    ``ContainerReader.read_chunk`` does. Closing it does not close the container.
    """

    def __init__(self, reader: ContainerReader, name: str) -> None:
        member = next((member for member in reader.index.members if member.name == name), None)
        if member is None:
            raise NotFoundError(f"there is no member {name!r}", file=reader.source.name)
        super().__init__(name, member.size)
        self._reader = reader
        starts = reader.index.starts[member.first_chunk : member.first_chunk + member.chunk_count + 1]
        #: Where its bytes begin, as ``Index.starts`` counts.
        self.start = starts[0]
        self._starts = [start - starts[0] for start in starts]
        self._first = member.first_chunk
        self._last: tuple[int, list[memoryview]] = (-1, [])

    @property
    def cuts(self) -> list[int]:
        """Where in the member its chunks begin, and its end; not to be changed."""
        return self._starts

    def _fill(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            place = bisect_right(self._starts, offset + done) - 1
            data = self._chunk(place)
            skip = offset + done - self._starts[place]
            part = data[skip : skip + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)

    def _chunk(self, place: int) -> memoryview:
        at, kept = self._last
        if not at <= place < at + len(kept):
            # As much again as there was, where reads go on from there.
            count = self._ahead(place, 2 * len(kept)) if place == at + len(kept) else 1
            at, kept = place, self._read(self._first + place, count)
            self._last = (at, kept)
        return kept[place - at]

    def _ahead(self, place: int, most: int) -> int:
        """How many chunks to read from ``place`` on."""
        if not self._reader.source.remote:
            return 1
        end = bisect_right(self._starts, self._starts[place] + MIN_SPAN) - 1
        return max(min(end - place, most, len(self._starts) - 1 - place), 1)

    def _read(self, chunk: int, count: int) -> list[memoryview]:
        if count == 1:
            return [self._reader.read_chunk(chunk)]
        found: list[memoryview] = []
        for some in runs(range(chunk, chunk + count), self._reader.chunk_record, MIN_SPAN):
            with self._reader.span(some) as span:
                found += [self._reader.read_chunk(one, span=span) for one in some]
        return found

    def close(self) -> None:
        """Forget the chunks that are kept."""
        self._last = (-1, [])
