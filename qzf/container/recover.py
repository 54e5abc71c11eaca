"""Rebuilding the index of a container that lost its end, by a scan (spec, section 7)."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from qzf.container import payload
from qzf.container.catalog import Catalog, MemberEntry, TensorEntry, parse_manifest
from qzf.container.index import Index, build_index
from qzf.container.names import check_names, name_fault, tensor_file
from qzf.container.reader import located
from qzf.errors import FormatError, QzfError, UnsupportedError
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
from qzf.format.tables import CHUNKS, SECTIONS, ChunkEntry, EntryTable, SectionEntry
from qzf.format.wire import IndexHead, RecordHeader, parse_header, parse_record_header, xxh3
from qzf.limits import MAX_CATALOG, MAX_CHUNK, MIB
from qzf.model import Extent, MemberSpec, PipelineSpec
from qzf.storage import ByteSource
from qzf.transforms.layouts import BY_ID

__all__ = ["Recovered", "recover_index"]

#: Bytes searched at a time for the next record header.
_STEP: Final = MIB
_TRANSFORMS = {transform.value: transform.name.lower() for transform in Transform}


@dataclass(frozen=True, slots=True)
class _Found:
    at: int
    header: RecordHeader


@dataclass(frozen=True, slots=True)
class Recovered:
    """An index rebuilt by a scan, and in words what is lost."""

    index: Index
    lost: tuple[str, ...]


def recover_index(source: ByteSource) -> Recovered:
    """The index of the chunks that a scan of ``source`` finds; nothing is read after the records.

    A member of which chunks are missing is replaced by its whole tensors, each a member of its own
    (``NAME.recovered/TENSOR.bin``). Raises ``FormatError`` if nothing is whole. Members have no SHA-256, and
    pipelines name no codecs.
    """
    chunks: dict[int, dict[int, _Found]] = {}
    manifests: dict[int, _Found] = {}
    builder = _Builder()
    for record in _scan(source, _salt(source)):
        header = record.header
        # of two records that claim the same thing the first counts
        if header.kind == Kind.CHUNK:
            chunks.setdefault(header.member, {}).setdefault(header.offset, record)
        elif header.kind == Kind.TABLE:
            builder.tables.setdefault(header.tensor, record)
        elif header.kind == Kind.MEMBER:
            manifests.setdefault(header.member, record)
    for ordinal in sorted(chunks.keys() | manifests.keys()):
        try:
            spec = _manifest(source, manifests[ordinal])
        except (KeyError, QzfError):  # costs its member, not the others
            builder.lost.append(f"member {ordinal}: its manifest is gone, and with it its name")
            continue
        builder.add_found(spec, manifests[ordinal], chunks.get(ordinal, {}))
    return builder.finish(source)


def _salt(source: ByteSource) -> int | None:
    """The salt in the header; None where the header is lost, and the first record's counts."""
    try:
        return parse_header(source.read(0, min(HEADER_SIZE, source.size))).salt
    except UnsupportedError:
        raise
    except QzfError:
        return None


