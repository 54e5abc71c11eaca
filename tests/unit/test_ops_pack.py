"""Pack: the same bytes whatever the threads and the sink, and nothing half done is ever left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qzf
from qzf.errors import (
    GgufError,
    OptionError,
    OutputExistsError,
    SafetensorsError,
    SourceChangedError,
    SourceError,
)
from qzf.limits import MAX_CHUNK, MIN_CHUNK
from qzf.ops import default_output
from qzf.ops.output import AtomicFile
from tests.helpers import SOURCES, open_files, small_gguf, small_safetensors
from tools.vectors.builder import noise, skewed

SLICE = SOURCES / "gguf" / "smollm2-slice.gguf"
SHARDED = SOURCES / "safetensors" / "sharded"


def _packed(source: Path | list[Path], **options: object) -> bytes:
    sink = io.BytesIO()
    qzf.pack(source, sink, **options)  # type: ignore[arg-type]
    return sink.getvalue()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- deterministic, whatever the sink -------------------------------------------------------------


@pytest.mark.parametrize("source", [SLICE, SHARDED, SOURCES / "gguf" / "split-00001-of-00003.gguf"], ids=str)
@pytest.mark.parametrize("level", ["fast", "default"])
def test_same_bytes_for_all_threads_and_runs(source: Path, level: str) -> None:
    first = _packed(source, level=level, threads=1, chunk_size=8192)
    for threads in (1, 2, 7):
        assert _packed(source, level=level, threads=threads, chunk_size=8192) == first


def test_same_bytes_in_another_process(tmp_path: Path) -> None:
    out = tmp_path / "a.qzf"
    script = "import sys, qzf; qzf.pack(sys.argv[1], sys.argv[2], level='max', threads=3)"
    environment = os.environ | {"PYTHONHASHSEED": "77", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", script, str(SLICE), str(out)], check=True, env=environment)
    assert out.read_bytes() == _packed(SLICE, level="max")


def test_file_memory_and_pipe_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.qzf"
    report = qzf.pack(SHARDED, path)
    data = path.read_bytes()
    assert report.out == str(path)
    assert (report.container_size, report.members) == (len(data), len(_names(SHARDED)))
    assert report.digest == qzf.verify(path).digest
    assert _packed(SHARDED) == data
    reading, writing = os.pipe()
    received: list[bytes] = []

    def drain() -> None:
        with os.fdopen(reading, "rb") as file:
            received.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        assert qzf.pack(SHARDED, pipe).out is None
    thread.join()
    assert received == [data]


def test_mode_and_times_of_the_source_do_not_matter(tmp_path: Path) -> None:
    results = set()
    for mode, when in [(0o600, 0), (0o644, 10**9)]:
        source = tmp_path / "a.gguf"
        source.write_bytes(small_gguf())
        source.chmod(mode)
        os.utime(source, (when, when))
        results.add(_packed(source))
    assert len(results) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_progress(threads: int) -> None:
    seen: list[tuple[int, int, int]] = []
    sink = io.BytesIO()
    report = qzf.pack(SLICE, sink, chunk_size=4096, threads=threads, progress=lambda *a: seen.append(a))
    done, total, out = zip(*seen, strict=True)
    assert list(done) == sorted(done) and list(out) == sorted(out)
    assert set(total) == {report.original_size} and done[-1] == report.original_size
    assert len(seen) == report.chunks
    assert out[-1] <= len(sink.getvalue())


def test_the_sink_is_written_by_the_calling_thread() -> None:
    """Some file objects are bound to theirs, and a thread that waits for a pipe cannot be interrupted."""
    here, threads = threading.get_ident(), set[int]()

    class Sink(io.BytesIO):
        def write(self, data: Any, /) -> int:
            threads.add(threading.get_ident())
            return super().write(data)

    qzf.pack(SLICE, Sink(), chunk_size=4096, threads=4)
    assert threads == {here}


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"level": "best"},
        {"chunk_size": MIN_CHUNK - 1},
        {"chunk_size": MAX_CHUNK},
        {"threads": 0},
        {"threads": 10**6},
    ],
)
def test_options_out_of_range(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        qzf.pack(SLICE, tmp_path / "a.qzf", **options)  # type: ignore[arg-type]
    assert not _names(tmp_path)


@pytest.mark.parametrize("chunk_size", [MIN_CHUNK, 5000, 1 << 20, MAX_CHUNK // 4])
def test_chunk_sizes(chunk_size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.qzf"
    qzf.pack(SLICE, path, chunk_size=chunk_size)
    assert qzf.verify(path, against=SLICE).ok
    with qzf.open(path) as container:
        rows = max(tensor.row_size for tensor in container.tensors)
        assert container.chunks["decoded_size"].max() <= max(2.5 * chunk_size, chunk_size + rows)


def test_default_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_output(["a/b.gguf"]) == Path("a/b.gguf.qzf")
    assert default_output(["a/folder/"]) == Path("a/folder.qzf")
    with pytest.raises(OptionError):
        default_output(["a", "b"])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"a")
    monkeypatch.chdir(folder)
    assert default_output(["."]) == tmp_path / "model.qzf"
    assert qzf.pack(".").out == str(tmp_path / "model.qzf")
    assert qzf.pack("a.txt").out == "a.txt.qzf"


# --- output: whole or not at all ------------------------------------------------------------------


def test_an_output_that_exists_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "a.qzf"
    out.write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        qzf.pack(SLICE, out)
    assert out.read_bytes() == b"precious"
    qzf.pack(SLICE, out, force=True)
    assert qzf.verify(out, against=SLICE).ok
    assert _names(tmp_path) == {"a.qzf"}


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_never_replaced(force: bool, tmp_path: Path) -> None:
    (tmp_path / f"{SLICE.name}.qzf").mkdir()
    with pytest.raises(OutputExistsError):
        qzf.pack(SLICE, tmp_path, force=force)


def test_into_a_folder(tmp_path: Path) -> None:
    assert qzf.pack(SLICE, tmp_path).out == str(tmp_path / f"{SLICE.name}.qzf")


@pytest.mark.parametrize("force", [False, True])
def test_a_pipe_is_never_replaced(force: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputExistsError, match="a device or a pipe"):
        qzf.pack(SLICE, tmp_path / "pipe", force=force)
    assert (tmp_path / "pipe").is_fifo()


def test_empty_texts_are_refused() -> None:
    for sources, out in (([""], "a.qzf"), ([SLICE], ""), ([], None)):
        with pytest.raises(OptionError):
            qzf.pack(sources, out)


def test_a_forked_child_leaves_the_temporary_file(tmp_path: Path) -> None:
    """Its exit runs finalizers, among them that of the parent's unfinished file."""
    out = tmp_path / "a.bin"
    with AtomicFile(out) as file:
        file.write(b"whole")
        child = os.fork()
        if child == 0:
            file.discard()
            os._exit(0)
        os.waitpid(child, 0)
    assert out.read_bytes() == b"whole"


