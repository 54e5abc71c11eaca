"""A safetensors header for tensors from elsewhere. Source: the format section of the safetensors README."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qzf.adapters.safetensors import METADATA_KEY

__all__ = ["SafetensorsTensor", "SafetensorsWriting", "lay_out_safetensors"]


class SafetensorsTensor(NamedTuple):
    """A tensor to be; ``size`` in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class SafetensorsWriting(NamedTuple):
    """Bytes up to the first tensor, where in the file each tensor goes, and the file's size."""

    header: bytes
    offsets: tuple[int, ...]
    size: int


def lay_out_safetensors(
    metadata: Mapping[str, str], tensors: Sequence[SafetensorsTensor]
) -> SafetensorsWriting:
    """Lay out a file of ``tensors`` in this order; the first begins at a multiple of 8."""
    entries: dict[str, object] = {METADATA_KEY: dict(metadata)} if metadata else {}
    relative, at = [], 0
    for tensor in tensors:
        end = at + tensor.size
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (at, end)}
        relative.append(at)
        at = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    header = len(text).to_bytes(8, "little") + text
    return SafetensorsWriting(header, tuple(start + offset for offset in relative), start + at)
