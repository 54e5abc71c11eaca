"""Tensors in memory to a container, as if a safetensors file of them had been packed.

Source: ``prepare`` in ``safetensors/src/tensor.rs`` in huggingface/safetensors, whose layout this makes:
tensors by dtype, then by name, behind a header of compact JSON that is filled up with spaces to 8 bytes. That
package would need a copy of all tensors to write them to memory; here they are packed from where they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, BinaryIO, Final, NamedTuple

from qzf.adapters.safetensors import DTYPE_BITS, METADATA_KEY
from qzf.container.names import name_fault
from qzf.errors import OptionError
from qzf.ops.packing import pack
from qzf.storage import JoinedSource, StrPath

__all__ = ["DTYPES", "InMemory", "save_tensors"]

#: What torch and numpy call their dtypes -> what safetensors calls them.
DTYPES: Final = {
    "bool": "BOOL",
    "float4_e2m1fn_x2": "F4",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
_ORDER: Final = {dtype: order for order, dtype in enumerate(DTYPE_BITS)}
_ALIGNMENT: Final = 8
_DEFAULT_NAME: Final = "model.safetensors"


class InMemory(NamedTuple):
    """A tensor: dtype as in ``DTYPES``' values, shape in elements, and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def save_tensors(
    tensors: Mapping[str, InMemory],
    out: StrPath | BinaryIO,
    metadata: Mapping[str, str] | None = None,
    *,
    level: str = "default",
    threads: int | None = None,
) -> None:
    """Pack tensors to a container with one member: the safetensors file that they make up.

    The member is named as ``out`` is, with the ending ``.safetensors`` in place of ``.qzf``. A file that is
    there is replaced. Raises ``OptionError``, ``TypeError`` for names and metadata that are no strings;
    ``OSError`` passes through.
    """
    order = sorted(tensors, key=lambda name: (-_ORDER[tensors[name].dtype], _text(name, "a tensor's name")))
    header = memoryview(_header(tensors, order, metadata))
    pieces = [header, *(tensors[name].data for name in order)]
    source = JoinedSource(pieces, _member_name(out) if isinstance(out, str | os.PathLike) else _DEFAULT_NAME)
    pack(source, out, level=level, threads=threads, force=True)


def _header(tensors: Mapping[str, InMemory], order: list[str], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, Any] = {}
    if metadata is not None:
        if not isinstance(metadata, Mapping):
            raise TypeError(f"metadata must be a dict of strings, not {type(metadata).__name__}")
        header[METADATA_KEY] = {
            _text(key, "a key of metadata"): _text(value, "metadata") for key, value in metadata.items()
        }
    at = 0
    for name in order:
        if name == METADATA_KEY:
            raise OptionError(f"a tensor cannot be called {name}", tensor=name)
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (at, at + len(data))}
        at += len(data)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise OptionError(f"{what} must be Unicode: {error}") from None
    return value


def _member_name(out: StrPath) -> str:
    """What the safetensors file is called that is in a container of this name."""
    name = PurePath(out).name.removesuffix(".qzf")
    name = name if name.endswith(".safetensors") else f"{name}.safetensors"
    return _DEFAULT_NAME if name == ".safetensors" or name_fault(name) else name
