"""Members read as files: the same bytes in whatever way they are read, within bounds, and no thread left."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import qzf
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader
from qzf.errors import ChecksumError, ChunkError, DamageError, NotFoundError, OptionError
from qzf.integrations.readahead import MemberReader, ReadAhead
from qzf.storage import FileSource
from tests.helpers import SOURCES, flip

GGUF = SOURCES / "gguf" / "smollm2-slice.gguf"
ORIGINAL = GGUF.read_bytes()
CHUNK = 4096


@pytest.fixture
def reader(smollm2: Path) -> Iterator[ContainerReader]:
    with FileSource(smollm2) as source:
        yield open_reader(source)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each chunk has been decoded."""
    counts = Counter[int]()
    plain = ContainerReader.read_chunk

    def counting(self: ContainerReader, chunk: int, out: memoryview | None = None) -> memoryview:
        counts[chunk] += 1
        return plain(self, chunk, out)

    monkeypatch.setattr(ContainerReader, "read_chunk", counting)
    return counts


def name_of(reader: ContainerReader) -> str:
    return reader.index.members[0].name


def read(member: MemberReader, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: member.readinto(offset, memoryview(buffer))])


def read_all(member: MemberReader, piece: int) -> bytes:
    whole = b""
    while part := read(member, len(whole), piece):
        whole += part
    return whole


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("qzf-ahead")]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("piece", [1000, CHUNK, 3 * CHUNK + 7, len(ORIGINAL) + 1])
@pytest.mark.parametrize("cache", [0, CHUNK, 20 * CHUNK, 1 << 20])
def test_forward(
    reader: ContainerReader, decoded: Counter[int], threads: int, piece: int, cache: int
) -> None:
    with ReadAhead(threads, cache) as ahead:
        member = ahead.open(reader, name_of(reader))
        assert (member.name, member.size) == (GGUF.name, len(ORIGINAL))
        assert read_all(member, piece) == ORIGINAL
    assert decoded == Counter(range(len(reader.index.chunks)))  # each once
    assert not threads_of_ours()


@pytest.mark.parametrize("cache", [0, 3 * CHUNK, 1 << 20])
def test_anywhere(reader: ContainerReader, cache: int) -> None:
    draw = random.Random(7)
    with ReadAhead(2, cache) as ahead:
        member = ahead.open(reader, name_of(reader))
        for _ in range(300):
            offset, size = draw.randrange(len(ORIGINAL) + 10), draw.choice([0, 1, 100, 5000, 40000])
            assert read(member, offset, size) == ORIGINAL[offset : offset + size]


def test_many_threads(reader: ContainerReader) -> None:
    """Some share a reader, some have their own; the cache is too small for all of them."""
    failures: list[str] = []
    with ReadAhead(2, 24 * CHUNK) as ahead:
        shared = ahead.open(reader, name_of(reader))

        def work(number: int) -> None:
            draw, member = random.Random(number), ahead.open(reader, name_of(reader))
            for _ in range(60):
                one, offset = draw.choice([shared, member]), draw.randrange(len(ORIGINAL))
                for at in range(offset, min(offset + 30000, len(ORIGINAL)), 3000):
                    if read(one, at, 3000) != ORIGINAL[at : at + 3000]:
                        failures.append(f"{number} at {at}")

        crowd = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
    assert not failures
    assert not threads_of_ours()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 chunks of 64 KiB."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "large").write_bytes(random.Random(1).randbytes(8 << 20))
    qzf.pack(folder / "large", folder / "large.qzf", chunk_size=65536)
    return folder / "large.qzf"


def test_what_comes_next_is_decoded_ahead(decoded: Counter[int], large: Path) -> None:
    with FileSource(large) as source, ReadAhead(2) as ahead:
        member = ahead.open(open_reader(source), "large")
        for at in range(0, 4 * 65536, 8192):
            read(member, at, 8192)
        read(member, 4 * 65536, 65536)
        _until(lambda: len(decoded) >= 9)
        for at in range(5 * 65536, 16 * 65536, 8192):
            read(member, at, 8192)
        _until(lambda: len(decoded) == 16 + 6)  # but no farther than it keeps two threads busy


def test_nothing_is_decoded_ahead_of_a_reader_that_jumps(decoded: Counter[int], large: Path) -> None:
    with FileSource(large) as source, ReadAhead(2) as ahead:
        member = ahead.open(open_reader(source), "large")
        for place in (80, 32, 112):
            read(member, place << 16, 100)
        assert not threads_of_ours()
    assert decoded == {80: 1, 32: 1, 112: 1}


