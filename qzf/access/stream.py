"""Layers one after another within a window of memory, decoded ahead of their use."""

from __future__ import annotations

import mmap
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qzf.access.arrays import Layout, as_array, hold_apart, room_of
from qzf.access.frameworks import Framework
from qzf.access.layers import Layer
from qzf.access.loading import Job, Loader, Want
from qzf.errors import OptionError
from qzf.limits import KIB, MIB
from qzf.parallel import Crew, whole_number
from qzf.quant import GgmlType
from qzf.scratch import scratch
from qzf.transforms.dequant import dequantize

if TYPE_CHECKING:
    from qzf.access.arrays import Room

__all__ = [
    "DEFAULT_WINDOW",
    "Part",
    "Ring",
    "Spec",
    "Window",
    "plan_parts",
    "rooms_of",
    "stream_parts",
    "window_limit",
]

#: Parts that a window holds at least: the one that a caller's variable still holds, the one that is handed
#: over, and one that is on its way.
_PARTS: Final = 3
#: Enough for layers of an 8B model in 4 bits, some 125 MB each, to come whole.
DEFAULT_WINDOW: Final = 384 * MIB
#: Parts decoded ahead at most, however small they are.
_MOST_AHEAD: Final = 64
#: What memory is given out in.
_PAGE: Final = 4 * KIB
#: Where an array begins in a buffer: fit for the vector loads of any framework.
_ALIGNMENT: Final = 64


class Part(NamedTuple):
    """A layer, or as much of it as is decoded at a time.

    ``tensors`` are arrays by name. A tensor too large for the window comes in parts of whole rows: then
    ``rows`` says which rows of its outermost axis these are, by name; tensors that are whole are not in it.
    ``last`` tells that no more of this layer follows.
    """

    layer: Layer
    tensors: dict[str, Any]
    rows: dict[str, range]
    last: bool


class Spec(NamedTuple):
    """A tensor to stream: where its bytes begin (as in `Want`), how many they are, and what it comes as.

    ``floats``: the GGML type and the name of the dtype, where it is dequantized.
    """

    name: str
    start: int
    stored: int
    layout: Layout
    floats: tuple[GgmlType, str] | None


class _Slot(NamedTuple):
    """Rows of a tensor that a part has: ``stored`` bytes from ``start`` on, ``at`` bytes into its buffer."""

    spec: Spec
    start: int
    stored: int
    rows: range
    at: int
    size: int


class _Planned(NamedTuple):
    """A part to come: what it has, and the bytes of the buffer that it needs."""

    layer: Layer
    slots: list[_Slot]
    size: int
    last: bool


class _Floats(NamedTuple):
    """Rows of blocks to decode, ``stored`` bytes from ``start`` on, and to dequantize to ``room``."""

    kind: GgmlType
    name: str
    start: int
    stored: int
    room: memoryview

    def run(self, loader: Loader) -> None:
        with scratch(self.stored) as blocks:
            for job in loader.jobs([Want(self.start, blocks)]):
                loader.run(job)
            dequantize(self.kind.name, blocks, self.room, self.name)


def rooms_of(out: Iterable[Room]) -> list[npt.NDArray[np.uint8]]:
    """The caller's buffers as bytes. Raises ``OptionError`` for fewer than two, or two that overlap."""
    rooms = {f"out[{turn}]": room_of(f"out[{turn}]", buffer, None) for turn, buffer in enumerate(out)}
    if len(rooms) < 2:
        raise OptionError("streaming needs two buffers or more: one in use, one on its way")
    hold_apart(rooms)
    return [np.frombuffer(room, np.uint8) for room in rooms.values()]


def window_limit(window_bytes: int) -> int:
    """The most bytes that a part may have. Raises ``OptionError``."""
    size = whole_number(window_bytes)
    if size is None or size < 1:
        raise OptionError(f"window_bytes must be a number of bytes, not {window_bytes!r}")
    return size // _PARTS


