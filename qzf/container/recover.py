"""Rebuilding the index of a container that lost its end, by a scan (spec, section 7)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from qzf.container import payload
from qzf.container.catalog import Catalog, MemberEntry, TensorEntry, check_names, parse_manifest
from qzf.container.index import Index, build_index
from qzf.errors import ChunkError, FormatError, QzfError, UnsupportedError
from qzf.format.ids import (
    ALIGNMENT,
    HEADER_SIZE,
    NO_TENSOR,
    RECORD_HEADER_SIZE,
    RECORD_MAGIC,
    Kind,
    Transform,
    pad64,
)
from qzf.format.tables import CHUNK_DTYPE, SECTION_DTYPE
from qzf.format.wire import IndexHead, RecordHeader, parse_header, parse_record_header, xxh3
from qzf.limits import MAX_CATALOG, MAX_CHUNK, MIB
from qzf.model import MemberSpec, PipelineSpec
from qzf.storage import ByteSource
from qzf.transforms.layouts import BY_ID

__all__ = ["recover_index"]

#: Bytes searched at a time for the next record header.
_STEP = MIB
_TRANSFORMS = {transform.value: transform.name.lower() for transform in Transform}


@dataclass(frozen=True, slots=True)
class _Found:
    at: int
    header: RecordHeader


def recover_index(source: ByteSource) -> Index:
    """The index of the chunks that a scan of ``source`` finds; nothing is read after the records.

    A member whose chunks are not all there is left out; if none is whole, ``FormatError`` is raised. Members
    have no SHA-256, and pipelines name no codecs.
    """
    found = _scan(source, _salt(source))
    chunks: dict[int, list[_Found]] = {}
    specs: dict[int, tuple[_Found, MemberSpec]] = {}
    tables: dict[int, tuple[object, ...]] = {}
    for record in found:
        header = record.header
        if header.kind == Kind.CHUNK:
            chunks.setdefault(header.member, []).append(record)
        elif header.kind == Kind.TABLE:
            tables.setdefault(header.tensor, _section(record, header.tensor))
        elif header.kind == Kind.MEMBER and header.member not in specs:
            with suppress(QzfError):  # a damaged manifest costs its member, not the others
                specs[header.member] = record, _manifest(source, record)
    sections = list(tables.values())
    return _assemble(source, specs, chunks, sections)


def _salt(source: ByteSource) -> int | None:
    """The salt in the header; None where the header is lost, and the first record's counts."""
    try:
        return parse_header(source.read(0, min(HEADER_SIZE, source.size))).salt
    except UnsupportedError:
        raise
    except QzfError:
        return None


def _scan(source: ByteSource, salt: int | None) -> list[_Found]:
    found, at = [], HEADER_SIZE
    while at + RECORD_HEADER_SIZE <= source.size:
        try:
            header = parse_record_header(source.read(at, RECORD_HEADER_SIZE))
        except QzfError:
            at = _next_magic(source, at + ALIGNMENT)
            continue
        salt = header.salt if salt is None else salt
        if header.salt != salt:
            at = _next_magic(source, at + ALIGNMENT)
            continue
        if at + RECORD_HEADER_SIZE + header.stored_size > source.size:
            break  # the record that was cut
        found.append(_Found(at, header))
        at += RECORD_HEADER_SIZE + pad64(header.stored_size)
    return found


def _next_magic(source: ByteSource, at: int) -> int:
    """The next multiple of 64 from ``at`` on where a record may start, or the source's size."""
    while at < source.size:
        data = source.read(at, min(_STEP, source.size - at))
        for place in range(0, len(data), ALIGNMENT):
            if data.startswith(RECORD_MAGIC, place):
                return at + place
        at += _STEP
    return source.size


def _manifest(source: ByteSource, record: _Found) -> MemberSpec:
    header, at = record.header, record.at + RECORD_HEADER_SIZE
    if header.decoded_size > MAX_CATALOG:
        raise FormatError("a manifest is above the limit", file=source.name, offset=record.at)
    data = payload.decode(
        header.transform,
        header.layout,
        memoryview(source.read(at, header.stored_size)),
        header.decoded_size,
        _no_table,
    )
    if xxh3(data) != header.decoded_xxh3:
        raise FormatError("a manifest does not match its XXH3", file=source.name, offset=record.at)
    return parse_manifest(bytes(data))


