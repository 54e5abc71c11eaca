"""Fixed-size structures: construct structs, and the frozen dataclasses they become (spec, section 2).

Each structure has a pair of functions side by side: ``pack_x`` and ``parse_x``. Parsing checks magic,
checksum and reserved bytes and raises ``FormatError`` or ``UnsupportedError``; the caller adds the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from construct import Bytes, Const, ConstructError, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from xxhash import xxh3_64_intdigest as xxh3

from qzf.errors import ChecksumError, FormatError, TruncatedError, UnsupportedError
from qzf.format.ids import (
    END_MAGIC,
    FILE_MAGIC,
    HEADER_SIZE,
    INDEX_HEAD_SIZE,
    KNOWN_FEATURES,
    RECORD_HEADER_SIZE,
    RECORD_MAGIC,
    TRAILER_SIZE,
    VERSION,
)

__all__ = [
    "HEADER",
    "INDEX_HEAD",
    "RECORD_HEADER",
    "TRAILER",
    "Header",
    "IndexHead",
    "RecordHeader",
    "Trailer",
    "pack_header",
    "pack_index_head",
    "pack_record_header",
    "pack_trailer",
    "parse_header",
    "parse_index_head",
    "parse_record_header",
    "parse_trailer",
    "xxh3",
]

HEADER: Final = Struct(
    "magic" / Const(FILE_MAGIC),
    "version_major" / Int16ul,
    "version_minor" / Int16ul,
    "salt" / Int32ul,
    "required_features" / Int64ul,
    "reserved1" / Bytes(32),
    "header_xxh3" / Int64ul,
)

RECORD_HEADER: Final = Struct(
    "magic" / Const(RECORD_MAGIC),
    "kind" / Int8ul,
    "transform" / Int8ul,
    "layout" / Int16ul,
    "member" / Int32ul,
    "tensor" / Int32ul,
    "offset" / Int64ul,
    "stored_size" / Int64ul,
    "decoded_size" / Int32ul,
    "salt" / Int32ul,
    "stored_xxh3" / Int64ul,
    "decoded_xxh3" / Int64ul,
    "header_xxh3" / Int64ul,
)
#: The record header again for the hot path: one is packed and parsed for every chunk.
_RECORD: Final = struct.Struct("<4sBBHIIQQIIQQ")

INDEX_HEAD: Final = Struct(
    "version_major" / Int16ul,
    "version_minor" / Int16ul,
    "salt" / Int32ul,
    "required_features" / Int64ul,
    "chunk_count" / Int64ul,
    "section_count" / Int64ul,
    "catalog_stored_size" / Int64ul,
    "catalog_decoded_size" / Int64ul,
    "reserved1" / Bytes(16),
)

TRAILER: Final = Struct(
    "index_offset" / Int64ul,
    "index_size" / Int64ul,
    "file_size" / Int64ul,
    "reserved" / Int64ul,
    "container_digest" / Bytes(32),
    "trailer_xxh3" / Int64ul,
    "magic" / Const(END_MAGIC),
)


@dataclass(frozen=True, slots=True)
class Header:
    """The container's first 64 bytes."""

    salt: int
    version: tuple[int, int] = VERSION
    required_features: int = 0


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The 64 bytes before each payload; field meanings depend on ``kind`` (spec, section 2.2)."""

    kind: int
    transform: int
    layout: int
    member: int
    tensor: int
    offset: int
    stored_size: int
    decoded_size: int
    salt: int
    stored_xxh3: int
    decoded_xxh3: int


@dataclass(frozen=True, slots=True)
class IndexHead:
    """The fixed part of the index."""

    chunk_count: int
    section_count: int
    catalog_stored_size: int
    catalog_decoded_size: int
    salt: int
    version: tuple[int, int] = VERSION
    required_features: int = 0


@dataclass(frozen=True, slots=True)
class Trailer:
    """The container's last 80 bytes."""

    index_offset: int
    index_size: int
    file_size: int
    container_digest: bytes


def pack_header(header: Header) -> bytes:
    body: bytes = HEADER.build(
        {
            "version_major": header.version[0],
            "version_minor": header.version[1],
            "salt": header.salt,
            "required_features": header.required_features,
            "reserved1": bytes(32),
            "header_xxh3": 0,
        }
    )[:-8]
    return body + xxh3(body).to_bytes(8, "little")


