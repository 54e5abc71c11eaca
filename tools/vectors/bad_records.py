"""Broken containers: header, records, index record, trailer and versions (spec, section 2)."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from tools.vectors.broken import (
    CONFIG,
    TABLE_ID,
    Broken,
    Cases,
    Edit,
    base,
    chunk,
    last,
    listed,
    manifest,
    member,
    model_file,
    nth,
    put,
    recode,
    table,
)
from tools.vectors.parts import Parts, Record, pad64, seal, streams_payload, zstd

__all__ = ["record_cases"]


def record_cases() -> list[Broken]:
    """All cases of section 2."""
    return [*_header(), *_versions(), *_records(), *_placement(), *_index(), *_tables(), *_trailer(), *_cut()]


def _header() -> list[Broken]:
    cases = Cases("2.1")

    def add(name: str, reason: str, **changes: Any) -> None:
        cases.add(name, "Damage", reason, lambda p: p.header.update(changes))

    add("header-magic", "the first magic is wrong", magic=b"\x89QZF\n\r\x1a\n")
    add("header-checksum", "the header's XXH3 is wrong", header_xxh3=1)
    add("header-reserved1", "reserved1 is set", reserved1=bytes(31) + b"\1")
    cases.spec = "2.3"
    add("header-minor", "header and index head differ in the minor version", version_minor=1)
    add("header-salt", "header and index head differ in the salt", salt=1)
    add("header-feature", "only the header requires a feature", required_features=2)
    return cases.found


def _versions() -> list[Broken]:
    cases = Cases("2.5")

    def add(name: str, reason: str, **changes: int) -> None:
        cases.add(
            name, "UnsupportedError", reason, lambda p: (p.header.update(changes), p.head.update(changes))
        )

    for bit in (0, 1, 63):
        add(f"feature-{bit}", f"the unknown feature {bit} is required", required_features=1 << bit)
    for major in (0, 2):
        add(f"version-{major}", f"format version {major}.0 is unknown", version_major=major)
    return cases.found


def _relabel(**changes: Any) -> Edit:
    """Change a chunk's record header and not what the index says of it."""

    def edit(parts: Parts) -> None:
        record = chunk(parts, 1)
        kept = record.header()
        names = (
            "stored_size",
            "decoded_size",
            "tensor",
            "transform",
            "layout",
            "stored_xxh3",
            "decoded_xxh3",
        )
        record.entry.update({name: kept[name] for name in names})
        record.as_chunk = True
        record.fields.update(changes)

    return edit


def _records() -> list[Broken]:
    cases = Cases("2.2")

    def add(name: str, reason: str, edit: Edit) -> None:
        cases.add(name, "Damage", reason, edit)

    wrong = [("magic", b"QZFS"), ("header_xxh3", 5), ("kind", 2), ("member", 1), ("offset", 65), ("salt", 5)]
    for name, value in wrong:
        add(
            f"record-{name.replace('_', '-')}",
            f"a chunk's record header has a wrong {name}",
            _relabel(**{name: value}),
        )
    for name, value in [
        ("tensor", 2),
        ("transform", 1),
        ("layout", 2),
        ("decoded_size", 511),
        ("stored_size", 1),
    ]:
        add(
            f"record-{name.replace('_', '-')}",
            f"record header and index differ on {name}",
            _relabel(**{name: value}),
        )
    for name in ("stored_xxh3", "decoded_xxh3"):
        add(
            f"record-{name.replace('_', '-')}",
            f"record header and index differ on {name}",
            _relabel(**{name: 5}),
        )
        add(
            f"both-{name.replace('_', '-')}",
            f"{name} is wrong",
            put(nth(1), **{name: 5}),
        )
    for name in ("member", "offset"):
        add(f"table-{name}", f"reserved {name} of a table", put(table, **{name: 64}))
    for name in ("tensor", "offset"):
        add(
            f"manifest-{name}",
            f"reserved {name} of a manifest",
            put(manifest, **{name: 1}),
        )
    add(
        "section-id",
        "an optional section's id is not in its record",
        listed(last, id=5),
    )
    add("section-salt", "an optional section has another salt", put(last, salt=5))
    add("table-salt", "a table has another salt", put(table, salt=5))
    add("manifest-salt", "a manifest has another salt", put(manifest, salt=5))
    add("table-late", "a table stands behind a chunk that names it", _late_table)
    cases.add("manifest-late", "FormatError", "a manifest stands behind its member's chunks", _late_manifest)
    add("padding-chunk", "padding after a chunk is not zero", lambda p: _pad(chunk(p, 3)))
    add("padding-table", "padding after a table is not zero", lambda p: _pad(table(p)))
    add("padding-section", "padding after an optional section is not zero", lambda p: _pad(p.records[-1]))
    add("padding-index", "padding after the index is not zero", _pad_index)
    return cases.found


