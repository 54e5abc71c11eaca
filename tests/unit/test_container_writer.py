"""The writer: order of calls, what goes where, and one forward pass to any sink."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from qzf.codecs.base import Bytes
from qzf.container.catalog import Catalog, dump_catalog
from qzf.container.payload import Effort, decode, encode
from qzf.container.reader import ContainerReader
from qzf.container.writer import ContainerWriter, EncodedChunk, Sink, encode_chunk
from qzf.errors import ChunkError, FormatError
from qzf.format.ids import Codec, Kind, Transform
from qzf.format.wire import RecordHeader, pack_record_header, parse_record_header
from qzf.limits import MAX_CHUNK, MAX_TABLE
from qzf.model import Extent, MemberSpec, TensorSpec
from qzf.storage import MemorySource
from qzf.transforms.layouts import BY_ID, BY_NAME, Layout
from qzf.transforms.modeled import SharedTable
from tools.vectors.builder import noise, skewed
from tools.vectors.parts import CHUNK, salt_of, seal, take_apart

EFFORT = Effort(scales=(1,), codes=(1,), whole=(3,))
HEAD, ROWS = noise("head", 40), skewed("rows", 18 * 200)
SPEC = MemberSpec(
    "dir/model.gguf",
    "gguf",
    40 + len(ROWS),
    (
        TensorSpec("none", "F32", (0,), Extent(40, 0), 4),
        TensorSpec("w", "Q4_0", (100, 64), Extent(40, len(ROWS)), 36),
    ),
    {"general.name": "x"},
)


def _writer(sink: Sink, *members: MemberSpec) -> ContainerWriter:
    return ContainerWriter(sink, members, generator="test", chunk_size=1800, level="default")


def _chunk(
    writer: ContainerWriter,
    data: bytes,
    offset: int = 0,
    *,
    member: int = 0,
    tensor: int | None = None,
    layout: Layout | None = None,
    table: tuple[int, bytes] | None = None,
) -> EncodedChunk:
    return encode_chunk(
        data,
        salt=writer.salt,
        member=member,
        tensor=tensor,
        offset=offset,
        layout=layout,
        effort=EFFORT,
        table=table,
    )


def _write(sink: Sink, table: bytes | None = None) -> bytes:
    """A container with ``SPEC`` as its only member; returns its digest."""
    writer = _writer(sink, SPEC)
    shared = None if table is None else (writer.add_table(table), table)
    writer.begin_member()
    writer.write_chunk(_chunk(writer, HEAD))
    for at in (0, 1800):
        rows = ROWS[at : at + 1800]
        chunk = _chunk(writer, rows, 40 + at, tensor=1, layout=BY_NAME["Q4_0"], table=shared)
        writer.write_chunk(chunk)
    writer.end_member(hashlib.sha256(HEAD + ROWS).hexdigest())
    return writer.close()


def _container(table: bytes | None = None) -> bytes:
    sink = io.BytesIO()
    _write(sink, table)
    return sink.getvalue()


def test_parts_are_where_the_spec_says() -> None:
    """The independent structs of tools/vectors read it, and put it together the same."""
    data = _container()
    parts = take_apart(data)
    kinds = [record.kind for record in parts.records]
    assert kinds == [3, CHUNK, CHUNK, CHUNK]
    assert parts.salt == salt_of([(SPEC.name, SPEC.size)])
    assert [record.fields["offset"] for record in parts.of_kind(CHUNK)] == [0, 40, 1840]
    assert seal(parts)[: len(data) // 2] == data[: len(data) // 2]
    none, rows = parts.catalog["tensors"]
    assert none["chunk_count"] == 0
    assert none["pipeline"] == {"transform": "stored", "layout": None, "codecs": []}
    assert (rows["first_chunk"], rows["chunk_count"]) == (1, 2)
    assert rows["pipeline"]["transform"] == "fields"
    assert rows["pipeline"]["layout"] == "Q4_0"
    assert len(rows["pipeline"]["codecs"]) == 3


def test_digest_is_that_of_the_index_record() -> None:
    sink = io.BytesIO()
    digest = _write(sink)
    data = sink.getvalue()
    at, size = (int.from_bytes(data[i : i + 8], "little") for i in (-80, -72))
    assert hashlib.sha256(data[at : at + size]).digest() == digest == data[-48:-16]


def test_same_calls_same_bytes() -> None:
    assert _container() == _container()
    assert _container(ROWS) == _container(ROWS) != _container()


class _Dribble(io.RawIOBase):
    """An unbuffered file that takes at most 100 bytes at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        part = bytes(memoryview(data)[:100])  # type: ignore[arg-type]
        self.taken += part
        return len(part)