def _no_table(table_id: int) -> bytes:
    raise ChunkError("a manifest cannot use a shared table")


def _section(record: _Found, ident: int) -> tuple[object, ...]:
    h = record.header
    sizes = (h.stored_size, h.decoded_size, h.stored_xxh3, h.decoded_xxh3)
    return (h.kind, h.transform, h.layout, ident, record.at, *sizes, bytes(32))


def _whole(spec: MemberSpec, records: list[_Found]) -> list[_Found] | None:
    """The member's chunks in order if they cover it, else None. Of chunks at one place the first counts."""
    by_offset: dict[int, _Found] = {}
    for record in records:
        by_offset.setdefault(record.header.offset, record)
    chosen, at = [], 0
    while at < spec.size:
        piece = by_offset.get(at)
        if piece is None or not 1 <= piece.header.decoded_size <= MAX_CHUNK:
            return None
        if piece.header.stored_size > piece.header.decoded_size:
            return None
        chosen.append(piece)
        at += piece.header.decoded_size
    return chosen if at == spec.size else None


def _assemble(
    source: ByteSource,
    specs: dict[int, tuple[_Found, MemberSpec]],
    chunks: dict[int, list[_Found]],
    sections: list[tuple[object, ...]],
) -> Index:
    entries: list[tuple[object, ...]] = []
    members: list[MemberEntry] = []
    tensors: list[TensorEntry] = []
    for ordinal in sorted(specs):
        manifest, spec = specs[ordinal]
        records = _whole(spec, chunks.get(ordinal, []))
        if records is None:
            continue
        first, base = len(entries), len(tensors)
        tensors += _tensors(spec, len(members), records, first)
        # Ordinals count anew, since members may be missing.
        lowest = min((r.header.tensor for r in records if r.header.tensor != NO_TENSOR), default=0)
        filled = next((i for i, t in enumerate(spec.tensors) if t.extent.size), 0)
        shift = base + filled - lowest
        sections.append(_section(manifest, len(members)))
        entries += [_entry(record, shift) for record in records]
        members.append(MemberEntry(spec.name, spec.kind, spec.size, None, first, len(records), spec.metadata))
    if not members:
        raise FormatError("no member can be recovered whole", file=source.name)
    check_names([member.name for member in members])
    catalog = Catalog("qzf recovery", 0, "unknown", tuple(members), tuple(tensors))
    head = IndexHead(len(entries), len(sections), 0, 0, 0)
    return build_index(
        head, np.array(entries, CHUNK_DTYPE), np.array(sections, SECTION_DTYPE), catalog, source.size
    )


def _entry(record: _Found, shift: int) -> tuple[object, ...]:
    h = record.header
    # hostile ordinals must not overflow: the index's own check finds them wrong
    tensor = h.tensor if h.tensor == NO_TENSOR else min(h.tensor + shift, NO_TENSOR - 1)
    return (
        record.at,
        h.stored_size,
        h.decoded_size,
        tensor,
        h.transform,
        0,
        h.layout,
        h.stored_xxh3,
        h.decoded_xxh3,
        bytes(32),
    )


def _tensors(spec: MemberSpec, member: int, records: list[_Found], first: int) -> list[TensorEntry]:
    entries, at = [], 0
    for tensor in spec.tensors:
        while at < len(records) and records[at].header.offset < tensor.extent.offset:
            at += 1
        start = at
        while at < len(records) and records[at].header.offset < tensor.extent.end:
            at += 1
        used = max((r.header for r in records[start:at]), key=lambda h: h.transform, default=None)
        layout = BY_ID[used.layout].name if used is not None and used.layout in BY_ID else None
        transform = _TRANSFORMS.get(used.transform, "unknown") if used is not None else "stored"
        entries.append(
            TensorEntry(
                tensor.name,
                tensor.dtype,
                tensor.shape,
                member,
                tensor.extent,
                tensor.row_size,
                first + start,
                at - start,
                PipelineSpec(transform, layout, ()),
            )
        )
    return entries