def plan_parts(layers: Iterable[Layer], specs: Iterable[Sequence[Spec]], limit: int) -> list[_Planned]:
    """Parts of at most ``limit`` bytes, for layers and the tensors of each.

    Raises ``OptionError`` where one row is larger than that.
    """
    plan: list[_Planned] = []
    for layer, tensors in zip(layers, specs, strict=True):
        slots: list[_Slot] = []
        end = 0
        for slot in (slot for spec in tensors for slot in _cut(spec, limit)):
            at = -(-end // _ALIGNMENT) * _ALIGNMENT
            if at + slot.size > limit:
                plan.append(_Planned(layer, slots, end, False))
                slots, at = [], 0
            slots.append(slot._replace(at=at))
            end = at + slot.size
        plan.append(_Planned(layer, slots, end, True))
    return plan


def _cut(spec: Spec, limit: int) -> Iterator[_Slot]:
    """A tensor whole, or where it is too large in rows; places in a buffer are still to be found."""
    shape = spec.layout.shape
    count = shape[0] if shape else 1
    size = spec.layout.dtype.itemsize * prod(shape[1:])
    if count * size <= limit:
        yield _Slot(spec, spec.start, spec.stored, range(count), 0, count * size)
        return
    some, stored = limit // size, spec.stored // count
    if not some:
        raise OptionError(
            f"a row of {spec.name!r} has {size} bytes, a part of the window only {limit}", tensor=spec.name
        )
    for first in range(0, count, some):
        rows = range(first, min(first + some, count))
        yield _Slot(spec, spec.start + first * stored, len(rows) * stored, rows, 0, len(rows) * size)


def stream_parts(
    loader: Loader, plan: Sequence[_Planned], memory: Window | Ring, framework: Framework
) -> Generator[Part]:
    """Decode the parts of a plan in order, ahead of the caller as far as memory allows."""

    def work(job: Job | _Floats) -> None:
        job.run(loader) if isinstance(job, _Floats) else loader.run(job)

    crew: Crew[Job | _Floats, None] = Crew(work, loader.threads + 1)
    coming: deque[tuple[_Planned, npt.NDArray[np.uint8], int]] = deque()
    todo, jobs, done = deque(plan), 0, 0
    try:
        while todo or coming:
            while todo and len(coming) < _MOST_AHEAD and (room := memory.take(todo[0].size)) is not None:
                part = todo.popleft()
                for job in _jobs(loader, part, room):
                    crew.add(jobs, job)
                    jobs += 1
                coming.append((part, room, jobs))
                del room
            part, room, until = coming.popleft()
            while done < until:
                crew.result(done)
                done += 1
            yield _finished(part, room, framework)
            memory.give(room)
            del room
    finally:
        crew.dismiss()


def _jobs(loader: Loader, part: _Planned, room: npt.NDArray[np.uint8]) -> Iterator[Job | _Floats]:
    """What is to be done for a part in ``room``."""
    wants = []
    for spec, start, stored, rows, at, size in part.slots:
        target = room[at : at + size].data
        if spec.floats is None:
            wants.append(Want(start, target))
            continue
        loader.announce(start, stored)
        edges = [start, *loader.edges(start, stored, stored // max(len(rows), 1)), start + stored]
        for first, last in pairwise(edges):
            begin, end = ((edge - start) * size // max(stored, 1) for edge in (first, last))
            yield _Floats(*spec.floats, first, last - first, target[begin:end])
    yield from loader.ahead(loader.jobs(wants))


def _finished(part: _Planned, room: npt.NDArray[np.uint8], framework: Framework) -> Part:
    tensors, cut = {}, {}
    for spec, _, _, rows, at, size in part.slots:
        shape = spec.layout.shape
        array = as_array(room[at : at + size], spec.layout, (len(rows), *shape[1:]) if shape else ())
        tensors[spec.name] = framework.wrap(array)
        if shape and len(rows) != shape[0]:
            cut[spec.name] = rows
    return Part(part.layer, tensors, cut, part.last)


class Window:
    """Memory for parts, of ``limit`` bytes in all, which is used again when nobody refers to it any more.

    A part counts until the caller has the next one and asks for the one after: while a loop asks for the
    next part, its variable still holds the last.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._last: npt.NDArray[np.uint8] | None = None
        self._spare: list[npt.NDArray[np.uint8]] = []

    def take(self, size: int) -> npt.NDArray[np.uint8] | None:
        """Memory for a part; None where it would be more than there may be."""
        due = max(-(-size // _PAGE) * _PAGE, _PAGE)
        if self._used and self._used + due > self._limit:
            return None
        # One that is far too large would keep others from being decoded ahead.
        fitting = [
            spare
            for spare in self._spare
            if due <= len(spare) <= 2 * due and len(spare) + self._used <= max(self._limit, due)
        ]
        if fitting:
            best = min(fitting, key=len)
            self._spare = [spare for spare in self._spare if spare is not best]
        else:
            while self._spare and self._used + sum(map(len, self._spare)) + due > self._limit:
                self._spare.pop(0)
            # Straight from the kernel, so that it goes back there when it is dropped.
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            best = np.frombuffer(mmap.mmap(-1, due, flags=flags), np.uint8)
        self._used += len(best)
        return best

    def give(self, room: npt.NDArray[np.uint8]) -> None:
        """Note that the caller asks for the next part; this one is in ``room``."""
        last, self._last = self._last, room
        if last is not None:
            self._used -= len(last)
            if sys.getrefcount(last) == 2:  # this variable and the argument: no array is a view of it
                self._spare.append(last)


class Ring:
    """Buffers of the caller's, in turn."""

    def __init__(self, rooms: Sequence[npt.NDArray[np.uint8]]) -> None:
        self._free = deque(rooms)

    def take(self, size: int) -> npt.NDArray[np.uint8] | None:
        """The next buffer, which is large enough; None where all are in use."""
        del size
        return self._free.popleft() if self._free else None

    def give(self, room: npt.NDArray[np.uint8]) -> None:
        """Have a buffer used again."""
        self._free.append(room)
