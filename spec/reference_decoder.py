"""A second, slow decoder of QZF containers: spec/qzf-format.md in code, in the order of the text.

Read it beside the text; the numbers in comments and errors are its sections. Sections 4.4 and 4.5 are in
reference_models.py, beside this file. It shares nothing with the `qzf` package, imports only the standard
library, `xxhash` (XXH3) and `zstandard` (zstd frames), and reads the tables of layouts and of types from the
text itself. It checks every rule and trusts no number before it has checked it: whatever the input, it ends
well or raises `Invalid`. It is no example of speed.

Usage: python spec/reference_decoder.py FILE [-o DIR] [--digest HEX] [--recover]
Exit status: 0 valid, 1 invalid (with --recover: something is lost), 2 wrong usage or an error of the system.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import mmap
import os
import re
import struct
import sys
from ast import literal_eval
from bisect import bisect
from collections import namedtuple
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import zstandard
from xxhash import xxh3_64_intdigest as xxh3

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is loaded as a module
import reference_models as models

T = TypeVar("T")
Json = dict[str, Any]
Bytes = bytes | memoryview

# Section 6, Limits. The text says that a reader may have them; this one does.
MIB = 1 << 20
MAX_INDEX, MAX_JSON, MAX_JSON_MARKS = 2048 * MIB, 256 * MIB, 16_777_216
MAX_TABLE, MAX_TABLES, MAX_CHUNK, MAX_STREAMS = 16 * MIB, 256 * MIB, 64 * MIB, 64


# === 1. Conventions ===================================================================================
class Invalid(Exception):  # noqa: N818
    """The container breaks a rule of `section`; `offset`, where known, is that of what breaks it."""

    def __init__(self, section: str, message: str, offset: int | None = None) -> None:
        where = "" if offset is None else f"offset {offset}: "
        super().__init__(f"{where}{message} (section {section})")
        self.section = section


def must(condition: bool, section: str, message: str, offset: int | None = None) -> None:
    if not condition:
        raise Invalid(section, message, offset)


def pad64(n: int) -> int:
    return (n + 63) // 64 * 64


def read(file: memoryview, at: int, size: int) -> memoryview:
    must(0 <= at <= at + size <= len(file), "2", f"{size} bytes that reach out of the file", at)
    return file[at : at + size]


def parse_json(data: Bytes, at: int) -> Json:
    """A JSON object, strictly as in section 1."""

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        must(len({key for key, _ in pairs}) == len(pairs), "1", "JSON object with a duplicate key", at)
        return dict(pairs)

    def integer(digits: str) -> int:
        must(len(digits) <= 20 and -(1 << 63) <= int(digits) < 1 << 64, "1", "JSON integer too large", at)
        return int(digits)

    def other_number(digits: str) -> float:
        must(math.isfinite(float(digits)), "1", "JSON number that is not finite", at)
        return float(digits)

    def constant(name: str) -> None:
        must(False, "1", f"{name} is not JSON", at)

    try:
        text = str(data, "utf-8")  # strict; json.loads(bytes) would also take UTF-16 and UTF-32
        must(sum(map(text.count, ",:[{")) <= MAX_JSON_MARKS, "6", "JSON text of too many values", at)
        hooks = {"parse_int": integer, "parse_float": other_number, "parse_constant": constant}
        value = json.loads(text, object_pairs_hook=unique, **hooks)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on unpaired surrogates
    except (ValueError, RecursionError) as error:
        raise Invalid("1", f"not JSON: {error}", at) from None
    return get({"JSON text": value}, "JSON text", dict)


def get(item: Json, key: str, kind: type[T]) -> T:
    value = item.get(key)
    if type(value) is not kind:  # `is`: True is no integer
        raise Invalid("3", f"{key!r} is missing or not of type {kind.__name__}")
    return value


def get_all(item: Json, key: str, kind: type[T]) -> list[T]:
    return [get({key: value}, key, kind) for value in get(item, key, list)]


def number(item: Json, key: str) -> int:
    value = get(item, key, int)
    must(0 <= value < 1 << 63, "1", f"{key!r} is negative or not below 2^63")
    return value


# === 2. Layout of the file ============================================================================
# --- 2.1 Header ---
HEADER = struct.Struct("<8s HH I Q 32s Q")
Header = namedtuple("Header", "major minor salt features")  # also of the index head


def parse_header(data: Bytes) -> Header:
    magic, *fields, reserved1, checksum = HEADER.unpack(data)
    must(magic == bytes.fromhex("89 51 5A 46 0D 0A 1A 0A"), "2.1", "not a QZF container", 0)
    must(checksum == xxh3(data[:56]), "2.1", "the header does not match header_xxh3", 0)
    header = Header(*fields)
    must(header.major == 1, "2.5", f"format version {header.major}.{header.minor} is unknown", 0)
    unknown = [bit for bit in range(64) if header.features >> bit & 1]  # none is defined yet
    must(not unknown, "2.5", f"unknown required features: bits {unknown}", 0)
    must(not any(reserved1), "2.1", "reserved bytes of the header are set", 0)
    return header


# --- 2.2 Records ---
CHUNK, TABLE, MEMBER, INDEX, OPTIONAL = 1, 2, 3, 4, 128
RECORD = struct.Struct("<4s BBH II QQ II QQ Q")
Record = namedtuple(  # a record's header from its second field to the last but one
    "Record",
    "kind transform layout member tensor offset stored_size decoded_size salt stored_xxh3 decoded_xxh3",
)
Entry = namedtuple("Entry", "at record digest")  # by the index: where it stands, its header, its digest
Entries = list[Entry]
Tables = dict[int, Entry]  # by id, or manifests by member


def parse_record(data: Bytes, at: int) -> Record:
    magic, *fields, checksum = RECORD.unpack(data)
    must(magic == b"QZFR", "2.2", "no record here", at)
    must(checksum == xxh3(data[:56]), "2.2", "the record header does not match header_xxh3", at)
    return Record(*fields)


def check_record(file: memoryview, entry: Entry) -> None:
    """Header, checksum, digest and padding of one record, against the index."""
    at, expected, size = entry.at, entry.record, 64 + entry.record.stored_size
    data, padding = read(file, at, size), read(file, at + size, pad64(size) - size)
    found = parse_record(data[:64], at)
    if expected.kind >= OPTIONAL:  # these two are the section's own business
        expected = expected._replace(member=found.member, offset=found.offset)
    differing = [name for name, a, b in zip(Record._fields, found, expected, strict=True) if a != b]
    must(not differing, "2.2", f"record and index differ in {', '.join(differing)}", at)
    must(found.stored_xxh3 == xxh3(data[64:]), "2.2", "payload does not match stored_xxh3", at)
    must(entry.digest == hashlib.sha256(data).digest(), "2.3", "record does not match its digest", at)
    must(not any(padding), "2.2", "padding is not zero", at + size)


# --- 2.3 Index record ---
INDEX_HEAD = struct.Struct("<HH I QQQQQ 16s")
CHUNK_ENTRY = struct.Struct("<Q III BBH QQ 32s")
SECTION_ENTRY = struct.Struct("<BBH I QQQ QQ 32s")
Container = namedtuple("Container", "file digest members chunks tables")  # all of it checked but the chunks


def parse_chunk_entry(data: Bytes, salt: int, at: int) -> Entry:
    """Member and offset follow from the catalog; see `parse_members`."""
    position, stored, decoded, tensor, transform, reserved, layout, *xxh3s, digest = CHUNK_ENTRY.unpack(data)
    must(reserved == 0, "2.3", "reserved byte of a chunk entry is set", at)
    record = Record(CHUNK, transform, layout, 0, tensor, 0, stored, decoded, salt, *xxh3s)
    return Entry(position, record, digest)


def parse_section_entry(data: Bytes, salt: int, at: int) -> Entry:
    kind, transform, layout, ident, position, stored, decoded, *xxh3s, digest = SECTION_ENTRY.unpack(data)
    must(kind in (TABLE, MEMBER) or kind >= OPTIONAL, "2.2", f"section of unknown kind {kind}", at)
    must(layout == 0, "2.3", "a section has no layout", at)
    if kind >= OPTIONAL:
        must(decoded == 0, "2.2", "reserved decoded_size of an optional section is set", at)
        must(len(set(xxh3s)) == 1, "2.2", "an optional section's checksums differ", at)
    member, tensor = (ident, 0) if kind == MEMBER else (0, ident)
    record = Record(kind, transform, 0, member, tensor, 0, stored, decoded, salt, *xxh3s)
    return Entry(position, record, digest)


def read_index(file: memoryview, at: int, size: int, digest: bytes) -> Container:
    must(128 <= size <= MAX_INDEX, "6", f"an index of {size} bytes", at)
    data = read(file, at, size)
    must(hashlib.sha256(data).digest() == digest, "2.4", "the index does not match the digest", at)
    header, record, payload = parse_header(read(file, 0, 64)), parse_record(data[:64], at), data[64:]
    checksum, start, at = xxh3(payload), at, at + 64
    expected = Record(INDEX, 0, 0, 0, 0, 0, len(payload), 0, header.salt, checksum, checksum)
    must(record == expected, "2.2", f"the index's {record} is not {expected}", start)

    *fields, chunk_count, section_count, stored, decoded, reserved1 = INDEX_HEAD.unpack(payload[:64])
    must(Header(*fields) == header, "2.3", "index head and header differ", at)
    must(not any(reserved1), "2.3", "reserved bytes of the index head are set", at)
    sections_at = 64 + 72 * chunk_count
    catalog_at = sections_at + 80 * section_count
    must(catalog_at + stored == len(payload), "2.3", "the parts do not add up to the index", at)
    places = range(64, sections_at, 72), range(sections_at, catalog_at, 80)
    chunks = [parse_chunk_entry(payload[i : i + 72], header.salt, at + i) for i in places[0]]
    sections = [parse_section_entry(payload[i : i + 80], header.salt, at + i) for i in places[1]]
    end = 64
    for entry in sorted(chunks + sections):
        must(entry.at == end, "2", f"no record at {end}, where the one before ends", entry.at)
        end += pad64(64 + entry.record.stored_size)
    must(end == start, "2", "the records do not end where the index starts", start)

    at += catalog_at
    must(2 <= decoded <= MAX_JSON, "6", f"a catalog of {decoded} bytes", at)
    catalog = parse_json(decode_stream(ZSTD, payload[catalog_at:], decoded, None, at), at)
    members, chunks = parse_members(catalog, chunks)
    check_tensors(catalog, members, chunks)
    return Container(file, digest, members, chunks, check_sections(file, sections, members, chunks))


# --- 2.4 Trailer ---
TRAILER = struct.Struct("<QQQQ 32s Q 8s")


def open_container(file: memoryview, digest: bytes | None = None) -> Container:
    """`digest` is the container digest to expect, if there is one."""
    at = len(file) - 80
    data = read(file, at, 80)
    index_at, index_size, file_size, reserved, found, checksum, magic = TRAILER.unpack(data)
    must(magic == b"QZF1END\n", "2.4", "no trailer: not a QZF container, or its end is lost", at)
    must(checksum == xxh3(data[:64]), "2.4", "the trailer does not match trailer_xxh3", at)
    must(reserved == 0, "2.4", "reserved bytes of the trailer are set", at)
    must(file_size == len(file), "2.4", f"the file has {len(file)} bytes, not {file_size}", at)
    must(index_at % 64 == 0 and index_at >= 64, "2.4", f"an index at {index_at}", at)
    must(index_at + pad64(index_size) + 80 == file_size, "2.4", "index and trailer do not end the file", at)
    must(digest in (None, found), "2.4", f"container digest is {found.hex()}", at)
    must(not any(file[index_at + index_size : at]), "2.2", "padding is not zero", index_at + index_size)
    return read_index(file, index_at, index_size, found)


# === 3. Catalog =======================================================================================
Member = namedtuple("Member", "name size sha256 chunks manifest")  # chunks: range; manifest: what it must say


def parse_members(catalog: Json, chunks: Entries) -> tuple[list[Member], Entries]:
    """The members, and the chunks with member and offset, which follow from the ranges and sizes (2.3)."""
    members: list[Member] = []
    placed: Entries = []
    get(catalog, "generator", str), get(catalog, "level", str)
    for ordinal, item in enumerate(get_all(catalog, "members", dict)):
        manifest, sha256, offset = describe_member(item, []), get(item, "sha256", str), 0
        name, size = manifest["name"], manifest["size"]
        must(re.fullmatch("[0-9a-f]{64}", sha256) is not None, "3", f"{name!r}: bad sha256")
        ours = range(len(placed), len(placed) + number(item, "chunk_count"))
        must(ours.start == number(item, "first_chunk"), "3", f"{name!r} has chunks in the wrong place")
        must(ours.stop <= len(chunks), "3", f"{name!r} has chunks that are not there")
        members.append(Member(name, size, sha256, ours, manifest))
        for at, record, digest in chunks[ours.start : ours.stop]:
            placed.append(Entry(at, record._replace(member=ordinal, offset=offset), digest))
            check_coding(record, at)
            offset += record.decoded_size
        must(offset == size, "3", f"{name!r}: chunks of {offset} bytes, size {size}")
    must(len(placed) == len(chunks), "3", "there are chunks of no member")
    check_names([member.name for member in members])
    return members, placed


def check_tensors(catalog: Json, members: list[Member], chunks: Entries) -> None:
    owner = [0xFFFFFFFF] * len(chunks)  # by the catalog; the chunk table must say the same
    chunk_size, names, last = number(catalog, "chunk_size"), set(), (0, 0)
    for ordinal, item in enumerate(get_all(catalog, "tensors", dict)):
        tensor, first, place = describe_tensor(item), number(item, "first_chunk"), number(item, "member")
        ours = range(first, first + number(item, "chunk_count"))
        name, offset, size, row_size = (tensor[key] for key in ("name", "offset", "size", "row_size"))
        must(place < len(members), "3", f"tensor {name!r} belongs to no member")
        must((place, name) not in names, "3", f"two tensors of a member are called {name!r}")
        names.add((place, name))
        must(last <= (place, offset), "3", f"tensor {name!r} overlaps the one before or is not in order")
        last, member = (place, offset + size), members[place]
        member.manifest["tensors"].append(tensor)
        must(offset + size <= member.size, "3", f"tensor {name!r} ends after its member")
        inside = member.chunks.start <= ours.start and ours.stop <= member.chunks.stop
        must(inside, "3", f"tensor {name!r} has chunks outside of its member")
        must(bool(ours) == (size > 0), "3", f"tensor {name!r}: data without chunks, or chunks without data")
        must(row_size > 0 or size == 0, "3", f"tensor {name!r}: rows of no bytes")
        end, large = offset, row_size > chunk_size
        for i in ours:
            at, record, _ = chunks[i]
            must(record.offset == end, "3", f"the chunks of tensor {name!r} start elsewhere", at)
            owner[i], end = ordinal, end + record.decoded_size
            unit = row_size if not large else LAYOUTS[record.layout].block if record.layout else 1
            must((record.offset - offset) % unit == 0, "3", f"chunk {i} starts inside of a row", at)
        must(end == offset + size, "3", f"the chunks of tensor {name!r} do not end where it ends")
        pipeline = get(item, "pipeline", dict)
        get(pipeline, "transform", str), get_all(pipeline, "codecs", str)
        must(type(pipeline.get("layout", 0)) in (str, type(None)), "3", "'layout' is neither text nor null")
    must(owner == [chunk.record.tensor for chunk in chunks], "3", "a chunk names the wrong tensor")


# --- 3.1 Member names ---
def check_names(names: list[str]) -> None:
    for name in names:
        must(len(name.encode()) <= 4096, "3.1", "a member name above 4096 bytes")
        must(re.search(r"[\x00-\x1f\x7f\\:]", name) is None, "3.1", f"{name!r} holds a forbidden character")
        for part in name.split("/"):
            must(1 <= len(part.encode()) <= 255, "3.1", f"{name!r}: a component is empty or above 255 bytes")
            must(part[-1] not in ". ", "3.1", f"{name!r}: a component ends in a dot or space")  # so . and ..
    # Sorted with NUL for `/`, lower than all that a name may hold: a folder precedes what is in it.
    for one, other in pairwise(sorted(name.replace("/", "\0") for name in names)):
        must(not f"{other}\0".startswith(f"{one}\0"), "3.1", f"{one!r} is two members' name or folder")


# --- 3.2 Manifest records ---
def parse_manifest(text: Bytes, at: int) -> Json:
    manifest = parse_json(text, at)
    return describe_member(manifest, [describe_tensor(item) for item in get_all(manifest, "tensors", dict)])


def describe_member(item: Json, tensors: list[Json]) -> Json:
    """What both catalog and manifest say of a member."""
    name, kind, size = get(item, "name", str), get(item, "kind", str), number(item, "size")
    metadata = get(item, "metadata", dict)
    check_names([name])
    check_nesting(metadata)
    return {"name": name, "kind": kind, "size": size, "metadata": metadata, "tensors": tensors}


def describe_tensor(item: Json) -> Json:
    """What both catalog and manifest say of a tensor."""
    name, dtype, shape = get(item, "name", str), get(item, "dtype", str), get_all(item, "shape", int)
    fits = len(shape) <= 64 and min(shape, default=0) >= 0 and math.prod(n for n in shape if n) < 1 << 60
    must(fits, "3", f"tensor {name!r} has a shape beyond the limits")
    sizes = {key: number(item, key) for key in ("offset", "size", "row_size")}
    return {"name": name, "dtype": dtype, "shape": shape} | sizes


def check_sections(file: memoryview, sections: Entries, members: list[Member], chunks: Entries) -> Tables:
    """That each member has one manifest, which is right and precedes its chunks; the tables by id."""
    tables: Tables = {}
    manifests: set[int] = set()
    for entry in sections:
        at, record, _ = entry
        check_record(file, entry)
        data = decode_record(file, at, record, {}) if record.kind < OPTIONAL else b""
        if record.kind == TABLE:
            must(record.tensor not in tables, "2.3", "two tables have one id", at)
            tables[record.tensor] = entry
        if record.kind == MEMBER:
            must(record.member not in manifests, "2.3", f"member {record.member} has two manifests", at)
            must(record.member < len(members), "2.3", f"a manifest of member {record.member}", at)
            manifests.add(record.member)
            # Compared as texts: in Python 1, 1.0 and true are equal.
            both = parse_manifest(data, at), members[record.member].manifest
            texts = {json.dumps(manifest, sort_keys=True) for manifest in both}
            must(len(texts) == 1, "3.2", "the manifest contradicts the catalog", at)
            late = any(chunks[i].at < at for i in members[record.member].chunks)
            must(not late, "2.2", "a manifest stands behind a chunk of its member", at)
    must(len(manifests) == len(members), "2.3", "a member has no manifest")
    must(sum(entry.record.decoded_size for entry in tables.values()) <= MAX_TABLES, "4.1", "tables too large")
    return tables


# --- 3.3 Metadata ---
def check_nesting(value: Any, depth: int = 0) -> None:
    must(depth <= 64, "3.3", "metadata is nested deeper than 64")
    for item in value.values() if type(value) is dict else value if type(value) is list else ():
        check_nesting(item, depth + 1)


# === 4. Chunks ========================================================================================
# --- 4.1 Transforms ---
STORED, NONE, FIELDS, QUANT, VALUES, STRINGS = 0, 1, 2, 3, 4, 5


def check_coding(record: Record, at: int) -> None:
    """What the header of a chunk, table or manifest must hold, whatever its payload is."""
    limit = {CHUNK: MAX_CHUNK, TABLE: MAX_TABLE, MEMBER: MAX_JSON}[record.kind]
    known = (STORED, NONE, FIELDS, QUANT, VALUES, STRINGS) if record.kind == CHUNK else (STORED, NONE)
    must(1 <= record.decoded_size <= limit, "4.1", f"a record of {record.decoded_size} decoded bytes", at)
    must(record.stored_size <= record.decoded_size, "4.1", "a record that grew", at)
    must(record.transform in known, "4.1", f"transform {record.transform} is unknown", at)
    if record.transform in (STORED, NONE, STRINGS):
        must(record.layout == 0, "2.2", f"transform {record.transform} has no layout", at)
        return
    must(record.layout in LAYOUTS, "4.3", f"layout {record.layout} is unknown", at)
    must(record.decoded_size % LAYOUTS[record.layout].block == 0, "4.3", "no whole number of blocks", at)


def decode_record(file: memoryview, at: int, record: Record, tables: Tables) -> Bytes:
    """The decoded bytes of a chunk, table or manifest; `tables` are those that it may name."""
    check_coding(record, at)
    payload, size = read(file, at + 64, record.stored_size), record.decoded_size
    must(xxh3(payload) == record.stored_xxh3, "2.2", "payload does not match stored_xxh3", at)
    if record.transform == STORED:
        must(len(payload) == size, "4.1", "a stored payload of another size", at)
        data: Bytes = payload
    else:
        streams, named = parse_streams(at, payload, tables)
        if record.transform == NONE:
            data = decode_streams(file, at, streams, named, [size])[0]
        elif record.transform == FIELDS:
            layout = LAYOUTS[record.layout]
            sizes = [size // layout.block * len(stream) for stream in layout.streams]
            data = join(layout, size, decode_streams(file, at, streams, named, sizes))
        elif record.transform == STRINGS:
            must(not named, "4.6", "a chunk of strings names a table", at)
            data = decode_strings(streams, size, at)
        else:
            contents = [load(file, table) for table in named[:3]]  # more than two are too many
            data = decode_modeled(record.transform, LAYOUTS[record.layout], streams, contents, size, at)
    must(xxh3(data) == record.decoded_xxh3, "2.2", "decoded bytes do not match decoded_xxh3", at)
    return data


# --- 4.2 Payload with streams ---
STREAM_ENTRY = struct.Struct("<BBH II")


def parse_streams(at: int, payload: Bytes, tables: Tables) -> tuple[list[models.Coded], Entries]:
    """The streams of the record at `at`, still coded, and the tables that it names."""
    must(len(payload) >= 4, "4.2", "the payload ends in its prelude", at)
    stream_count, table_count, reference_count, reserved = payload[:4]
    must(1 <= stream_count <= MAX_STREAMS, "4.2", f"{stream_count} streams", at)
    must(table_count <= MAX_STREAMS, "4.2", f"{table_count} tables", at)
    must(reference_count == reserved == 0, "4.2", "reserved bytes of the prelude are set", at)
    entries_at = 4 + 4 * table_count
    begin = entries_at + 12 * stream_count
    must(begin <= len(payload), "4.2", "the payload ends in its stream entries", at)
    named = []
    for ident in struct.unpack(f"<{table_count}I", payload[4:entries_at]):
        must(ident in tables, "4.2", f"table {ident} is unknown", at)
        must(tables[ident].at < at, "2.2", f"table {ident} stands behind a chunk that names it", at)
        named.append(tables[ident])
    streams = []
    for entry in STREAM_ENTRY.iter_unpack(payload[entries_at:begin]):
        codec, slot, reserved, stored_size, decoded_size = entry
        must(reserved == 0, "4.2", "reserved bytes of a stream entry are set", at)
        must(slot == 255 or slot < table_count, "4.2", f"a stream names table {slot} of {table_count}", at)
        must(begin + stored_size <= len(payload), "4.2", "a stream ends after the payload", at)
        streams.append(models.Coded(codec, slot, payload[begin : begin + stored_size], decoded_size))
        begin += stored_size
    must(begin == len(payload), "4.2", "the streams do not add up to the payload", at)
    return streams, named


def load(file: memoryview, table: Entry) -> bytes:
    """The content of a table; decoded anew for each use: slow, but it bounds the memory."""
    return bytes(decode_record(file, table.at, table.record, {}))


def decode_streams(
    file: memoryview, at: int, streams: list[models.Coded], named: Entries, sizes: list[int]
) -> list[bytes]:
    """Streams that need nothing but their bytes and a table; `sizes` are what they must decode to."""
    must(len(streams) == len(sizes), "4.2", f"{len(streams)} streams, not {len(sizes)}", at)
    decoded = []
    for size, (codec, slot, stored, decoded_size) in zip(sizes, streams, strict=True):
        must(decoded_size == size, "4.2", f"a stream has {decoded_size} bytes, not {size}", at)
        dictionary = None if slot == 255 else load(file, named[slot])
        decoded.append(decode_stream(codec, stored, size, dictionary, at))
    return decoded


# --- 4.3 Layouts ---
# What one block has in a stream, byte by byte; each is put together, from the lowest bit up, of parts of the
# block: (byte, its lowest bit, number of bits). A step is a list of streams.
Stream = list[list[tuple[int, int, int]]]
Layout = namedtuple("Layout", "name block streams")


def copy(o: int, w: int) -> list[Stream]:
    return [[[(o + i, 0, 8)] for i in range(w)]]


def planes(k: int) -> list[Stream]:
    return [[[(i, 0, 8)]] for i in range(k)]


def rplanes(k: int) -> list[Stream]:
    return [[[((i - 1) % k, 7, 1), (i, 0, 7)]] for i in range(k)]


def codes(l: int, a: int, b: int, *p: tuple[int, int, int, int]) -> list[Stream]:  # noqa: E741
    return [[[(lo + j, s, a), (hi + j, t, b)] for lo, s, hi, t in p for j in range(l)]]


def maskcodes(l: int, a: int, *p: tuple[int, int, int]) -> list[Stream]:  # noqa: E741
    return [[[(lo + j, s, a), (m + j // 8, j % 8, 1)] for lo, s, m in p for j in range(l)]]


def join(layout: Layout, size: int, contents: list[bytes]) -> bytes:
    """The chunk of `size` bytes whose streams have these contents."""
    out = bytearray(size)
    for stream, content in zip(layout.streams, contents, strict=True):
        for i, parts in enumerate(stream):
            codes = content[i :: len(stream)]
            if len(parts) == 1:  # a whole byte
                out[parts[0][0] :: layout.block] = codes
                continue
            for at, code in zip(range(0, size, layout.block), codes, strict=True):
                for byte, bit, count in parts:
                    out[at + byte] |= code % 2**count << bit
                    code >>= count
    return bytes(out)


def read_layouts() -> dict[int, Layout]:
    """The table of layouts as it stands in the text, beside this file."""
    text = Path(__file__).with_name("qzf-format.md").read_text(encoding="utf-8")
    notation: dict[str, Any] = {step.__name__: step for step in (copy, planes, rplanes, codes, maskcodes)}
    layouts = {}
    for ident, name, block, row in re.findall(r"^\| (\d+) \| `(\w+)` \| (\d+) \| (.+) \|$", text, re.M):
        steps = re.findall(r"([a-z]+)(\(.+?\))(?=, [a-z]|$)", row)
        made = [notation[step](*literal_eval(arguments.replace(")", ",)"))) for step, arguments in steps]
        layouts[int(ident)] = Layout(name, int(block), [stream for streams in made for stream in streams])
    return layouts


LAYOUTS = read_layouts()


# --- 4.4 Transform quant, 4.5 Transform values ---
def decode_modeled(
    transform: int, layout: Layout, streams: list[models.Coded], tables: list[bytes], size: int, at: int
) -> bytes:
    """The `size` bytes of the chunk at `at` from its streams and the contents of the tables that it names."""
    n = size // layout.block
    try:
        if transform == QUANT:
            return models.decode_quant(layout.name, streams, tables, n)
        table = models.values_table_of(layout.name, streams, tables, n)
        symbols, plain = streams[1], [streams[0], *streams[2:]]
        content = [decode_stream(each.codec, each.stored, each.size, None, at) for each in plain]
        return models.decode_values(table, symbols.stored, content, n)
    except models.Broken as error:
        raise Invalid(error.section, str(error), at) from None


# --- 4.6 Transform strings ---
def decode_strings(streams: list[models.Coded], size: int, at: int) -> bytes:
    """The `size` bytes of the chunk at `at`."""
    must(len(streams) == 2, "4.6", f"{len(streams)} streams, not 2", at)
    must(1 <= streams[0].size <= size // 8, "4.6", f"lengths of {streams[0].size} bytes", at)
    must(streams[1].size <= size - 8, "4.6", f"text of {streams[1].size} bytes", at)
    must(all(each.slot == 255 for each in streams), "4.6", "a stream names a table", at)
    lengths, text = (decode_stream(each.codec, each.stored, each.size, None, at) for each in streams)
    must(lengths[-1] < 0x80, "4.6", "the lengths end within one", at)
    chunk, end, length, shift = bytearray(), 0, 0, 0
    for byte in lengths:
        must(shift < 28, "4.6", "a length of more than 4 bytes", at)
        length, shift = length | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            must(byte > 0 or shift == 7, "4.6", "a length that could be shorter", at)
            chunk += struct.pack("<Q", length) + text[end : end + length]
            end, length, shift = end + length, 0, 0
    must(end == len(text), "4.6", f"the lengths add up to {end}, the text has {len(text)} bytes", at)
    must(len(chunk) == size, "4.6", f"strings of {len(chunk)} bytes in a chunk of {size}", at)
    return bytes(chunk)


# === 5. Codecs ========================================================================================
RAW, ZSTD = 0, 1  # 2 and 3 are in reference_models.py


def decode_stream(codec: int, stored: Bytes, size: int, dictionary: bytes | None, at: int) -> bytes:
    """`size` has been checked to be one that may be allocated."""
    must(codec in (RAW, ZSTD), "5", f"codec {codec} is unknown, or cannot stand here", at)
    if codec == RAW:
        must(len(stored) == size and dictionary is None, "codecs/00-raw", "size or table of a raw stream", at)
        return bytes(stored)
    page, window, table = "codecs/01-zstd", max(64 * MIB, size), None
    must(stored[:4] == bytes.fromhex("28 B5 2F FD"), page, "no zstd frame, or a skippable one", at)
    try:
        frame = zstandard.get_frame_parameters(stored)
        must(frame.content_size == size, page, f"the frame does not state a content of {size} bytes", at)
        must(frame.window_size <= window, page, f"a window of {frame.window_size} bytes", at)
        if dictionary is not None:
            full = dictionary.startswith(bytes.fromhex("37 A4 30 EC"))
            kind = zstandard.DICT_TYPE_FULLDICT if full else zstandard.DICT_TYPE_RAWCONTENT
            table = zstandard.ZstdCompressionDict(dictionary, dict_type=kind)
        must(frame.dict_id in (0, table.dict_id() if table else 0), page, "another dictionary's frame", at)
        decoder = zstandard.ZstdDecompressor(dict_data=table, max_window_size=window)
        if size == 0:  # for which the call below looks no further than the frame header
            must(decoder.stream_reader(stored).read(1) == b"", page, "an empty frame has content", at)
            whole = decoder.decompressobj()
            whole.decompress(stored)
            must(whole.eof and not whole.unused_data, page, "not exactly one frame", at)
        data = decoder.decompress(stored, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError) as error:
        raise Invalid(page, f"zstd: {error}", at) from None
    must(len(data) == size, page, "the frame has another content size than it states", at)
    return data


# === 2 to 5 together ==================================================================================
def decode_member(container: Container, member: Member) -> Iterator[Bytes]:
    """Its chunks one by one; all must be taken, since the SHA-256 is compared after the last."""
    sha256 = hashlib.sha256()
    for chunk in container.chunks[member.chunks.start : member.chunks.stop]:
        check_record(container.file, chunk)
        data = decode_record(container.file, chunk.at, chunk.record, container.tables)
        sha256.update(data)
        yield data
    must(sha256.hexdigest() == member.sha256, "3", f"{member.name!r} does not match its SHA-256")


def output(folder: Path | None, name: str) -> BinaryIO:
    """A new file, which section 3.1 has made sure is inside of the folder; without one, nothing is kept."""
    if folder is None:
        return Path(os.devnull).open("wb")
    path = folder.joinpath(*name.split("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def extract(file: memoryview, folder: Path | None, digest: bytes | None) -> None:
    """Check all, then write all: nothing of an invalid container is written."""
    container = open_container(file, digest)
    for target in (None, folder) if folder else (None,):
        for member in container.members:
            with output(target, member.name) as out:
                out.writelines(decode_member(container, member))
    listed = [f"{member.sha256} {member.size:>12} {member.name}" for member in container.members]
    print(*listed, f"valid, container digest {container.digest.hex()}", sep="\n")


# === 7. Recovery ======================================================================================
def scan(file: memoryview) -> Iterator[tuple[int, Record]]:
    """The records that can be found without trailer and index, of all kinds."""
    salt, at = None, 64
    try:
        salt = parse_header(read(file, 0, 64)).salt
    except Invalid as error:
        if error.section == "2.5":  # the header is whole, and this decoder too old
            raise
    while at + 64 <= len(file):
        try:
            record = parse_record(read(file, at, 64), at)
            must(salt in (None, record.salt), "2.6", "a record of another container", at)
        except Invalid:
            at += 64
            continue
        if at + 64 + record.stored_size > len(file):
            return  # the record that was cut
        yield at, record
        salt, at = record.salt, at + pad64(64 + record.stored_size)


def recover(file: memoryview, folder: Path | None) -> list[str]:
    """Write what a scan finds; the result lists what is lost. Of two claims to one thing the first counts."""
    lost: list[str] = []
    manifests: Tables = {}
    tables: Tables = {}
    chunks: dict[int, list[tuple[int, int, int, Record]]] = {}
    members: dict[int, Json] = {}
    for at, record in scan(file):
        if record.kind == MEMBER:
            manifests.setdefault(record.member, Entry(at, record, b""))
        elif record.kind == TABLE:
            tables.setdefault(record.tensor, Entry(at, record, b""))
        elif record.kind == CHUNK:
            start, end = record.offset, record.offset + record.decoded_size
            ours = chunks.setdefault(record.member, [])
            place = bisect(ours, (start, end, at, record))
            if all(b <= start or end <= a for a, b, *_ in ours[max(place - 1, 0) : place + 1]):
                ours.insert(place, (start, end, at, record))
    for ordinal in sorted(manifests.keys() | chunks.keys()):
        try:
            must(ordinal in manifests, "7", f"member {ordinal} has no manifest")
            at, record, _ = manifests[ordinal]
            members[ordinal] = parse_manifest(decode_record(file, at, record, {}), at)
        except Invalid as error:
            lost.append(str(error))
    check_names([member["name"] for member in members.values()])
    for ordinal, member in members.items():
        name, size, whole = member["name"], member["size"], [(0, 0)]
        with output(folder, name) as out:
            for start, end, at, record in chunks.get(ordinal, []):
                try:
                    must(end <= size, "7", "a chunk behind the end of its member", at)
                    data = decode_record(file, at, record, tables)
                except Invalid as error:
                    lost.append(f"{name}: {error}")
                    continue
                out.seek(start)
                out.write(data)
                whole.append((start, end))
        lost += [f"{name}: bytes {a} to {b}" for (_, a), (b, _) in pairwise([*whole, (size, size)]) if a < b]
        print(f"{size:>12} {name}")
    return lost


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Slow decoder of QZF containers, after spec/qzf-format.md.")
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", dest="folder", type=Path, metavar="DIR", help="write the members there")
    parser.add_argument("--digest", type=bytes.fromhex, metavar="HEX", help="the container digest to expect")
    parser.add_argument("--recover", action="store_true", help="scan for records, without the index")
    options = parser.parse_args(arguments)
    try:
        with options.file.open("rb") as opened:
            must(opened.seek(0, os.SEEK_END) > 0, "2", "an empty file")
            file = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        if not options.recover:
            extract(file, options.folder, options.digest)
            return 0
        lost = recover(file, options.folder)
        print("\n".join(f"lost: {item}" for item in lost) or "complete, SHA-256 unknown")
        return 1 if lost else 0
    except Invalid as error:
        print(f"{options.file}: invalid: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
