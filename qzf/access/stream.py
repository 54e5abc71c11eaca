"""Layers one after another within a window of memory, decoded ahead of their use."""

from __future__ import annotations

import mmap
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qzf.access.arrays import Layout, as_array, room_of
from qzf.access.frameworks import Framework
from qzf.access.layers import Layer
from qzf.access.loading import Job, Loader, Want
from qzf.errors import OptionError
from qzf.limits import MIB
from qzf.parallel import Crew

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DEFAULT_WINDOW", "Part", "part_limit", "plan_parts", "stream_parts"]

#: Enough for two layers of an 8B model in 4 bits, one in use and one on its way.
DEFAULT_WINDOW: Final = 256 * MIB
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


#: A tensor: name, where its bytes begin (as in `Want`), and its layout.
Spec = tuple[str, int, Layout]


class _Slot(NamedTuple):
    """Rows of a tensor that a part has, ``at`` bytes into its buffer."""

    name: str
    start: int
    spec: Layout
    rows: range
    at: int
    size: int


class _Planned(NamedTuple):
    """A part to come: what it has, and the bytes of the buffer that it needs."""

    layer: Layer
    slots: list[_Slot]
    size: int
    last: bool


def part_limit(window_bytes: int, out: Sequence[Buffer] | None) -> int:
    """The most bytes that a part may have. Raises ``OptionError``."""
    if out is not None:
        sizes = [memoryview(buffer).nbytes for buffer in out]
        if len(sizes) < 2:
            raise OptionError("streaming needs two buffers or more: one in use, one on its way")
        return min(sizes)
    if not isinstance(window_bytes, int) or window_bytes < 1:
        raise OptionError(f"window_bytes must be a number of bytes, not {window_bytes!r}")
    return window_bytes // 2


def plan_parts(layers: Iterable[Layer], specs: Iterable[Sequence[Spec]], limit: int) -> list[_Planned]:
    """Parts of at most ``limit`` bytes, for layers and the tensors of each.

    Raises ``OptionError`` where one row is larger than that.
    """
    plan: list[_Planned] = []
    for layer, tensors in zip(layers, specs, strict=True):
        slots: list[_Slot] = []
        end = 0
        for name, start, spec, rows, size in _cut(tensors, limit):
            at = -(-end // _ALIGNMENT) * _ALIGNMENT
            if at + size > limit:
                plan.append(_Planned(layer, slots, end, False))
                slots, at = [], 0
            slots.append(_Slot(name, start, spec, rows, at, size))
            end = at + size
        plan.append(_Planned(layer, slots, end, True))
    return plan


def _cut(tensors: Sequence[Spec], limit: int) -> Iterator[tuple[str, int, Layout, range, int]]:
    """Each tensor whole, or where it is too large in rows: (name, start, layout, rows, bytes)."""
    for name, start, spec in tensors:
        count = spec.shape[0] if spec.shape else 1
        size = spec.dtype.itemsize
        for axis in spec.shape[1:]:
            size *= axis
        if count * size <= limit:
            yield name, start, spec, range(count), count * size
            continue
        some = limit // size
        if not some:
            raise OptionError(
                f"a row of {name!r} has {size} bytes, a part of the window only {limit}", tensor=name
            )
        for first in range(0, count, some):
            rows = range(first, min(first + some, count))
            yield name, start + first * size, spec, rows, len(rows) * size


def stream_parts(
    loader: Loader,
    plan: Sequence[_Planned],
    window_bytes: int,
    out: Sequence[Buffer] | None,
    framework: Framework,
) -> Generator[Part]:
    """Decode the parts of a plan in order, ahead of the caller as far as memory allows."""
    memory = _Window(window_bytes) if out is None else _Ring(out)
    crew: Crew[Job, None] = Crew(loader.run, loader.threads + 1)
    coming: deque[tuple[_Planned, npt.NDArray[np.uint8], int]] = deque()
    process, todo, jobs, done = os.getpid(), deque(plan), 0, 0
    try:
        while todo or coming:
            while todo and (room := memory.take(todo[0].size)) is not None:
                part = todo.popleft()
                wants = [Want(slot.start, room[slot.at :][: slot.size].data) for slot in part.slots]
                for job in loader.ahead(loader.jobs(wants)):
                    crew.add(jobs, job)
                    jobs += 1
                coming.append((part, room, jobs))
                del room, wants
            part, room, until = coming.popleft()
            while done < until:
                crew.result(done)
                done += 1
            yield _finished(part, room, framework)
            memory.give(room)
            del room
            if os.getpid() != process:
                raise OptionError("a stream cannot go on in a child process: begin one there")
    finally:
        crew.dismiss()


def _finished(part: _Planned, room: npt.NDArray[np.uint8], framework: Framework) -> Part:
    tensors, cut = {}, {}
    for name, _, spec, rows, at, size in part.slots:
        shape = (len(rows), *spec.shape[1:]) if spec.shape else ()
        tensors[name] = framework.wrap(as_array(room[at : at + size], spec, shape))
        if spec.shape and len(rows) != spec.shape[0]:
            cut[name] = rows
    return Part(part.layer, tensors, cut, part.last)


class _Window:
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
        if self._used and self._used + size > self._limit:
            return None
        fitting = [
            spare for spare in self._spare if len(spare) >= size and len(spare) + self._used <= self._limit
        ]
        if fitting:
            best = min(fitting, key=len)
            self._spare = [spare for spare in self._spare if spare is not best]
        else:
            while self._spare and self._used + sum(map(len, self._spare)) + size > self._limit:
                self._spare.pop(0)
            best = _memory(size)
        self._used += len(best)
        return best

    def give(self, room: npt.NDArray[np.uint8]) -> None:
        """Note that the caller asks for the next part; this one is in ``room``."""
        last, self._last = self._last, room
        if last is not None:
            self._used -= len(last)
            if sys.getrefcount(last) == 2:  # this variable and the argument: no array is a view of it
                self._spare.append(last)


def _memory(size: int) -> npt.NDArray[np.uint8]:
    """Memory straight from the kernel, so that it goes back there when it is dropped."""
    if not size:
        return np.empty(0, np.uint8)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)


class _Ring:
    """Buffers of the caller's, in turn."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        rooms = (room_of("out", buffer, memoryview(buffer).nbytes) for buffer in buffers)
        self._free = deque(np.frombuffer(room, np.uint8) for room in rooms)

    def take(self, size: int) -> npt.NDArray[np.uint8] | None:
        """The next buffer, which is large enough; None where all are in use."""
        del size
        return self._free.popleft() if self._free else None

    def give(self, room: npt.NDArray[np.uint8]) -> None:
        """Have a buffer used again."""
        self._free.append(room)
