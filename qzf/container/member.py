"""A member as a byte source: any range of the original file, decoded on demand."""

from __future__ import annotations

from bisect import bisect_right

from qzf.container.reader import ContainerReader
from qzf.errors import NotFoundError
from qzf.storage import SourceBase

__all__ = ["MemberSource"]


class MemberSource(SourceBase):
    """The original bytes of the member ``name``; only the chunks that a range touches are decoded.

    The chunk that was decoded last is kept, so that small reads one after another decode each chunk once.
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
        self._starts = [start - starts[0] for start in starts]
        self._first = member.first_chunk
        self._last: tuple[int, memoryview] = (-1, memoryview(b""))

    @property
    def cuts(self) -> list[int]:
        """Where in the member its chunks begin, and its end; not to be changed."""
        return self._starts

    def _fill(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            place = bisect_right(self._starts, offset + done) - 1
            at, data = self._last
            if at != place:
                data = self._reader.read_chunk(self._first + place)
                self._last = (place, data)
            skip = offset + done - self._starts[place]
            part = data[skip : skip + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)

    def close(self) -> None:
        """Forget the chunk that is kept."""
        self._last = (-1, memoryview(b""))
