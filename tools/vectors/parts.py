"""Containers as parts: take one apart, change any field, and seal it again with all checksums right.

What is under test is then the only thing that is wrong. The structs stand here a second time on purpose,
straight from the tables of ``spec/qzf-format.md`` and not from ``qzf.format``.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import zstandard
from xxhash import xxh3_64_intdigest as xxh3

__all__ = [
    "CHUNK",
    "INDEX",
    "MEMBER",
    "NO_TENSOR",
    "TABLE",
    "Parts",
    "Record",
    "Stream",
    "pad64",
    "raw",
    "salt_of",
    "seal",
    "streams_payload",
    "take_apart",
    "xxh3",
    "zstd",
    "zstd_frame",
]

CHUNK, TABLE, MEMBER, INDEX = 1, 2, 3, 4
NO_TENSOR: Final = 0xFFFFFFFF

Fields = dict[str, Any]


@dataclass(frozen=True)
class _Struct:
    """Named fields in the order of a table of the spec."""

    layout: struct.Struct
    names: tuple[str, ...]

    def pack(self, values: Mapping[str, Any]) -> bytes:
        unknown = values.keys() - set(self.names)
        assert not unknown, unknown
        return self.layout.pack(*(values[name] for name in self.names))

    def parse(self, data: bytes) -> Fields:
        return dict(zip(self.names, self.layout.unpack(data), strict=True))


def _struct(layout: str, names: str) -> _Struct:
    return _Struct(struct.Struct(layout), tuple(names.split()))


HEADER = _struct("<8sHHIQ32s", "magic version_major version_minor salt required_features reserved1")
RECORD = _struct(
    "<4sBBHIIQQIIQQ",
    "magic kind transform layout member tensor offset stored_size decoded_size salt stored_xxh3 decoded_xxh3",
)
HEAD = _struct(
    "<HHIQQQQQ16s",
    "version_major version_minor salt required_features chunk_count section_count catalog_stored_size "
    "catalog_decoded_size reserved1",
)
CHUNK_ENTRY = _struct(
    "<QIIIBBHQQ32s",
    "offset stored_size decoded_size tensor transform reserved layout stored_xxh3 decoded_xxh3 digest",
)
SECTION_ENTRY = _struct(
    "<BBHIQQQQQ32s",
    "kind transform layout id offset stored_size decoded_size stored_xxh3 decoded_xxh3 digest",
)
TRAILER = _struct("<QQQQ32s", "index_offset index_size file_size reserved container_digest")
END_MAGIC: Final = b"QZF1END\n"


def pad64(size: int) -> int:
    return -(-size // 64) * 64


@dataclass
class Record:
    """A record: its payload, the fields of its header, and what the index says otherwise.

    ``fields`` hold all that does not follow from the payload; ``magic``, ``stored_size``, ``stored_xxh3`` and
    ``header_xxh3`` may be added to have them wrong. ``entry`` replaces fields of the index entry, ``listed``
    is whether there is one, ``before`` are bytes that stand before the record, ``padding`` (None: as it
    should be) those after it. A record with ``inside`` is only listed: it stands at that offset, within
    another's payload. ``as_chunk`` says which table lists it, where its kind does not. ``salt`` is set when
    the container is sealed.
    """

    fields: Fields
    payload: bytes
    entry: Fields = field(default_factory=dict)
    listed: bool = True
    before: bytes = b""
    padding: bytes | None = None
    inside: int | None = None
    as_chunk: bool | None = None
    salt: int = 0

    @property
    def in_chunk_table(self) -> bool:
        return self.kind == CHUNK if self.as_chunk is None else self.as_chunk

    @property
    def kind(self) -> int:
        return int(self.fields["kind"])

    def header(self) -> Fields:
        """All fields of the header, given ones before those that follow from the payload."""
        size, checksum = len(self.payload), xxh3(self.payload)
        right = {"magic": b"QZFR", "stored_size": size, "salt": self.salt, "stored_xxh3": checksum}
        return right | {name: value for name, value in self.fields.items() if name != "header_xxh3"}

    def seal(self) -> bytes:
        """Header and payload."""
        head = RECORD.pack(self.header())
        return head + struct.pack("<Q", self.fields.get("header_xxh3", xxh3(head))) + self.payload

    def index_entry(self, at: int) -> Fields:
        """The entry of the chunk table or the section table."""
        values = self.header() | {"digest": hashlib.sha256(self.seal()).digest(), "offset": at, "reserved": 0}
        values["id"] = values["member"] if self.kind == MEMBER else values["tensor"]
        names = CHUNK_ENTRY.names if self.in_chunk_table else SECTION_ENTRY.names
        return {name: values[name] for name in names} | self.entry


@dataclass
class Parts:
    """A container taken apart. All mappings hold only what does not follow from the rest.

    ``chunk_order`` are places in ``records``, in the order of the chunk table; by default as they stand.
    ``catalog`` is the JSON object, or the JSON text where that is to be broken; ``frame`` replaces its zstd
    frame.
    ``salt`` is the one in header, index head and records (section 2.6).
    """

    records: list[Record]
    catalog: Any
    header: Fields = field(default_factory=dict)
    head: Fields = field(default_factory=dict)
    frame: bytes | None = None
    index: Fields = field(default_factory=dict)
    index_padding: bytes | None = None
    trailer: Fields = field(default_factory=dict)
    chunk_order: Sequence[int] | None = None
    salt: int = 0

    def of_kind(self, kind: int) -> list[Record]:
        return [record for record in self.records if record.kind == kind]


def salt_of(members: Iterable[tuple[str, int]]) -> int:
    """The salt of a container with these members, by name and size (section 2.6)."""
    text = "".join(f"{name}\n{size}\n" for name, size in members)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def _sealed_header(changes: Fields, salt: int) -> bytes:
    values = {"magic": b"\x89QZF\r\n\x1a\n", "version_major": 1, "version_minor": 0, "salt": salt}
    values |= {"required_features": 0, "reserved1": bytes(32)}
    body = HEADER.pack(values | {name: changes[name] for name in changes if name != "header_xxh3"})
    return body + struct.pack("<Q", changes.get("header_xxh3", xxh3(body)))


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _index_payload(parts: Parts, salt: int, chunks: Sequence[Fields], sections: Sequence[Fields]) -> bytes:
    text = parts.catalog if isinstance(parts.catalog, bytes) else json_bytes(parts.catalog)
    frame = zstd_frame(text, 19) if parts.frame is None else parts.frame
    values: Fields = {"version_major": 1, "version_minor": 0, "salt": salt, "required_features": 0}
    values |= {"chunk_count": len(chunks), "section_count": len(sections), "reserved1": bytes(16)}
    values |= {"catalog_stored_size": len(frame), "catalog_decoded_size": len(text)}
    tables = [CHUNK_ENTRY.pack(entry) for entry in chunks] + [SECTION_ENTRY.pack(entry) for entry in sections]
    return b"".join([HEAD.pack(values | parts.head), *tables, frame])


def seal(parts: Parts) -> bytes:
    """The container of these parts, with every size and checksum right that they do not say otherwise."""
    salt = parts.salt
    out = bytearray(_sealed_header(parts.header, salt))
    entries: list[Fields] = []
    for record in parts.records:
        record.salt = salt
        if record.inside is not None:
            entries.append(record.index_entry(record.inside))
            continue
        out += record.before
        entries.append(record.index_entry(len(out)))
        out += record.seal()
        out += bytes(-len(out) % 64) if record.padding is None else record.padding
    places = range(len(entries)) if parts.chunk_order is None else parts.chunk_order
    listed = [place for place in places if parts.records[place].listed]
    chunks = [entries[place] for place in listed if parts.records[place].in_chunk_table]
    sections = [
        entry
        for entry, record in zip(entries, parts.records, strict=True)
        if record.listed and not record.in_chunk_table
    ]
    payload = _index_payload(parts, salt, chunks, sections)
    fields = {"kind": INDEX, "transform": 0, "layout": 0, "member": 0, "tensor": 0, "offset": 0}
    fields |= {"decoded_size": 0, "decoded_xxh3": xxh3(payload)} | parts.index
    index, at = Record(fields, payload, salt=salt).seal(), len(out)
    out += index
    out += bytes(-len(out) % 64) if parts.index_padding is None else parts.index_padding
    values: Fields = {"index_offset": at, "index_size": len(index), "file_size": len(out) + 80, "reserved": 0}
    values["container_digest"] = hashlib.sha256(index).digest()
    changes = parts.trailer
    body = TRAILER.pack(
        values | {name: changes[name] for name in changes if name not in ("trailer_xxh3", "magic")}
    )
    out += body + struct.pack("<Q", changes.get("trailer_xxh3", xxh3(body))) + changes.get("magic", END_MAGIC)
    return bytes(out)


def take_apart(data: bytes) -> Parts:
    """The parts of a valid container; ``seal`` puts the same content together again."""
    header, trailer = HEADER.parse(data[:56]), TRAILER.parse(data[-80:-16])
    at, index_at = 64, trailer["index_offset"]
    records = []
    while at < index_at:
        values = RECORD.parse(data[at : at + 56])
        size = values.pop("stored_size")
        del values["magic"], values["stored_xxh3"], values["salt"]
        records.append(Record(values, data[at + 64 : at + 64 + size]))
        at += pad64(64 + size)
    payload = data[index_at + 64 : index_at + trailer["index_size"]]
    head = HEAD.parse(payload[:64])
    chunks_end = 64 + 72 * head["chunk_count"]
    entries = [CHUNK_ENTRY.parse(payload[i : i + 72]) for i in range(64, chunks_end, 72)]
    frame = payload[chunks_end + 80 * head["section_count"] :]
    versions = ("version_major", "version_minor", "required_features")
    return Parts(
        records,
        json.loads(zstandard.ZstdDecompressor().decompress(frame)),
        header={name: header[name] for name in versions},
        head={name: head[name] for name in versions},
        chunk_order=_order(data, entries),
        salt=header["salt"],
    )


def _order(data: bytes, entries: Sequence[Fields]) -> list[int]:
    """Where the chunk table's entries stand among the records."""
    starts, at = [], 64
    index_at = struct.unpack("<Q", data[-80:-72])[0]
    while at < index_at:
        starts.append(at)
        at += pad64(64 + RECORD.parse(data[at : at + 56])["stored_size"])
    return [starts.index(entry["offset"]) for entry in entries]


