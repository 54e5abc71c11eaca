"""``qzf mount``: what programs find at a mount point, as processes."""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import syslog
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import qzf
from qzf.cli import mount
from qzf.container.opening import open_reader
from qzf.storage import FileSource
from tests.helpers import SOURCES, flip
from tests.interop.test_adapters_agree import model_path
from tests.interop.test_cli_process import command
from tests.interop.test_exec import until

GGUF = SOURCES / "gguf" / "smollm2-slice.gguf"
SHARDED = SOURCES / "safetensors" / "sharded"
ORIGINAL = GGUF.read_bytes()

if not os.access("/dev/fuse", os.R_OK | os.W_OK):
    pytest.skip("there is no /dev/fuse for this user", allow_module_level=True)
if shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
    pytest.skip("fuse3 is not installed", allow_module_level=True)
pytest.importorskip("mfusepy")

END = ["umount"] if os.geteuid() == 0 else [shutil.which("fusermount3") or "fusermount", "-u"]


def run(*args: str | Path, script: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("mount", *args, script=script),
        capture_output=True,
        timeout=60,
        check=False,
        encoding="utf-8",
        **options,
    )


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """A folder to mount to. Nothing is mounted there in the end."""
    folder = tmp_path / "mounted here"
    folder.mkdir()
    yield folder
    if folder.is_mount():
        subprocess.run([*END, str(folder)], check=True)


@contextmanager
def mounted(source: Path, point: Path, *options: str | Path) -> Iterator[dict[str, Any]]:
    """In the background; gives what the command reports. The process is gone in the end."""
    result = run(source, point, "--json", *options)
    assert (result.returncode, result.stderr) == (0, "")
    report: dict[str, Any] = json.loads(result.stdout)
    try:
        yield report
    finally:
        subprocess.run([*END, str(point)], check=True)
        until(lambda: _ended(report["process"]))
    assert not point.is_mount()


