"""Broken containers: the catalog (spec, section 3). Names and manifests are in `bad_members`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tools.vectors.broken import (
    Broken,
    Cases,
    Edit,
    chunk,
    member,
    nth,
    put,
    recode,
    rle_frame,
    tensor,
)
from tools.vectors.builder import noise, whole
from tools.vectors.parts import MEMBER, Parts, Record, json_bytes, streams_payload, zstd, zstd_frame

__all__ = ["catalog_cases"]

_FORMAT = "FormatError"


def catalog_cases() -> list[Broken]:
    """All cases of section 3 but 3.1 and 3.2."""
    return [*_json(), *_types(), *_frame(), *_members(), *_tensors(), *_rows()]


def _text(change: Callable[[str], str | bytes]) -> Edit:
    """Change the catalog as text; ASCII but for what ``change`` brings in."""

    def edit(parts: Parts) -> None:
        text = change(json_bytes(parts.catalog).decode())
        parts.catalog = text if isinstance(text, bytes) else text.encode()

    return edit


def _swap(old: str, new: str) -> Edit:
    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new, 1)

    return _text(change)


def _json() -> list[Broken]:
    cases = Cases("1")

    def add(name: str, reason: str, edit: Edit) -> None:
        cases.add(f"catalog-{name}", _FORMAT, reason, edit)

    level = '"level":"default"'
    add("cut", "the JSON text ends early", _text(lambda text: text[:-1]))
    add("more", "bytes after the JSON text", _text(lambda text: text + "}"))
    add("not-json", "no JSON", _text(lambda text: "catalog"))
    add("list", "the JSON text is no object", _text(lambda text: f"[{text}]"))
    add("bom", "a byte order mark", _text(lambda text: "\ufeff" + text))
    add("utf16", "UTF-16", _text(lambda text: text.encode("utf-16-le")))
    add("latin1", "no UTF-8", _text(_latin1))
    add("key-twice", "a key twice", _swap(level, f"{level},{level}"))
    add(
        "inner-key-twice",
        "a key of no meaning twice, deep inside",
        _swap(level, level + ',"x":[{"y":1,"y":1}]'),
    )
    add("nan", "a number that JSON lacks", _swap(level, level + ',"x":NaN'))
    add("infinity", "a number that JSON lacks", _swap(level, level + ',"x":-Infinity'))
    add("float", "a number too large for a float", _swap(level, level + ',"x":1e999'))
    add("float-negative", "a number too small for a float", _swap(level, level + ',"x":[-1.5E+400]'))
    add("surrogate", "an unpaired surrogate", _swap(level, '"level":"\\ud800"'))
    add("surrogate-name", "an unpaired surrogate in a tensor's name", _swap('"name":"w"', '"name":"\\udfff"'))
    add("surrogate-key", "an unpaired surrogate in a key of no meaning", _swap(level, level + ',"\\udc00":1'))
    add("deep", "lists in lists, 100,000 deep", _swap(level, level + ',"x":' + "[" * 100_000 + "]" * 100_000))
    add("comma", "a comma too many", _swap(level, level + ","))
    add("control", "a control character in a text", _swap(level, '"level":"a\nb"'))
    return cases.found


def _latin1(text: str) -> bytes:
    return text.replace('"level":"default"', '"level":"d\xe9faut"').encode("latin-1")


def _types() -> list[Broken]:
    cases = Cases("3")
    size, chunk_size = '"size":1444', '"chunk_size":512'

    def integer(name: str, reason: str, old: str, value: str, spec: str = "1") -> None:
        cases.spec = spec
        cases.add(f"integer-{name}", _FORMAT, reason, _swap(old, old.split(":")[0] + ":" + value))

    integer("negative", "a negative size", size, "-1444")
    integer("fraction", "a size with a fraction", size, "1444.0")
    integer("exponent", "a size with an exponent", size, "1444e0")
    integer("text", "a size that is text", size, '"1444"')
    integer("bool", "a count that is true", '"chunk_count":1', "true")
    integer("null", "a size that is null", size, "null")
    integer("large", "a size of 2^63", chunk_size, str(1 << 63))
    integer("larger", "an integer of 5,000 digits", chunk_size, "9" * 5000)
    integer("unknown-large", "an integer of 2^64 in a key of no meaning", chunk_size, f'512,"x":{1 << 64}')
    cases.spec = "3"
    wrong: list[tuple[str, str, Any]] = [
        ("catalog", "generator", None),
        ("catalog", "level", 3),
        ("catalog", "members", {}),
        ("catalog", "tensors", [1]),
        ("member", "name", 5),
        ("member", "kind", None),
        ("member", "metadata", []),
        ("tensor", "name", ["w"]),
        ("tensor", "dtype", 0),
        ("tensor", "shape", "4,64"),
        ("tensor", "shape", [4, -64]),
        ("tensor", "shape", [4, 64.0]),
        ("tensor", "shape", [True, 64]),
        ("tensor", "shape", [0, 1 << 30, 1 << 30]),
        ("tensor", "shape", [1] * 65),
        ("tensor", "pipeline", "fields"),
        ("pipeline", "transform", None),
        ("pipeline", "layout", 5),
        ("pipeline", "codecs", ["zstd", 1]),
    ]
    for place, key, value in wrong:
        number = sum(case.name.startswith(f"type-{place}-{key}") for case in cases.found)
        name = f"type-{place}-{key}" + (f"-{number}" if number else "")
        cases.add(name, _FORMAT, f"{key} of a {place} is {json.dumps(value)}", _put(place, key, value))
    for place, key in [
        ("catalog", "generator"),
        ("catalog", "chunk_size"),
        ("catalog", "level"),
        ("catalog", "members"),
        ("catalog", "tensors"),
        ("member", "kind"),
        ("member", "sha256"),
        ("tensor", "row_size"),
        ("tensor", "pipeline"),
        ("pipeline", "layout"),
    ]:
        cases.add(
            f"missing-{place}-{key}",
            _FORMAT,
            f"a {place} without {key}",
            _drop(place, key),
            keep_manifests=True,
        )
    for name, value in [("upper", "A" * 64), ("short", "a" * 62), ("prefix", "sha256:" + "a" * 64)]:
        cases.add(
            f"sha256-{name}", _FORMAT, "sha256 is not 64 lower-case digits", _put("member", "sha256", value)
        )
    return cases.found


def _place(parts: Parts, place: str) -> dict[str, Any]:
    if place == "catalog":
        found: dict[str, Any] = parts.catalog
        return found
    if place == "member":
        return member(parts)
    return tensor(parts, 1)["pipeline"] if place == "pipeline" else tensor(parts, 1)


def _put(place: str, key: str, value: Any) -> Edit:
    """Set a key; as text where the container could not be built otherwise."""

    def edit(parts: Parts) -> None:
        _place(parts, place)[key] = value
        _freeze(parts)

    return edit


def _drop(place: str, key: str) -> Edit:
    def edit(parts: Parts) -> None:
        del _place(parts, place)[key]

    return edit


def _freeze(parts: Parts) -> None:
    parts.catalog = json_bytes(parts.catalog)


def _frame() -> list[Broken]:
    cases = Cases("codecs/01-zstd")

    def add(name: str, reason: str, make: Callable[[bytes], bytes], **head: int) -> None:
        def edit(parts: Parts) -> None:
            parts.frame = make(json_bytes(parts.catalog))
            parts.head.update(head)

        cases.add(f"catalog-frame-{name}", _FORMAT, reason, edit)

    add(
        "no-size",
        "the catalog's frame states no content size",
        lambda t: zstd_frame(t, write_content_size=False),
    )
    add("other-size", "the catalog's frame states another content size", lambda t: zstd_frame(t + b" "))
    add("none", "the catalog is not compressed", lambda t: t)
    add("trailing", "bytes follow the catalog's frame", lambda t: zstd_frame(t) + b"\0")
    add("two", "two frames", lambda t: zstd_frame(t) + zstd_frame(b""))
    add(
        "skippable",
        "a skippable frame before the catalog's",
        lambda t: b"\x50\x2a\x4d\x18\0\0\0\0" + zstd_frame(t),
    )
    add("cut", "the catalog's frame ends early", lambda t: zstd_frame(t)[:-1])
    add("window", "the catalog's frame has a window of 128 MiB", _wide)
    add("dictionary", "the catalog's frame names a dictionary", _named)
    add("empty", "no catalog", lambda t: b"")
    cases.spec = "6"
    add("huge", "a catalog of 4 TiB", lambda t: rle_frame(1 << 17), catalog_decoded_size=1 << 42)
    add(
        "bomb",
        "a frame that states 4 GiB",
        lambda t: rle_frame(1000, content_size=(1 << 32) - 1),
        catalog_decoded_size=(1 << 32) - 1,
    )
    return cases.found


def _wide(text: bytes) -> bytes:
    """One raw block behind a frame header with a window of 2^27 bytes."""
    head = b"\x28\xb5\x2f\xfd\x80" + bytes([(27 - 10) << 3]) + len(text).to_bytes(4, "little")
    return head + (1 | len(text) << 3).to_bytes(3, "little") + text


def _named(text: bytes) -> bytes:
    head = b"\x28\xb5\x2f\xfd\xa1\x05" + len(text).to_bytes(4, "little")
    return head + (1 | len(text) << 3).to_bytes(3, "little") + text


def _members() -> list[Broken]:
    cases = Cases("3")

    def add(case: str, reason: str, ordinal: int, **changes: Any) -> None:
        cases.add(f"members-{case}", _FORMAT, reason, lambda p: member(p, ordinal).update(changes))

    add("overlap", "chunk ranges overlap", 1, first_chunk=4, chunk_count=2)
    add("hole", "a chunk between the members' ranges", 1, first_chunk=6, chunk_count=0)
    add("start", "the first range does not start at 0", 0, first_chunk=1, chunk_count=4)
    add("more", "a range goes on after the chunk table", 1, chunk_count=2)
    add("less", "the last chunk belongs to no member", 1, chunk_count=0, size=0)
    add("huge", "a range of 2^63 - 1 chunks", 1, chunk_count=(1 << 63) - 1)
    add("size", "the chunks do not add up to the member's size", 1, size=599)
    cases.add(
        "members-order",
        _FORMAT,
        "members not in the order of their chunks",
        lambda p: p.catalog["members"].reverse(),
    )
    cases.add("members-none", _FORMAT, "chunks, but no members", _no_members)
    cases.add(
        "members-sha256",
        "Damage",
        "a member's SHA-256 is wrong",
        lambda p: member(p, 1).update(sha256="0" * 64),
    )
    return cases.found


def _no_members(parts: Parts) -> None:
    parts.records = [record for record in parts.records if record.kind != MEMBER]
    parts.catalog |= {"members": [], "tensors": []}


def _tensors() -> list[Broken]:
    cases = Cases("3")

    def add(case: str, reason: str, ordinal: int, **changes: Any) -> None:
        cases.add(f"tensors-{case}", _FORMAT, reason, lambda p: tensor(p, ordinal).update(changes))

    add("no-member", "a tensor of a member that does not exist", 2, member=2)
    add("other-member", "a tensor of a member that does not have its chunks", 2, member=1)
    add("name-twice", "two tensors of a member with one name", 2, name="w")
    add("longer", "a tensor ends after its member", 2, size=1 << 40)
    add("wraps", "a tensor ends after 2^63", 2, offset=(1 << 63) - 1)
    add("size", "a tensor's chunks do not add up to its size", 2, size=99, row_size=99)
    add("offset", "a tensor starts elsewhere than its chunks", 2, offset=1089, size=100)
    add("empty", "a tensor without chunks that has a size", 0, size=1, offset=63)
    add("overlap", "tensors overlap", 2, offset=576, size=512, first_chunk=2, chunk_count=1)
    add("no-chunks", "a tensor that leaves its chunks to no one", 2, chunk_count=0, size=0)
    add("far", "a tensor's chunks lie after the chunk table", 2, first_chunk=1 << 40)
    add("mixed", "a tensor whose chunks are verbatim", 2, offset=1188, size=256, first_chunk=4)
    cases.add("tensors-order", _FORMAT, "tensors not in the order of their offsets", _reverse)
    cases.add(
        "tensors-ordinal",
        _FORMAT,
        "a chunk of a tensor that does not exist",
        put(nth(3), tensor=3),
    )
    cases.add("tensors-other", _FORMAT, "a chunk of another tensor", put(nth(3), tensor=1))
    cases.add(
        "tensors-verbatim",
        _FORMAT,
        "a verbatim chunk that names a tensor",
        put(nth(4), tensor=2),
    )
    return cases.found


def _reverse(parts: Parts) -> None:
    parts.catalog["tensors"].reverse()
    for record, ordinal in [(chunk(parts, 1), 1), (chunk(parts, 2), 1), (chunk(parts, 3), 0)]:
        record.fields["tensor"] = ordinal


def _rows() -> list[Broken]:
    cases = Cases("3")

    def add(name: str, reason: str, row_size: int, chunk_size: int = 512) -> None:
        def edit(parts: Parts) -> None:
            tensor(parts, 1)["row_size"] = row_size
            parts.catalog["chunk_size"] = chunk_size

        cases.add(f"rows-{name}", _FORMAT, reason, edit)

    add("none", "rows of no bytes in a tensor that has data", 0)
    add("split", "a chunk starts inside of a row", 384)
    add("whole", "a chunk starts inside of the tensor's only row", 1024, 1024)
    cases.add("rows-block", _FORMAT, "a chunk starts inside of a block of its layout", _split_block)
    return cases.found


def _split_block(parts: Parts) -> None:
    """Rows above the chunk size; the second chunk starts at 510 and has blocks of 4 bytes."""
    first, second = chunk(parts, 1), chunk(parts, 2)
    data = bytes(1024)
    head, tail = whole(data[:510]), data[510:-2]
    recode(first, head.payload, head.data, transform=1, layout=0)
    plane = len(tail) // 4
    recode(second, streams_payload([zstd(bytes(plane))] * 4), tail)
    second.fields["offset"] = 574
    last = Record(dict(first.fields, offset=1086), b"")
    recode(last, b"\0\0", b"\0\0", transform=0)
    parts.records.insert(parts.records.index(second) + 1, last)
    parts.catalog["chunk_size"] = 100
    tensor(parts, 1).update(chunk_count=3)
    tensor(parts, 2)["first_chunk"] += 1
    member(parts)["chunk_count"] += 1
    member(parts, 1)["first_chunk"] += 1
    member(parts)["sha256"] = _sha(data)


def _sha(rows: bytes) -> str:
    content = noise("header", 64) + rows + noise("s", 100) + noise("tail", 256)
    return hashlib.sha256(content).hexdigest()
