"""Sources give exactly the bytes that were there, and say so where they no longer are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from qzf.errors import OptionError, SourceChangedError, SourceError
from qzf.storage import ByteSource, FileSource, JoinedSource, MemorySource, ObjectSource, SourceBase

DATA = bytes(range(256)) * 40


class RemoteLike(SourceBase):
    """The least that a remote source has to implement."""

    def __init__(self, data: bytes) -> None:
        super().__init__("remote", len(data))
        self.data = data

    def _fill(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]

    def close(self) -> None:
        pass


@pytest.fixture(params=["file", "memory", "remote", "joined"])
def open_source(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], ByteSource]:
    def opened(data: bytes) -> ByteSource:
        if request.param == "memory":
            return MemorySource(data)
        if request.param == "joined":
            ends = (0, 0, 1, 7, 7, 256, len(data))
            pieces = [data[at:end] for at, end in pairwise(ends)]
            return JoinedSource([memoryview(piece) for piece in pieces], "joined")
        if request.param == "remote":
            return RemoteLike(data)
        path = tmp_path / "data.bin"
        path.write_bytes(data)
        return FileSource(path)

    return opened


def test_reads_and_views_agree(open_source: Callable[[bytes], ByteSource]) -> None:
    with open_source(DATA) as source:
        assert source.size == len(DATA)
        for offset, size in ((0, 0), (0, 1), (17, 300), (0, len(DATA)), (len(DATA), 0), (len(DATA) - 1, 1)):
            expected = DATA[offset : offset + size]
            assert source.read(offset, size) == expected
            view = source.view(offset, size)
            assert view == expected
            assert view.readonly
            buffer = bytearray(size)
            source.readinto(offset, buffer)
            assert buffer == expected


def test_readinto_takes_any_contiguous_buffer(open_source: Callable[[bytes], ByteSource]) -> None:
    with open_source(DATA) as source:
        words = memoryview(bytearray(16)).cast("I")
        source.readinto(3, words)
        assert words.tobytes() == DATA[3:19]


def test_ranges_outside_are_refused(open_source: Callable[[bytes], ByteSource]) -> None:
    with open_source(DATA) as source:
        ranges = ((-1, 1), (0, -1), (0, len(DATA) + 1), (len(DATA), 1), (len(DATA) + 1, 0), (1 << 70, 1))
        for offset, size in ranges:
            for get in (source.read, source.view):
                with pytest.raises(OptionError, match="not within the 10240 bytes"):
                    get(offset, size)
        with pytest.raises(OptionError):
            source.readinto(len(DATA) - 1, bytearray(2))


def test_empty_sources_work(open_source: Callable[[bytes], ByteSource]) -> None:
    with open_source(b"") as source:
        assert source.size == 0
        assert source.read(0, 0) == b""
        assert source.view(0, 0).nbytes == 0
        source.readinto(0, bytearray())


def test_a_read_is_a_snapshot_and_a_view_outlives_the_source(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    source = FileSource(path)
    before, view = source.read(0, 4), source.view(0, 4)
    path.write_bytes(b"xxxx" + DATA[4:])
    assert before == DATA[:4]
    source.close()
    source.close()
    assert len(bytes(view)) == 4
    with pytest.raises(OptionError, match="closed"):
        source.read(0, 4)
    with pytest.raises(OptionError, match="closed"):
        source.view(0, 4)


def test_a_shrunken_file_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    with FileSource(path) as source:
        os.truncate(path, 5000)
        assert source.read(0, 5000) == DATA[:5000]
        with pytest.raises(SourceChangedError, match="shorter than the 10240 bytes") as caught:
            source.read(4000, 2000)
        assert (caught.value.file, caught.value.offset) == (str(path), 5000)
        with pytest.raises(SourceChangedError):
            source.readinto(9000, bytearray(8))
        with pytest.raises(SourceChangedError, match="shorter"):
            source.view(0, 1)


def test_check_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"

    def fresh() -> FileSource:
        path.unlink(missing_ok=True)
        path.write_bytes(DATA)
        return FileSource(path)

    with fresh() as source:
        source.check_unchanged()
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceChangedError, match="has changed"):
            source.check_unchanged()
    with fresh() as source:
        os.truncate(path, 3)
        with pytest.raises(SourceChangedError, match="has changed"):
            source.check_unchanged()
    with fresh() as source:
        other = tmp_path / "other"
        other.write_bytes(DATA)
        other.replace(path)
        with pytest.raises(SourceChangedError, match="has been replaced"):
            source.check_unchanged()
    with fresh() as source:
        path.unlink()
        with pytest.raises(SourceChangedError, match="has vanished"):
            source.check_unchanged()


def test_a_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.bin").write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    with FileSource("data.bin") as source:
        assert source.name == "data.bin"
        monkeypatch.chdir("/")
        source.check_unchanged()


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="is a directory"):
        FileSource(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="is a named pipe"):
        FileSource(tmp_path / "fifo")
    with pytest.raises(SourceError, match="is a character device"):
        FileSource(os.devnull)
    with socket.socket(socket.AF_UNIX) as server:
        # Addresses of sockets are short, temporary folders' names are not.
        monkeypatch.chdir(tmp_path)
        server.bind("socket")
        with pytest.raises(SourceError, match="is a socket"):
            FileSource(tmp_path / "socket")
    with pytest.raises(FileNotFoundError):
        FileSource(tmp_path / "nothing")


def test_pieces_one_after_another() -> None:
    pieces = [memoryview(piece) for piece in (b"", b"abc", b"", b"d", bytearray(b"efgh"), b"")]
    joined = JoinedSource(pieces, "pieces")
    assert joined.size == 8 and joined.name == "pieces"
    for start in range(9):
        for end in range(start, 9):
            assert joined.read(start, end - start) == b"abcdefgh"[start:end]
    assert JoinedSource([], "none").read(0, 0) == b""
    numbers = memoryview(bytearray(12)).cast("I")  # pieces are bytes, whatever they are made of
    assert JoinedSource([numbers], "numbers").size == 12


def test_threads_share_a_source(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(200):
            offset = (seed * 977 + step * 131) % (len(DATA) - 64)
            if not source.read(offset, 64) == source.view(offset, 64) == DATA[offset : offset + 64]:
                wrong.append(offset)

    with FileSource(path) as source:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no hints")
def test_a_range_is_announced_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux would fetch only the beginning of a long one."""
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    told: list[tuple[int, int]] = []
    with FileSource(tmp_path / "file") as source:
        monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, size, advice: told.append((offset, size)))
        source.will_need(1000, 600_000)
        assert told[0][0] == 1000
        assert all(one + size == other for (one, size), (other, _) in pairwise(told))
        assert sum(told[-1]) == 601_000
        assert max(size for _, size in told) <= 128 << 10


