"""Checks of a container that go beyond what reading it needs (spec, sections 2 and 3).

Each function looks at one thing and returns the damage found, so that the caller can run them in
parallel, in any order, and report all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from xxhash import xxh3_64

from qzf.container.catalog import parse_manifest
from qzf.container.reader import ContainerReader
from qzf.errors import QzfError
from qzf.format.ids import HEADER_SIZE, RECORD_HEADER_SIZE, TRAILER_SIZE, Kind, pad64
from qzf.format.wire import parse_header, parse_record_header
from qzf.limits import MIB

__all__ = ["Damage", "check_chunk", "check_header", "check_padding", "check_section", "damaged_chunk"]


#: Bytes of a section that are read at a time.
_PIECE: Final = MIB


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong. ``what`` is ``header``, ``chunk``, ``section``, ``padding``, ``member`` or
    ``container``; ``offset`` and ``size`` are the byte range in the container. For a chunk or member
    ``member_offset`` and ``member_size`` are the range of the original file that is affected.
    """

    what: str
    message: str
    offset: int | None = None
    size: int | None = None
    member: str | None = None
    tensor: str | None = None
    chunk: int | None = None
    member_offset: int | None = None
    member_size: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def check_header(reader: ContainerReader) -> list[Damage]:
    """The container's first 64 bytes, and that they agree with the index."""
    try:
        header = parse_header(reader.source.read(0, HEADER_SIZE))
    except QzfError as error:
        return [Damage("header", error.message, 0, HEADER_SIZE)]
    head = reader.index.head
    if (header.salt, header.version, header.required_features) != (
        head.salt,
        head.version,
        head.required_features,
    ):
        return [Damage("header", "header and index disagree on salt, version or features", 0, HEADER_SIZE)]
    return []


def check_chunk(reader: ContainerReader, chunk: int, record: memoryview) -> list[Damage]:
    """A chunk's record as stored: header, XXH3, SHA-256, and that they agree with the index."""
    faults = _record_faults(
        [record], reader.index.chunks[chunk].digest, reader.expected_header(chunk)._asdict()
    )
    return [damaged_chunk(reader, chunk, "; ".join(faults))] if faults else []


def damaged_chunk(reader: ContainerReader, chunk: int, message: str) -> Damage:
    """The report of a bad chunk, with all its coordinates."""
    entry, where = reader.index.chunks[chunk], reader.where(chunk)
    return Damage(
        "chunk",
        message,
        entry.offset,
        RECORD_HEADER_SIZE + entry.stored_size,
        where["member"],
        where["tensor"],
        chunk,
        reader.index.member_offset(chunk),
        entry.decoded_size,
    )


def check_section(reader: ContainerReader, position: int) -> list[Damage]:
    """A table, manifest or optional section: as stored and, where it is known, decoded."""
    entry = reader.index.sections[position]
    at, size = entry.offset, RECORD_HEADER_SIZE + entry.stored_size
    # In pieces: the size of an optional section has no bound but the file's.
    pieces = (
        memoryview(reader.source.read(start, min(_PIECE, at + size - start)))
        for start in range(at, at + size, _PIECE)
    )
    faults = _record_faults(pieces, entry.digest, reader.expected_section_header(entry))
    if not faults and entry.kind in (Kind.TABLE, Kind.MEMBER):
        try:
            content = reader.decode_section(position, reader.read_section(position))
            if entry.kind == Kind.MEMBER:
                faults = _manifest_faults(reader, entry.id, bytes(content))
        except QzfError as error:
            faults = [error.message]
    return [Damage("section", "; ".join(faults), at, size)] if faults else []


def _manifest_faults(reader: ContainerReader, ordinal: int, content: bytes) -> list[str]:
    spec = parse_manifest(content)
    if ordinal >= len(reader.index.members):
        return ["the manifest belongs to no member"]
    member = reader.index.members[ordinal]
    tensors = [(t.name, t.dtype, t.shape, t.extent, t.row_size) for t in spec.tensors]
    catalog = [(t.name, t.dtype, t.shape, t.extent, t.row_size) for t in reader.index.tensors_of(ordinal)]
    same = (spec.name, spec.kind, spec.size) == (member.name, member.kind, member.size)
    # As JSON, in which 1, 1.0 and true are three values.
    same = same and _json(spec.metadata) == _json(member.metadata)
    return [] if same and tensors == catalog else ["the manifest disagrees with the catalog"]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _record_faults(pieces: Iterable[memoryview], digest: bytes, expected: dict[str, int]) -> list[str]:
    """What is wrong with a record, given its SHA-256 and what the index says of its header.

    The first of ``pieces`` holds all of the header.
    """
    sha256, xxh3, faults = hashlib.sha256(), xxh3_64(), list[str]()
    for number, piece in enumerate(pieces):
        sha256.update(piece)
        xxh3.update(piece if number else piece[RECORD_HEADER_SIZE:])
        if number == 0:
            try:
                header = parse_record_header(piece)
            except QzfError as error:
                return [error.message]
            differing = [name for name, value in expected.items() if getattr(header, name) != value]
            if differing:
                faults.append(f"record header and index disagree on {', '.join(differing)}")
    if xxh3.intdigest() != expected["stored_xxh3"]:
        faults.append("the stored bytes do not match their XXH3")
    if sha256.digest() != digest:
        faults.append("the record does not match its SHA-256")
    return faults


def check_padding(reader: ContainerReader) -> list[Damage]:
    """That records follow each other without gap, and that padding is zero; overlap is found at opening."""
    index, source = reader.index, reader.source
    places = sorted(
        (entry.offset, entry.stored_size) for table in (index.chunks, index.sections) for entry in table
    )
    damage, at = [], HEADER_SIZE
    for offset, stored in [*places, (index.end, None)]:
        if offset != at:
            damage.append(Damage("container", "no record covers these bytes", at, offset - at))
        size = reader.trailer.index_size if stored is None else RECORD_HEADER_SIZE + stored
        end, at = offset + size, offset + pad64(size)
        if at > end and any(source.read(end, at - end)):
            damage.append(Damage("padding", "padding bytes are not zero", end, at - end))
    if at + TRAILER_SIZE != source.size:
        damage.append(Damage("container", "the trailer does not follow the index", at, source.size - at))
    return damage
