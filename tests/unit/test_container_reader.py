"""Reading: how little is read, by whom it is held against what, and from many threads at once."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import qzf
from qzf.container.opening import parse_digest
from qzf.container.reader import ContainerReader
from qzf.errors import ChecksumError, FormatError, OptionError, QzfError, TruncatedError
from qzf.limits import TAIL_READ
from qzf.storage import MemorySource
from tests.helpers import CountingSource
from tools.make_vectors import folders
from tools.vectors.builder import Builder, Verbatim, noise, stored, whole
from tools.vectors.parts import CHUNK, seal, take_apart, xxh3, zstd

VECTORS = folders()["vectors"]


@pytest.mark.parametrize("name", ["tiny-chunks", "large-index", "no-members", "layout-076-q4_k", "folders"])
def test_opening_takes_at_most_two_reads(name: str) -> None:
    source = CountingSource((VECTORS / f"{name}.qzf").read_bytes())
    reader = ContainerReader(source)
    assert len(source.reads) == (2 if name == "large-index" else 1)
    tail = min(TAIL_READ, source.size)
    assert source.reads[0] == (source.size - tail, tail)
    index_at = reader.trailer.index_offset
    # the second read is the rest of the index and nothing else
    assert source.reads[1:] in ([], [(index_at, source.size - tail - index_at)])


def _large(name: str = "big.bin") -> Builder:
    """Two members of 20 chunks each, none of which fits into the tail that is read first."""
    builder = Builder()
    for i in range(2):
        builder.member(f"{i}-{name}", [Verbatim([stored(noise(f"{i}{k}", 9000)) for k in range(20)])])
    return builder


def test_opening_reads_nothing_but_the_end() -> None:
    data = seal(_large().parts())
    assert len(data) > 5 * TAIL_READ
    source = CountingSource(data)
    ContainerReader(source)
    assert source.reads == [(len(data) - TAIL_READ, TAIL_READ)]


def test_a_tensor_reads_only_its_chunks(smollm2: Path) -> None:
    source = CountingSource(smollm2.read_bytes())
    container = qzf.open(source)
    for name in container:
        info = container.info(name)
        source.reads.clear()
        container.tensor(name)
        entries = container.chunks[info.first_chunk : info.first_chunk + info.chunk_count]
        low = int(entries["offset"].min())
        high = int((entries["offset"] + entries["stored_size"]).max()) + 64
        assert len(source.reads) == info.chunk_count
        assert all(low <= at and at + size <= high for at, size in source.reads)
        assert sum(size for _, size in source.reads) <= 64 * info.chunk_count + int(
            entries["stored_size"].sum()
        )


def test_tables_are_read_once_and_when_needed() -> None:
    source = CountingSource((VECTORS / "tables.qzf").read_bytes())
    reader = ContainerReader(source)
    offsets = {s.id: s.offset for s in reader.index.sections if s.kind == 2}
    source.reads.clear()
    for _ in range(2):
        for chunk in range(4):  # those of the member that names table 7
            reader.read_chunk(chunk)
    starts = [at for at, _ in source.reads]
    assert starts.count(offsets[7]) == 1
    assert offsets[4_000_000_000] not in starts


# --- what is checked ------------------------------------------------------------------------------


def test_each_chunk_is_held_against_its_checksum() -> None:
    data = bytearray(seal(_large().parts()))
    reader = ContainerReader(MemorySource(bytes(data)))
    at = reader.index.chunks[7].offset + 64
    data[at + 100] ^= 1
    reader = ContainerReader(MemorySource(bytes(data)))
    reader.read_chunk(6)
    with pytest.raises(ChecksumError) as caught:
        reader.read_chunk(7)
    error = caught.value
    assert (error.file, error.chunk, error.member, error.offset) == ("<memory>", 7, "0-big.bin", at - 64)


@pytest.mark.parametrize("byte", [0, 8, 60])
def test_a_chunk_without_a_record_header_is_damaged(byte: int) -> None:
    """The index leads to it: the container's structure is whole, and the chunk is not."""
    data = bytearray(seal(_large().parts()))
    reader = ContainerReader(MemorySource(bytes(data)))
    at = reader.index.chunks[3].offset
    data[at + byte] ^= 1
    reader = ContainerReader(MemorySource(bytes(data)))
    with pytest.raises(ChecksumError, match=r"record header|record's header") as caught:
        reader.read_chunk(3)
    assert (caught.value.chunk, caught.value.offset) == (3, at)
    reader.read_chunk(4)