def test_a_sink_may_take_a_part_only() -> None:
    sink = _Dribble()
    _write(sink)
    assert bytes(sink.taken) == _container()


@pytest.mark.parametrize("buffering", [0, -1])
def test_pipe(buffering: int) -> None:
    reading, writing = os.pipe()
    received: list[bytes] = []

    def drain() -> None:
        with os.fdopen(reading, "rb") as file:
            received.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    with os.fdopen(writing, "wb", buffering) as file:
        _write(file)
    thread.join()
    assert received == [_container()]


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="needs non-blocking pipes")
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_non_blocking_pipe_that_is_full_is_an_error(buffering: int) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        with suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(1 << 16))
        file = os.fdopen(writing, "wb", buffering)
        with pytest.raises(BlockingIOError):
            for _ in range(100):
                _write(file)
        with suppress(BlockingIOError):  # what a buffer still holds
            file.close()
    finally:
        os.close(reading)


def test_a_sink_need_not_say_what_it_took() -> None:
    class Silent:
        def __init__(self) -> None:
            self.taken = bytearray()

        def write(self, data: Bytes, /) -> None:
            self.taken += data

    sink = Silent()
    _write(sink)
    assert bytes(sink.taken) == _container()


def test_index_header_leaves_its_size_to_stored_size() -> None:
    data = _container()
    at, size = (int.from_bytes(data[i : i + 8], "little") for i in (-80, -72))
    header = parse_record_header(data[at : at + 64])
    assert (header.kind, header.decoded_size, header.stored_size) == (Kind.INDEX, 0, size - 64)
    assert header.decoded_xxh3 == header.stored_xxh3
    # one of 2**32 chunks and more
    large = header._replace(stored_size=300 << 30)
    assert parse_record_header(pack_record_header(large)) == large


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", 256),
        ("layout", -1),
        ("member", 1 << 32),
        ("tensor", 1 << 32),
        ("offset", -1),
        ("stored_size", 1 << 64),
        ("decoded_size", 1 << 32),
        ("stored_xxh3", 1 << 64),
    ],
)
def test_record_headers_out_of_range(name: str, value: int) -> None:
    fields = dict.fromkeys(RecordHeader._fields, 0)
    pack_record_header(RecordHeader(**fields))
    with pytest.raises(FormatError, match="no room"):
        pack_record_header(RecordHeader(**fields | {name: value}))


def test_tables_are_used_where_they_help() -> None:
    plain, shared = _container(), _container(ROWS)
    reader = ContainerReader(MemorySource(shared))
    assert b"".join(reader.read_chunk(i) for i in range(3)) == HEAD + ROWS
    used = [reader.index.chunks[i].stored_size for i in (1, 2)]
    unshared = ContainerReader(MemorySource(plain)).index.chunks
    alone = [unshared[i].stored_size for i in (1, 2)]
    assert max(used) < min(alone) / 2
    assert take_apart(shared).records[0].kind == 2


def test_stored_where_nothing_is_saved() -> None:
    data = noise("incompressible", 1000)
    for layout in (None, BY_NAME["float2"]):
        coded = encode(data, layout, EFFORT)
        assert coded.transform == Transform.STORED
        assert coded.parts == (data,)
    # 40 bytes less are no unit of 64 less
    assert encode(noise("a", 1000) + bytes(24), None, EFFORT).transform == Transform.STORED


def test_payloads_start_at_multiples_of_64() -> None:
    reader = ContainerReader(MemorySource(_container()))
    assert not any(entry.offset % 64 for entry in reader.index.chunks)


