"""From the bytes of a tensor to an array: dtypes, shapes, raw blocks, and buffers that callers give."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from qzf import quant
from qzf.adapters import SAFETENSORS
from qzf.container.catalog import TensorEntry
from qzf.errors import FormatError, OptionError
from qzf.quant import GgmlType

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Buffer

    Room: TypeAlias = Buffer | npt.NDArray[Any] | Tensor

__all__ = ["Layout", "QuantArray", "as_array", "float_dtype", "hold_apart", "layout", "room_of"]

#: Original dtype -> numpy dtype, where numpy has it; GGML and safetensors use the same names.
_NUMPY: Final = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "C64": "<c8",
}
#: The same, where ml_dtypes has it; that package is imported when the first such tensor is read.
_ML_DTYPES: Final = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
#: dtypes of safetensors of less than a byte, and the bits of a number.
_PACKED_BITS: Final = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


#: Axes of an array in numpy before version 2; later ones have 64, and frameworks fewer.
_MAX_AXES: Final = 32


class QuantArray(np.ndarray[Any, np.dtype[np.uint8]]):
    """Raw bytes of a tensor that has no numpy dtype: uint8 of shape (rows, bytes per row).

    ``quant`` is the GGML type (block size and field layout), None for other packed dtypes; ``original`` is
    the dtype's name in the original file.
    """

    quant: GgmlType | None
    original: str

    def __array_finalize__(self, source: object) -> None:
        self.quant = getattr(source, "quant", None)
        self.original = getattr(source, "original", "")

    def __reduce__(self) -> tuple[Any, ...]:
        plain = np.asarray(self).view(np.ndarray)
        return _restore, (plain, None if self.quant is None else self.quant.name, self.original)


def _restore(data: npt.NDArray[np.uint8], quant_name: str | None, original: str) -> QuantArray:
    """A pickled ``QuantArray``."""
    array = data.view(QuantArray)
    array.quant = None if quant_name is None else quant.BY_NAME[quant_name]
    array.original = original
    return array


class Layout(NamedTuple):
    """How the bytes of a tensor are an array.

    ``shape`` and ``dtype`` are the array's; where ``raw``, those are uint8 and (rows, bytes per row), and
    ``quant`` is the GGML type if it is one. ``original`` is the dtype's name in the original file.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    raw: bool
    quant: GgmlType | None
    original: str


def layout(entry: TensorEntry, kind: str, file: str) -> Layout:
    """The layout of a tensor in a member of kind ``kind``.

    Raises ``FormatError`` where the catalog's dtype and shape do not fit the tensor's size.
    """
    size, dtype = entry.extent.size, _numpy_dtype(entry.dtype)
    where: dict[str, Any] = {"file": file, "tensor": entry.name}
    if len(entry.shape) > _MAX_AXES:
        raise FormatError(f"{len(entry.shape)} dimensions are more than an array can have", **where)
    if dtype is not None:
        if math.prod(entry.shape) * dtype.itemsize != size:
            raise FormatError("dtype, shape and size do not fit", **where)
        return Layout(dtype, entry.shape, False, None, entry.dtype)
    bits = _PACKED_BITS.get(entry.dtype) if kind == SAFETENSORS else None
    if bits is not None and math.prod(entry.shape) * bits != size * 8:
        raise FormatError("dtype, shape and size do not fit", **where)
    rows = size // entry.row_size if entry.row_size else 0
    if rows * entry.row_size != size:
        raise FormatError("row size and size do not fit", **where)
    blocks = quant.BY_NAME.get(entry.dtype) if kind == "gguf" else None
    return Layout(np.dtype(np.uint8), (rows, entry.row_size), True, blocks, entry.dtype)


def as_array(
    data: npt.NDArray[np.uint8], spec: Layout, shape: tuple[int, ...] | None = None
) -> npt.NDArray[Any]:
    """Bytes (uint8, one dimension) as the array that ``spec`` tells of, of its shape or of ``shape``."""
    array = data.view(spec.dtype).reshape(spec.shape if shape is None else shape)
    if not spec.raw:
        return array
    raw = array.view(QuantArray)
    raw.quant, raw.original = spec.quant, spec.original
    return raw


def room_of(name: str, given: Room, size: int | None) -> memoryview:
    """A caller's buffer, for what is called ``name``, as ``size`` bytes to be written (None: any number).

    Raises ``OptionError`` for what is no such buffer.
    """
    what = f"{name!r} needs a writable, contiguous buffer" + ("" if size is None else f" of {size} bytes")
    torch = sys.modules.get("torch")  # who has a tensor of its has imported it
    try:
        if torch is not None and isinstance(given, torch.Tensor):
            room = _of_torch(given, torch, what)
        else:
            room = given if isinstance(given, np.ndarray) else _of_buffer(given)
    except OptionError:
        raise
    except (TypeError, ValueError, BufferError, RuntimeError):
        raise OptionError(f"{what}, not {type(given).__name__}") from None
    if room.dtype.hasobject:
        raise OptionError(f"{what}, not one of Python objects")
    fits = room.nbytes == size or size is None
    if not fits or not room.flags.c_contiguous or not (room.flags.writeable or not room.nbytes):
        faults = f"{room.nbytes} bytes"
        faults += "" if room.flags.c_contiguous else ", not contiguous"
        faults += "" if room.flags.writeable else ", read-only"
        raise OptionError(f"{what}; this has {faults}")
    return room.reshape(-1).view(np.uint8).data


def _of_buffer(given: Buffer) -> npt.NDArray[Any]:
    """Anything that has the buffer protocol, as bytes; one of objects as such."""
    view = memoryview(given)
    objects = "O" in re.sub(":[^:]*:", "", view.format)  # without the names of fields
    return np.empty(0, object) if objects else np.frombuffer(view, np.uint8)


def _of_torch(given: Any, torch: Any, what: str) -> npt.NDArray[Any]:
    """A tensor of torch's, of any dtype, as bytes. The buffer protocol it has not."""
    if given.device.type != "cpu":
        raise OptionError(f"{what}: a tensor on the processor, not on {given.device}")
    if given.layout is not torch.strided or not given.is_contiguous() or given.is_conj() or given.is_neg():
        raise OptionError(f"{what}; this tensor is not contiguous")
    found: npt.NDArray[Any] = given.detach().reshape(-1).view(torch.uint8).numpy()
    return found


def hold_apart(rooms: Mapping[str, memoryview]) -> None:
    """Raise ``OptionError`` where two of the buffers for tensors overlap."""
    placed = sorted(
        (np.frombuffer(room, np.uint8).ctypes.data, len(room), name) for name, room in rooms.items() if room
    )
    for (at, size, one), (begin, _, other) in pairwise(placed):
        if at + size > begin:
            raise OptionError(f"the buffers for {one!r} and {other!r} overlap")


def float_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of "float32", "float16" or "bfloat16" (which is that of ml_dtypes)."""
    found = _numpy_dtype({"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[name])
    assert found is not None
    return found


def _numpy_dtype(name: str) -> np.dtype[Any] | None:
    """The numpy dtype of an original dtype, None where the tensor stays raw bytes."""
    if name in _NUMPY:
        return np.dtype(_NUMPY[name])
    if name in _ML_DTYPES:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
        return found
    return None
