"""The index: chunk table, section table and catalog, parsed and checked against each other.

Whatever stands here was checked (spec, sections 2.3 and 3), so that the rest of the package can rely on
it: offsets lie before the index, sizes are within limits, chunk ranges of members and tensors fit.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Final, NamedTuple, NoReturn

from qzf.codecs.registry import codec
from qzf.container.catalog import Catalog, MemberEntry, TensorEntry, parse_catalog
from qzf.errors import ChunkError, FormatError
from qzf.format.ids import (
    ALIGNMENT,
    HEADER_SIZE,
    INDEX_HEAD_SIZE,
    NO_TENSOR,
    OPTIONAL_KIND,
    RECORD_HEADER_SIZE,
    Codec,
    Kind,
    Transform,
)
from qzf.format.tables import CHUNKS, SECTIONS, ChunkEntry, EntryTable, SectionEntry
from qzf.format.wire import IndexHead, parse_index_head
from qzf.limits import MAX_CATALOG, MAX_CHUNK, MAX_MEMBER, MAX_TABLE, MAX_TABLES
from qzf.transforms.layouts import BY_ID

__all__ = ["Index", "build_index", "parse_index"]

Chunks = EntryTable[ChunkEntry]
Sections = EntryTable[SectionEntry]

#: The kinds of sections that readers know, and the most bytes that one may decode to.
_LARGEST: Final = {int(Kind.TABLE): MAX_TABLE, int(Kind.MEMBER): MAX_CATALOG}
#: As a plain number, which compares faster.
_STORED: Final = int(Transform.STORED)


@dataclass(frozen=True)
class Index:
    """What a container holds and where.

    ``starts`` has one entry more than ``chunks``: the running sum of decoded sizes, so that the offset of
    chunk i in its member is ``starts[i]`` less ``starts`` at the member's first chunk. ``end`` is where
    records end.
    """

    head: IndexHead
    chunks: Chunks
    sections: Sections
    catalog: Catalog
    starts: array[int]
    end: int

    @property
    def members(self) -> tuple[MemberEntry, ...]:
        return self.catalog.members

    @property
    def tensors(self) -> tuple[TensorEntry, ...]:
        return self.catalog.tensors

    @cached_property
    def tables(self) -> dict[int, int]:
        """Positions in ``sections`` of the shared tables, by id."""
        entries = enumerate(self.sections)
        return {entry.id: position for position, entry in entries if entry.kind == Kind.TABLE}

    @cached_property
    def _member_ends(self) -> list[int]:
        return [member.first_chunk + member.chunk_count for member in self.members]

    def tensors_of(self, member: int) -> tuple[TensorEntry, ...]:
        """The tensors of a member, by its ordinal; the catalog has them in that order."""
        first = bisect_left(self.tensors, member, key=lambda tensor: tensor.member)
        last = bisect_right(self.tensors, member, lo=first, key=lambda tensor: tensor.member)
        return self.tensors[first:last]

    def member_of(self, chunk: int) -> int:
        """Ordinal of the member that chunk ``chunk`` belongs to."""
        return bisect_right(self._member_ends, chunk)

    def member_offset(self, chunk: int) -> int:
        """Offset in its member of the bytes that chunk ``chunk`` decodes to."""
        return self.place(chunk)[1]

    def place(self, chunk: int) -> tuple[int, int]:
        """The member that chunk ``chunk`` belongs to, and the offset in it of what the chunk decodes to."""
        member = self.member_of(chunk)
        return member, self.starts[chunk] - self.starts[self.members[member].first_chunk]


def parse_index(data: memoryview, end: int) -> Index:
    """The index in ``data``, the payload of the index record that starts at offset ``end``."""
    if len(data) < INDEX_HEAD_SIZE:
        raise FormatError("the index is smaller than its head")
    head = parse_index_head(bytes(data[:INDEX_HEAD_SIZE]))
    chunks_at = INDEX_HEAD_SIZE
    sections_at = chunks_at + head.chunk_count * CHUNKS.size
    catalog_at = sections_at + head.section_count * SECTIONS.size
    if catalog_at + head.catalog_stored_size != len(data):
        raise FormatError("the parts of the index do not add up to its size")
    chunks = EntryTable(CHUNKS, data[chunks_at:sections_at])
    sections = EntryTable(SECTIONS, data[sections_at:catalog_at])
    catalog = parse_catalog(_inflate(data[catalog_at:], head.catalog_decoded_size))
    index = build_index(head, chunks, sections, catalog, end)
    _check_overlap(chunks, sections)
    return index


def build_index(head: IndexHead, chunks: Chunks, sections: Sections, catalog: Catalog, end: int) -> Index:
    """Put an index together from its parts, checking all that readers rely on."""
    columns = _check_chunks(chunks, end)
    _check_sections(sections, end)
    starts = array("Q", accumulate(columns.sizes, initial=0))
    _check_members(catalog, starts)
    _check_manifests(catalog, columns, sections)
    _check_tensors(catalog, columns, starts)
    return Index(head, chunks, sections, catalog, starts, end)


def _inflate(data: memoryview, size: int) -> bytes:
    if size > MAX_CATALOG:
        raise FormatError(f"a catalog of {size} bytes is above the limit of {MAX_CATALOG}")
    out = memoryview(bytearray(size))
    try:
        return bytes(codec(Codec.ZSTD).decode(data, out, None))
    except ChunkError as error:
        raise FormatError(f"the catalog cannot be decoded: {error.message}") from error


def _require(good: bool, message: str) -> None:
    if not good:
        raise FormatError(message)


class _Columns(NamedTuple):
    """Of each chunk: where it stands, what it decodes to, and whose it is."""

    offsets: array[int]
    sizes: array[int]
    tensors: array[int]
    layouts: array[int]


def _check_chunks(chunks: Chunks, end: int) -> _Columns:
    columns = _Columns(array("Q"), array("I"), array("I"), array("H"))
    last = end - RECORD_HEADER_SIZE
    for offset, stored, decoded, tensor, transform, reserved, layout, stored_xxh3, decoded_xxh3, _ in chunks:
        if offset % ALIGNMENT or offset < HEADER_SIZE or offset + stored > last:
            _refuse_place(offset, "chunk")
        if reserved:
            raise FormatError("reserved bytes of the chunk table are not zero")
        if not 1 <= decoded <= MAX_CHUNK:
            raise FormatError(f"a chunk's decoded size is not from 1 to {MAX_CHUNK}")
        if stored > decoded:
            raise FormatError("a chunk is larger than its decoded bytes")
        if transform == _STORED and (stored != decoded or stored_xxh3 != decoded_xxh3):
            raise FormatError("a stored chunk's sizes or checksums differ")
        columns.offsets.append(offset)
        columns.sizes.append(decoded)
        columns.tensors.append(tensor)
        columns.layouts.append(layout)
    return columns


def _refuse_place(offset: int, what: str) -> NoReturn:
    _require(offset % ALIGNMENT == 0, f"a {what} does not start at a multiple of {ALIGNMENT}")
    _require(offset >= HEADER_SIZE, f"a {what} lies in the header")
    raise FormatError(f"a {what} reaches into the index")


def _check_sections(sections: Sections, end: int) -> None:
    last, tables = end - RECORD_HEADER_SIZE, 0
    seen: set[tuple[int, int]] = set()
    for section in sections:
        offset = section.offset
        if offset % ALIGNMENT or offset < HEADER_SIZE or offset + section.stored_size > last:
            _refuse_place(offset, "section")
        _require(section.layout == 0, "a section has a layout")
        if section.kind >= OPTIONAL_KIND:
            _check_optional(section)
            continue
        _check_known(section)
        if (section.kind, section.id) in seen:
            raise FormatError(f"two {Kind(section.kind).name.lower()} records share an id")
        seen.add((section.kind, section.id))
        tables += section.decoded_size if section.kind == Kind.TABLE else 0
    _require(tables <= MAX_TABLES, f"all tables together are above {MAX_TABLES} bytes")


def _check_optional(section: SectionEntry) -> None:
    _require(section.decoded_size == 0, "reserved bytes of an optional section's entry are not zero")
    same = section.stored_xxh3 == section.decoded_xxh3
    _require(same, "an optional section's checksums differ")


def _check_known(section: SectionEntry) -> None:
    limit = _LARGEST.get(section.kind)
    if limit is None:
        raise FormatError("the section table has an unknown kind that is not optional")
    name = Kind(section.kind).name.lower()
    coded = section.transform > Transform.NONE
    _require(not coded, "a table or manifest has a transform other than 0 and 1")
    _require(section.decoded_size <= limit, f"a {name} record is above {limit} bytes")
    _require(section.decoded_size > 0, f"a {name} record is empty")
    _require(section.stored_size <= section.decoded_size, f"a {name} record has grown")


def _check_overlap(chunks: Chunks, sections: Sections) -> None:
    """That no two records share bytes: else a small file could claim to decode to any size."""
    others = sorted((entry.offset, entry.stored_size) for entry in sections)
    if _follow_each_other(chunks, others):
        return
    # As no writer leaves them: by place, then.
    places = sorted([*others, *((entry.offset, entry.stored_size) for entry in chunks)])
    for (offset, size), (following, _) in pairwise(places):
        if offset + RECORD_HEADER_SIZE + size > following:
            raise FormatError("two records overlap")


def _follow_each_other(chunks: Chunks, others: list[tuple[int, int]]) -> bool:
    """Whether chunks follow each other in their order, and the other records, in theirs, stand between."""
    end, waiting = 0, [*others, (MAX_MEMBER, 0)]
    waiting.reverse()
    for offset, stored, *_ in chunks:
        while waiting[-1][0] <= offset:
            place, size = waiting.pop()
            if place < end:
                return False
            end = place + RECORD_HEADER_SIZE + size
        if offset < end:
            return False
        end = offset + RECORD_HEADER_SIZE + stored
    for place, size in reversed(waiting):
        if place < end:
            return False
        end = place + RECORD_HEADER_SIZE + size
    return True


def _check_manifests(catalog: Catalog, columns: _Columns, sections: Sections) -> None:
    """That each member has one manifest, and that it precedes the member's chunks."""
    places = {entry.id: entry.offset for entry in sections if entry.kind == Kind.MEMBER}
    _require(places.keys() == set(range(len(catalog.members))), "members and manifests do not match")
    for ordinal, member in enumerate(catalog.members):
        ours = columns.offsets[member.first_chunk : member.first_chunk + member.chunk_count]
        if min(ours, default=places[ordinal]) < places[ordinal]:
            raise FormatError("a manifest stands behind a chunk of its member", member=member.name)


