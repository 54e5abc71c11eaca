"""What stands in the brackets of a slice of ``qzf.safe_open``: the rules of torch and of safetensors."""

from __future__ import annotations

import operator
from typing import Any, Final

import numpy as np

from qzf.errors import OptionError

__all__ = ["leading_rows", "strict_index", "torch_takes"]

#: Bounds and steps beyond these are errors in safetensors, whose indices are C's.
_MAX_BOUND: Final = (1 << 64) - 1
_MAX_STEP: Final = (1 << 63) - 1


def torch_takes(index: Any, shape: tuple[int, ...]) -> bool:
    """Whether an index is of integers, slices and one ``...``, all of them right for torch.

    False for what else torch may make of it. Raises what torch does.
    """
    items = index if isinstance(index, tuple) else (index,)
    if not all(item is ... or isinstance(item, slice) or _is_integer(item) for item in items):
        return False
    if sum(item is ... for item in items) > 1:
        return False
    _without_data(shape)[index]
    return True


def leading_rows(index: Any, shape: tuple[int, ...]) -> tuple[slice | None, Any]:
    """The rows of the outermost axis that an index for torch needs, and the index into those.

    None for all rows. Raises what torch does.
    """
    if not isinstance(index, tuple) or not index or not shape:
        return None, index
    first = index[0]
    if _is_integer(first):
        _without_data(shape)[first]
        at = int(first) % shape[0]
        return slice(at, at + 1), (0, *index[1:])
    if isinstance(first, slice):
        _without_data(shape)[first]
        return first, (slice(None), *index[1:])
    return None, index


def strict_index(index: Any, shape: tuple[int, ...], name: str) -> tuple[int | slice, ...]:
    """An index by the rules that safetensors has for all frameworks but torch, as one for numpy.

    Raises ``OptionError``; for a bound below 0 ``OverflowError``, for one that is no integer ``TypeError``.
    """
    if isinstance(index, list):
        if index:
            raise OptionError("lists of indices are not supported", tensor=name)
        index = slice(0, 0)
    items = list(index) if isinstance(index, tuple) else [index]
    dots = [at for at, item in enumerate(items) if item is ...]
    if len(dots) > 1:
        raise OptionError("an index has one ... at most", tensor=name)
    for at in dots:
        items[at : at + 1] = [slice(None)] * (len(shape) + 1 - len(items))
    # What each item says comes first, then whether it fits its axis, as there: it decides which error it is.
    ranges = [_strict(item, size, name) for item, size in zip(items, shape, strict=False)]
    if len(items) > len(shape):
        raise OptionError(f"{len(items)} indices for the {len(shape)} axes of {list(shape)}", tensor=name)
    for taken, size in zip(ranges, shape, strict=False):
        start, stop = (taken, taken + 1) if isinstance(taken, int) else (taken.start, taken.stop)
        if start >= size or stop > size or start > stop:
            raise OptionError(f"{start}:{stop} is not within an axis of {size}", tensor=name)
    return tuple(ranges)


def _strict(item: Any, size: int, name: str) -> int | slice:
    if not isinstance(item, slice):
        try:
            number = operator.index(item)
        except TypeError:
            raise OptionError(f"{item!r} is no integer, slice or ...", tensor=name) from None
        if number < -size:
            raise OptionError(f"index {number} is out of range for an axis of {size}", tensor=name)
        return number + size if number < 0 else number
    start = 0 if item.start is None else _bound(item.start)
    stop = size if item.stop is None else _bound(item.stop)
    step = 1 if item.step is None else operator.index(item.step)
    if step > _MAX_STEP:
        raise OverflowError("a slice's step is too large")
    if step < 1:
        raise OptionError(f"a slice's step must be 1 or more, not {step}", tensor=name)
    return slice(start, stop, step)


def _bound(value: Any) -> int:
    bound = operator.index(value)
    if not 0 <= bound <= _MAX_BOUND:
        raise OverflowError(f"a slice's bound must be 0 or more and fit 64 bits, not {bound}")
    return bound


def _is_integer(item: Any) -> bool:
    return isinstance(item, int | np.integer) and not isinstance(item, bool)


def _without_data(shape: tuple[int, ...]) -> Any:
    """A tensor of torch's that has a shape only: indexing it costs nothing, and fails as it would fail."""
    import torch  # the slice is one for torch

    return torch.empty(shape, dtype=torch.uint8, device="meta")
