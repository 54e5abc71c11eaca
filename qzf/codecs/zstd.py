"""Codec 1, zstd: one frame with its content size (spec/codecs/01-zstd.md)."""

from __future__ import annotations

import threading
from typing import ClassVar, Final

import zstandard

from qzf.codecs.base import Bytes
from qzf.errors import ChunkError
from qzf.format.ids import Codec
from qzf.limits import MAX_CHUNK

__all__ = ["Zstd"]

#: Contexts are costly to make and not safe to share, so each thread keeps its own.
_local = threading.local()
#: Contexts with a dictionary kept by a thread; more than that are made anew.
_MAX_CONTEXTS: Final = 32


class Zstd:
    wire_id: ClassVar[int] = Codec.ZSTD
    name: ClassVar[str] = "zstd"

    def encode(self, stream: Bytes, effort: int, table: bytes | None) -> Bytes:
        return _compressor(effort, table).compress(stream)

    def decode(self, data: memoryview, size: int, table: bytes | None) -> Bytes:
        try:
            frame = zstandard.get_frame_parameters(data)
            if frame.content_size != size:
                raise ChunkError(f"a zstd frame announces {frame.content_size} bytes in place of {size}")
            if frame.window_size > MAX_CHUNK:
                raise ChunkError(f"a zstd frame asks for a window of {frame.window_size} bytes")
            if frame.dict_id and table is None:
                raise ChunkError(f"a zstd frame asks for dictionary {frame.dict_id}, but names no table")
            return _decompressor(table).decompress(data, read_across_frames=False, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ChunkError(f"a zstd stream cannot be decoded: {error}") from error


def _contexts() -> dict[object, object]:
    if not hasattr(_local, "contexts"):
        _local.contexts = {}
    contexts: dict[object, object] = _local.contexts
    if len(contexts) > _MAX_CONTEXTS:
        contexts.clear()
    return contexts


def _compressor(effort: int, table: bytes | None) -> zstandard.ZstdCompressor:
    contexts, key = _contexts(), ("c", effort, table)
    found = contexts.get(key)
    if not isinstance(found, zstandard.ZstdCompressor):
        dictionary = None if table is None else zstandard.ZstdCompressionDict(table)
        found = zstandard.ZstdCompressor(level=effort, dict_data=dictionary, write_checksum=False)
        contexts[key] = found
    return found


def _decompressor(table: bytes | None) -> zstandard.ZstdDecompressor:
    contexts, key = _contexts(), ("d", table)
    found = contexts.get(key)
    if not isinstance(found, zstandard.ZstdDecompressor):
        dictionary = None if table is None else zstandard.ZstdCompressionDict(table)
        found = zstandard.ZstdDecompressor(dict_data=dictionary)
        contexts[key] = found
    return found
