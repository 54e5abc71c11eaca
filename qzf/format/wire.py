"""Fixed-size structures as named tuples, and their bytes (spec, section 2).

Each structure has a pair of functions side by side: ``pack_x`` and ``parse_x``. Parsing checks magic,
checksum and reserved bytes and raises ``FormatError`` or ``UnsupportedError``; the caller adds the file.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

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

_HEADER: Final = struct.Struct("<8s HH I Q 32s Q")
_RECORD: Final = struct.Struct("<4s BBH I I Q Q I I Q Q")
_INDEX_HEAD: Final = struct.Struct("<HH I Q Q Q Q Q 16s")
_TRAILER: Final = struct.Struct("<Q Q Q Q 32s Q 8s")


class Header(NamedTuple):
    """The container's first 64 bytes."""

    salt: int
    version: tuple[int, int] = VERSION
    required_features: int = 0


class RecordHeader(NamedTuple):
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


class IndexHead(NamedTuple):
    """The fixed part of the index."""

    chunk_count: int
    section_count: int
    catalog_stored_size: int
    catalog_decoded_size: int
    salt: int
    version: tuple[int, int] = VERSION
    required_features: int = 0


class Trailer(NamedTuple):
    """The container's last 80 bytes."""

    index_offset: int
    index_size: int
    file_size: int
    container_digest: bytes


def pack_header(header: Header) -> bytes:
    body = _HEADER.pack(FILE_MAGIC, *header.version, header.salt, header.required_features, bytes(32), 0)[:-8]
    return body + xxh3(body).to_bytes(8, "little")


def parse_header(data: bytes) -> Header:
    if data[: len(FILE_MAGIC)] != FILE_MAGIC:
        raise FormatError("not a QZF container: the magic bytes are missing", offset=0)
    _check_size(data, HEADER_SIZE, "header")
    _, major, minor, salt, features, reserved, checksum = _HEADER.unpack(data)
    _check_xxh3(data[: HEADER_SIZE - 8], checksum, "header")
    version = _check_version(major, minor)
    _check_reserved(not any(reserved), "header")
    return Header(salt, version, _check_features(features))


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
    sizes = (head.chunk_count, head.section_count, head.catalog_stored_size, head.catalog_decoded_size)
    return _INDEX_HEAD.pack(*head.version, head.salt, head.required_features, *sizes, bytes(16))


def parse_index_head(data: bytes) -> IndexHead:
    _check_size(data, INDEX_HEAD_SIZE, "index head")
    major, minor, salt, features, chunks, sections, stored, decoded, reserved = _INDEX_HEAD.unpack(data)
    version = _check_version(major, minor)
    _check_reserved(not any(reserved), "index head")
    return IndexHead(chunks, sections, stored, decoded, salt, version, _check_features(features))


def pack_trailer(trailer: Trailer) -> bytes:
    places = (trailer.index_offset, trailer.index_size, trailer.file_size)
    body = _TRAILER.pack(*places, 0, trailer.container_digest, 0, END_MAGIC)[:64]
    return body + xxh3(body).to_bytes(8, "little") + END_MAGIC


def parse_trailer(data: bytes) -> Trailer:
    if data[-len(END_MAGIC) :] != END_MAGIC:
        raise FormatError("not a whole QZF container: the end magic is missing")
    _check_size(data, TRAILER_SIZE, "trailer")
    index_offset, index_size, file_size, reserved, digest, checksum, _ = _TRAILER.unpack(data)
    _check_xxh3(data[:64], checksum, "trailer")
    _check_reserved(reserved == 0, "trailer")
    return Trailer(index_offset, index_size, file_size, digest)


def _check_size(data: bytes, size: int, what: str) -> None:
    if len(data) != size:
        raise TruncatedError(f"the {what} is not whole")


def _check_xxh3(data: bytes | memoryview, expected: int, what: str) -> None:
    if xxh3(data) != expected:
        raise ChecksumError(f"the {what} does not match its XXH3")


def _check_reserved(clear: bool, what: str) -> None:
    if not clear:
        raise FormatError(f"reserved bytes of the {what} are not zero")


def _check_version(major: int, minor: int) -> tuple[int, int]:
    if major != VERSION[0]:
        raise UnsupportedError(
            f"format version {major}.{minor} is not supported: this reader knows version {VERSION[0]}"
        )
    return major, minor


def _check_features(features: int) -> int:
    unknown = features & ~KNOWN_FEATURES
    if unknown:
        bits = ", ".join(str(bit) for bit in range(64) if unknown >> bit & 1)
        raise UnsupportedError(f"the container needs features that this reader does not know: bit {bits}")
    return features