def _check_members(catalog: Catalog, starts: array[int]) -> None:
    chunk, count = 0, len(starts) - 1
    for member in catalog.members:
        if member.first_chunk != chunk or member.chunk_count > count - chunk:
            raise FormatError("the chunk ranges of the members do not follow each other", member=member.name)
        chunk += member.chunk_count
        if starts[chunk] - starts[member.first_chunk] != member.size:
            raise FormatError("the chunks of a member do not add up to its size", member=member.name)
    if chunk != count:
        raise FormatError("chunks follow that belong to no member")


def _check_tensors(catalog: Catalog, columns: _Columns, starts: array[int]) -> None:
    owners = array("I", [NO_TENSOR]) * len(columns.tensors)
    previous, names = (-1, 0), set[tuple[int, str]]()
    for ordinal, tensor in enumerate(catalog.tensors):
        name = tensor.name
        if tensor.member >= len(catalog.members):
            raise FormatError("a tensor belongs to no member", tensor=name)
        member, first = catalog.members[tensor.member], tensor.first_chunk
        last = first + tensor.chunk_count
        if not (member.first_chunk <= first and last <= member.first_chunk + member.chunk_count):
            raise FormatError("a tensor's chunks are not among its member's", tensor=name)
        if (tensor.member, tensor.extent.offset) < previous:
            raise FormatError("tensors overlap or are out of order", tensor=name)
        previous = (tensor.member, tensor.extent.end)
        if tensor.extent.end > member.size:
            raise FormatError("a tensor leaves its member", tensor=name)
        at, size = starts[first] - starts[member.first_chunk], starts[last] - starts[first]
        if size != tensor.extent.size or (size and at != tensor.extent.offset):
            raise FormatError("a tensor's chunks do not cover its extent", tensor=name)
        _check_rows(tensor, starts[first:last], columns.layouts[first:last], catalog.chunk_size)
        if (tensor.member, tensor.name) in names:
            raise FormatError("two tensors of a member share a name", tensor=name)
        names.add((tensor.member, tensor.name))
        owners[first:last] = array("I", [ordinal]) * (last - first)
    _require(owners == columns.tensors, "the chunk table and the catalog disagree on a chunk's tensor")


def _check_rows(tensor: TensorEntry, starts: array[int], layouts: array[int], chunk_size: int) -> None:
    """That chunks start at rows or, where a row is larger than chunks were meant to be, at blocks of their
    layout (spec, section 3)."""
    row = tensor.row_size
    if tensor.extent.size and not row:
        raise FormatError("a tensor with data has rows of no size", tensor=tensor.name)
    if len(starts) < 2:
        return
    first = starts[0]
    if row <= chunk_size:
        if any((start - first) % row for start in starts):
            raise FormatError("a chunk does not start at a row of its tensor", tensor=tensor.name)
        return
    for start, layout in zip(starts, layouts, strict=True):
        if layout in BY_ID and (start - first) % BY_ID[layout].block:
            raise FormatError("a chunk does not start at a block of its layout", tensor=tensor.name)
