"""Reading a container from its end, and any chunk of it on its own (spec, sections 2 and 4).

A reader is safe to use from many threads: all reads are positional, and shared tables are loaded once.
Errors carry file, offset, and where known member, tensor and chunk.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, Final

from qzf.container import payload
from qzf.container.index import Index, parse_index
from qzf.container.spans import MAX_SPAN, Record, extent, group
from qzf.errors import ChecksumError, ChunkError, DamageError, FormatError, QzfError, TruncatedError
from qzf.format.ids import (
    END_MAGIC,
    FILE_MAGIC,
    HEADER_SIZE,
    NO_TENSOR,
    RECORD_HEADER_SIZE,
    TRAILER_SIZE,
    Kind,
    Transform,
    pad64,
)
from qzf.format.tables import ChunkEntry, SectionEntry
from qzf.format.wire import RecordHeader, Trailer, parse_record_header, parse_trailer, xxh3
from qzf.limits import MAX_INDEX, MAX_MODELS_KEPT, TAIL_READ
from qzf.parallel import ForkSafeLock
from qzf.scratch import scratch
from qzf.storage import ByteSource, Span
from qzf.transforms.modeled import SharedTable

__all__ = ["ContainerReader", "located"]

#: As a plain number: looking up a member of an enumeration takes its time.
_CHUNK: Final = int(Kind.CHUNK)
#: Transforms whose chunks name shared tables.
_BY_TABLES: Final = {int(Transform.QUANT), int(Transform.VALUES)}


@contextmanager
def located(**where: Any) -> Iterator[None]:
    """Add coordinates (file, offset, member, tensor, chunk) to a ``QzfError`` that lacks them."""
    try:
        yield
    except QzfError as error:
        for key, value in where.items():
            if getattr(error, key) is None:
                setattr(error, key, value)
        raise


class ContainerReader:
    """An open container: its index, and decoding of single chunks.

    Opening takes one read of the last 64 KiB, and a second one if the index is larger. Raises
    ``FormatError`` for what is no valid container, ``ChecksumError`` where trailer or index do not match
    their checksums, or ``digest`` (32 bytes, if given) is not the container's.
    """

    def __init__(self, source: ByteSource, digest: bytes | None = None) -> None:
        self.source = source
        self._tables: dict[int, tuple[int, SharedTable]] = {}
        self._recent: dict[int, SharedTable] = {}
        self._lock = ForkSafeLock()
        #: With a trusted digest each record is held against the index's SHA-256, not only its XXH3.
        self.authenticated = digest is not None
        #: An index that was rebuilt counts members and tensors anew, so record headers may differ from it.
        self.recovered = False
        #: What a recovery could not rebuild, in words.
        self.lost: tuple[str, ...] = ()
        with located(file=source.name):
            self.trailer, record = _read_tail(source)
            self.index = _parse_tail(self.trailer, record, digest)

    @classmethod
    def from_index(cls, source: ByteSource, index: Index, lost: tuple[str, ...]) -> ContainerReader:
        """A reader over an index that was not read from the container's end but rebuilt.

        ``lost`` says what could not be rebuilt.
        """
        reader = cls.__new__(cls)
        reader.source, reader.index = source, index
        reader._tables, reader._recent, reader._lock = {}, {}, ForkSafeLock()
        reader.authenticated, reader.recovered, reader.lost = False, True, lost
        reader.trailer = Trailer(index.end, 0, source.size, bytes(32))
        return reader

    @property
    def digest(self) -> bytes:
        """The container digest, 32 bytes."""
        return self.trailer.container_digest

    # --- chunks -----------------------------------------------------------------------------------

    def where(self, chunk: int) -> dict[str, Any]:
        """The coordinates of a chunk, for errors and reports."""
        entry = self.index.chunks[chunk]
        return {
            "file": self.source.name,
            "offset": entry.offset,
            "member": self.index.members[self.index.member_of(chunk)].name,
            "tensor": None if entry.tensor == NO_TENSOR else self.index.tensors[entry.tensor].name,
            "chunk": chunk,
        }

    def expected_header(self, chunk: int) -> RecordHeader:
        """What the header of a chunk's record must be, by the index."""
        return self._header_of(chunk, self.index.chunks[chunk])

    def _header_of(self, chunk: int, entry: ChunkEntry) -> RecordHeader:
        member, offset = self.index.place(chunk)
        return RecordHeader(
            _CHUNK,
            entry.transform,
            entry.layout,
            member,
            entry.tensor,
            offset,
            entry.stored_size,
            entry.decoded_size,
            self.index.head.salt,
            entry.stored_xxh3,
            entry.decoded_xxh3,
        )

    def record_size(self, chunk: int) -> int:
        """Bytes of a chunk's record: header and payload."""
        return RECORD_HEADER_SIZE + self.index.chunks[chunk].stored_size

    def span(self, chunks: Sequence[int]) -> Span:
        """What holds the records of chunks, of which the first lies first and the last one last."""
        return self.source.span(*extent([self.chunk_record(chunks[0]), self.chunk_record(chunks[-1])]))

    def read_record(self, chunk: int, out: memoryview) -> None:
        """Header and payload of a chunk's record, as stored, to ``out``; nothing is checked."""
        self.source.readinto(self.index.chunks[chunk].offset, out)

    def chunk_record(self, chunk: int) -> Record:
        """Where a chunk's record is."""
        entry = self.index.chunks[chunk]
        return Record(entry.offset, RECORD_HEADER_SIZE + entry.stored_size, chunk, entry.decoded_size)

    def read_chunk(self, chunk: int, out: memoryview | None = None, span: Span | None = None) -> memoryview:
        """The decoded bytes of a chunk, written to ``out`` (of exactly their size) where that is given.

        The record is read from ``span`` where one is given that it lies in. The decoded bytes are held
        against their XXH3. Raises ``ChecksumError`` or ``ChunkError``.
        """
        entry = self.index.chunks[chunk]
        target = memoryview(bytearray(entry.decoded_size)) if out is None else out
        try:
            with scratch(RECORD_HEADER_SIZE + entry.stored_size) as record:
                (span or self.source).readinto(entry.offset, record)
                if not self.recovered and _parsed(record) != self._header_of(chunk, entry):
                    raise ChecksumError("the record's header and the index disagree")
                if self.authenticated and hashlib.sha256(record).digest() != entry.digest:
                    raise ChecksumError("the record does not match its SHA-256 in the index")
                self._decode(entry, record[RECORD_HEADER_SIZE:], target)
        except QzfError as error:
            with located(**self.where(chunk)):
                self._doubt(error)
                raise error
        return target

    def _doubt(self, error: QzfError) -> None:
        """Look whether what seems to be damage in a remote container is that it is another one by now."""
        if self.source.remote and isinstance(error, DamageError | FormatError):
            self.source.check_unchanged()
            error.message += "; the remote object may have changed since it was opened"

    def decode(self, chunk: int, body: memoryview, out: memoryview) -> None:
        """Decode the payload ``body`` of a chunk to ``out`` and hold the result against its XXH3."""
        self._decode(self.index.chunks[chunk], body, out)

    def _decode(self, entry: ChunkEntry, body: memoryview, out: memoryview) -> None:
        def table(table_id: int) -> SharedTable:
            at, content = self._table(table_id)
            if at > entry.offset:
                raise ChunkError(f"the chunk names shared table {table_id}, which stands behind it")
            return content

        payload.decode(entry.transform, entry.layout, body, entry.decoded_size, table, out)
        if xxh3(out) != entry.decoded_xxh3:
            raise ChecksumError("the decoded bytes do not match their XXH3")

    def view_chunk(self, chunk: int) -> memoryview | None:
        """A stored chunk's bytes in place, without a copy and without a check; None if it is coded."""
        entry = self.index.chunks[chunk]
        if entry.transform != Transform.STORED:
            return None
        return self.source.view(entry.offset + RECORD_HEADER_SIZE, entry.stored_size)

    # --- sections ---------------------------------------------------------------------------------

    def read_section(self, position: int) -> memoryview:
        """Header and payload of a section's record, as stored; nothing is checked."""
        entry = self.index.sections[position]
        return memoryview(self.source.read(entry.offset, RECORD_HEADER_SIZE + entry.stored_size))

    def decode_section(self, position: int, record: memoryview) -> memoryview:
        """Decode a table or manifest record and hold it against its checksums."""
        entry = self.index.sections[position]
        if not self.recovered:
            self._check_section_header(entry, _parsed(record))
        if self.authenticated and hashlib.sha256(record).digest() != entry.digest:
            raise ChecksumError("the record does not match its SHA-256 in the index")
        body = record[RECORD_HEADER_SIZE:]
        if xxh3(body) != entry.stored_xxh3:
            raise ChecksumError("the payload does not match its XXH3")
        data = payload.decode(entry.transform, entry.layout, body, entry.decoded_size, payload.no_table)
        if xxh3(data) != entry.decoded_xxh3:
            raise ChecksumError("the decoded bytes do not match their XXH3")
        return data

    def _check_section_header(self, entry: SectionEntry, header: RecordHeader) -> None:
        expected = self.expected_section_header(entry)
        if any(getattr(header, name) != value for name, value in expected.items()):
            raise ChecksumError("the record's header and the index disagree")

    def expected_section_header(self, entry: SectionEntry) -> dict[str, int]:
        """What a section's record header must hold, by the index; other fields are the section's own."""
        names = ("kind", "transform", "layout", "stored_size", "decoded_size", "stored_xxh3", "decoded_xxh3")
        expected = {name: int(getattr(entry, name)) for name in names}
        expected |= {"salt": self.index.head.salt, "tensor": entry.id}
        if entry.kind == Kind.TABLE:
            expected |= {"member": 0, "offset": 0}
        elif entry.kind == Kind.MEMBER:
            expected |= {"member": entry.id, "tensor": 0, "offset": 0}
        return expected

    def _table(self, table_id: int) -> tuple[int, SharedTable]:
        """Place and content of a shared table, loaded when it is first asked for."""
        if len(self._tables) <= MAX_MODELS_KEPT and table_id in self._tables:
            return self._tables[table_id]  # nothing is ever taken out of here
        with self._lock:
            if table_id not in self._tables:
                self._tables[table_id] = self._load_table(table_id)
            found = self._tables[table_id]
            self._recent.pop(table_id, None)
            self._recent[table_id] = found[1]  # the one used last stands last
            if len(self._recent) > MAX_MODELS_KEPT:  # contents are bounded together, what is made of them not
                self._recent.pop(next(iter(self._recent))).forget()
            return found

    def _load_table(self, table_id: int) -> tuple[int, SharedTable]:
        position = self.index.tables.get(table_id)
        if position is None:
            raise ChunkError(f"the chunk names shared table {table_id}, which does not exist")
        at = self.index.sections[position].offset
        with located(file=self.source.name, offset=at):
            if self.source.remote:
                return at, self._load_tables_near(table_id)
            return at, self._table_of(position, self.read_section(position))

    def tables_ahead(self, chunks: Iterable[int]) -> set[int]:
        """The shared tables before chunks that name some, of each the last one, if it is not there yet.

        What a chunk names is only known once it is read; but a writer puts a member's tables before its
        chunks, so that these can be had at the same time as the chunks.
        """
        places = self._table_places
        found = set()
        for chunk in chunks:
            entry = self.index.chunks[chunk]
            at = bisect_left(places, (entry.offset, 0))
            if entry.transform in _BY_TABLES and at and places[at - 1][1] not in self._tables:
                found.add(places[at - 1][1])
        return found

    def load_tables(self, table_id: int) -> None:
        """Have a shared table of a remote container loaded, and those close to it.

        What is wrong with it is an error for whoever needs it, and none here. Raises what reading does.
        """
        with self._lock, suppress(DamageError, FormatError):
            if table_id not in self._tables:
                self._load_tables_near(table_id)

    @cached_property
    def _table_places(self) -> list[tuple[int, int]]:
        """Where shared tables are, and their ids."""
        return sorted((entry.offset, entry.id) for entry in self.index.sections if entry.kind == Kind.TABLE)

    def _table_of(self, position: int, record: memoryview) -> SharedTable:
        return SharedTable(bytes(self.decode_section(position, record)))

    def _load_tables_near(self, wanted: int) -> SharedTable:
        """Load the table ``wanted``, and with the same request those close to it that are not there yet.

        Writers put a member's tables one after another, so that mostly these are all that its chunks name.
        """
        missing = (
            Record(entry.offset, RECORD_HEADER_SIZE + entry.stored_size, entry.id)
            for entry in self.index.sections
            if entry.kind == Kind.TABLE and entry.id not in self._tables
        )
        near = next(some for some in group(missing, MAX_SPAN) if any(one.key == wanted for one in some))
        with self.source.span(*extent(near)) as span:
            for offset, size, table_id, _ in near:
                record = memoryview(bytearray(size))
                span.readinto(offset, record)
                try:
                    table = self._table_of(self.index.tables[table_id], record)
                except (DamageError, FormatError):
                    if table_id == wanted:
                        raise
                    continue  # an error for whoever asks for it
                if table_id == wanted:
                    found = table
                self._tables[table_id] = (offset, table)
        return found


