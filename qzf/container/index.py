"""The index: chunk table, section table and catalog, parsed and checked against each other.

Whatever stands here was checked (spec, sections 2.3 and 3), so that the rest of the package can rely on
it: offsets lie before the index, sizes are within limits, chunk ranges of members and tensors fit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from qzf.codecs.registry import codec
from qzf.container.catalog import Catalog, MemberEntry, TensorEntry, parse_catalog
from qzf.errors import ChunkError, FormatError
from qzf.format.ids import (
    HEADER_SIZE,
    INDEX_HEAD_SIZE,
    NO_TENSOR,
    OPTIONAL_KIND,
    RECORD_HEADER_SIZE,
    Codec,
    Kind,
    Transform,
)
from qzf.format.tables import CHUNK_DTYPE, SECTION_DTYPE, ChunkEntry, SectionEntry, Table
from qzf.format.wire import IndexHead, parse_index_head
from qzf.limits import MAX_CATALOG, MAX_CHUNK, MAX_TABLE, MAX_TABLES
from qzf.transforms.layouts import BY_ID

__all__ = ["Index", "build_index", "parse_index"]

_U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Index:
    """What a container holds and where.

    ``chunks`` and ``sections`` are structured arrays (``CHUNK_DTYPE``, ``SECTION_DTYPE``). ``starts`` has
    one entry more than ``chunks``: the running sum of decoded sizes, so that the offset of chunk i in its
    member is ``starts[i]`` less ``starts`` at the member's first chunk. ``end`` is where records end.
    """

    head: IndexHead
    chunks: Table
    sections: Table
    catalog: Catalog
    starts: _U64
    end: int

    @property
    def members(self) -> tuple[MemberEntry, ...]:
        return self.catalog.members

    @property
    def tensors(self) -> tuple[TensorEntry, ...]:
        return self.catalog.tensors

    def chunk(self, ordinal: int) -> ChunkEntry:
        """An entry of the chunk table; much faster than its fields one by one."""
        return ChunkEntry(*self.chunks[ordinal].item())

    def section(self, position: int) -> SectionEntry:
        """An entry of the section table."""
        return SectionEntry(*self.sections[position].item())

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
        first = self.members[self.member_of(chunk)].first_chunk
        return int(self.starts[chunk]) - int(self.starts[first])


def parse_index(data: memoryview, end: int) -> Index:
    """The index in ``data``, the payload of the index record that starts at offset ``end``."""
    if len(data) < INDEX_HEAD_SIZE:
        raise FormatError("the index is smaller than its head")
    head = parse_index_head(bytes(data[:INDEX_HEAD_SIZE]))
    chunks_at = INDEX_HEAD_SIZE
    sections_at = chunks_at + head.chunk_count * CHUNK_DTYPE.itemsize
    catalog_at = sections_at + head.section_count * SECTION_DTYPE.itemsize
    if catalog_at + head.catalog_stored_size != len(data):
        raise FormatError("the parts of the index do not add up to its size")
    chunks = np.frombuffer(data[chunks_at:sections_at], CHUNK_DTYPE)
    sections = np.frombuffer(data[sections_at:catalog_at], SECTION_DTYPE)
    catalog = parse_catalog(_inflate(data[catalog_at:], head.catalog_decoded_size))
    index = build_index(head, chunks, sections, catalog, end)
    _check_overlap(chunks, sections)
    return index


def build_index(head: IndexHead, chunks: Table, sections: Table, catalog: Catalog, end: int) -> Index:
    """Put an index together from its parts, checking all that readers rely on."""
    _check_chunks(chunks, end)
    _check_sections(sections, end)
    starts = np.zeros(len(chunks) + 1, np.uint64)
    np.cumsum(chunks["decoded_size"], out=starts[1:], dtype=np.uint64)
    _check_members(catalog, starts)
    _check_manifests(catalog, chunks, sections)
    _check_tensors(catalog, chunks, starts)
    return Index(head, chunks, sections, catalog, starts, end)


def _inflate(data: memoryview, size: int) -> bytes:
    if size > MAX_CATALOG:
        raise FormatError(f"a catalog of {size} bytes is above the limit of {MAX_CATALOG}")
    out = np.empty(size, np.uint8).data
    try:
        return bytes(codec(Codec.ZSTD).decode(data, out, None))
    except ChunkError as error:
        raise FormatError(f"the catalog cannot be decoded: {error.message}") from error


def _require(good: Any, message: str) -> None:
    if not np.all(good):
        raise FormatError(message)


def _check_places(offsets: _U64, sizes: _U64, end: int, what: str) -> None:
    _require(offsets % 64 == 0, f"a {what} does not start at a multiple of 64")
    _require(offsets >= HEADER_SIZE, f"a {what} lies in the header")
    # compared by subtraction: hostile values would overflow a sum
    limit = np.uint64(max(end - RECORD_HEADER_SIZE, 0))
    fits = (offsets <= limit) & (sizes <= limit) & (offsets <= limit - np.minimum(sizes, limit))
    _require(fits, f"a {what} reaches into the index")


def _check_chunks(chunks: Table, end: int) -> None:
    _check_places(chunks["offset"], chunks["stored_size"].astype(np.uint64), end, "chunk")
    _require(chunks["reserved"] == 0, "reserved bytes of the chunk table are not zero")
    _require(
        (chunks["decoded_size"] >= 1) & (chunks["decoded_size"] <= MAX_CHUNK),
        f"a chunk's decoded size is not from 1 to {MAX_CHUNK}",
    )
    _require(chunks["stored_size"] <= chunks["decoded_size"], "a chunk is larger than its decoded bytes")
    plain = chunks["transform"] == Transform.STORED
    same = (chunks["stored_size"] == chunks["decoded_size"]) & (
        chunks["stored_xxh3"] == chunks["decoded_xxh3"]
    )
    _require(~plain | same, "a stored chunk's sizes or checksums differ")


def _check_sections(sections: Table, end: int) -> None:
    _check_places(sections["offset"], sections["stored_size"], end, "section")
    kinds = sections["kind"]
    known = (kinds == Kind.TABLE) | (kinds == Kind.MEMBER) | (kinds >= OPTIONAL_KIND)
    _require(known, "the section table has an unknown kind that is not optional")
    _require(sections["layout"] == 0, "a section has a layout")
    coded = (kinds < OPTIONAL_KIND) & (sections["transform"] > Transform.NONE)
    _require(~coded, "a table or manifest has a transform other than 0 and 1")
    optional = sections[kinds >= OPTIONAL_KIND]
    _require(optional["decoded_size"] == 0, "reserved bytes of an optional section's entry are not zero")
    _require(optional["stored_xxh3"] == optional["decoded_xxh3"], "an optional section's checksums differ")
    for kind, limit in ((Kind.TABLE, MAX_TABLE), (Kind.MEMBER, MAX_CATALOG)):
        ours = sections[kinds == kind]
        _require(ours["decoded_size"] <= limit, f"a {kind.name.lower()} record is above {limit} bytes")
        _require(ours["decoded_size"] > 0, f"a {kind.name.lower()} record is empty")
        _require(ours["stored_size"] <= ours["decoded_size"], f"a {kind.name.lower()} record has grown")
        _require(np.diff(np.sort(ours["id"])) != 0, f"two {kind.name.lower()} records share an id")

    tables = sections[kinds == Kind.TABLE]
    _require(tables["decoded_size"].sum() <= MAX_TABLES, f"all tables together are above {MAX_TABLES} bytes")


def _check_overlap(chunks: Table, sections: Table) -> None:
    """That no two records share bytes: else a small file could claim to decode to any size."""
    offsets = np.concatenate([chunks["offset"], sections["offset"]])
    sizes = np.concatenate([chunks["stored_size"].astype(np.uint64), sections["stored_size"]])
    order = np.argsort(offsets, kind="stable")
    ends = offsets[order] + sizes[order] + np.uint64(RECORD_HEADER_SIZE)
    _require(ends[:-1] <= offsets[order][1:], "two records overlap")


def _check_manifests(catalog: Catalog, chunks: Table, sections: Table) -> None:
    """That each member has one manifest, and that it precedes the member's chunks."""
    places = {int(m["id"]): int(m["offset"]) for m in sections[sections["kind"] == Kind.MEMBER]}
    _require(places.keys() == set(range(len(catalog.members))), "members and manifests do not match")
    for ordinal, member in enumerate(catalog.members):
        ours = chunks["offset"][member.first_chunk : member.first_chunk + member.chunk_count]
        if len(ours) and int(ours.min()) < places[ordinal]:
            raise FormatError("a manifest stands behind a chunk of its member", member=member.name)


