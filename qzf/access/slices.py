"""Parts of a tensor: which bytes an index needs, and only those chunks decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from types import EllipsisType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qzf.access.arrays import Layout, as_array
from qzf.access.loading import Loader, Want
from qzf.errors import OptionError
from qzf.limits import KIB

__all__ = ["Axis", "Index", "TensorSlice", "axes_of", "covering", "read_axes"]

#: One element of an index, as for numpy arrays.
Item = int | slice | EllipsisType
#: What may stand in the brackets.
Index = Item | tuple[Item, ...]

#: Bytes that are rather decoded along than left out. Chunks are decoded once either way: a further range
#: takes some microseconds and half a KiB, what is decoded along takes new memory. Parts of rows of 40 KiB
#: took the same time with 4 to 64 KiB.
_GAP: Final = 16 * KIB


class TensorSlice:
    """A tensor that is read in parts: ``container.get_slice(name)[a:b, c:d]``.

    Indices are as for numpy: integers, slices with any step, ``...``. Only the chunks that hold the rows
    asked for are read and decoded. ``shape`` is that of the whole tensor as ``Container.tensor`` gives it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, read: Callable[[Index], Any]) -> None:
        self.shape: Final = shape
        #: The dtype's name in the original file.
        self.dtype: Final = dtype
        self._read = read

    def get_shape(self) -> list[int]:
        """The shape of the whole tensor, as a list."""
        return list(self.shape)

    def get_dtype(self) -> str:
        """The dtype's name in the original file (``F32``, ``BF16``, ``Q4_K``)."""
        return self.dtype

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def __getitem__(self, index: Index) -> Any:
        return self._read(index)


class Axis(NamedTuple):
    """What is taken of an axis, and whether the axis goes (an integer was given)."""

    taken: range
    goes: bool

    @property
    def pick(self) -> int | slice:
        """The same as an index of numpy's."""
        if self.goes:
            return self.taken[0]
        if not self.taken:
            return slice(0, 0)
        stop = self.taken[-1] + (1 if self.taken.step > 0 else -1)
        return slice(self.taken[0], stop if stop >= 0 else None, self.taken.step)


def axes_of(shape: tuple[int, ...], index: Index, name: str) -> list[Axis]:
    """What an index takes of each axis of tensor ``name``.

    Raises ``OptionError`` for what is no index, ``IndexError`` for one out of range.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(_is_item(item) for item in items) or items.count(...) > 1:
        raise OptionError(f"{index!r} is no index of integers, slices and one ...", tensor=name)
    missing = len(shape) - len(items) + items.count(...)
    if missing < 0:
        raise IndexError(f"tensor {name!r} has {len(shape)} axes, the index {len(items)}")
    at = items.index(...) if ... in items else len(items)
    items[at : at + 1] = [slice(None)] * missing
    return [_axis(size, item, name) for size, item in zip(shape, items, strict=True)]


def _is_item(item: object) -> bool:
    number = isinstance(item, int | np.integer) and not isinstance(item, bool)
    return item is ... or isinstance(item, slice) or number


def _axis(size: int, item: Item, name: str) -> Axis:
    if isinstance(item, slice):
        try:
            return Axis(range(*item.indices(size)), False)
        except (TypeError, ValueError) as error:
            raise OptionError(f"{item!r} is no slice: {error}", tensor=name) from None
    number = int(item)  # type: ignore[arg-type]  # no ... is left
    if not -size <= number < size:
        raise IndexError(f"index {number} is out of range for an axis of {size} of tensor {name!r}")
    return Axis(range(number % size, number % size + 1), True)


def read_axes(loader: Loader, start: int, spec: Layout, axes: Sequence[Axis]) -> npt.NDArray[Any]:
    """A part of the tensor whose bytes begin at ``start`` (as in `Want`). Raises ``DamageError``."""
    width = spec.dtype.itemsize
    depth = _depth(axes, spec.shape, width)
    slab = prod(spec.shape[depth:]) * width  # bytes of what is read whole
    kept = [axis.taken for axis in axes[:depth]]
    pick = [0 if axis.goes else slice(None) for axis in axes[:depth]] + [axis.pick for axis in axes[depth:]]
    if kept and kept[-1].step != 1 and (abs(kept[-1].step) * slab <= _GAP or kept[-1].step == -1):
        # A step that leaves little out: what lies between is decoded too, and left out by numpy.
        pick[depth - 1] = slice(None, None, kept[-1].step)
        kept[-1] = covering(kept[-1])
    read = tuple(len(taken) for taken in kept) + spec.shape[depth:]
    data = np.empty(prod(read) * width, np.uint8)
    loader.fill(_wants(start, kept, spec.shape, slab, data.data))
    part = as_array(data, spec, read)[tuple(pick)]
    return part.copy() if part.nbytes * 2 <= data.nbytes else part  # not a little that holds on to much


def _depth(axes: Sequence[Axis], shape: tuple[int, ...], width: int) -> int:
    """How many axes to go down, so that of what lies below all is read: it is wanted, or it is little."""
    for depth in range(len(axes)):
        wanted = all(
            axis.taken == range(size) for axis, size in zip(axes[depth:], shape[depth:], strict=True)
        )
        if wanted or prod(shape[depth:]) * width <= _GAP:
            return depth
    return len(axes)


def covering(taken: range) -> range:
    """All from the lowest to the highest that is taken."""
    if not taken:
        return taken
    low, high = sorted((taken[0], taken[-1]))
    return range(low, high + 1)


def _wants(
    start: int, kept: Sequence[range], shape: tuple[int, ...], slab: int, room: memoryview
) -> Iterator[Want]:
    """The ranges to decode, one after another to ``room``; neighbours are one range."""
    if not kept or not room:
        yield Want(start, room)
        return
    strides = [slab * prod(shape[axis + 1 : len(kept)]) for axis in range(len(kept))]
    runs = [kept[-1]] if kept[-1].step == 1 else [range(at, at + 1) for at in kept[-1]]
    for outer in product(*kept[:-1]):
        base = start + sum(at * stride for at, stride in zip(outer, strides, strict=False))
        for run in runs:
            yield Want(base + run[0] * slab, room[: len(run) * slab])
            room = room[len(run) * slab :]