_FORKED_READERS = """
import io, os, sys, warnings
from qzf.errors import OptionError
from qzf.storage import ObjectSource
warnings.simplefilter("ignore")
path, how = sys.argv[1:]
data = open(path, "rb").read()
files = {
    "plain": lambda: open(path, "rb"),
    "unbuffered": lambda: open(path, "rb", buffering=0),
    "update": lambda: open(path, "r+b"),
    "memory": lambda: io.BytesIO(data),
}
file = files[how]()
source = ObjectSource(file)

def good():
    for round in range(400):
        at = round * 7919 % (len(data) - 5000)
        if source.read(at, 5000) != data[at : at + 5000]:
            return 1
    return 0

children = []
for _ in range(4):
    child = os.fork()
    if not child:
        try:
            code = good()
        except OptionError as error:
            code = 2 if "open it in each process" in str(error) else 3
        os._exit(code)
    children.append(child)
codes = [good(), *(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)]
print(*codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("how", "codes"),
    [
        ("plain", "0 0 0 0 0"),
        ("unbuffered", "0 0 0 0 0"),
        ("memory", "0 0 0 0 0"),
        ("update", "0 2 2 2 2"),
    ],
)
def test_file_objects_after_a_fork(how: str, codes: str, tmp_path: Path) -> None:
    """Processes share the position of a file, and no lock."""
    path = tmp_path / "data"
    path.write_bytes(os.urandom(1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", _FORKED_READERS, path, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == codes.split()


def test_a_file_object_keeps_the_position_that_its_owner_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)))
    with path.open("rb") as file:
        source = ObjectSource(file)
        file.seek(17)
        assert source.read(100, 3) == bytes((100, 101, 102))
        assert file.read(2) == bytes((17, 18))
    with pytest.raises(OptionError, match="the file object is closed"):
        source.read(0, 1)