def _ended(process: int) -> bool:
    """Also if its parent has not asked yet."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def bytes_read(process: int) -> int:
    """What a process has read, from files or from the kernel."""
    return int(Path(f"/proc/{process}/io").read_text().split()[1])


# --- files ----------------------------------------------------------------------------------------


def test_a_file(smollm2: Path, point: Path) -> None:
    with mounted(smollm2, point) as report:
        assert report["mountpoint"] == str(point)
        assert (report["files"], report["size"], report["skipped"]) == (1, len(ORIGINAL), [])
        file = point / GGUF.name
        assert [path.name for path in point.iterdir()] == [GGUF.name]
        assert file.read_bytes() == ORIGINAL
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert mapped[:] == ORIGINAL
        assert subprocess.run(["cmp", file, GGUF], check=False).returncode == 0


def test_attributes(smollm2: Path, point: Path) -> None:
    with mounted(smollm2, point):
        status, folder = (point / GGUF.name).stat(), point.stat()
        assert stat.filemode(status.st_mode) == "-r--r--r--"
        assert stat.filemode(folder.st_mode) == "dr-xr-xr-x"
        assert (status.st_size, status.st_blocks) == (len(ORIGINAL), -(-len(ORIGINAL) // 512))
        assert status.st_mtime_ns == folder.st_mtime_ns == smollm2.stat().st_mtime_ns
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
        space = os.statvfs(point)
        assert space.f_bfree == space.f_bavail == 0
        assert space.f_blocks * space.f_frsize >= len(ORIGINAL)
        assert space.f_flag & os.ST_RDONLY


def test_it_is_read_only(smollm2: Path, point: Path) -> None:
    with mounted(smollm2, point):
        file = point / GGUF.name
        attempts: list[Callable[[], object]] = [
            lambda: file.open("r+b"),
            lambda: (point / "new").touch(),
            lambda: file.unlink(),
            lambda: file.rename(point / "other"),
            lambda: (point / "folder").mkdir(),
            lambda: file.chmod(0o777),
            lambda: os.truncate(file, 0),
        ]
        for attempt in attempts:
            with pytest.raises(OSError, match="Read-only file system"):
                attempt()
        with pytest.raises(FileNotFoundError):
            (point / "nope").stat()
        assert file.read_bytes() == ORIGINAL


@pytest.mark.parametrize("options", [[], ["--cache-size", "0"], ["--cache-size", "10K", "-j", "1"]])
def test_many_readers(smollm2: Path, point: Path, options: list[str]) -> None:
    """Each reads here and there, and forgets what the kernel keeps, so that all of it is decoded again."""
    wrong: list[int] = []

    def work(number: int) -> None:
        draw = random.Random(number)
        with (point / GGUF.name).open("rb", buffering=0) as file:
            for _ in range(40):
                if draw.random() < 0.3:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                offset, size = draw.randrange(len(ORIGINAL)), draw.choice([1, 5000, 200_000])
                if os.pread(file.fileno(), size, offset) != ORIGINAL[offset : offset + size]:
                    wrong.append(number)

    with mounted(smollm2, point, *options):
        crowd = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
    assert not wrong


def test_the_second_read_is_the_kernels(smollm2: Path, point: Path) -> None:
    with mounted(smollm2, point) as report:
        file = point / GGUF.name
        assert file.read_bytes() == ORIGINAL
        # After another file was opened and closed, too.
        before = bytes_read(report["process"])
        assert file.read_bytes() == ORIGINAL
        assert bytes_read(report["process"]) - before < 4096


def test_a_folder_of_containers(smollm2: Path, sharded: Path, point: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(smollm2, folder)
    shutil.copy(sharded, folder / "sub" / "st.qzf")
    (folder / "bad.qzf").write_text("no container")
    result = run(folder, point)
    assert result.returncode == 0
    assert result.stderr.startswith(f"skipped: {folder / 'bad.qzf'}")
    assert f"end it by: umount '{point}'" in result.stdout
    assert (point / GGUF.name).read_bytes() == ORIGINAL
    assert subprocess.run(["diff", "-r", point / "sub" / "st", SHARDED], check=False).returncode == 0
    assert sorted(path.name for path in point.iterdir()) == [GGUF.name, "sub"]


def test_an_empty_file(point: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    qzf.pack(tmp_path / "empty", tmp_path / "empty.qzf")
    with mounted(tmp_path / "empty.qzf", point):
        assert (point / "empty").read_bytes() == b""


# --- damage ---------------------------------------------------------------------------------------


def test_damage(smollm2: Path, point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is an I/O error where it is, and a line in the log, once; all else can be read."""
    monkeypatch.chdir(tmp_path)
    with FileSource(smollm2) as source:
        index = open_reader(source).index
    bad = next(chunk for chunk in range(len(index.chunks)) if index.starts[chunk] > len(ORIGINAL) // 2)
    start, end = index.starts[bad], index.starts[bad + 1]
    log = tmp_path / "log"
    page = 4096
    before, after = start // page * page, -(-end // page) * page
    damaged = flip(smollm2, index.chunks[bad].offset + 200)
    with mounted(damaged, point, "--log", log), (point / GGUF.name).open("rb", buffering=0) as file:
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error") as caught:
                os.pread(file.fileno(), 10, start + 10)
            assert caught.value.errno == errno.EIO
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no more at once than is asked for
        assert os.pread(file.fileno(), page, before - page) == ORIGINAL[before - page : before]
        assert os.pread(file.fileno(), page, after) == ORIGINAL[after : after + page]
    lines = log.read_text().splitlines()
    assert len(lines) == 1
    assert "damaged.qzf" in lines[0]
    assert f"chunk {bad}" in lines[0]


def test_the_systems_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is where reports go from the background; no name in them can fake a line."""
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr("syslog.syslog", lambda level, line: lines.append((level, line)))
    handler = mount._handler(None, foreground=False)
    handler.handle(logging.makeLogRecord({"msg": "%s: bad", "args": ("a\nb.qzf",)}))
    assert lines == [(syslog.LOG_ERR, r"qzf mount: a\nb.qzf: bad")]


def test_damage_in_the_foreground(
    smollm2: Path, point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with FileSource(smollm2) as source:
        place = open_reader(source).index.chunks[20].offset + 200
    process = _foreground(flip(smollm2, place), point)
    with pytest.raises(OSError, match="Input/output error"):
        (point / GGUF.name).read_bytes()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err.startswith("qzf: damaged.qzf, ")
    assert "chunk 20" in err
    assert err.count("\n") == 1


# --- processes ------------------------------------------------------------------------------------


def _foreground(source: Path, point: Path, **options: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command("mount", "-f", source, point),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **options,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"{point}: 1 file, 304.7 kB")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_foreground_ends_by_a_signal(smollm2: Path, point: Path, number: signal.Signals) -> None:
    process = _foreground(smollm2, point)
    assert (point / GGUF.name).read_bytes() == ORIGINAL
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
    assert not point.is_mount()


def test_the_foreground_ends_by_unmounting(smollm2: Path, point: Path) -> None:
    process = _foreground(smollm2, point)
    subprocess.run([*END, str(point)], check=True)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def test_the_background_ends_by_a_signal(smollm2: Path, point: Path) -> None:
    report = json.loads(run(smollm2, point, "--json").stdout)
    assert os.getsid(report["process"]) == report["process"]
    standard = [Path(f"/proc/{report['process']}/fd/{number}").readlink() for number in range(3)]
    assert standard == [Path(os.devnull)] * 3
    os.kill(report["process"], signal.SIGTERM)
    until(lambda: _ended(report["process"]))
    assert not point.is_mount()


def test_threads_and_memory_go_when_files_are_closed(point: Path, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(random.Random(1).randbytes(64 << 20))
    qzf.pack(tmp_path / "large", tmp_path / "large.qzf")
    with mounted(tmp_path / "large.qzf", point) as report:

        def held() -> int:
            lines = Path(f"/proc/{report['process']}/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

        idle = held()
        with (point / "large").open("rb", buffering=0) as file:
            assert len(file.read()) == 64 << 20
            assert held() < idle + (24 << 10)  # what has been read in whole is the kernel's
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for at in range(0, 64 << 20, 512 << 10):
                assert len(os.pread(file.fileno(), 4096, at)) == 4096
            assert idle + (40 << 10) < held() < idle + (80 << 10)
        until(lambda: held() < idle + (24 << 10))


def test_mount_points_that_will_not_do(smollm2: Path, point: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for path, code, what in (
        (tmp_path / "full", 2, "not empty"),
        (tmp_path / "full" / "file", 4, "Not a directory"),
        (tmp_path / "nope", 4, "No such file"),
    ):
        result = run(smollm2, path)
        assert (result.returncode, result.stdout) == (code, "")
        assert what in result.stderr
        assert result.stderr.count("\n") == 1
    with mounted(smollm2, point):
        assert run(smollm2, point).returncode == 2


def test_sources_that_will_not_do(smollm2: Path, point: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for args, code in (
        ([GGUF, point], 3),
        ([tmp_path / "nope", point], 4),
        ([tmp_path / "folder", point], 2),
        ([tmp_path / "folder", point, "--digest", "0" * 64], 2),
        ([smollm2, point, "--digest", "0" * 64], 1),
        ([smollm2, point, "--cache-size", "much"], 2),
        ([smollm2, point, "-j", "1000"], 2),
        ([smollm2, point, "--log", tmp_path / "nope" / "log"], 4),
    ):
        result = run(*args)
        assert (result.returncode, result.stdout) == (code, ""), args
        assert result.stderr.startswith("qzf: error: ")
        assert not point.is_mount()


def test_a_mount_that_fails(smollm2: Path, point: Path) -> None:
    """libfuse says why on stderr, and the command fails in the background and in the foreground."""
    script = "import mfusepy\nmfusepy.fuse_main_real = lambda *_: 4\nfrom qzf.cli import main\nmain()"
    for options in ([], ["-f"]):
        result = run(smollm2, point, *options, script=script)
        assert (result.returncode, result.stdout) == (4, "")
        assert result.stderr == f"qzf: error: {point}: cannot be mounted\n"


def test_the_package_may_be_missing(smollm2: Path, point: Path) -> None:
    script = "import sys\nsys.modules['mfusepy'] = None\nfrom qzf.cli import main\nmain()"
    result = run(smollm2, point, script=script)
    assert result.returncode == 2
    assert "pip install 'qzf[mount]'" in result.stderr
    result = run(smollm2, point, env={**os.environ, "FUSE_LIBRARY_NAME": "no-such-library"})
    assert result.returncode == 2
    assert "fuse3" in result.stderr


# --- programs -------------------------------------------------------------------------------------


def test_llama_cpp(point: Path, tmp_path: Path) -> None:
    """Unmodified, with a map and without, of one file and of one that is split."""
    pytest.importorskip("llama_cpp")
    from tests.interop.tiny_llama import write_tiny_llama

    plain = write_tiny_llama(tmp_path / "tiny.gguf")[0]
    (tmp_path / "parts").mkdir()
    parts = write_tiny_llama(tmp_path / "parts" / "tiny.gguf", parts=3)
    (tmp_path / "packed").mkdir()
    qzf.pack(plain, tmp_path / "packed" / "plain.qzf", chunk_size=4096)
    qzf.pack(parts[0], tmp_path / "packed" / "parts.qzf", chunk_size=4096)
    with mounted(tmp_path / "packed", point):
        _same_tokens(plain, [point / "tiny.gguf", point / "parts" / parts[0].name])


@pytest.mark.realmodel
@pytest.mark.parametrize("name", ["smollm2", "gemma"])
def test_llama_cpp_on_real_models(name: str, point: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    path = model_path(name)
    qzf.pack(path, tmp_path / "model.qzf", level="fast")
    with mounted(tmp_path / "model.qzf", point):
        _same_tokens(path, [point / path.name])


def _same_tokens(plain: Path, others: list[Path]) -> None:
    from tests.interop.test_llama_cpp import PROGRAM

    def said(path: Path, how: str) -> str:
        line = [sys.executable, "-c", PROGRAM, str(path), how]
        return subprocess.run(line, capture_output=True, check=True, encoding="utf-8").stdout

    for how in ("map", "read"):
        expected = said(plain, how)
        assert len(expected.split()) == 16
        for other in others:
            assert said(other, how) == expected


@pytest.mark.realmodel
def test_speed(gemma: Path, point: Path, tmp_path: Path) -> None:
    """250 MB/s at the first read: the best of some, as other tests run beside it. It is 1,000 alone."""
    qzf.pack(gemma, tmp_path / "model.qzf", level="fast")
    buffer, best = bytearray(1 << 20), 0.0
    with mounted(tmp_path / "model.qzf", point):
        for _ in range(5):
            with (point / gemma.name).open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                start = time.perf_counter()
                while file.readinto(buffer):
                    pass
                best = max(best, gemma.stat().st_size / (time.perf_counter() - start))
    assert best > 250e6