def test_a_trusted_digest_finds_a_record_forged_with_all_xxh3_right() -> None:
    """The index is the writer's, one record is another's of the same size and XXH3 as far as it says."""
    parts = _large().parts()
    good = seal(parts)
    digest = parse_digest(good[-48:-16].hex())
    forged = parts.of_kind(CHUNK)[3]
    at = good.index(forged.seal())
    # What an attacker could do is to change the index too, so that all checksums fit ...
    content = noise("forged", 9000)
    forged.payload = content
    forged.fields["decoded_xxh3"] = xxh3(content)
    evil = seal(parts)
    assert bytes(ContainerReader(MemorySource(evil)).read_chunk(3)) == content
    with pytest.raises(ChecksumError, match="container digest"):
        ContainerReader(MemorySource(evil), digest)
    # ... or to leave it, and find a payload whose XXH3 collides: no cryptographic hash. Simulated by an
    # index that holds the forged record's checksums and the true record's digest.
    true = take_apart(good).of_kind(CHUNK)[3]
    forged.entry["digest"] = _sha256(true.seal())
    trusted = seal(parts)
    assert trusted[at : at + 64 + 9000] == forged.seal()
    weak = ContainerReader(MemorySource(trusted))
    assert bytes(weak.read_chunk(3)) == content
    strict = ContainerReader(MemorySource(trusted), parse_digest(trusted[-48:-16].hex()))
    assert len(strict.read_chunk(2)) == 9000
    with pytest.raises(ChecksumError, match="SHA-256"):
        strict.read_chunk(3)


def _sha256(data: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(data).digest()


def test_a_trusted_digest_covers_tables() -> None:
    data = (VECTORS / "tables.qzf").read_bytes()
    parts = take_apart(data)
    table = next(record for record in parts.records if record.kind == 2)
    table.entry["digest"] = bytes(32)
    changed = seal(parts)
    ContainerReader(MemorySource(changed)).read_chunk(0)
    reader = ContainerReader(MemorySource(changed), parse_digest(changed[-48:-16].hex()))
    with pytest.raises(ChecksumError, match="SHA-256"):
        reader.read_chunk(0)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 33, "sha512:" + "00" * 32, "0" * 63])
def test_digests_that_are_none(text: str) -> None:
    with pytest.raises(OptionError):
        parse_digest(text)


def test_digest_prefix() -> None:
    assert parse_digest("sha256:" + "ab" * 32) == parse_digest("AB" * 32) == b"\xab" * 32
    assert parse_digest(None) is None


def test_every_truncation_of_a_small_container() -> None:
    data = (VECTORS / "no-members.qzf").read_bytes()
    for size in range(len(data)):
        with pytest.raises((FormatError, ChecksumError)):
            ContainerReader(MemorySource(data[:size]))


def test_growing_and_shrinking_files() -> None:
    data = (VECTORS / "stored.qzf").read_bytes()
    trailer = data[-80:]
    with pytest.raises(TruncatedError):
        ContainerReader(MemorySource(data[:-80] + bytes(64) + trailer))


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tables", "layout-078-q6_k", "mixed-tensor", "tiny-chunks"])
def test_one_reader_from_eight_threads(name: str) -> None:
    path = VECTORS / f"{name}.qzf"
    with qzf.open(path) as container:
        reader = container.reader
        count = len(container.chunks)
        alone = [bytes(reader.read_chunk(i)) for i in range(count)]
    with qzf.open(path) as container:
        start = threading.Barrier(8)

        def work(seed: int) -> bool:
            order = list(range(count)) * 3
            random.Random(seed).shuffle(order)
            start.wait()
            return all(bytes(container.reader.read_chunk(i)) == alone[i] for i in order)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))


def test_one_container_from_eight_threads(smollm2: Path) -> None:
    with qzf.open(smollm2, threads=1) as container:
        alone = {name: container.tensor(name).copy() for name in container}
    with qzf.open(smollm2, threads=2) as container:

        def work(seed: int) -> bool:
            names = list(alone)
            random.Random(seed).shuffle(names)
            return all(np.array_equal(container.tensor(name), alone[name]) for name in names)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))


def test_errors_in_threads_are_the_callers(smollm2: Path, tmp_path: Path) -> None:
    data = bytearray(smollm2.read_bytes())
    with qzf.open(smollm2) as container:
        info = max(container.tensors, key=lambda tensor: tensor.chunk_count)
        at = int(container.chunks[info.first_chunk + info.chunk_count - 1]["offset"]) + 70
    assert info.chunk_count > 3
    data[at] ^= 0x40
    path = tmp_path / "damaged.qzf"
    path.write_bytes(data)
    with qzf.open(path, threads=4) as container, pytest.raises(QzfError) as caught:
        container.tensor(info.name)
    assert caught.value.tensor == info.name


def test_large_chunk() -> None:
    """The format's limit is 64 MiB a chunk."""
    builder = Builder(chunk_size=1 << 26)
    data = bytes(1 << 26)
    builder.member("zeros", [Verbatim([whole(data, zstd(data))])])
    reader = ContainerReader(MemorySource(seal(builder.parts())))
    assert not np.frombuffer(reader.read_chunk(0), np.uint8).any()
