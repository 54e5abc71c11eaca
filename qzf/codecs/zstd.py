"""Codec 1, zstd: one frame with its content size (spec/codecs/01-zstd.md)."""

from __future__ import annotations

import threading
from typing import ClassVar, Final

import zstandard

from qzf.codecs.base import Bytes
from qzf.errors import ChunkError
from qzf.format.ids import Codec
from qzf.limits import MAX_CHUNK

__all__ = ["HUFFMAN", "Zstd"]

#: Besides zstd's levels: next to no search for matches, only the Huffman stage. On exponents and scales the
#: short matches that level 1 finds are chance ones, and cost more than they save.
HUFFMAN: Final = 0
_NO_SEARCH: Final = zstandard.ZstdCompressionParameters.from_level(
    1, min_match=7, hash_log=6, chain_log=6, write_checksum=False
)

#: Contexts are costly to make and not safe to share, so each thread keeps its own.
_local = threading.local()
#: Contexts with a dictionary kept by a thread; more than that are made anew.
_MAX_CONTEXTS: Final = 32
#: What a dictionary in the format of RFC 8878, section 5, starts with; any other table is raw content.
_DICTIONARY_MAGIC: Final = b"\x37\xa4\x30\xec"
#: Block type whose size is that of what it decodes to, and which stores one byte.
_RLE_BLOCK: Final = 1


class Zstd:
    wire_id: ClassVar[int] = Codec.ZSTD
    name: ClassVar[str] = "zstd"

    def encode(self, stream: Bytes, effort: int, table: bytes | None) -> Bytes:
        return _compressor(effort, table).compress(stream)

    def decode(self, data: memoryview, out: memoryview, table: bytes | None) -> memoryview:
        try:
            _check_frame(data, len(out), table is not None)
            # With all input and room for all output at hand, zstd decodes straight to the buffer; the
            # one-shot call of this package would allocate, and fault in, new memory each time.
            stream = _decompressor(table).stream_reader(data, read_across_frames=False)
            done = stream.readinto(out)
        except zstandard.ZstdError as error:
            raise ChunkError(f"a zstd stream cannot be decoded: {error}") from error
        if done != len(out):
            raise ChunkError(f"a zstd frame decodes to {done} bytes in place of {len(out)}")
        return out


def _check_frame(data: memoryview, size: int, has_table: bool) -> None:
    """Hold the frame header against the rules, and the length of its blocks against that of ``data``."""
    frame = zstandard.get_frame_parameters(data)
    if frame.content_size != size:
        raise ChunkError(f"a zstd frame announces {frame.content_size} bytes in place of {size}")
    if frame.window_size > max(MAX_CHUNK, size):
        raise ChunkError(f"a zstd frame asks for a window of {frame.window_size} bytes")
    if frame.dict_id and not has_table:
        raise ChunkError(f"a zstd frame asks for dictionary {frame.dict_id}, but names no table")
    at, last = zstandard.frame_header_size(data), False
    while not last and at + 3 <= len(data):
        # RFC 8878, 3.1.1.2: bit 0 marks the last block, bits 1 and 2 the type, the rest is the size
        head = int.from_bytes(data[at : at + 3], "little")
        last = bool(head & 1)
        at += 3 + (1 if head >> 1 & 3 == _RLE_BLOCK else head >> 3)
    if not last or at + 4 * frame.has_checksum != len(data):
        raise ChunkError(f"the {len(data)} bytes of a zstd stream are not exactly one frame")


def _dictionary(table: bytes) -> zstandard.ZstdCompressionDict:
    formatted = table.startswith(_DICTIONARY_MAGIC)
    kind = zstandard.DICT_TYPE_FULLDICT if formatted else zstandard.DICT_TYPE_RAWCONTENT
    return zstandard.ZstdCompressionDict(table, dict_type=kind)


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
        dictionary = None if table is None else _dictionary(table)
        if effort == HUFFMAN:
            found = zstandard.ZstdCompressor(compression_params=_NO_SEARCH, dict_data=dictionary)
        else:
            found = zstandard.ZstdCompressor(level=effort, dict_data=dictionary, write_checksum=False)
        contexts[key] = found
    return found


def _decompressor(table: bytes | None) -> zstandard.ZstdDecompressor:
    contexts, key = _contexts(), ("d", table)
    found = contexts.get(key)
    if not isinstance(found, zstandard.ZstdDecompressor):
        dictionary = None if table is None else _dictionary(table)
        found = zstandard.ZstdDecompressor(dict_data=dictionary)
        contexts[key] = found
    return found