def _late_table(parts: Parts) -> None:
    config = chunk(parts, 5)
    recode(config, streams_payload([zstd(CONFIG)], [TABLE_ID]))
    parts.records.append(parts.records.pop(parts.records.index(table(parts))))


def _late_manifest(parts: Parts) -> None:
    parts.records.append(parts.records.pop(parts.records.index(manifest(parts, 1))))


def _pad(record: Record) -> None:
    size = -len(record.seal()) % 64
    assert size
    record.padding = bytes(size - 1) + b"\1"


def _pad_index(parts: Parts) -> None:
    for filler in ("", "x" * 20):
        parts.catalog["filler"] = filler
        size = -_index_size(seal(parts)) % 64
        if size:
            parts.index_padding = b"\x80" + bytes(size - 1)


def _index_size(data: bytes) -> int:
    return int(struct.unpack("<Q", data[-72:-64])[0])


def _placement() -> list[Broken]:
    cases = Cases("2")

    def add(name: str, reason: str, edit: Edit, error: str = "Damage") -> None:
        cases.add(name, error, reason, edit)

    add("gap", "64 bytes that belong to no record", lambda p: setattr(chunk(p, 1), "before", bytes(64)))
    add("gap-first", "bytes before the first record", lambda p: setattr(p.records[0], "before", bytes(64)))
    add("gap-last", "bytes before the index record", _long_padding)
    add("unlisted-table", "a table record that the index does not list", _unlisted)
    add(
        "unlisted-section",
        "an optional section not listed",
        lambda p: setattr(p.records[-1], "listed", False),
    )
    add("overlap", "a chunk's record stands inside of another's payload", _overlap, "FormatError")
    add("record-twice", "two index entries for one optional section", _twice, "FormatError")
    add("offset-unaligned", "a record starts at no multiple of 64", listed(nth(0), offset=65), "FormatError")
    add("offset-header", "a record starts in the header", listed(nth(0), offset=0), "FormatError")
    add("offset-index", "a record starts in the index", _into_index, "FormatError")
    add("offset-end", "a record starts after the end", listed(nth(0), offset=1 << 40), "FormatError")
    add(
        "offset-wraps",
        "offset and size add up to more than 2^64",
        listed(nth(0), offset=(1 << 64) - 64),
        "FormatError",
    )
    cases.spec = "2.2"
    size = len(last(base()).payload)
    what = "reserved decoded_size of an optional section"
    add("section-decoded-size", what, put(last, decoded_size=size), "FormatError")
    add(
        "section-entry-decoded-size",
        f"{what}, in its entry",
        listed(last, decoded_size=1 << 32),
        "FormatError",
    )
    add("section-record-decoded-size", f"{what}, in its record", _section_record(decoded_size=size))
    add(
        "section-decoded-xxh3",
        "an optional section's checksums differ",
        put(last, decoded_xxh3=5),
        "FormatError",
    )
    for kind in (0, 1, 4, 5, 127):
        add(f"kind-{kind}", f"a section of kind {kind}", _kind(kind), "FormatError")
    add("section-layout", "an optional section with a layout", put(last, layout=1), "FormatError")
    add(
        "section-size",
        "an optional section that reaches into the index",
        listed(last, stored_size=1 << 63),
        "FormatError",
    )
    return cases.found


def _section_record(**changes: int) -> Edit:
    """Change an optional section's record header and not what the index says of it."""

    def edit(parts: Parts) -> None:
        kept = last(parts).header()
        last(parts).entry.update({name: kept[name] for name in changes})
        last(parts).fields.update(changes)

    return edit