def _parsed(record: memoryview) -> RecordHeader:
    """The header of a record that the index leads to: where there is none, the record is damaged."""
    try:
        return parse_record_header(record)
    except FormatError as error:
        raise ChecksumError(f"the record's header is damaged: {error.message}") from None


def _read_tail(source: ByteSource) -> tuple[Trailer, memoryview]:
    """The trailer, and the index record in header and payload."""
    if source.size < HEADER_SIZE + RECORD_HEADER_SIZE + TRAILER_SIZE:
        raise FormatError(f"a file of {source.size} bytes is too small for a QZF container")
    tail_at = max(source.size - TAIL_READ, 0)
    tail = memoryview(source.read(tail_at, source.size - tail_at))
    with located(offset=source.size - TRAILER_SIZE):
        trailer = _parse_trailer(source, bytes(tail[-TRAILER_SIZE:]))
        if trailer.file_size != source.size:
            raise TruncatedError(
                f"the container was written with {trailer.file_size} bytes and has {source.size}"
            )
        at, size = trailer.index_offset, trailer.index_size
        if size > MAX_INDEX:
            raise FormatError(f"an index of {size} bytes is above the limit of {MAX_INDEX}")
        if at % 64 or at < HEADER_SIZE or at + pad64(size) + TRAILER_SIZE != source.size:
            raise FormatError("the trailer's sizes do not add up")
    if at >= tail_at:
        return trailer, tail[at - tail_at : at - tail_at + size]
    head = source.read(at, tail_at - at)
    return trailer, memoryview(head + bytes(tail[: max(size - len(head), 0)]))[:size]