def _check_members(catalog: Catalog, starts: _U64) -> None:
    chunk, count = 0, len(starts) - 1
    for member in catalog.members:
        if member.first_chunk != chunk or member.chunk_count > count - chunk:
            raise FormatError("the chunk ranges of the members do not follow each other", member=member.name)
        chunk += member.chunk_count
        if int(starts[chunk]) - int(starts[member.first_chunk]) != member.size:
            raise FormatError("the chunks of a member do not add up to its size", member=member.name)
    if chunk != count:
        raise FormatError("chunks follow that belong to no member")


def _check_tensors(catalog: Catalog, chunks: Table, starts: _U64) -> None:
    owner = np.full(len(chunks), NO_TENSOR, np.uint32)
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
        at = int(starts[first]) - int(starts[member.first_chunk])
        size = int(starts[last]) - int(starts[first])
        if size != tensor.extent.size or (size and at != tensor.extent.offset):
            raise FormatError("a tensor's chunks do not cover its extent", tensor=name)
        _check_rows(tensor, starts[first:last], chunks["layout"][first:last], catalog.chunk_size)
        if (tensor.member, tensor.name) in names:
            raise FormatError("two tensors of a member share a name", tensor=name)
        names.add((tensor.member, tensor.name))
        owner[first:last] = ordinal
    _require(owner == chunks["tensor"], "the chunk table and the catalog disagree on a chunk's tensor")


def _check_rows(tensor: TensorEntry, starts: _U64, layouts: npt.NDArray[np.uint16], chunk_size: int) -> None:
    """That chunks start at rows or, where a row is larger than chunks were meant to be, at blocks of their
    layout (spec, section 3)."""
    if tensor.extent.size and not tensor.row_size:
        raise FormatError("a tensor with data has rows of no size", tensor=tensor.name)
    if len(starts) > 1 and tensor.row_size <= chunk_size and np.any((starts - starts[0]) % tensor.row_size):
        raise FormatError("a chunk does not start at a row of its tensor", tensor=tensor.name)
    if len(starts) > 1 and tensor.row_size > chunk_size:
        for layout in (BY_ID[i] for i in np.unique(layouts).tolist() if i in BY_ID):
            if np.any((starts - starts[0])[layouts == layout.wire_id] % layout.block):
                raise FormatError("a chunk does not start at a block of its layout", tensor=tensor.name)