# --- payloads -------------------------------------------------------------------------------------


@dataclass
class Stream:
    """A coded stream and its entry."""

    codec: int
    body: bytes
    decoded_size: int
    table: int = 255
    reserved: int = 0
    stored_size: int | None = None

    def entry(self) -> bytes:
        stored = len(self.body) if self.stored_size is None else self.stored_size
        return struct.pack("<BBHII", self.codec, self.table, self.reserved, stored, self.decoded_size)


def raw(data: bytes) -> Stream:
    return Stream(0, bytes(data), len(data))


def zstd(data: bytes, level: int = 1, **options: Any) -> Stream:
    return Stream(1, zstd_frame(data, level, **options), len(data))


def zstd_frame(
    data: bytes, level: int = 1, *, dictionary: zstandard.ZstdCompressionDict | None = None, **options: Any
) -> bytes:
    """One frame; ``options`` are fields of ``zstandard.ZstdCompressionParameters``."""
    settings: Fields = {"write_content_size": True, "write_checksum": False} | options
    parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=len(data), **settings)
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary)
    return compressor.compress(bytes(data))


def streams_payload(
    streams: Sequence[Stream],
    tables: Sequence[int] = (),
    *,
    references: int = 0,
    reserved: int = 0,
    stream_count: int | None = None,
    table_count: int | None = None,
) -> bytes:
    """A payload as in section 4.2, whatever it is given."""
    counts = bytes(
        [
            len(streams) if stream_count is None else stream_count,
            len(tables) if table_count is None else table_count,
            references,
            reserved,
        ]
    )
    ids = struct.pack(f"<{len(tables)}I", *tables)
    return counts + ids + b"".join(s.entry() for s in streams) + b"".join(s.body for s in streams)
