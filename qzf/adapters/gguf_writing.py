"""A GGUF header, version 3, for tensors from elsewhere. Source: ``docs/gguf.md`` in ggml-org/ggml."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from qzf.adapters.gguf_header import DEFAULT_ALIGNMENT, MAGIC
from qzf.adapters.gguf_values import STRING, UINT32

__all__ = ["GgufTensor", "GgufWriting", "lay_out_gguf"]

_VERSION: Final = 3


class GgufTensor(NamedTuple):
    """A tensor to be: ``ne`` in ggml's order (innermost first), ``size`` in bytes."""

    name: str
    ne: tuple[int, ...]
    type_number: int
    size: int


class GgufWriting(NamedTuple):
    """Bytes from the file's start to the first tensor, where in the file each tensor goes, and its size."""

    header: bytes
    offsets: tuple[int, ...]
    size: int


def lay_out_gguf(values: Mapping[str, str | int], tensors: Sequence[GgufTensor]) -> GgufWriting:
    """Lay out a file of ``tensors`` in this order, each padded to the default alignment of 32 bytes.

    ``values`` are the metadata: texts, and numbers as uint32.
    """
    out = bytearray(MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(values)))
    for key, value in values.items():
        out += _text(key)
        if isinstance(value, str):
            out += struct.pack("<I", STRING) + _text(value)
        else:
            out += struct.pack("<II", UINT32, value)
    relative, at = [], 0
    for tensor in tensors:
        out += _text(tensor.name) + struct.pack(f"<I{len(tensor.ne)}Q", len(tensor.ne), *tensor.ne)
        out += struct.pack("<IQ", tensor.type_number, at)
        relative.append(at)
        at = _aligned(at + tensor.size)
    if tensors:
        out += bytes(-len(out) % DEFAULT_ALIGNMENT)
    start = len(out)
    return GgufWriting(bytes(out), tuple(start + offset for offset in relative), start + at)


def _aligned(size: int) -> int:
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