def test_a_dangling_link_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "a.qzf"
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError):
        qzf.pack(SLICE, out)
    assert out.is_symlink()


def test_a_file_that_appears_during_packing_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "a.qzf"

    def appear(*_: int) -> None:
        if not out.exists():
            out.write_bytes(b"another's")

    with pytest.raises(OutputExistsError):
        qzf.pack(SLICE, out, progress=appear)
    assert out.read_bytes() == b"another's"
    assert _names(tmp_path) == {"a.qzf"}


class _BoomError(Exception):
    pass


@pytest.mark.parametrize("error", [_BoomError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("force", [False, True])
def test_an_error_in_the_middle_leaves_nothing(
    error: type[BaseException], force: bool, tmp_path: Path
) -> None:
    out = tmp_path / "a.qzf"
    if force:
        out.write_bytes(b"old")
    descriptors = open_files()

    def interrupt(done: int, total: int, _: int) -> None:
        assert len(_names(tmp_path)) == 1 + force  # a temporary file beside it
        if done > total // 2:
            raise error

    with pytest.raises(error):
        qzf.pack(SLICE, out, force=force, chunk_size=4096, progress=interrupt)
    assert _names(tmp_path) == ({"a.qzf"} if force else set())
    assert not force or out.read_bytes() == b"old"
    assert open_files() == descriptors
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("qzf")]


class _Full(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        raise OSError(28, "No space left on device")


def test_a_sink_that_fails() -> None:
    with pytest.raises(OSError, match="No space"):
        qzf.pack(SLICE, _Full())  # type: ignore[arg-type]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.qzf"
    out.write_bytes(b"old")
    write, left = os.write, 20_000

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(28, "No space left on device")
        left -= len(data)
        return write(descriptor, data)

    monkeypatch.setattr("qzf.ops.output.os.write", limited)
    with pytest.raises(OSError, match="No space"):
        qzf.pack(SLICE, out, force=True)
    assert out.read_bytes() == b"old" and _names(tmp_path) == {"a.qzf"}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        qzf.pack(SLICE, tmp_path / "none" / "a.qzf")


def test_a_long_name_of_wide_characters(tmp_path: Path) -> None:
    out = tmp_path / ("\u6a21" * 83 + ".qzf")
    qzf.pack(SLICE, out)
    assert qzf.verify(out).ok


_KILLED = """
import sys, time, qzf
def wait(done, total, out):
    if done > total // 2:
        print("half", flush=True)
        time.sleep(60)
qzf.pack(sys.argv[1], sys.argv[2], chunk_size=4096, force=True, progress=wait)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_killed_process_leaves_no_half_file(number: int, old: bytes | None, tmp_path: Path) -> None:
    out = tmp_path / "a.qzf"
    if old is not None:
        out.write_bytes(old)
    command = [sys.executable, "-c", _KILLED, str(SLICE), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"half\n"
        process.send_signal(number)
        process.wait(30)
    assert (out.read_bytes() if out.exists() else None) == old
    if number == signal.SIGINT:
        assert _names(tmp_path) == ({"a.qzf"} if old is not None else set())
    qzf.pack(SLICE, out, force=True)
    assert qzf.verify(out).ok


# --- sources that are not what they were ----------------------------------------------------------


def _model(tmp_path: Path) -> Path:
    """An opaque file of 40 chunks in a folder of its own."""
    folder = tmp_path / "sources"
    folder.mkdir()
    path = folder / "model.bin"
    path.write_bytes(skewed("model", 40 * 4096))
    return path


def _shorten(path: Path) -> None:
    os.truncate(path, 5000)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 39)
        file.write(b"other")
    os.utime(path, ns=(1, 1))  # a coarse clock might not show that it was written to


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("change", [_shorten, _append, _overwrite, _replace, Path.unlink])
@pytest.mark.parametrize("when", [1, 20])
def test_a_source_that_changes_while_it_is_packed(
    change: Callable[[Path], object], when: int, tmp_path: Path
) -> None:
    source, out = _model(tmp_path), tmp_path / "a.qzf"
    out.write_bytes(b"old")
    calls = 0

    def progress(*_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == when:
            change(source)

    descriptors = open_files()
    with pytest.raises(SourceChangedError) as caught:
        qzf.pack(source, out, chunk_size=4096, threads=1, force=True, progress=progress)
    assert caught.value.file == str(source)
    assert out.read_bytes() == b"old" and _names(tmp_path) == {"a.qzf", "sources"}
    assert open_files() == descriptors


@pytest.mark.parametrize("change", [_append, _replace, Path.unlink])
def test_a_later_source_that_changes_meanwhile(change: Callable[[Path], object], tmp_path: Path) -> None:
    source = _model(tmp_path)
    later = source.with_name("zzz.bin")
    later.write_bytes(noise("later", 5000))
    calls = 0

    def progress(*_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            change(later)

    with pytest.raises(SourceChangedError, match="zzz"):
        qzf.pack(source.parent, tmp_path / "a.qzf", chunk_size=4096, threads=1, progress=progress)
    assert _names(tmp_path) == {"sources"}


# --- sources that are refused ---------------------------------------------------------------------


def test_malformed_sources_need_opaque(tmp_path: Path) -> None:
    for name, content, error in [
        ("a.gguf", small_gguf()[:-1], GgufError),
        ("a.safetensors", small_safetensors()[:-1], SafetensorsError),
        ("b.gguf", b"not gguf", GgufError),
    ]:
        source, out = tmp_path / name, tmp_path / f"{name}.qzf"
        source.write_bytes(content)
        with pytest.raises(error):
            qzf.pack(source, out)
        assert not out.exists()
        qzf.pack(source, out, opaque=True)
        with qzf.open(out) as container:
            assert [member.kind for member in container.members] == ["opaque"]
        qzf.unpack(out, tmp_path / "again", force=True)
        assert (tmp_path / "again").read_bytes() == content


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    started = time.monotonic()
    with pytest.raises(SourceError):
        qzf.pack(tmp_path / "fifo", io.BytesIO())
    assert time.monotonic() - started < 5
    with pytest.raises(FileNotFoundError):
        qzf.pack(tmp_path / "none", io.BytesIO())
    with pytest.raises(SourceError):
        qzf.pack([], io.BytesIO())
