"""The catalog and the manifests: JSON <-> named tuples, checked rule by rule (spec, section 3)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from qzf.container.names import check_names
from qzf.errors import FormatError
from qzf.limits import (
    MAX_CATALOG,
    MAX_CATALOG_VALUES,
    MAX_DIMS,
    MAX_ELEMENTS,
    MAX_MEMBER,
    MAX_METADATA_DEPTH,
)
from qzf.model import Extent, MemberSpec, PipelineSpec, TensorSpec

__all__ = [
    "Catalog",
    "MemberEntry",
    "TensorEntry",
    "dump_catalog",
    "dump_manifest",
    "parse_catalog",
    "parse_manifest",
]

#: Without these JSON has neither half of a surrogate pair nor an integer out of range: an escape of one, and
#: 19 digits in a row, which are looked for with all digits made noughts; a pattern takes ten times as long.
_ESCAPE: Final = re.compile(rb"\\u[dD]")
_DIGITS: Final = bytes(ord("0") if chr(byte) in "0123456789" else 32 for byte in range(256))
_LONG: Final = b"0" * 19


class MemberEntry(NamedTuple):
    """A member as the catalog has it. ``sha256`` is in hexadecimal, None after a recovery."""

    name: str
    kind: str
    size: int
    sha256: str | None
    first_chunk: int
    chunk_count: int
    metadata: Mapping[str, Any]


class TensorEntry(NamedTuple):
    """A tensor as the catalog has it; ``member`` is an ordinal."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    member: int
    extent: Extent
    row_size: int
    first_chunk: int
    chunk_count: int
    pipeline: PipelineSpec
    scheme: str | None = None

    @classmethod
    def of(
        cls, tensor: TensorSpec, member: int, first_chunk: int, chunk_count: int, pipeline: PipelineSpec
    ) -> TensorEntry:
        """The entry of a tensor whose chunks are known."""
        return cls(
            tensor.name,
            tensor.dtype,
            tensor.shape,
            member,
            tensor.extent,
            tensor.row_size,
            first_chunk,
            chunk_count,
            pipeline,
            tensor.scheme,
        )


class Catalog(NamedTuple):
    generator: str
    chunk_size: int
    level: str
    members: tuple[MemberEntry, ...]
    tensors: tuple[TensorEntry, ...]


# --- writing --------------------------------------------------------------------------------------


def _dump(value: object, what: str) -> bytes:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    _check_size(data, what)
    return data


def _tensor_json(tensor: TensorSpec | TensorEntry) -> dict[str, Any]:
    entry = {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "offset": tensor.extent.offset,
        "size": tensor.extent.size,
        "row_size": tensor.row_size,
    }
    return entry if tensor.scheme is None else entry | {"scheme": tensor.scheme}


def dump_manifest(member: MemberSpec) -> bytes:
    """The JSON of a member's manifest record."""
    return _dump(
        {
            "name": member.name,
            "kind": member.kind,
            "size": member.size,
            "metadata": member.metadata,
            "tensors": [_tensor_json(tensor) for tensor in member.tensors],
        },
        "manifest",
    )


def dump_catalog(catalog: Catalog) -> bytes:
    """The JSON of the catalog."""
    members = [
        {
            "name": m.name,
            "kind": m.kind,
            "size": m.size,
            "sha256": m.sha256,
            "first_chunk": m.first_chunk,
            "chunk_count": m.chunk_count,
            "metadata": m.metadata,
        }
        for m in catalog.members
    ]
    tensors = [
        _tensor_json(t)
        | {
            "member": t.member,
            "first_chunk": t.first_chunk,
            "chunk_count": t.chunk_count,
            "pipeline": {
                "transform": t.pipeline.transform,
                "layout": t.pipeline.layout,
                "codecs": list(t.pipeline.codecs),
            },
        }
        for t in catalog.tensors
    ]
    return _dump(
        {
            "generator": catalog.generator,
            "chunk_size": catalog.chunk_size,
            "level": catalog.level,
            "members": members,
            "tensors": tensors,
        },
        "catalog",
    )


# --- reading --------------------------------------------------------------------------------------


def _check_size(data: bytes, what: str) -> None:
    values = sum(data.count(mark) for mark in b",:[{")
    if len(data) > MAX_CATALOG or values > MAX_CATALOG_VALUES:
        raise FormatError(f"the {what} has {len(data)} bytes and {values} values, which is above the limit")


def _check_metadata(value: object, depth: int = 0) -> None:
    """Hold metadata against the limit of nesting (spec, section 3.3)."""
    if depth > MAX_METADATA_DEPTH:
        raise FormatError(f"metadata is nested deeper than {MAX_METADATA_DEPTH}")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_metadata(item, depth + 1)


def _reject(constant: str) -> object:
    raise FormatError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise FormatError("a JSON text has a number that is not finite")
    return value


def _load(data: bytes, what: str) -> dict[str, Any]:
    _check_size(data, what)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise FormatError(f"the {what} has a key twice")
        return found

    try:
        value = json.loads(
            data.decode(), object_pairs_hook=unique, parse_float=_finite, parse_constant=_reject
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the {what} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"the {what} is not a JSON object")
    if _ESCAPE.search(data) or _LONG in data.translate(_DIGITS):
        _check_json(value)
    return value


