"""GGML blocks as numbers: arrays of floats in place of raw blocks."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from qzf import quant
from qzf.access.arrays import float_dtype, room_of
from qzf.errors import OptionError
from qzf.limits import MIB
from qzf.parallel import default_threads, ordered_map
from qzf.quant import GgmlType
from qzf.transforms.dequant import DEQUANTIZABLE, FLOATS, dequantize

if TYPE_CHECKING:
    from qzf.access.arrays import Room

__all__ = ["DEQUANTIZABLE", "FLOAT_TYPES", "dequantize_array", "float_name", "floats_of"]

#: GGML types that are floats already.
FLOAT_TYPES: Final = frozenset({"F32", "F16", "BF16"})
#: Bytes of blocks that a thread takes on at a time.
_STEP: Final = MIB


def float_name(wanted: bool | str) -> str | None:
    """What ``dequantize=`` asks for: a name in ``FLOATS``, or None. Raises ``OptionError``."""
    if wanted is False:
        return None
    name = "float32" if wanted is True else wanted
    if name not in FLOATS:
        raise OptionError(f"dequantize is True or one of {', '.join(FLOATS)}, not {wanted!r}")
    return name


def floats_of(
    data: npt.NDArray[np.uint8],
    kind: GgmlType,
    shape: Sequence[int],
    name: str,
    threads: int,
    out: Room | None = None,
) -> npt.NDArray[Any]:
    """The weights in ``data`` (uint8, one dimension: blocks of ``kind``) as floats.

    ``shape``: of the result, ``name``: its dtype. ``out``: a buffer for it. Raises ``OptionError`` for a
    type that cannot be dequantized, and for sizes that do not fit.
    """
    if kind.name not in DEQUANTIZABLE:
        raise OptionError(f"{kind.name} cannot be dequantized")
    blocks, size = len(data) // kind.size, prod(shape) * FLOATS[name]
    if blocks * kind.size != len(data) or blocks * kind.block != prod(shape):
        raise OptionError(f"{len(data)} bytes of {kind.name} are no array of shape {tuple(shape)}")
    room = np.empty(size, np.uint8).data if out is None else room_of("out", out, size)
    some = _STEP // kind.size
    width = kind.block * FLOATS[name]

    def work(first: int) -> None:
        last = min(first + some, blocks)
        part = data[first * kind.size : last * kind.size]
        dequantize(kind.name, part.data, room[first * width : last * width], name)

    for _ in ordered_map(work, range(0, blocks, some), threads if blocks > some else 1):
        pass
    return np.frombuffer(room, np.uint8).view(float_dtype(name)).reshape(shape)


def dequantize_array(
    array: npt.NDArray[np.uint8],
    dtype: str = "float32",
    *,
    type: str | GgmlType | None = None,  # noqa: A002
    shape: Sequence[int] | None = None,
    threads: int | None = None,
    out: Room | None = None,
) -> npt.NDArray[Any]:
    """The weights of raw GGML blocks as floats; ``qzf.dequantize``.

    ``array``: uint8, its last axis whole blocks, as ``Container.tensor`` and ``stream`` give such tensors.
    ``dtype``: "float32", "float16" or "bfloat16" (the float32 value rounded to the nearest, ties to even).
    ``type``: the GGML type (``"Q4_K"``), by default that of a ``QuantArray``. ``shape`` of the result: by
    default the array's, with weights in place of bytes in its last axis. ``out``: a writable buffer of the
    result's size. Bit for bit what ``gguf.quants.dequantize`` gives (gguf-py).

    Raises ``OptionError`` for types that cannot be dequantized, and sizes that do not fit.
    """
    name = float_name(dtype)
    found = getattr(array, "quant", None) if type is None else type
    kind = quant.BY_NAME.get(found) if isinstance(found, str) else found
    if name is None or kind is None:
        raise OptionError("name the GGML type of the blocks: dequantize(array, type='Q4_K')")
    data = np.ascontiguousarray(array)
    if data.dtype != np.uint8 or not data.ndim or data.shape[-1] % kind.size:
        raise OptionError(f"an array of bytes is due, its last axis blocks of {kind.size} bytes")
    weights = data.shape[-1] // kind.size * kind.block
    end = (*data.shape[:-1], weights) if shape is None else tuple(shape)
    flat = data.view(np.ndarray).reshape(-1)
    return floats_of(flat, kind, end, name, default_threads(threads), out)
