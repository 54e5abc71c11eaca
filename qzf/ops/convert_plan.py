"""What a conversion writes, and the writing: pieces of the output, each made from a range of a source.

Pieces are made by threads, and are small whatever the size of a tensor or a row, which bounds memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from qzf.adapters import describe
from qzf.container.member import MemberSource
from qzf.errors import GgufError, SafetensorsError
from qzf.limits import MIB
from qzf.model import Extent
from qzf.ops.output import AtomicFile
from qzf.parallel import Progress, ordered_map
from qzf.scratch import Buffers, scratch
from qzf.storage import ByteSource, FileSource, MemorySource, SourceBase

__all__ = ["HeadSource", "Part", "Plan", "Step", "check_readable", "listed", "write_plan"]

#: Makes the bytes of a piece: (bytes of the source, bytes of the output to fill).
Step = Callable[[memoryview, memoryview], None]

#: Names in a notice.
_LISTED: Final = 5
#: Bytes of a piece, in the source and in the output.
_SLICE: Final = MIB


class Part(NamedTuple):
    """A range of a source that becomes one of the output from ``at`` on.

    ``unit`` bytes (a quantization block) become ``made`` bytes of the output; the range is a whole number of
    units. Without ``step`` it is copied.
    """

    source: ByteSource
    extent: Extent
    at: int
    unit: int = 1
    made: int = 1
    step: Step | None = None


class Plan(NamedTuple):
    """An output: ``header`` at its start, then ``parts``; all else is zero.

    ``changed`` of ``tensors`` do not keep their numbers as they are. ``notices`` say what is lost.
    """

    header: bytes
    parts: Sequence[Part]
    size: int
    tensors: int
    changed: int
    notices: tuple[str, ...]

    @property
    def input_size(self) -> int:
        """Bytes of all parts in their sources."""
        return sum(part.extent.size for part in self.parts)


class HeadSource(SourceBase):
    """The first bytes of a file of ``size`` bytes whose tensors lie elsewhere; behind them it reads as zero.

    To have a header that is kept somewhere, or that is about to be written, read by an adapter.
    """

    def __init__(self, name: str, source: ByteSource, extent: Extent, size: int) -> None:
        super().__init__(name, size)
        self._source, self._extent = source, extent

    def _fill(self, offset: int, buffer: memoryview) -> None:
        held = max(0, min(len(buffer), self._extent.size - offset))
        if held:
            self._source.readinto(self._extent.offset + offset, buffer[:held])
        buffer[held:] = bytes(len(buffer) - held)

    def close(self) -> None:
        """The source is its owner's to close."""


def check_readable(header: bytes, size: int, name: str, kind: str) -> None:
    """Refuse to write what would be refused when it is read: names, sizes and lengths that cannot be.

    ``header`` is that of the output, of ``kind`` and ``size`` bytes. The error is one of the source ``name``.
    """
    head = HeadSource(name, MemorySource(header), Extent(0, len(header)), size)
    try:
        describe(head, f"x.{kind}")
    except GgufError as error:
        raise SafetensorsError(f"cannot be a GGUF file: {error.message}", file=name) from None
    except SafetensorsError as error:
        raise GgufError(f"cannot be a safetensors file: {error.message}", file=name) from None


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


class _Piece(NamedTuple):
    part: Part
    offset: int
    length: int
    at: int
    size: int


def _pieces(parts: Sequence[Part]) -> Iterator[_Piece]:
    for part in parts:
        start, unit, made = part.extent.offset, part.unit, part.made
        for begin, end in _spans(part):
            at = part.at + (begin - start) // unit * made
            yield _Piece(part, begin, end - begin, at, (end - begin) // unit * made)


def _spans(part: Part) -> Iterator[tuple[int, int]]:
    """Cut the range of a part: where the container's chunks begin, so that each is decoded once."""
    start, end = part.extent.offset, part.extent.end
    step = max(1, _SLICE // max(part.unit, part.made)) * part.unit
    edges = [start, end]
    if isinstance(part.source, MemberSource):
        cuts = part.source.cuts
        inner = cuts[bisect_right(cuts, start) : bisect_left(cuts, end)]
        edges[1:1] = [cut for cut in inner if (cut - start) % part.unit == 0]
        step *= 4  # a chunk of up to 4 MiB is a piece: parts of one would have it decoded again
    for begin, stop in pairwise(edges):
        for at in range(begin, stop, step):
            yield at, min(at + step, stop)


def _make(piece: _Piece, buffers: Buffers) -> tuple[_Piece, memoryview]:
    buffer = buffers.take(piece.size)
    out, step, source = buffer[: piece.size], piece.part.step, piece.part.source
    if step is None:
        source.readinto(piece.offset, out)
        return piece, buffer
    with scratch(piece.length) as space:
        source.readinto(piece.offset, space)
        step(space, out)
    return piece, buffer


def write_plan(plan: Plan, path: Path, *, force: bool, threads: int, progress: Progress | None) -> None:
    """Write the output to ``path``, which appears when it is whole."""
    buffers, total, done, written = Buffers(), plan.input_size, 0, len(plan.header)
    results = ordered_map(lambda piece: _make(piece, buffers), _pieces(plan.parts), threads)
    with AtomicFile(path, force=force) as file, closing(results):
        file.pwrite(plan.header, 0)
        for piece, buffer in results:
            file.pwrite(buffer[: piece.size], piece.at)
            buffers.give(buffer)
            done, written = done + piece.length, written + piece.size
            if progress is not None:
                progress(done, total, written)
        end = max((part.at + part.extent.size // part.unit * part.made for part in plan.parts), default=0)
        file.pwrite(bytes(plan.size - max(end, len(plan.header))), max(end, len(plan.header)))
        for source in {id(part.source): part.source for part in plan.parts}.values():
            if isinstance(source, FileSource):
                source.check_unchanged()
