"""The header of a GGUF file, versions 2 and 3, little-endian.

Source: ``docs/gguf.md`` and ``src/gguf.cpp`` (gguf_init_from_reader) in ggml-org/ggml; the rules are those
of gguf.cpp except where a comment says otherwise.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final, NamedTuple

from qzf import limits
from qzf.adapters.base import INT64_MAX
from qzf.adapters.gguf_cursor import Cursor
from qzf.adapters.gguf_values import TYPE_NAMES, UINT32, ValueReader
from qzf.model import ArraySpec
from qzf.storage import ByteSource

__all__ = ["GgufHeader", "TensorInfo", "looks_like_gguf", "read_header"]

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
DEFAULT_ALIGNMENT: Final = 32
ALIGNMENT_KEY: Final = "general.alignment"

#: Fewest bytes of a key-value pair (length, a key of one byte, type, a value of one byte) and of a
#: tensor's entry (length of an empty name, number of dimensions, type, offset).
_KV_BYTES: Final = 8 + 1 + 4 + 1
_INFO_BYTES: Final = 8 + 4 + 4 + 8


class TensorInfo(NamedTuple):
    """A tensor's entry: ``ne`` in ggml's order (innermost first), ``offset`` from the data section's start.

    ``type_at`` and ``offset_at`` are where in the file the type's and the offset's fields lie.
    """

    name: str
    ne: tuple[int, ...]
    type_number: int
    offset: int
    type_at: int

    @property
    def offset_at(self) -> int:
        return self.type_at + 4


class GgufHeader(NamedTuple):
    """What the header says; ``data_offset`` is where in the file the data section starts.

    ``arrays`` are the long ones that ``metadata`` does not hold.
    """

    version: int
    metadata: dict[str, Any]
    alignment: int
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    arrays: tuple[ArraySpec, ...]


def looks_like_gguf(head: bytes) -> bool:
    """Tell from its first 8 bytes whether a file is GGUF of any version or byte order.

    The magic alone is not enough: a text that starts with the word GGUF is none.
    """
    if head[:4] != MAGIC or len(head) < 8:
        return False
    version = int.from_bytes(head[4:8], "little")
    return 0 < version <= 0xFFFF or (version != 0 and version & 0xFFFF == 0)


def read_header(source: ByteSource, *, full: bool = False) -> GgufHeader:
    """Read and check the header of ``source``; ``full`` keeps metadata of any length.

    Raises GgufError with the offset and the rule that is broken.
    """
    cursor = Cursor(source)
    if source.size < 4 or cursor.take(4, "the magic") != MAGIC:
        raise cursor.error("does not start with the magic 'GGUF'", offset=0)
    version = _version(cursor)
    tensors, pairs = _counts(cursor)
    values = ValueReader(cursor, full)
    metadata, alignment, names = _metadata(cursor, pairs, values)
    infos = _infos(cursor, tensors, names)
    # Like gguf.cpp: without tensors there is no data section that would have to be aligned.
    data_offset = -(-cursor.at // alignment) * alignment if infos else cursor.at
    if data_offset > source.size:
        raise cursor.error(f"the file ends before its data section, which starts at {data_offset}")
    return GgufHeader(version, metadata, alignment, infos, data_offset, tuple(values.arrays))


def _version(cursor: Cursor) -> int:
    start = cursor.at
    version = cursor.u32("the version")
    if version in VERSIONS:
        return version
    if version & 0xFFFF == 0 and version:
        raise cursor.error(
            "the file is big-endian GGUF; only little-endian GGUF can be taken apart", offset=start
        )
    raise cursor.error(f"GGUF version {version} is not supported, only 2 and 3 are", offset=start)


def _counts(cursor: Cursor) -> tuple[int, int]:
    start = cursor.at
    tensors, pairs = cursor.u64("the tensor count"), cursor.u64("the key-value count")
    for count, limit, at, what in (
        (tensors, limits.GGUF_MAX_TENSORS, start, "tensors"),
        (pairs, limits.GGUF_MAX_KV, start + 8, "key-value pairs"),
    ):
        if count > limit:
            raise cursor.error(f"the header announces {count} {what}, the limit is {limit}", offset=at)
    if tensors * _INFO_BYTES + pairs * _KV_BYTES > cursor.remaining:
        raise cursor.error(
            f"the header announces {tensors} tensors and {pairs} key-value pairs, more than the "
            f"{cursor.remaining} bytes after it can hold",
            offset=start,
        )
    return tensors, pairs


def _metadata(cursor: Cursor, pairs: int, values: ValueReader) -> tuple[dict[str, Any], int, int]:
    """Read the key-value pairs; return them, the alignment, and how many bytes of names are left."""
    metadata: dict[str, Any] = {}
    alignment, names = DEFAULT_ALIGNMENT, limits.GGUF_MAX_NAMES
    for _ in range(pairs):
        start = cursor.at
        key, names = _name(cursor, "a key", names)
        if not key:
            raise cursor.error("a key is empty", offset=start)
        if key in metadata:
            raise cursor.error(f"the key {key!r} occurs twice", offset=start)
        what = f"the value of {key!r}"
        number, at = values.type_number(what), cursor.at
        metadata[key] = values.value(number, what)
        if key == ALIGNMENT_KEY:
            alignment = _alignment(cursor, number, metadata[key], at)
    return metadata, alignment, names


def _alignment(cursor: Cursor, number: int, value: Any, start: int) -> int:
    """Check ``general.alignment``: a uint32, a power of two.

    gguf.md also wants a multiple of 8; gguf.cpp does not look, so such files are in use.
    """
    if number != UINT32:
        raise cursor.error(f"{ALIGNMENT_KEY} must be a uint32, it is a {TYPE_NAMES[number]}", offset=start)
    alignment = int(value)
    if alignment == 0 or alignment & (alignment - 1):
        raise cursor.error(f"{ALIGNMENT_KEY} is {alignment}, which is no power of two", offset=start)
    if alignment > limits.GGUF_MAX_ALIGNMENT:
        raise cursor.error(
            f"{ALIGNMENT_KEY} is {alignment}, the limit is {limits.GGUF_MAX_ALIGNMENT}", offset=start
        )
    return alignment


def _infos(cursor: Cursor, count: int, names: int) -> tuple[TensorInfo, ...]:
    infos, seen = [], set()
    for _ in range(count):
        start = cursor.at
        # Empty names are allowed, as in gguf.cpp. It limits names to 63 bytes by a constant that programs
        # built on ggml redefine, so that limit is not applied here.
        name, names = _name(cursor, "a tensor's name", names)
        if name in seen:
            raise cursor.error("two tensors have this name", offset=start, tensor=name)
        seen.add(name)
        ne = _shape(cursor, name)
        type_at = cursor.at
        type_number = cursor.u32("a tensor's type")
        infos.append(TensorInfo(name, ne, type_number, cursor.u64("a tensor's offset"), type_at))
    return tuple(infos)


def _shape(cursor: Cursor, name: str) -> tuple[int, ...]:
    start = cursor.at
    dims = cursor.u32("a tensor's number of dimensions")
    if dims > limits.GGUF_MAX_DIMS:
        raise cursor.error(
            f"{dims} dimensions, the limit is {limits.GGUF_MAX_DIMS}", offset=start, tensor=name
        )
    ne = struct.unpack(f"<{dims}Q", cursor.take(8 * dims, "a tensor's dimensions"))
    # Zero dimensions are left out of the product: gguf.cpp lets any tensor without elements pass, but
    # shapes such as (0, 2**62, 2**62) fit no array library.
    product = math.prod(size for size in ne if size)
    if product >= INT64_MAX or (0 in ne and product > limits.MAX_ELEMENTS):
        raise cursor.error(f"the product of the dimensions {ne} overflows", offset=start, tensor=name)
    return ne


def _name(cursor: Cursor, what: str, left: int) -> tuple[str, int]:
    """Read a key or a tensor's name; return it and how many bytes of names are ``left`` after it."""
    start = cursor.at
    length = cursor.length(what, limits.GGUF_MAX_NAME)
    if length > left:
        raise cursor.error(
            f"keys and names take more than {limits.GGUF_MAX_NAMES} bytes together", offset=start
        )
    try:
        # gguf.md demands ASCII keys; gguf.cpp takes any bytes. UTF-8 is what a catalog can hold.
        return cursor.take(length, what).decode("utf-8"), left - length
    except UnicodeDecodeError as error:
        raise cursor.error(f"{what} is not UTF-8", offset=start + 8 + error.start) from None
