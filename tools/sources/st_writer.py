"""A safetensors writer for every dtype of the format, also those that numpy lacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qzf.adapters.safetensors import DTYPE_BITS

_NUMPY_NAMES = {
    "|b1": "BOOL",
    "|u1": "U8",
    "|i1": "I8",
    "<i2": "I16",
    "<u2": "U16",
    "<f2": "F16",
    "<i4": "I32",
    "<u4": "U32",
    "<f4": "F32",
    "<c8": "C64",
    "<f8": "F64",
    "<i8": "I64",
    "<u8": "U64",
}


@dataclass(frozen=True)
class Tensor:
    """One tensor: dtype name of the format, logical shape, little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        """Check the byte count; raises ValueError."""
        bits = DTYPE_BITS[self.dtype] * int(np.prod(self.shape, dtype=np.int64))
        if bits != 8 * len(self.data):
            raise ValueError(f"{self.dtype} {self.shape} needs {bits} bits, has {len(self.data)} bytes")


def of_array(array: npt.NDArray[Any]) -> Tensor:
    """Wrap a numpy array of a dtype that the format has under numpy's meaning."""
    return Tensor(_NUMPY_NAMES[array.dtype.str], array.shape, array.tobytes())


def of_codes(dtype: str, codes: npt.NDArray[Any], shape: tuple[int, ...] | None = None) -> Tensor:
    """Wrap ready codes (one per element, or packed ones with the logical `shape`) as `dtype`."""
    return Tensor(dtype, codes.shape if shape is None else shape, codes.tobytes())


def serialize(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file: 8-byte little-endian header length, JSON padded with spaces to 8, data.

    Order is that of the safetensors package: wider dtypes first, so that all stay aligned, then by name.
    """
    order = {dtype: place for place, dtype in enumerate(DTYPE_BITS)}
    names = sorted(tensors, key=lambda name: (-order[tensors[name].dtype], name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in names:
        tensor = tensors[name]
        end = position + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensors[name].data for name in names)])