def _parse_trailer(source: ByteSource, data: bytes) -> Trailer:
    if not data.endswith(END_MAGIC) and source.read(0, len(FILE_MAGIC)) == FILE_MAGIC:
        raise TruncatedError("the container has lost its end; what is there of it can be recovered")
    return parse_trailer(data)


def _parse_tail(trailer: Trailer, record: memoryview, digest: bytes | None) -> Index:
    with located(offset=trailer.index_offset):
        header = parse_record_header(record)
        if header.kind != Kind.INDEX or RECORD_HEADER_SIZE + header.stored_size != len(record):
            raise FormatError("the trailer does not lead to an index record of its size")
        body = record[RECORD_HEADER_SIZE:]
        if xxh3(body) != header.stored_xxh3:
            raise ChecksumError("the index does not match its XXH3")
        if hashlib.sha256(record).digest() != trailer.container_digest:
            raise ChecksumError("the index does not match the container digest")
        if digest is not None and digest != trailer.container_digest:
            raise ChecksumError(
                f"the container digest is {trailer.container_digest.hex()}, not {digest.hex()}"
            )
        reserved = (header.transform, header.layout, header.member, header.tensor, header.offset)
        if any(reserved) or header.decoded_size or header.decoded_xxh3 != header.stored_xxh3:
            raise FormatError("the index record's header breaks the rules for its kind")
        index = parse_index(body, trailer.index_offset)
        if index.head.salt != header.salt:
            raise FormatError("the index and its record disagree on the salt")
        return index