class _Window:
    """Reads ahead, so that searching every 64 bytes reads none twice."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._at, self._data = source, 0, b""

    def header(self, at: int) -> RecordHeader | None:
        """The record header at ``at``; None where there is no valid one."""
        place = at - self._at
        if not 0 <= place <= len(self._data) - RECORD_HEADER_SIZE:
            self._at, place = at, 0
            self._data = self._source.read(at, min(_STEP, self._source.size - at))
        if not self._data.startswith(RECORD_MAGIC, place):
            return None
        try:
            return parse_record_header(self._data[place : place + RECORD_HEADER_SIZE])
        except QzfError:
            return None


def _scan(source: ByteSource, salt: int | None) -> list[_Found]:
    found, at, window = [], HEADER_SIZE, _Window(source)
    while at + RECORD_HEADER_SIZE <= source.size:
        header = window.header(at)
        if header is not None and salt is None:
            salt = header.salt
        if header is None or header.salt != salt:
            at += ALIGNMENT
            continue
        if at + RECORD_HEADER_SIZE + header.stored_size > source.size:
            break  # the record that was cut
        found.append(_Found(at, header))
        at += RECORD_HEADER_SIZE + pad64(header.stored_size)
    return found


def _manifest(source: ByteSource, record: _Found) -> MemberSpec:
    header, at = record.header, record.at + RECORD_HEADER_SIZE
    if not header.stored_size <= header.decoded_size <= MAX_CATALOG:
        raise FormatError("a manifest is above the limit", file=source.name, offset=record.at)
    data = payload.decode(
        header.transform,
        header.layout,
        memoryview(source.read(at, header.stored_size)),
        header.decoded_size,
        payload.no_table,
    )
    if xxh3(data) != header.decoded_xxh3:
        raise FormatError("a manifest does not match its XXH3", file=source.name, offset=record.at)
    return parse_manifest(bytes(data))


def _section(record: _Found, ident: int) -> SectionEntry:
    h = record.header
    sizes = (h.stored_size, h.decoded_size, h.stored_xxh3, h.decoded_xxh3)
    return SectionEntry(h.kind, h.transform, h.layout, ident, record.at, *sizes, bytes(32))


def _cover(found: dict[int, _Found], extent: Extent) -> list[_Found] | None:
    """The chunks, by their offset in the member, that cover ``extent``; None if one is missing."""
    chosen, at = [], extent.offset
    while at < extent.end:
        piece = found.get(at)
        if piece is None or not 1 <= piece.header.decoded_size <= MAX_CHUNK:
            return None
        if piece.header.stored_size > piece.header.decoded_size:
            return None
        chosen.append(piece)
        at += piece.header.decoded_size
    return chosen if at == extent.end else None


class _Builder:
    """Collects what is whole, counting members and tensors anew."""

    def __init__(self) -> None:
        self.tables: dict[int, _Found] = {}
        self.lost: list[str] = []
        self._sections: list[SectionEntry] = []
        self._entries: list[ChunkEntry] = []
        self._members: list[MemberEntry] = []
        self._tensors: list[TensorEntry] = []

    def add_found(self, spec: MemberSpec, manifest: _Found, found: dict[int, _Found]) -> None:
        """Add the member if it is whole, else its whole tensors."""
        records = _cover(found, Extent(0, spec.size))
        if records is not None:
            self._add(spec, manifest, records)
            return
        saved = 0
        for tensor in spec.tensors:
            records = _cover(found, tensor.extent)
            name = f"{spec.name}.recovered/{tensor_file(tensor.name)}"
            if records and name_fault(name) is None:
                alone = tensor._replace(extent=Extent(0, tensor.extent.size))
                self._add(MemberSpec(name, spec.kind, tensor.extent.size, (alone,)), manifest, records)
                saved += 1
        self.lost.append(f"{spec.name}: not whole; {saved} of its {len(spec.tensors)} tensors are")

    def _add(self, spec: MemberSpec, manifest: _Found, records: list[_Found]) -> None:
        first, ordinal = len(self._entries), len(self._members)
        offsets = list(accumulate((record.header.decoded_size for record in records), initial=0))
        owners = [NO_TENSOR] * len(records)
        for tensor in spec.tensors:
            start = bisect_left(offsets, tensor.extent.offset, hi=len(records))
            stop = bisect_left(offsets, tensor.extent.end, lo=start, hi=len(records))
            stop = stop if tensor.extent.size else start
            owners[start:stop] = [len(self._tensors)] * (stop - start)
            pipeline = _pipeline(records[start:stop])
            self._tensors.append(TensorEntry.of(tensor, ordinal, first + start, stop - start, pipeline))
        self._entries += [_entry(*pair) for pair in zip(records, owners, strict=True)]
        self._sections.append(_section(manifest, ordinal))
        count = len(records)
        self._members.append(MemberEntry(spec.name, spec.kind, spec.size, None, first, count, spec.metadata))

    def finish(self, source: ByteSource) -> Recovered:
        """The index; raises ``FormatError`` where there is nothing to put in it."""
        with located(file=source.name):
            if not self._members:
                raise FormatError("nothing can be recovered: no member and no tensor is whole")
            check_names([member.name for member in self._members])
            sections = [*self._sections, *(_section(record, key) for key, record in self.tables.items())]
            catalog = Catalog("qzf recovery", 0, "unknown", tuple(self._members), tuple(self._tensors))
            index = build_index(
                IndexHead(len(self._entries), len(sections), 0, 0, 0),
                EntryTable(CHUNKS, memoryview(CHUNKS.pack(self._entries))),
                EntryTable(SECTIONS, memoryview(SECTIONS.pack(sections))),
                catalog,
                source.size,
            )
        return Recovered(index, tuple(self.lost))


def _entry(record: _Found, tensor: int) -> ChunkEntry:
    h = record.header
    return ChunkEntry(
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


def _pipeline(records: list[_Found]) -> PipelineSpec:
    used = max((record.header for record in records), key=lambda header: header.transform, default=None)
    if used is None:
        return PipelineSpec("stored", None, ())
    layout = BY_ID[used.layout].name if used.layout in BY_ID else None
    return PipelineSpec(_TRANSFORMS.get(used.transform, "unknown"), layout, ())
