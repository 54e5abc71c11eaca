"""Broken containers: member names and manifests (spec, sections 3.1 and 3.2)."""

from __future__ import annotations

import json
from typing import Any

from tools.vectors.broken import Broken, Cases, Edit, coded, manifest, member, put, recode
from tools.vectors.parts import Parts, Record, json_bytes, raw, streams_payload, zstd

__all__ = ["member_cases"]

_FORMAT = "FormatError"


def member_cases() -> list[Broken]:
    """All cases of sections 3.1 and 3.2."""
    return [*_names(), *_manifests()]


def _names() -> list[Broken]:
    cases = Cases("3.1")

    def add(name: str, reason: str, value: str, other: str | None = None) -> None:
        def edit(parts: Parts) -> None:
            member(parts)["name"] = value
            if other is not None:
                member(parts, 1)["name"] = other

        cases.add(f"name-{name}", _FORMAT, reason, edit)

    add("empty", "an empty name", "")
    add("parent", "a way out of the folder", "../x")
    add("parent-inside", "a way out of the folder, later", "a/../../x")
    add("parent-last", "a folder as a name", "a/..")
    add("dot", "a component '.'", "./x")
    add("absolute", "an absolute path", "/etc/passwd")
    add("slash-last", "an empty last component", "folder/")
    add("slash-twice", "an empty component", "a//b")
    add("backslash", "a backslash", "..\\x")
    add("nul", "NUL", "a\0b")
    add("control", "a control character", "a\x1b[2Jb")
    add("newline", "a line feed", "a\nb")
    add("delete", "U+007F", "a\x7f")
    add("drive", "a colon in the second place", "C:x")
    add("colon", "a colon", "model:q4")
    add("dot-last", "a component that ends in a dot", "folder./x")
    add("space-last", "a component that ends in a space", "a /b")
    add("component", "a component of 256 bytes", "a/" + "x" * 256)
    add("component-utf8", "a component of 258 bytes in 86 characters", "\u6a21" * 86)
    add("long", "a name of 4,097 bytes", "/".join(["x" * 240] * 16 + ["x" * 241]))
    add("twice", "two members with one name", "same", "same")
    add("folder", "a member that is the folder of another", "a", "a/b/c")
    add("folder-before", "a member in a folder that is another member", "a/b/c", "a/b")
    return cases.found


def _second(parts: Parts) -> Record:
    return manifest(parts, 1)


def _manifests() -> list[Broken]:
    cases = Cases("3.2")

    def add(name: str, reason: str, edit: Edit, error: str = "Damage") -> None:
        cases.add(f"manifest-{name}", error, reason, edit, keep_manifests=True)

    def says(ordinal: int, key: str, value: Any) -> Edit:
        def edit(parts: Parts) -> None:
            found = json.loads(manifest(parts, ordinal).payload)
            found[key] = value
            _rewrite(manifest(parts, ordinal), json_bytes(found))

        return edit

    for key, value in [("name", "other"), ("kind", "gguf"), ("size", 601), ("metadata", {"a": 1})]:
        add(key, f"manifest and catalog differ on the member's {key}", says(1, key, value))
    for name, value in [("float", 1.0), ("true", True), ("missing", None)]:
        add(f"metadata-{name}", "metadata is 1 in the catalog and something else here", _metadata_says(value))
    add("tensors", "a manifest without the tensors of the catalog", says(0, "tensors", []))
    for key, value in [("name", "v"), ("dtype", "I32"), ("shape", [256]), ("row_size", 512)]:
        add(f"tensor-{key}", f"manifest and catalog differ on a tensor's {key}", _tensor_says(key, value))
    add("json", "a manifest that is not JSON", coded(_second, b"{", b"{"))
    add(
        "key-twice",
        "a manifest with a key twice",
        lambda p: _rewrite(_second(p), _twice(_second(p).payload)),
    )
    add("swapped", "the members' manifests are exchanged", _exchange)
    cases.spec = "4.1"
    add("table", "a manifest's payload names a table", _with_table)
    add("fields", "a manifest with transform 2", _with_fields, _FORMAT)
    add("grown", "a manifest's payload is larger than its content", _grown, _FORMAT)
    add("empty", "a manifest of no bytes", coded(_second, b"", b""), _FORMAT)
    add(
        "large",
        "a manifest of 256 MiB and a byte",
        put(_second, transform=1, decoded_size=(1 << 28) + 1),
        _FORMAT,
    )
    return cases.found


def _rewrite(record: Record, text: bytes) -> None:
    recode(record, text, text)


def _metadata_says(value: Any) -> Edit:
    """The catalog has ``{"a": 1}``, the manifest this value; None: no such key."""

    def edit(parts: Parts) -> None:
        member(parts, 1)["metadata"] = {"a": 1}
        found = json.loads(_second(parts).payload)
        found["metadata"] = {} if value is None else {"a": value}
        _rewrite(_second(parts), json_bytes(found))

    return edit


def _tensor_says(key: str, value: Any) -> Edit:
    def edit(parts: Parts) -> None:
        found = json.loads(manifest(parts).payload)
        found["tensors"][1][key] = value
        _rewrite(manifest(parts), json_bytes(found))

    return edit


def _twice(text: bytes) -> bytes:
    return text.replace(b'"size":600', b'"size":600,"size":600')


def _exchange(parts: Parts) -> None:
    first, second = manifest(parts), manifest(parts, 1)
    first.fields, second.fields = second.fields, first.fields
    first.payload, second.payload = second.payload, first.payload
    first.fields["member"], second.fields["member"] = 0, 1


def _with_table(parts: Parts) -> None:
    found = manifest(parts)
    text = found.payload
    recode(found, streams_payload([zstd(text, 19)], [3]), text, transform=1)


def _with_fields(parts: Parts) -> None:
    """Padded to whole numbers, so that only the transform is at fault."""
    found = manifest(parts)
    text = found.payload + b" " * (-len(found.payload) % 2)
    planes = [text[0::2], text[1::2]]
    coded = streams_payload([min((raw(p), zstd(p, 19)), key=lambda s: len(s.body)) for p in planes])
    recode(found, coded, text, transform=2, layout=1)
    found.entry["layout"] = 1


def _grown(parts: Parts) -> None:
    found = manifest(parts, 1)
    text = found.payload
    recode(found, streams_payload([raw(text)]), text, transform=1)
