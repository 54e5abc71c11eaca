"""Chunks of one type, of which the first pass of packing looks at a sample."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from itertools import accumulate
from typing import Final, NamedTuple, TypeVar

import zstandard

from qzf.container import payload
from qzf.container.payload import Effort
from qzf.limits import MAX_TABLES
from qzf.parallel import ordered_map
from qzf.scratch import scratch
from qzf.storage import ByteSource
from qzf.transforms.layouts import Layout
from qzf.transforms.modeled import ChunkModel
from qzf.transforms.quant_table import Counts, add_counts

__all__ = ["RECORD", "Chunks", "Models", "Piece"]

_T = TypeVar("_T")
_C = TypeVar("_C", bound=Sequence[Counts])

#: What a shared table costs beside its content, in bytes: record header, index entry, padding.
RECORD: Final = 176
#: Chunks that are coded both ways where a model may not pay.
_COMPARED: Final = 16
#: Types smaller than this may not be worth their table, so that is measured on more of them.
_SMALL: Final = 4 << 20


class Models:
    """The shared tables of a member, in the order of their ids, and how each tensor's chunks are coded.

    ``room`` is how many bytes the tables may take; what does not fit is coded without a model.
    """

    def __init__(self, room: int = MAX_TABLES) -> None:
        self.room = room
        self.tables: list[bytes] = []
        self.by_tensor: dict[int, ChunkModel] = {}

    def add(self, tables: Sequence[bytes], by_tensor: Mapping[int, ChunkModel]) -> bool:
        """Take these over if there is room for the tables; whether there is. Ids count from those here."""
        if self.size + sum(map(len, tables)) > self.room:
            return False
        self.tables.extend(tables)
        self.by_tensor.update(by_tensor)
        return True

    def merge(self, other: Models, first_id: int) -> None:
        """Take over what is in ``other``, if there is room for it; ids here count from ``first_id``."""
        by = first_id + len(self.tables)
        self.add(other.tables, {tensor: model.renumbered(by) for tensor, model in other.by_tensor.items()})

    @property
    def size(self) -> int:
        """Bytes of the tables."""
        return sum(map(len, self.tables))


class Piece(NamedTuple):
    """A chunk to be: ``size`` bytes at ``offset`` of the member, of rows of ``row`` bytes (0: no rows).

    ``tensor`` counts within the member; ``layout`` is what it would be coded by without a model.
    """

    offset: int
    size: int
    tensor: int
    row: int
    layout: Layout | None


class Chunks:
    """The chunks of the tensors of one type in a member."""

    def __init__(self, pieces: Sequence[Piece], source: ByteSource, effort: Effort, threads: int) -> None:
        self.pieces = list(pieces)
        self._source, self._effort, self._threads = source, effort, threads

    def sample(self, pieces: Sequence[Piece], most: int) -> list[Piece]:
        """Up to ``most`` of these chunks, evenly spread."""
        count = min(len(pieces), most)
        return [pieces[(2 * i + 1) * len(pieces) // (2 * count)] for i in range(count)]

    def map(self, work: Callable[[Piece, memoryview], _T], pieces: Iterable[Piece]) -> list[_T]:
        """``work`` on the bytes of each of these chunks, in parallel; results in order.

        It must keep no reference to the bytes.
        """
        return list(self._results(work, pieces))

    def _results(self, work: Callable[[Piece, memoryview], _T], pieces: Iterable[Piece]) -> Generator[_T]:
        def read(piece: Piece) -> _T:
            with scratch(piece.size) as data:
                self._source.readinto(piece.offset, data)
                return work(piece, data)

        return ordered_map(read, pieces, self._threads)

    def total(
        self,
        room: Callable[[], _C],
        count: Callable[[Piece, memoryview, _C], object],
        pieces: Iterable[Piece],
    ) -> _C:
        """What ``count`` adds up over these chunks, in parallel, in the counts that ``room`` makes."""
        free = deque([room()])

        def add(piece: Piece, data: memoryview) -> None:
            try:
                mine = free.pop()
            except IndexError:
                mine = room()
            count(piece, data, mine)
            free.append(mine)

        self.map(add, pieces)
        total = free.pop()
        for other in free:
            for sums, counts in zip(total, other, strict=True):
                add_counts(sums, counts)
        return total

    def pays(self, table: bytes, pieces: Sequence[Piece], models: dict[int, ChunkModel]) -> bool:
        """Whether a model saves more than its table costs, against the other ways to code these chunks."""
        size = sum(piece.size for piece in pieces)

        def gain(piece: Piece, data: memoryview) -> int:
            other = payload.encode(data, piece.layout, self._effort).size
            return other - min(
                other, payload.encode(data, None, self._effort, model=models[piece.tensor]).size
            )

        sampled = self.sample(pieces, _COMPARED if size < _SMALL else _COMPARED // 4)
        looked_at = sum(piece.size for piece in sampled)
        price = len(zstandard.ZstdCompressor(level=9).compress(table)) + RECORD
        with closing(self._results(gain, sampled)) as gains:  # the first chunk says enough of a large type
            return any(won * size // looked_at > price for won in accumulate(gains))