def _long_padding(parts: Parts) -> None:
    section = last(parts)
    section.padding = bytes(-len(section.seal()) % 64 + 640)


def _kind(kind: int) -> Edit:
    def edit(parts: Parts) -> None:
        last(parts).as_chunk = False
        last(parts).fields["kind"] = kind

    return edit


def _unlisted(parts: Parts) -> None:
    parts.records.insert(1, Record(dict(table(parts).fields, tensor=99), b"hidden", listed=False))
    recode(parts.records[1], b"hidden", b"hidden")


def _twice(parts: Parts) -> None:
    seal(parts)  # for the salt
    section = last(parts)
    again = Record(dict(section.fields), section.payload, inside=0)
    again.inside = seal(parts).index(section.seal())
    parts.records.append(again)


def _overlap(parts: Parts) -> None:
    """The last verbatim chunk holds the whole record of tensor ``s``, which stands nowhere else."""
    seal(parts)  # for the salt
    outer, inner = chunk(parts, 4), chunk(parts, 3)
    content = inner.seal().ljust(256, b"\0")
    recode(outer, content, content)
    member(parts)["sha256"] = hashlib.sha256(model_file(content)).hexdigest()
    inner.inside = 0
    inner.inside = seal(parts).index(content)


def _into_index(parts: Parts) -> None:
    index_at = struct.unpack("<Q", seal(parts)[-80:-72])[0]
    chunk(parts, 0).entry["offset"] = index_at


def _index() -> list[Broken]:
    cases = Cases("2.3")

    def head(name: str, reason: str, error: str = "FormatError", **changes: Any) -> None:
        cases.add(name, error, reason, lambda p: p.head.update(changes))

    def record(name: str, error: str, reason: str, **changes: Any) -> None:
        cases.add(name, error, reason, lambda p: p.index.update(changes))

    head("index-reserved1", "reserved1 of the index head is set", reserved1=bytes(15) + b"\1")
    head("index-chunks-many", "chunk_count is huge", chunk_count=1 << 62)
    head("index-chunks-fewer", "chunk_count is one too small", chunk_count=5)
    head("index-sections-many", "section_count is huge", section_count=(1 << 64) - 1)
    head("index-catalog-longer", "the catalog is longer than the index", catalog_stored_size=1 << 63)
    head("index-catalog-shorter", "the parts leave bytes of the index over", catalog_stored_size=10)
    cases.spec = "2.2"
    for name in ("transform", "layout", "member", "tensor", "offset"):
        record(f"index-record-{name}", "FormatError", f"{name} of the index record is set", **{name: 1})
    for name in ("decoded_size", "decoded_xxh3"):
        label = name.replace("_", "-")
        record(f"index-record-{label}", "FormatError", f"{name} of the index record is wrong", **{name: 77})
    cases.add(
        "index-decoded-size",
        "FormatError",
        "reserved decoded_size of the index record is its stored_size",
        lambda p: p.index.update(decoded_size=_index_size(seal(p)) - 64),
    )
    record(
        "index-record-stored-xxh3",
        "ChecksumError",
        "the index's XXH3 is wrong",
        stored_xxh3=1,
        decoded_xxh3=1,
    )
    record(
        "index-record-header-xxh3",
        "ChecksumError",
        "the XXH3 of the index record's header is wrong",
        header_xxh3=1,
    )
    record("index-record-salt", "FormatError", "the index record's salt is another", salt=5)
    record("index-record-kind", "FormatError", "the trailer leads to an optional section", kind=200)
    record("index-record-magic", "FormatError", "the index record's magic is wrong", magic=b"QZFI")
    return cases.found