def _check_json(value: object) -> None:
    """Hold all of a JSON value against spec, section 1; what nobody reads as well."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and not _is_unicode(item):
            raise FormatError("a JSON text has half of a surrogate pair")
        elif isinstance(item, int) and not -(1 << 63) <= item < 1 << 64:
            raise FormatError("a JSON text has an integer that is not from -2^63 to 2^64 - 1")


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or (not value.isascii() and not _is_unicode(value)):
        raise FormatError(f"catalog key {key!r} is no text")
    return value


def _scheme(entry: Mapping[str, Any]) -> str | None:
    """The optional key; None where it is absent, or no text and so as good as absent."""
    value = entry.get("scheme")
    return value if isinstance(value, str) and _is_unicode(value) else None


def _is_unicode(text: str) -> bool:
    """Whether ``text`` is free of halves of surrogate pairs, which JSON can escape but UTF-8 cannot hold."""
    return not any(0xD800 <= ord(c) < 0xE000 for c in text)


def _int(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    if type(value) is not int or not 0 <= value <= MAX_MEMBER:
        raise FormatError(f"catalog key {key!r} is no integer from 0 to 2^63 - 1")
    return value


def _objects(entry: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = entry.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise FormatError(f"catalog key {key!r} is no list of objects")
    return value


def _object(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key)
    if not isinstance(value, dict):
        raise FormatError(f"catalog key {key!r} is no object")
    return value


def _metadata(entry: Mapping[str, Any]) -> dict[str, Any]:
    value = _object(entry, "metadata")
    _check_metadata(value)
    return value


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    value = entry.get("shape")
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n <= MAX_MEMBER for n in value):
        raise FormatError("catalog key 'shape' is no list of integers from 0 to 2^63 - 1")
    if len(value) > MAX_DIMS or math.prod(n for n in value if n) > MAX_ELEMENTS:
        raise FormatError(f"a shape has more than {MAX_DIMS} dimensions, or their product is 2^60 or more")
    return tuple(value)


def _extent(entry: Mapping[str, Any]) -> Extent:
    extent = Extent(_int(entry, "offset"), _int(entry, "size"))
    if extent.end > MAX_MEMBER:
        raise FormatError("a tensor ends past 2^63 - 1")
    return extent


def _pipeline(entry: Mapping[str, Any]) -> PipelineSpec:
    value = _object(entry, "pipeline")
    layout, codecs = value.get("layout", 0), value.get("codecs")
    if not (layout is None or isinstance(layout, str)):
        raise FormatError("catalog key 'layout' is neither text nor null")
    if not isinstance(codecs, list) or not all(isinstance(name, str) for name in codecs):
        raise FormatError("catalog key 'codecs' is no list of texts")
    return PipelineSpec(_text(value, "transform"), layout, tuple(codecs))


def _sha256(entry: Mapping[str, Any]) -> str:
    value = _text(entry, "sha256")
    if len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise FormatError("catalog key 'sha256' is no SHA-256 in lower-case hexadecimal")
    return value


def _member(entry: Mapping[str, Any]) -> MemberEntry:
    return MemberEntry(
        _text(entry, "name"),
        _text(entry, "kind"),
        _int(entry, "size"),
        _sha256(entry),
        _int(entry, "first_chunk"),
        _int(entry, "chunk_count"),
        _metadata(entry),
    )


def _tensor(entry: Mapping[str, Any]) -> TensorEntry:
    return TensorEntry(
        _text(entry, "name"),
        _text(entry, "dtype"),
        _shape(entry),
        _int(entry, "member"),
        _extent(entry),
        _int(entry, "row_size"),
        _int(entry, "first_chunk"),
        _int(entry, "chunk_count"),
        _pipeline(entry),
        _scheme(entry),
    )


def parse_catalog(data: bytes) -> Catalog:
    """The catalog in ``data``; what concerns the chunk table is checked by ``container.index``."""
    value = _load(data, "catalog")
    members = tuple(_member(entry) for entry in _objects(value, "members"))
    tensors = tuple(_tensor(entry) for entry in _objects(value, "tensors"))
    check_names([member.name for member in members])
    return Catalog(
        _text(value, "generator"), _int(value, "chunk_size"), _text(value, "level"), members, tensors
    )


def parse_manifest(data: bytes) -> MemberSpec:
    """The member in a manifest record."""
    value = _load(data, "manifest")
    size = _int(value, "size")
    tensors, at = [], 0
    for entry in _objects(value, "tensors"):
        extent = _extent(entry)
        if extent.offset < at or extent.end > size:
            raise FormatError("the tensors of a manifest overlap, are out of order or leave the member")
        at = extent.end
        tensors.append(
            TensorSpec(
                _text(entry, "name"),
                _text(entry, "dtype"),
                _shape(entry),
                extent,
                _int(entry, "row_size"),
                _scheme(entry),
            )
        )
    check_names([_text(value, "name")])
    return MemberSpec(_text(value, "name"), _text(value, "kind"), size, tuple(tensors), _metadata(value))
