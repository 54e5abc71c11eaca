"""Broken containers: what they start from, and how a case says what is wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from xxhash import xxh3_64_intdigest as xxh3

from tools.vectors.builder import (
    Builder,
    Tensor,
    Verbatim,
    fields,
    noise,
    skewed,
    stored,
    sync_manifests,
    whole,
)
from tools.vectors.parts import CHUNK, MEMBER, TABLE, Fields, Parts, Record, seal

__all__ = [
    "COLUMNS",
    "CONFIG",
    "TABLE_ID",
    "TENSOR_CHUNKS",
    "Broken",
    "Cases",
    "Edit",
    "Find",
    "base",
    "chunk",
    "coded",
    "last",
    "listed",
    "manifest",
    "member",
    "model_file",
    "nth",
    "put",
    "recode",
    "rle_frame",
    "table",
    "tensor",
]

#: The base's second member: spaces, so that one RLE block holds it.
CONFIG: Final = b" " * 600
TABLE_ID: Final = 3
COLUMNS: Final = 64
#: Places in the chunk table: verbatim, two of tensor ``w``, one of tensor ``s``, verbatim, the config file.
TENSOR_CHUNKS: Final = (1, 2)


def model_file(tail: bytes) -> bytes:
    """The base's first member with other bytes in its last chunk."""
    return noise("header", 64) + skewed("base", 1024) + noise("s", 100) + tail


def base() -> Parts:
    """A valid container with something of everything that can be broken."""
    builder = Builder(chunk_size=512)
    rows = skewed("base", 1024)
    builder.table(TABLE_ID, skewed("table", 200))
    pieces: list[Verbatim | Tensor] = [
        Verbatim([stored(noise("header", 64))]),
        Tensor("e", "F16", [0, 7], 14, []),
        Tensor("w", "F32", [4, COLUMNS], 256, [fields(rows[:512], "float4"), fields(rows[512:], "float4")]),
        Tensor("s", "I8", [100], 100, [stored(noise("s", 100))]),
        Verbatim([stored(noise("tail", 256))]),
    ]
    builder.member("dir/model.bin", pieces, metadata={"format": "pt"})
    builder.member("config.json", [Verbatim([whole(CONFIG)])])
    builder.section(200, b"an optional section")
    return builder.parts()


@dataclass(frozen=True)
class Broken:
    """A container that every reader must reject: ``error`` is what qzf raises, or ``Damage``."""

    name: str
    error: str
    spec: str
    reason: str
    make: Callable[[], bytes]


Edit = Callable[[Parts], object]
Find = Callable[[Parts], Record]


@dataclass
class Cases:
    """Cases of one section of the spec, collected by ``add``."""

    spec: str
    found: list[Broken] = field(default_factory=list)

    def add(self, name: str, error: str, reason: str, edit: Edit, *, keep_manifests: bool = False) -> None:
        """The base after ``edit``, sealed; manifests follow the catalog unless they are to be kept."""

        def make() -> bytes:
            parts = base()
            edit(parts)
            if not keep_manifests and not isinstance(parts.catalog, bytes):
                sync_manifests(parts)
            return seal(parts)

        self.made(name, error, reason, make)

    def post(self, name: str, error: str, reason: str, change: Callable[[bytes], bytes]) -> None:
        """The sealed base with its bytes changed."""
        self.made(name, error, reason, lambda: change(seal(base())))

    def made(self, name: str, error: str, reason: str, make: Callable[[], bytes]) -> None:
        self.found.append(Broken(name, error, self.spec, reason, make))


def nth(ordinal: int) -> Find:
    """The chunk at this place of the chunk table."""
    return lambda parts: chunk(parts, ordinal)


def last(parts: Parts) -> Record:
    """The last record: an optional section."""
    return parts.records[-1]


def put(find: Find, /, **changes: Any) -> Edit:
    """Set fields of a record's header, and with them what the index says of it."""
    return lambda parts: find(parts).fields.update(changes)


def listed(find: Find, /, **changes: Any) -> Edit:
    """Set fields of a record's index entry alone."""
    return lambda parts: find(parts).entry.update(changes)


def coded(find: Find, payload: bytes, decoded: bytes | None = None, **changes: Any) -> Edit:
    """`recode` as an edit."""
    return lambda parts: recode(find(parts), payload, decoded, **changes)


def chunk(parts: Parts, ordinal: int) -> Record:
    return parts.of_kind(CHUNK)[ordinal]


def table(parts: Parts) -> Record:
    return parts.of_kind(TABLE)[0]


def manifest(parts: Parts, ordinal: int = 0) -> Record:
    return parts.of_kind(MEMBER)[ordinal]


def member(parts: Parts, ordinal: int = 0) -> Fields:
    found: Fields = parts.catalog["members"][ordinal]
    return found


def tensor(parts: Parts, ordinal: int) -> Fields:
    found: Fields = parts.catalog["tensors"][ordinal]
    return found


def recode(record: Record, payload: bytes, decoded: bytes | None = None, **changes: Any) -> None:
    """Give a record another payload; its decoded bytes stay what they were unless given."""
    record.payload = payload
    if decoded is not None:
        record.fields |= {"decoded_size": len(decoded), "decoded_xxh3": xxh3(decoded)}
    record.fields |= changes


def rle_frame(
    size: int,
    *,
    content_size: int | None = -1,
    window_log: int | None = None,
    blocks: int = 1,
    byte: bytes = b" ",
    descriptor: int = 0,
    dictionary_id: int | None = None,
) -> bytes:
    """A zstd frame of ``size`` times ``byte`` in RLE blocks, by hand (RFC 8878, section 3.1.1).

    ``content_size`` -1 is the right one and None leaves it out; without ``window_log`` the frame is a single
    segment. ``descriptor`` adds bits to the frame header descriptor.
    """
    content_size = size if content_size == -1 else content_size
    single = window_log is None
    assert content_size is not None or not single
    flags = descriptor | (0x80 if content_size is not None else 0) | (0x20 if single else 0)
    flags |= 3 if dictionary_id is not None else 0
    head = b"\x28\xb5\x2f\xfd" + bytes([flags])
    head += b"" if window_log is None else bytes([(window_log - 10) << 3])
    head += b"" if dictionary_id is None else struct.pack("<I", dictionary_id)
    head += b"" if content_size is None else struct.pack("<I", content_size)
    part = size // blocks
    sizes = [part] * (blocks - 1) + [size - part * (blocks - 1)]
    for i, count in enumerate(sizes):
        head += ((i + 1 == blocks) | 1 << 1 | count << 3).to_bytes(3, "little") + byte
    return head