def _tables() -> list[Broken]:
    cases = Cases("2.3")

    def add(name: str, reason: str, edit: Edit, error: str = "FormatError") -> None:
        cases.add(name, error, reason, edit)

    add("entry-reserved", "the reserved byte of a chunk entry", listed(nth(0), reserved=1))
    digest = {"digest": bytes(32)}
    add("entry-digest", "a chunk's digest is wrong", listed(nth(0), **digest), "Damage")
    add(
        "section-digest",
        "a section's digest is wrong",
        listed(last, **digest),
        "Damage",
    )
    add("table-digest", "a table's digest is wrong", listed(table, **digest), "Damage")
    add("entry-order", "the chunks of a tensor are listed in the wrong order", _swap, "Damage")
    add("table-id-twice", "two tables have one id", _second_table)
    add("manifest-missing", "a member has no manifest", lambda p: p.records.remove(manifest(p, 1)))
    add("manifest-twice", "a member has two manifests", lambda p: _copy_manifest(p, 1))
    add("manifest-of-none", "a manifest of a member that does not exist", lambda p: _copy_manifest(p, 9))
    return cases.found


def _swap(parts: Parts) -> None:
    places = [i for i, record in enumerate(parts.records) if record.in_chunk_table]
    places[1], places[2] = places[2], places[1]
    parts.chunk_order = places


def _second_table(parts: Parts) -> None:
    parts.records.insert(1, Record(dict(table(parts).fields), b""))
    recode(parts.records[1], b"another", b"another")


def _copy_manifest(parts: Parts, ordinal: int) -> None:
    found = manifest(parts, 1)
    parts.records.append(Record(dict(found.fields, member=ordinal), found.payload))


def _trailer() -> list[Broken]:
    cases = Cases("2.4")

    def add(name: str, error: str, reason: str, **changes: Any) -> None:
        cases.add(name, error, reason, lambda p: p.trailer.update(changes))

    add("trailer-magic", "TruncatedError", "the end magic is wrong", magic=b"QZF1END\r")
    add("trailer-checksum", "ChecksumError", "the trailer's XXH3 is wrong", trailer_xxh3=0)
    add("trailer-reserved", "FormatError", "the reserved field is set", reserved=1 << 63)
    add("trailer-file-size", "TruncatedError", "file_size is not the file's size", file_size=1 << 20)
    add("trailer-digest", "ChecksumError", "container_digest is not the index's", container_digest=bytes(32))
    for name, offset in [("unaligned", 1), ("earlier", -64), ("later", 64), ("zero", -(1 << 63))]:
        cases.add(
            f"index-offset-{name}",
            "FormatError",
            f"the index's offset is wrong: {name}",
            _shift("index_offset", offset),
        )
    for name, size in [("smaller", -64), ("larger", 64), ("huge", 1 << 62), ("zero", -(1 << 63))]:
        cases.add(
            f"index-size-{name}",
            "FormatError",
            f"the index's size is wrong: {name}",
            _shift("index_size", size),
        )
    cases.add(
        "index-size-one", "FormatError", "index_size does not fit stored_size", _shift("index_size", -1)
    )
    return cases.found


def _shift(name: str, by: int) -> Edit:
    def edit(parts: Parts) -> None:
        _, size = data = struct.unpack("<QQ", seal(parts)[-80:-64])
        value = data[0] if name == "index_offset" else size
        if name == "index_size" and by == -1:
            assert pad64(size - 1) == pad64(size)
        parts.trailer[name] = max(value + by, 0)

    return edit


def _cut() -> list[Broken]:
    cases = Cases("2.4")
    add = cases.post
    add("trailing-byte", "TruncatedError", "a byte after the trailer", lambda data: data + b"\n")
    add("trailing-block", "TruncatedError", "a padded block after the trailer", lambda data: data + bytes(64))
    add("trailing-trailer", "TruncatedError", "the trailer stands twice", lambda data: data + data[-80:])
    add("cut-byte", "TruncatedError", "the last byte is missing", lambda data: data[:-1])
    add("cut-trailer", "TruncatedError", "the trailer is missing", lambda data: data[:-80])
    add("cut-half", "TruncatedError", "the second half is missing", lambda data: data[: len(data) // 2])
    add("cut-front", "TruncatedError", "the first 64 bytes are missing", lambda data: data[64:])
    add(
        "cut-middle",
        "TruncatedError",
        "64 bytes in the middle are missing",
        lambda data: data[:256] + data[320:],
    )
    add("empty", "FormatError", "no bytes at all", lambda data: b"")
    add("only-trailer", "FormatError", "nothing but a trailer", lambda data: data[-80:])
    cases.made("text", "FormatError", "not a container", lambda: b"QZF is a container format.\n" * 20)
    return cases.found
