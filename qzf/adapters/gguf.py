"""GGUF files as members: which bytes of the file are which tensor.

Unlike gguf.cpp, which accepts tensors only one behind the other in the header's order, this takes any order
and any gaps, since all bytes outside of tensors are kept verbatim: they only must not overlap.
"""

from __future__ import annotations

import math
from typing import Any

from qzf.adapters.base import GGUF, INT64_MAX
from qzf.adapters.gguf_header import GgufHeader, TensorInfo, looks_like_gguf, read_header
from qzf.errors import GgufError
from qzf.model import Extent, MemberSpec, TensorSpec
from qzf.quant import BY_NUMBER
from qzf.storage import ByteSource

__all__ = ["describe_gguf", "looks_like_gguf", "read_gguf_metadata"]


def describe_gguf(source: ByteSource, name: str) -> MemberSpec:
    """Describe ``source`` as the member ``name``. Raises GgufError with the offset and the broken rule."""
    header = read_header(source)
    tensors = _Layout(source, header).tensors()
    return MemberSpec(name, GGUF, source.size, tensors, header.metadata, header.arrays)


def read_gguf_metadata(source: ByteSource) -> dict[str, Any]:
    """Return all metadata in full, as JSON data (see `qzf.adapters.gguf_values`). Raises GgufError."""
    return read_header(source, full=True).metadata


class _Layout:
    """Turns the header's entries into extents of the file."""

    def __init__(self, source: ByteSource, header: GgufHeader) -> None:
        self._file = source.name
        self._size = source.size
        self._header = header

    def tensors(self) -> tuple[TensorSpec, ...]:
        """Return the tensors by offset; empty ones first where several start at the same offset."""
        infos = sorted(self._header.tensors, key=lambda info: info.offset)
        for info in infos:
            self._check_offset(info)
        pairs = []
        # From the end, so that the next larger offset, which bounds unknown types, is always known.
        end = larger = self._size
        for info in reversed(infos):
            start = self._header.data_offset + info.offset
            if start < end:
                end, larger = start, end
            pairs.append((self._tensor(info, start, larger), info))
        pairs.sort(key=lambda pair: (pair[0].extent.offset, pair[0].extent.size))
        self._check_overlap(pairs)
        return tuple(tensor for tensor, _ in pairs)

    def _check_offset(self, info: TensorInfo) -> None:
        if info.offset % self._header.alignment:
            raise self._error(
                f"the offset {info.offset} is no multiple of the alignment {self._header.alignment}",
                info.offset_at,
                info,
            )
        if self._header.data_offset + info.offset > self._size:
            raise self._past_end(info, 0)

    def _tensor(self, info: TensorInfo, start: int, larger: int) -> TensorSpec:
        """Make the spec of a tensor from ``start`` on; ``larger`` is the next tensor's start or the end."""
        ggml_type = BY_NUMBER.get(info.type_number)
        shape: tuple[int, ...] = info.ne[::-1]
        if ggml_type is None:
            # Of a type without known block size, only where the next tensor starts can be said.
            elements = math.prod(shape)
            size = larger - start if elements else 0
            if elements and not size:
                raise self._past_end(info, 1)
            return TensorSpec(info.name, f"GGML_{info.type_number}", shape, Extent(start, size), size)
        row_size = ggml_type.row_size(shape[-1] if shape else 1)
        if row_size is None:
            raise self._error(
                f"{shape[-1] if shape else 1} weights a row are no whole number of {ggml_type.name} "
                f"blocks of {ggml_type.block}",
                info.type_at,
                info,
            )
        size = row_size * math.prod(shape[:-1])
        if size > INT64_MAX:
            raise self._error(f"the size in bytes, {size}, overflows", info.type_at, info)
        if start + size > self._size:
            raise self._past_end(info, size)
        return TensorSpec(info.name, ggml_type.name, shape, Extent(start, size), row_size)

    def _check_overlap(self, pairs: list[tuple[TensorSpec, TensorInfo]]) -> None:
        at, before = 0, ""
        for tensor, info in pairs:
            if tensor.extent.offset < at:
                raise self._error(f"overlaps the tensor {before!r}", info.offset_at, info)
            at, before = tensor.extent.end, tensor.name

    def _past_end(self, info: TensorInfo, size: int) -> GgufError:
        start = self._header.data_offset + info.offset
        return self._error(
            f"{size} bytes from {start} on reach past the end of the file, which has {self._size} bytes",
            info.offset_at,
            info,
        )

    def _error(self, message: str, offset: int, info: TensorInfo) -> GgufError:
        return GgufError(message, file=self._file, offset=offset, tensor=info.name)