def test_cache(decoded: Counter[int], large: Path) -> None:
    """What was used last is still there, and older chunks are gone."""
    with FileSource(large) as source, ReadAhead(1, 2 * 65536) as ahead:
        member = ahead.open(open_reader(source), "large")
        for place in (80, 32, 112, 112, 32, 80):
            read(member, place << 16, 100)
    assert decoded == {80: 2, 32: 1, 112: 1}


def test_what_is_read_once_is_not_kept(reader: ContainerReader, decoded: Counter[int]) -> None:
    """But as long as a part of it is due, it is."""
    first, second = reader.index.starts[20], reader.index.starts[21]
    with ReadAhead(1, once=True) as ahead:
        member = ahead.open(reader, name_of(reader))
        half = (second - first) // 2
        for _ in range(2):
            read(member, first, half)
        assert decoded[20] == 1
        assert read(member, first + half, second - first - half) == ORIGINAL[first + half : second]
        read(member, first, 1)
    assert decoded[20] == 2


def test_once_and_many_threads(reader: ContainerReader) -> None:
    """Pieces of one chunk are asked for at the same time, and in any order."""
    wrong: list[int] = []
    with ReadAhead(2, once=True) as ahead:
        member = ahead.open(reader, name_of(reader))

        def work(number: int) -> None:
            for at in range(number * 1000, len(ORIGINAL), 4000):
                if read(member, at, 1000) != ORIGINAL[at : at + 1000]:
                    wrong.append(at)

        crowd = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
    assert not wrong


def test_forget_gives_memory_back(reader: ContainerReader, decoded: Counter[int]) -> None:
    with ReadAhead(2) as ahead:
        member = ahead.open(reader, name_of(reader))
        read(member, 0, 10)
        ahead.forget()
        read(member, 0, 10)
    assert decoded == {0: 2}


@pytest.mark.parametrize("threads", [1, 3])
def test_damage(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Raised to whoever reads it, each time, with coordinates; all else can be read."""
    monkeypatch.chdir(tmp_path)
    with FileSource(smollm2) as source:
        index = open_reader(source).index
        bad, place, start = 30, index.chunks[30].offset + 200, index.starts[30]
        end = index.starts[31]
    with FileSource(flip(smollm2, place)) as source, ReadAhead(threads) as ahead:
        reader = open_reader(source)
        member = ahead.open(reader, name_of(reader))
        for _ in range(2):
            with pytest.raises(DamageError) as caught:
                read_all(member, 1000)
            assert isinstance(caught.value, ChecksumError | ChunkError)
            assert caught.value.chunk == bad
            assert caught.value.file == "damaged.qzf"
            assert read(member, 0, start) == ORIGINAL[:start]
            assert read(member, end, len(ORIGINAL)) == ORIGINAL[end:]


def test_an_interrupted_read_can_be_done_again(
    reader: ContainerReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> memoryview:
        raise KeyboardInterrupt

    with ReadAhead(2) as ahead:
        member = ahead.open(reader, name_of(reader))
        with monkeypatch.context() as patch:
            patch.setattr(ContainerReader, "read_chunk", interrupted)
            with pytest.raises(KeyboardInterrupt):
                read(member, 0, 10)
        assert read(member, 0, 10) == ORIGINAL[:10]


def test_closing(reader: ContainerReader) -> None:
    ahead = ReadAhead(2)
    member = ahead.open(reader, name_of(reader))
    read(member, 0, 10 * CHUNK)
    assert threads_of_ours()
    ahead.close()
    ahead.close()
    assert not threads_of_ours()
    with pytest.raises(OptionError):
        read(member, 0, 10)


def test_members_of_several(sharded: Path) -> None:
    with FileSource(sharded) as source, ReadAhead(2) as ahead:
        reader = open_reader(source)
        for entry in reader.index.members:
            original = (SOURCES / "safetensors" / "sharded" / entry.name).read_bytes()
            assert read_all(ahead.open(reader, entry.name), 5000) == original


def test_bad_arguments(reader: ContainerReader) -> None:
    with pytest.raises(OptionError):
        ReadAhead(0)
    with pytest.raises(OptionError):
        ReadAhead(1, -1)
    with ReadAhead(1) as ahead:
        with pytest.raises(NotFoundError):
            ahead.open(reader, "nope")
        with pytest.raises(OptionError):
            read(ahead.open(reader, name_of(reader)), -1, 10)


def _until(true: Callable[[], bool]) -> None:
    """Wait until ``true()``; fails after a while."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