def parse_header(data: bytes) -> Header:
    if data[: len(FILE_MAGIC)] != FILE_MAGIC:
        raise FormatError("not a QZF container: the magic bytes are missing", offset=0)
    raw = _parse(HEADER, HEADER_SIZE, data, "header")
    _check_xxh3(data[: HEADER_SIZE - 8], raw.header_xxh3, "header")
    version = _check_version(raw)
    _check_reserved(not any(raw.reserved1), "header")
    return Header(raw.salt, version, _check_features(raw))


def pack_record_header(header: RecordHeader) -> bytes:
    try:
        body = _RECORD.pack(
            RECORD_MAGIC,
            header.kind,
            header.transform,
            header.layout,
            header.member,
            header.tensor,
            header.offset,
            header.stored_size,
            header.decoded_size,
            header.salt,
            header.stored_xxh3,
            header.decoded_xxh3,
        )
    except struct.error as error:
        raise FormatError(f"a record header has no room for one of its values: {error}") from error
    return body + xxh3(body).to_bytes(8, "little")


def parse_record_header(data: bytes | memoryview) -> RecordHeader:
    if len(data) < RECORD_HEADER_SIZE:
        raise TruncatedError("the file ends inside of a record header")
    magic, *fields = _RECORD.unpack_from(data)
    if magic != RECORD_MAGIC:
        raise FormatError("no record starts here: the magic bytes are missing")
    _check_xxh3(
        data[: RECORD_HEADER_SIZE - 8],
        int.from_bytes(data[RECORD_HEADER_SIZE - 8 : RECORD_HEADER_SIZE], "little"),
        "record header",
    )
    return RecordHeader(*fields)


def pack_index_head(head: IndexHead) -> bytes:
    data: bytes = INDEX_HEAD.build(
        {
            "version_major": head.version[0],
            "version_minor": head.version[1],
            "salt": head.salt,
            "required_features": head.required_features,
            "chunk_count": head.chunk_count,
            "section_count": head.section_count,
            "catalog_stored_size": head.catalog_stored_size,
            "catalog_decoded_size": head.catalog_decoded_size,
            "reserved1": bytes(16),
        }
    )
    return data


def parse_index_head(data: bytes) -> IndexHead:
    raw = _parse(INDEX_HEAD, INDEX_HEAD_SIZE, data, "index head")
    version = _check_version(raw)
    _check_reserved(not any(raw.reserved1), "index head")
    return IndexHead(
        raw.chunk_count,
        raw.section_count,
        raw.catalog_stored_size,
        raw.catalog_decoded_size,
        raw.salt,
        version,
        _check_features(raw),
    )


def pack_trailer(trailer: Trailer) -> bytes:
    data: bytes = TRAILER.build(
        {
            "index_offset": trailer.index_offset,
            "index_size": trailer.index_size,
            "file_size": trailer.file_size,
            "reserved": 0,
            "container_digest": trailer.container_digest,
            "trailer_xxh3": 0,
        }
    )
    return data[:64] + xxh3(data[:64]).to_bytes(8, "little") + END_MAGIC


def parse_trailer(data: bytes) -> Trailer:
    if data[-len(END_MAGIC) :] != END_MAGIC:
        raise FormatError("not a whole QZF container: the end magic is missing")
    raw = _parse(TRAILER, TRAILER_SIZE, data, "trailer")
    _check_xxh3(data[:64], raw.trailer_xxh3, "trailer")
    _check_reserved(raw.reserved == 0, "trailer")
    return Trailer(raw.index_offset, raw.index_size, raw.file_size, raw.container_digest)


def _parse(layout: Any, size: int, data: bytes, what: str) -> Any:
    if len(data) != size:
        raise TruncatedError(f"the {what} is not whole")
    try:
        return layout.parse(data)
    except ConstructError as error:
        raise FormatError(f"the {what} is malformed: {error}") from error


def _check_xxh3(data: bytes | memoryview, expected: int, what: str) -> None:
    if xxh3(data) != expected:
        raise ChecksumError(f"the {what} does not match its XXH3")


def _check_reserved(clear: bool, what: str) -> None:
    if not clear:
        raise FormatError(f"reserved bytes of the {what} are not zero")


def _check_version(raw: Any) -> tuple[int, int]:
    if raw.version_major != VERSION[0]:
        raise UnsupportedError(
            f"format version {raw.version_major}.{raw.version_minor} is not supported: "
            f"this reader knows version {VERSION[0]}"
        )
    return raw.version_major, raw.version_minor


def _check_features(raw: Any) -> int:
    features = int(raw.required_features)
    unknown = features & ~KNOWN_FEATURES
    if unknown:
        bits = ", ".join(str(bit) for bit in range(64) if unknown >> bit & 1)
        raise UnsupportedError(f"the container needs features that this reader does not know: bit {bits}")
    return features
