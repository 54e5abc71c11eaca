"""Codec 0, raw: the stored bytes are the stream (spec/codecs/00-raw.md)."""

from __future__ import annotations

from typing import ClassVar

from qzf.codecs.base import Bytes
from qzf.errors import ChunkError
from qzf.format.ids import Codec

__all__ = ["Raw"]


class Raw:
    wire_id: ClassVar[int] = Codec.RAW
    name: ClassVar[str] = "raw"

    def encode(self, stream: Bytes, effort: int, table: bytes | None) -> Bytes:
        return stream

    def decode(self, data: memoryview, out: memoryview, table: bytes | None) -> memoryview:
        if table is not None:
            raise ChunkError("a raw stream names a shared table")
        if len(data) != len(out):
            raise ChunkError(f"a raw stream of {len(out)} bytes has {len(data)} stored bytes")
        return data
