"""What the families share: the shapes of tensors, and how many columns share a scale."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from qzf.model import TensorSpec

__all__ = [
    "FLOATS",
    "NO_CONFIG",
    "WORD",
    "Found",
    "QuantConfig",
    "Tensors",
    "columns_grain",
    "elements",
    "group_size",
    "matrix",
    "present",
]

#: The tensors of a checkpoint by name.
Tensors = Mapping[str, TensorSpec]
#: Schemes, each with the tensors that belong to it.
Found = Iterator[tuple[str, list[str]]]

#: Dtypes in which tools store scales.
FLOATS: Final = frozenset({"F16", "BF16", "F32"})
#: Bits of the I32 words that codes are packed in.
WORD: Final = 32
#: Group sizes that are looked for without a configuration: what tools offer are powers of two.
_SIZES: Final = tuple(1 << power for power in range(3, 17))


class QuantConfig(NamedTuple):
    """What a checkpoint's configuration says, as far as shapes can leave it open.

    ``method`` is the tool. ``weights`` are pairs of bits and group size (None: one scale a row), in the order
    of the file. ``block`` are the rows and columns that share a scale.
    """

    method: str | None = None
    weights: tuple[tuple[int, int | None], ...] = ()
    block: tuple[int, int] | None = None

    @property
    def groups(self) -> list[int]:
        """The group sizes in it."""
        return [group for _, group in self.weights if group]


NO_CONFIG: Final = QuantConfig()


def elements(tensor: TensorSpec) -> int:
    """Elements of ``tensor``, in units of its dtype."""
    return math.prod(tensor.shape)


def matrix(tensor: TensorSpec | None, dtypes: Collection[str]) -> tuple[int, int] | None:
    """The shape of a matrix that is not empty and has one of ``dtypes``; None for all else."""
    if tensor is None or tensor.dtype not in dtypes or len(tensor.shape) != 2 or not elements(tensor):
        return None
    return tensor.shape[0], tensor.shape[1]


def present(tensors: Tensors, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that there are, in order."""
    return [name for name in names if name in tensors]


def group_size(length: int, groups: int, hints: Iterable[int] = ()) -> int | None:
    """How many of ``length`` columns share a scale where ``groups`` scales cover them; None if none can.

    The last group may be short, and then several sizes fit: one of ``hints`` is taken first, then a power of
    two from 8 on. A size that is none must divide ``length``.
    """
    for size in (*hints, *_SIZES):
        if -(-length // size) == groups:
            return size
    if length % groups == 0 and length // groups >= _SIZES[0]:
        return length // groups
    return None


def columns_grain(length: int, groups: int, hints: Iterable[int] = ()) -> str | None:
    """What shares a scale along a row, as text: ``row``, ``g128``; None where the numbers do not fit."""
    if groups == 1:
        return "row"
    size = group_size(length, groups, hints)
    return None if size is None else f"g{size}"
