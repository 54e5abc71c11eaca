"""GGML blocks as numbers: arrays of floats in place of raw blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from qzf import quant
from qzf.access.arrays import Layout, float_dtype, room_of
from qzf.access.loading import Loader
from qzf.access.slices import Axis, covering, read_axes
from qzf.container.catalog import TensorEntry
from qzf.errors import FormatError, OptionError
from qzf.limits import MIB
from qzf.parallel import default_threads, ordered_map, whole_number
from qzf.quant import GgmlType
from qzf.transforms.dequant import DEQUANTIZABLE, FLOATS, dequantize

if TYPE_CHECKING:
    from qzf.access.arrays import Room

__all__ = ["dequantize_array", "float_name", "floats_of", "numbers_of", "read_floats"]

#: GGML types that are floats already.
FLOAT_TYPES: Final = frozenset({"F32", "F16", "BF16"})
#: Bytes of blocks that a thread takes on at a time.
_STEP: Final = MIB
#: Bytes of floats that are made at a time where only some of them are wanted.
_RUN: Final = 16 * MIB
#: Short names of float types, as of GGML and safetensors.
_SHORT: Final = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def float_name(wanted: bool | str) -> str | None:
    """What ``dequantize=`` asks for: a name in ``FLOATS``, or None. Raises ``OptionError``."""
    if isinstance(wanted, bool | np.bool_):
        return "float32" if wanted else None
    name = _SHORT.get(wanted, wanted) if isinstance(wanted, str) else None
    if name not in FLOATS:
        names = ", ".join((*FLOATS, *_SHORT))
        raise OptionError(f"dequantize is True, False or one of {names}, not {wanted!r}")
    return name


def numbers_of(entry: TensorEntry, spec: Layout, kind: str, file: str) -> GgmlType | None:
    """The GGML type of a tensor in a member of kind ``kind`` that ``dequantize`` makes floats of.

    None for other tensors. Raises ``OptionError`` for one of blocks that cannot be dequantized, and
    ``FormatError`` where its shape is not one of whole blocks.
    """
    if kind != "gguf" or not (spec.raw or entry.dtype in FLOAT_TYPES):
        return None
    found = quant.BY_NAME.get(entry.dtype)
    if found is None or entry.dtype not in DEQUANTIZABLE:
        raise OptionError(f"{entry.dtype} cannot be dequantized", tensor=entry.name)
    shape, size = entry.shape, entry.extent.size
    if (
        not shape
        or found.row_size(shape[-1]) is None
        or prod(shape) * found.size != size * found.block
        or entry.row_size * prod(shape[:-1]) != size
    ):
        raise FormatError("dtype, shape and size do not fit", file=file, tensor=entry.name)
    return found


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
    if out is not None and np.may_share_memory(data, np.frombuffer(room, np.uint8)):
        raise OptionError("the buffer for the floats overlaps the blocks that they are made of")
    some = _STEP // kind.size
    width = kind.block * FLOATS[name]

    def work(first: int) -> None:
        last = min(first + some, blocks)
        part = data[first * kind.size : last * kind.size]
        dequantize(kind.name, part.data, room[first * width : last * width], name)

    for _ in ordered_map(work, range(0, blocks, some), threads if blocks > some else 1):
        pass
    return np.frombuffer(room, np.uint8).view(float_dtype(name)).reshape(shape)


def read_floats(
    loader: Loader,
    start: int,
    entry: TensorEntry,
    kind: GgmlType,
    axes: Sequence[Axis],
    name: str,
    threads: int,
) -> npt.NDArray[Any]:
    """A part of a tensor of blocks as floats: ``axes`` are those of weights. As `read_axes`.

    Of each row only the blocks that hold what is wanted are made floats, some rows at a time.
    """
    *outer, last = axes
    wanted = covering(last.taken) if last.taken else range(0)
    first, end = wanted.start // kind.block, -(-wanted.stop // kind.block)
    rows = Layout(np.dtype(np.uint8), (*entry.shape[:-1], entry.row_size), True, kind, entry.dtype)
    raw = read_axes(loader, start, rows, [*outer, Axis(range(first * kind.size, end * kind.size), False)])
    blocks = np.ascontiguousarray(raw).view(np.ndarray)
    at, weights = first * kind.block, (end - first) * kind.block
    taken = range(last.taken.start - at, last.taken.stop - at, last.taken.step)
    pick = last._replace(taken=taken).pick
    if 2 * len(taken) > weights:
        return floats_of(blocks.reshape(-1), kind, (*raw.shape[:-1], weights), name, threads)[..., pick]
    lines = blocks.reshape(prod(raw.shape[:-1]), blocks.shape[-1])
    part = np.empty((len(lines), len(taken)), float_dtype(name))
    some = max(_RUN // max(weights * FLOATS[name], 1), 1)
    for row in range(0, len(lines), some) if len(taken) else ():
        run = lines[row : row + some]
        floats = floats_of(run.reshape(-1), kind, (len(run), weights), name, threads)
        part[row : row + some] = floats[:, last._replace(taken=taken, goes=False).pick]
    return part.reshape(raw.shape[:-1] if last.goes else (*raw.shape[:-1], len(taken)))


def dequantize_array(
    array: npt.NDArray[np.uint8],
    dtype: str = "float32",
    *,
    type: str | GgmlType | None = None,  # noqa: A002
    shape: Sequence[int] | int | None = None,
    threads: int | None = None,
    out: Room | None = None,
) -> npt.NDArray[Any]:
    """The weights of raw GGML blocks as floats; ``qzf.dequantize``.

    ``array``: uint8, its last axis whole blocks, as ``Container.tensor`` and ``stream`` give such tensors.
    ``dtype``: "float32", "float16" or "bfloat16" (the float32 value rounded to the nearest, ties to even).
    ``type``: the GGML type (``"Q4_K"``, in any case), by default that of a ``QuantArray``. ``shape`` of the
    result: by default the array's, with weights in place of bytes in its last axis. ``out``: a writable
    buffer of the result's size, apart from the array. Bit for bit what ``gguf.quants.dequantize`` gives
    (gguf-py).

    Raises ``OptionError`` for types that cannot be dequantized, and sizes that do not fit.
    """
    name = float_name(dtype)
    if name is None:
        raise OptionError(f"there is no dtype {dtype!r}; those there are: {', '.join(FLOATS)}")
    kind = getattr(array, "quant", None) if type is None else _kind(type)
    if kind is None:
        raise OptionError("name the GGML type of the blocks: dequantize(array, type='Q4_K')")
    data = np.ascontiguousarray(array)
    if data.dtype != np.uint8 or not data.ndim or data.shape[-1] % kind.size:
        raise OptionError(f"an array of bytes is due, its last axis blocks of {kind.size} bytes")
    weights = data.shape[-1] // kind.size * kind.block
    end = (*data.shape[:-1], weights) if shape is None else _shape(shape)
    flat = data.view(np.ndarray).reshape(-1)
    return floats_of(flat, kind, end, name, default_threads(threads), out)


def _shape(wanted: Sequence[int] | int) -> tuple[int, ...]:
    """A shape as numpy takes it, but with no -1 for what is left. Raises ``OptionError``."""
    lengths = [whole_number(n) for n in (wanted if isinstance(wanted, Iterable) else (wanted,))]
    shape = tuple(n for n in lengths if n is not None and n >= 0)
    if len(shape) != len(lengths):
        raise OptionError(f"a shape is numbers of 0 and more, not {wanted!r}")
    return shape


def _kind(type_: str | GgmlType) -> GgmlType:
    """A GGML type by its name. Raises ``OptionError``."""
    kind = quant.BY_NAME.get(type_.upper()) if isinstance(type_, str) else type_
    if not isinstance(kind, GgmlType):
        raise OptionError(f"there is no GGML type {type_!r}; those there are: {', '.join(quant.BY_NAME)}")
    return kind
