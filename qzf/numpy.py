"""Arrays to and from containers by the functions of ``safetensors.numpy``.

A container takes the place of the safetensors file, which ``qzf unpack`` writes from it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qzf.access.safe import load_all, safe_open
from qzf.errors import OptionError
from qzf.ops.saving import DTYPES, InMemory, save_tensors
from qzf.storage import StrPath

__all__ = ["load", "load_file", "save", "save_file"]


def load_file(filename: StrPath, *, backend: str = "mmap") -> dict[str, npt.NDArray[Any]]:
    """All tensors of the container ``filename``, by name, as `qzf.safe_open` gives them.

    Raises ``FormatError``, ``DamageError``, ``OptionError``; ``OSError`` passes through.
    """
    with safe_open(filename, "numpy", backend=backend) as file:
        return file.get_tensors()


def load(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a container that is in memory. Raises as ``load_file``."""
    return load_all(data, "numpy")


def save_file(
    tensor_dict: Mapping[str, npt.NDArray[Any]],
    filename: StrPath,
    metadata: Mapping[str, str] | None = None,
    *,
    level: str = "default",
    threads: int | None = None,
) -> None:
    """Pack arrays to the container ``filename``.

    Its one member is the file that ``safetensors.numpy.save_file`` would write, byte for byte; of arrays that
    are not contiguous, which that does not save rightly, the values are saved. ``level`` and ``threads`` are
    those of `qzf.pack`. A file that is there is replaced.

    Raises ``OptionError`` for what is no array of a dtype that safetensors has, ``TypeError`` for names and
    metadata that are no strings; ``OSError`` passes through.
    """
    save_tensors(_in_memory(tensor_dict), filename, metadata, level=level, threads=threads)


def save(tensor_dict: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """The container that ``save_file`` would write. Raises as that does."""
    out = io.BytesIO()
    save_tensors(_in_memory(tensor_dict), out, metadata)
    return out.getvalue()


def _in_memory(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, InMemory]:
    if not isinstance(tensors, Mapping):
        raise OptionError(f"a dict of arrays is due, not {type(tensors).__name__}")
    found = {}
    for name, array in tensors.items():
        if not isinstance(array, np.ndarray):
            raise OptionError(f"{name!r} is no array, but {type(array).__name__}", tensor=str(name))
        if isinstance(array, np.ma.MaskedArray):
            raise OptionError("safetensors has no masks: fill the masked array first", tensor=str(name))
        dtype = DTYPES.get(array.dtype.name)
        if dtype is None:
            raise OptionError(f"safetensors has no dtype {array.dtype.name}", tensor=str(name))
        if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
            array = array.astype(array.dtype.newbyteorder("<"))
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        found[name] = InMemory(dtype, array.shape, flat.data)
    return found
