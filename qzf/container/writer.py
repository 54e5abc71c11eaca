"""Writing a container in one forward pass, to anything that has ``write`` (spec, section 2).

``encode_chunk`` does the work that can run in parallel; ``ContainerWriter`` puts the results down in
order. The same calls in the same order give the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import zstandard
from xxhash import xxh3_64

from qzf.codecs.base import Bytes
from qzf.container import payload
from qzf.container.catalog import Catalog, MemberEntry, TensorEntry, dump_catalog, dump_manifest
from qzf.container.names import check_names
from qzf.container.payload import Effort, Payload
from qzf.errors import FormatError
from qzf.format.ids import (
    NO_TENSOR,
    RECORD_HEADER_SIZE,
    TRAILER_SIZE,
    Codec,
    Kind,
    Transform,
    pad64,
)
from qzf.format.tables import CHUNKS, SECTIONS, ChunkEntry, SectionEntry
from qzf.format.wire import (
    Header,
    IndexHead,
    RecordHeader,
    Trailer,
    pack_header,
    pack_index_head,
    pack_record_header,
    pack_trailer,
    xxh3,
)
from qzf.limits import MAX_CHUNK, MAX_INDEX, MAX_TABLE, MAX_TABLES
from qzf.model import MemberSpec, PipelineSpec
from qzf.transforms.layouts import BY_ID, Layout
from qzf.transforms.modeled import ChunkModel

__all__ = ["ContainerWriter", "EncodedChunk", "Sink", "container_salt", "encode_chunk"]

#: Catalog and manifest are coded in the calling thread: level 19 saves 5 % more of them and takes 50 times
#: as long.
_CATALOG_LEVEL = 9
_SECTION_EFFORT = Effort(scales=(9,), codes=(9,), whole=(9,))
#: What takes most room in a catalog: no index has more chunks, no pipeline longer names or more streams.
_MOST_CHUNKS = MAX_INDEX // CHUNKS.size
_LONGEST_PIPELINE = PipelineSpec(
    max((transform.name.lower() for transform in Transform), key=len),
    max((layout.name for layout in BY_ID.values()), key=len),
    (max((codec.name.lower() for codec in Codec), key=len),)
    * max(len(layout.widths) for layout in BY_ID.values()),
)


#: Parts up to this size are put together with what is next to them, as a call of the sink takes longer.
_SMALL = 1024
_MOST_WAITING = 1 << 16


class Sink(Protocol):
    """Where a container goes: a file, a pipe, memory."""

    def write(self, data: Bytes, /) -> object: ...


class _Record(NamedTuple):
    """A record ready to be written: its header, payload and what the index says of it."""

    header: RecordHeader
    head: bytes
    parts: tuple[Bytes, ...]
    digest: bytes


class EncodedChunk(NamedTuple):
    """A chunk ready to be written, apart from its place in the file."""

    record: _Record
    codecs: tuple[int, ...]

    @property
    def stored_size(self) -> int:
        """Bytes of the payload."""
        return self.record.header.stored_size


def container_salt(members: Sequence[MemberSpec]) -> int:
    """The salt of a container of these members (spec, section 2.6)."""
    text = "".join(f"{member.name}\n{member.size}\n" for member in members)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def encode_chunk(
    data: Bytes,
    *,
    salt: int,
    member: int,
    tensor: int | None,
    offset: int,
    layout: Layout | None,
    effort: Effort,
    table: tuple[int, bytes] | None = None,
    model: ChunkModel | None = None,
    strings: bool = False,
) -> EncodedChunk:
    """Code the bytes of one chunk, without the GIL for nearly all of the time.

    Keeps no reference to ``data`` unless the chunk is stored. ``salt`` is the writer's, ``member`` and
    ``tensor`` are ordinals (``tensor`` None for verbatim bytes), ``offset`` is the place in the member.
    ``table``, ``model`` and ``strings``: see ``payload.encode``.
    """
    if not 1 <= len(data) <= MAX_CHUNK:
        raise FormatError(f"a chunk of {len(data)} bytes is not from 1 to {MAX_CHUNK}")
    coded = payload.encode(data, layout, effort, table, model, strings=strings)
    record = _record(Kind.CHUNK, coded, data, salt, member, NO_TENSOR if tensor is None else tensor, offset)
    return EncodedChunk(record, coded.codecs)


def _record(
    kind: Kind, coded: Payload, data: Bytes, salt: int, member: int = 0, tensor: int = 0, offset: int = 0
) -> _Record:
    hasher = xxh3_64()
    for part in coded.parts:
        hasher.update(part)
    stored = hasher.intdigest()
    header = RecordHeader(
        kind=kind,
        transform=coded.transform,
        layout=coded.layout,
        member=member,
        tensor=tensor,
        offset=offset,
        stored_size=coded.size,
        decoded_size=0 if kind == Kind.INDEX else len(data),
        salt=salt,
        stored_xxh3=stored,
        decoded_xxh3=stored if coded.transform == Transform.STORED else xxh3(data),
    )
    head = pack_record_header(header)
    digest = hashlib.sha256(head)
    for part in coded.parts:
        digest.update(part)
    return _Record(header, head, coded.parts, digest.digest())


def _largest_catalog(members: Sequence[MemberSpec], generator: str, chunk_size: int, level: str) -> Catalog:
    """The catalog of these members as it will be, with the longest values where they are not known yet."""
    return Catalog(
        generator,
        chunk_size,
        level,
        tuple(
            MemberEntry(m.name, m.kind, m.size, "0" * 64, _MOST_CHUNKS, _MOST_CHUNKS, m.metadata)
            for m in members
        ),
        tuple(
            TensorEntry.of(tensor, ordinal, _MOST_CHUNKS, _MOST_CHUNKS, _LONGEST_PIPELINE)
            for ordinal, member in enumerate(members)
            for tensor in member.tensors
        ),
    )


class _OpenMember:
    def __init__(self, spec: MemberSpec, first_chunk: int) -> None:
        self.spec, self.first_chunk = spec, first_chunk
        self.written = 0


class _TensorUse:
    """The chunks of a tensor so far, to sum up its pipeline."""

    def __init__(self, first_chunk: int) -> None:
        self.first_chunk, self.chunk_count = first_chunk, 0
        self.transform, self.layout = int(Transform.STORED), 0
        self.codecs: list[int] = []

    def add(self, header: RecordHeader, codecs: tuple[int, ...]) -> None:
        self.chunk_count += 1
        if header.transform > self.transform:
            self.transform, self.layout, self.codecs = header.transform, header.layout, list(codecs)
        elif header.transform == self.transform and header.transform != Transform.STORED:
            self.codecs = [max(pair) for pair in zip(self.codecs, codecs, strict=True)]

    def pipeline(self) -> PipelineSpec:
        layout = BY_ID[self.layout].name if self.layout else None
        names = tuple(Codec(used).name.lower() for used in self.codecs)
        return PipelineSpec(Transform(self.transform).name.lower(), layout, names)


class ContainerWriter:
    """Writes records one after another and, at ``close``, index and trailer.

    For each of ``members``, in order, call ``begin_member``, ``write_chunk`` for all its bytes in order, and
    ``end_member``; then ``close``. ``position`` is the number of bytes written so far. Raises
    ``FormatError``, before it writes anything, for member names that cannot stand together and for members
    whose catalog may be above the limits. All calls that write raise ``BlockingIOError`` where the sink is an
    ``io.RawIOBase`` in non-blocking mode that takes nothing now: the container cannot be completed then.
    """

    def __init__(
        self, sink: Sink, members: Sequence[MemberSpec], *, generator: str, chunk_size: int, level: str
    ) -> None:
        check_names([member.name for member in members])
        dump_catalog(_largest_catalog(members, generator, chunk_size, level))  # raises if it is too large
        self.salt = container_salt(members)
        self._sink = sink
        self._specs = tuple(members)
        self._generator, self._chunk_size, self._level = generator, chunk_size, level
        self._chunks: list[ChunkEntry] = []
        self._sections: list[SectionEntry] = []
        self._members: list[MemberEntry] = []
        self._tensors: list[TensorEntry] = []
        self._open: _OpenMember | None = None
        self._uses: dict[int, _TensorUse] = {}
        self._tables = self._table_bytes = 0
        self.position, self._waiting = 0, bytearray()
        self._put(pack_header(Header(self.salt)))

    @property
    def chunk_count(self) -> int:
        return len(self._chunks)

    def add_table(self, content: bytes) -> int:
        """Write a shared table; returns the id by which chunks name it."""
        if not 1 <= len(content) <= MAX_TABLE:
            raise FormatError(f"a table of {len(content)} bytes is not from 1 to {MAX_TABLE}")
        self._table_bytes += len(content)
        if self._table_bytes > MAX_TABLES:
            raise FormatError(f"tables of {self._table_bytes} bytes are above the limit of {MAX_TABLES}")
        table_id, self._tables = self._tables, self._tables + 1
        coded = payload.encode(content, None, _SECTION_EFFORT)
        self._section(_record(Kind.TABLE, coded, content, self.salt, tensor=table_id))
        return table_id

    def begin_member(self) -> int:
        """Write the manifest of the next member; returns its ordinal."""
        ordinal = len(self._members)
        if self._open is not None or ordinal == len(self._specs):
            raise FormatError("a member is still open, or all are written")
        spec = self._specs[ordinal]
        manifest = dump_manifest(spec)
        coded = payload.encode(manifest, None, _SECTION_EFFORT)
        self._section(_record(Kind.MEMBER, coded, manifest, self.salt, member=ordinal))
        self._open = _OpenMember(spec, len(self._chunks))
        self._uses = {}
        return ordinal

    def write_chunk(self, chunk: EncodedChunk) -> None:
        """Write the next chunk of the open member."""
        header = chunk.record.header
        member = self._open
        if member is None or header.member != len(self._members) or header.offset != member.written:
            raise FormatError("chunks must follow each other in their member")
        member.written += header.decoded_size
        if header.tensor != NO_TENSOR:
            use = self._uses.setdefault(header.tensor, _TensorUse(len(self._chunks)))
            use.add(header, chunk.codecs)
        self._chunks.append(
            ChunkEntry(
                self.position,
                header.stored_size,
                header.decoded_size,
                header.tensor,
                header.transform,
                0,
                header.layout,
                header.stored_xxh3,
                header.decoded_xxh3,
                chunk.record.digest,
            )
        )
        self._write_record(chunk.record)

    def end_member(self, sha256: str) -> None:
        """Close the member; ``sha256`` is that of all its bytes, in hexadecimal."""
        member = self._open
        if member is None or member.written != member.spec.size:
            raise FormatError("a member must be covered by its chunks")
        spec, ordinal = member.spec, len(self._members)
        chunk = member.first_chunk
        for tensor in spec.tensors:
            use = self._uses.get(len(self._tensors), _TensorUse(chunk))
            chunk = use.first_chunk + use.chunk_count
            self._tensors.append(
                TensorEntry.of(tensor, ordinal, use.first_chunk, use.chunk_count, use.pipeline())
            )
        count = len(self._chunks) - member.first_chunk
        self._members.append(
            MemberEntry(spec.name, spec.kind, spec.size, sha256, member.first_chunk, count, spec.metadata)
        )
        self._open = None

    def close(self) -> bytes:
        """Write index and trailer; returns the container digest (32 bytes)."""
        if self._open is not None or len(self._members) != len(self._specs):
            raise FormatError("not all members are written")
        catalog = dump_catalog(
            Catalog(
                self._generator, self._chunk_size, self._level, tuple(self._members), tuple(self._tensors)
            )
        )
        packed = zstandard.ZstdCompressor(level=_CATALOG_LEVEL, write_checksum=False).compress(catalog)
        head = IndexHead(len(self._chunks), len(self._sections), len(packed), len(catalog), self.salt)
        body = b"".join(
            [
                pack_index_head(head),
                CHUNKS.pack(self._chunks),
                SECTIONS.pack(self._sections),
                packed,
            ]
        )
        if len(body) > MAX_INDEX - RECORD_HEADER_SIZE:
            raise FormatError(f"an index of {len(body)} bytes is above the limit of {MAX_INDEX}")
        record = _record(Kind.INDEX, Payload(Transform.STORED, 0, (body,), len(body), ()), body, self.salt)
        at, size = self.position, RECORD_HEADER_SIZE + len(body)
        self._write_record(record)
        self._put(pack_trailer(Trailer(at, size, at + pad64(size) + TRAILER_SIZE, record.digest)))
        self._flush()
        return record.digest

    def _section(self, record: _Record) -> None:
        header = record.header
        ours = header.tensor if header.kind == Kind.TABLE else header.member
        self._sections.append(
            SectionEntry(
                header.kind,
                header.transform,
                0,
                ours,
                self.position,
                header.stored_size,
                header.decoded_size,
                header.stored_xxh3,
                header.decoded_xxh3,
                record.digest,
            )
        )
        self._write_record(record)

    def _write_record(self, record: _Record) -> None:
        self._put(
            record.head, *record.parts, bytes(pad64(record.header.stored_size) - record.header.stored_size)
        )

    def _put(self, *parts: Bytes) -> None:
        """Write these one behind the other; small ones wait, to be put together with what follows."""
        for part in parts:
            self.position += len(part)
            if len(part) <= _SMALL:
                self._waiting += part
                continue
            self._flush()
            self._write(part)
        if len(self._waiting) > _MOST_WAITING:
            self._flush()

    def _flush(self) -> None:
        self._write(self._waiting)
        self._waiting = bytearray()

    def _write(self, data: Bytes) -> None:
        rest = memoryview(data)
        while rest:
            # An unbuffered file may take a part only and says how much; other sinks take all.
            written = self._sink.write(rest)
            if written is None and isinstance(self._sink, io.RawIOBase):
                raise BlockingIOError(errno.EAGAIN, "the sink is non-blocking and takes nothing now")
            rest = rest[written:] if isinstance(written, int) else rest[:0]