@pytest.mark.parametrize("layout", BY_ID.values(), ids=lambda layout: layout.name)
def test_payload_of_every_layout(layout: Layout) -> None:
    data = skewed(layout.name, layout.block * 1000)
    coded = encode(data, layout, EFFORT)
    assert (coded.transform, coded.layout) == (Transform.FIELDS, layout.wire_id)
    assert set(coded.codecs) <= {Codec.RAW, Codec.ZSTD}
    body = memoryview(b"".join(coded.parts))
    assert len(body) == coded.size

    def no_table(_: int) -> SharedTable:
        raise AssertionError

    assert decode(coded.transform, coded.layout, body, len(data), no_table) == data
    with pytest.raises(ChunkError):
        decode(coded.transform, coded.layout, body, len(data) - layout.block, no_table)


def test_max_level_also_tries_bytes_left_whole() -> None:
    data = noise("period", 601) * 20
    both = encode(data, BY_NAME["planes2"], Effort((1,), (1,), (19,), both=True))
    assert both.transform == Transform.NONE
    assert both.size < encode(data, BY_NAME["planes2"], EFFORT).size


# --- misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, MAX_CHUNK + 1])
def test_chunk_sizes_out_of_bounds(size: int) -> None:
    with pytest.raises(FormatError):
        _chunk(_writer(io.BytesIO(), SPEC), bytes(size))


@pytest.mark.parametrize("size", [0, MAX_TABLE + 1])
def test_table_sizes_out_of_bounds(size: int) -> None:
    with pytest.raises(FormatError):
        _writer(io.BytesIO()).add_table(bytes(size))


def test_members_are_written_in_their_order() -> None:
    writer = _writer(io.BytesIO(), SPEC)
    with pytest.raises(FormatError):
        writer.end_member("0" * 64)
    with pytest.raises(FormatError):
        writer.close()
    writer.begin_member()
    with pytest.raises(FormatError):
        writer.begin_member()
    with pytest.raises(FormatError):
        writer.close()
    with pytest.raises(FormatError):
        writer.end_member("0" * 64)


@pytest.mark.parametrize(("offset", "member"), [(1, 0), (0, 1)])
def test_chunks_follow_each_other(offset: int, member: int) -> None:
    writer = _writer(io.BytesIO(), SPEC)
    with pytest.raises(FormatError):
        writer.write_chunk(_chunk(writer, HEAD))
    writer.begin_member()
    with pytest.raises(FormatError):
        writer.write_chunk(_chunk(writer, HEAD, offset, member=member))


@pytest.mark.parametrize("names", [["../x"], ["a", "a"], ["a", "a/b"]])
def test_member_names_are_checked_first(names: list[str]) -> None:
    sink = io.BytesIO()
    with pytest.raises(FormatError):
        _writer(sink, *(MemberSpec(name, "opaque", 0) for name in names))
    assert not sink.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        [
            MemberSpec(
                "a", "opaque", 0, tuple(TensorSpec(f"t{i}", "F32", (0,), Extent(0, 0), 4) for i in range(60))
            )
        ],
        [MemberSpec(f"m{i}", "opaque", 0) for i in range(100)],
        [MemberSpec("a", "opaque", 0, (), {"text": "x" * 9000, "list": [1] * 2000})],
    ],
    ids=["tensors", "members", "metadata"],
)
@pytest.mark.parametrize(("limit", "value"), [("MAX_CATALOG", 9000), ("MAX_CATALOG_VALUES", 1000)])
def test_a_catalog_above_the_limits_is_found_first(
    monkeypatch: pytest.MonkeyPatch, members: list[MemberSpec], limit: str, value: int
) -> None:
    monkeypatch.setattr(f"qzf.container.catalog.{limit}", value)
    sink = io.BytesIO()
    with pytest.raises(FormatError, match=r"the catalog has .* above the limit"):
        _writer(sink, *members)
    assert not sink.getvalue()


def test_no_catalog_outgrows_what_was_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    def noted(catalog: Catalog) -> bytes:
        data = dump_catalog(catalog)
        sizes.append((len(data), sum(map(data.count, (b",", b":", b"[", b"{")))))
        return data

    monkeypatch.setattr("qzf.container.writer.dump_catalog", noted)
    _write(io.BytesIO())
    (first_size, first_values), (size, values) = sizes
    assert first_size > size
    assert first_values > values


def test_no_members_at_all(tmp_path: Path) -> None:
    sink = io.BytesIO()
    writer = _writer(sink)
    writer.close()
    with pytest.raises(FormatError):
        writer.begin_member()
    assert not ContainerReader(MemorySource(sink.getvalue())).index.members
