"""The command as a process: signals, full disks, closed pipes, terminals, and what it imports."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qzf import ops

SOURCES = Path(__file__).parents[2] / "fixtures" / "sources"
GGUF = SOURCES / "gguf" / "smollm2-slice.gguf"

Args = list[str | Path]

#: The command with a pause at each progress report, so that a signal finds it at work.
SLOW = """
import time
from qzf.cli import main, progress
progress.watched = lambda *, quiet: True
progress.Bar.__call__ = lambda self, *counts: time.sleep(0.1)
main()
"""
#: The command with a bar from the first moment on.
EAGER = """
from qzf.cli import main, progress
progress.DELAY = progress.INTERVAL = 0
main()
"""
#: The command, and then the names of all modules that were imported.
MODULES = """
import sys
from qzf.cli import main
try:
    main()
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def command(*args: str | Path, script: str | None = None) -> list[str]:
    start = ["-m", "qzf.cli"] if script is None else ["-c", script]
    return [sys.executable, "-W", "error", *start, *map(str, args)]


def run(
    *args: str | Path, script: str | None = None, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        command(*args, script=script),
        stdin=subprocess.DEVNULL,
        env=os.environ | {"QZF_TRACEBACK": ""} | (env or {}),
        encoding="utf-8",
        timeout=60,
        check=False,
        **options,
    )


def names(folder: Path) -> list[str]:
    """All entries, hidden ones too: a temporary file would be among them."""
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A container with many chunks."""
    out = tmp_path / "model.gguf.qzf"
    ops.pack(GGUF, out, chunk_size=4096)
    return out


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A container with one tensor of 4 MiB, far more than a pipe holds."""
    source = tmp_path / "large.safetensors"
    size = 4 << 20
    text = json.dumps({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    source.write_bytes(len(text).to_bytes(8, "little") + text + os.urandom(size))
    out = tmp_path / "large.qzf"
    ops.pack(source, out)
    return out


# --- exit codes -----------------------------------------------------------------------------------


def test_exit_codes(tmp_path: Path, packed: Path) -> None:
    damaged = tmp_path / "damaged.qzf"
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    assert run("verify", packed).returncode == 0
    assert run("verify", damaged).returncode == 1
    assert run("unpack", damaged, "-o", tmp_path / "out").returncode == 1
    assert run("verify").returncode == 2
    assert run("pack", GGUF, "-o", packed).returncode == 2
    assert run("verify", GGUF).returncode == 3
    assert run("verify", tmp_path / "gone").returncode == 4
    assert names(tmp_path) == ["damaged.qzf", "model.gguf.qzf"]


def test_an_unexpected_error_is_70_and_shows_no_traceback(tmp_path: Path) -> None:
    script = (
        "from qzf import ops\ndef pack(*a, **o): 1 / 0\nops.pack = pack\nfrom qzf.cli import main\nmain()"
    )
    result = run("pack", "a", "-o", "b", script=script)
    assert result.returncode == 70
    assert result.stderr.startswith("qzf: internal error: ZeroDivisionError: division by zero; please report")
    assert result.stderr.count("\n") == 1
    result = run("pack", "a", "-o", "b", script=script, env={"QZF_TRACEBACK": "1"})
    assert "Traceback" in result.stderr


# --- signals --------------------------------------------------------------------------------------


def _stop(args: Args, folder: Path, *signals: int) -> subprocess.CompletedProcess[str]:
    """Run slowly, send the signals as soon as a temporary file is there, and wait."""
    process = subprocess.Popen(
        command(*args, script=SLOW), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    deadline = time.monotonic() + 30
    while not any(name.endswith(".tmp") for name in names(folder)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for number in signals:
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


@pytest.mark.parametrize(
    ("signals", "code", "word"),
    [
        ([signal.SIGINT], 130, "interrupted"),
        ([signal.SIGTERM], 143, "terminated"),
        ([signal.SIGHUP], 129, "terminated"),
        ([signal.SIGTERM] * 5, 143, "terminated"),
    ],
)
def test_signals_leave_no_file_behind(tmp_path: Path, signals: list[int], code: int, word: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    result = _stop(["pack", GGUF, "-o", folder / "a.qzf", "--chunk-size", "4K"], folder, *signals)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", f"qzf: {word}\n")
    assert names(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_keep_what_was_there(tmp_path: Path, packed: Path, number: int) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for verb, source in (("pack", GGUF), ("unpack", packed)):
        old = folder / f"{verb}ed"
        old.write_text("old")
        result = _stop([verb, source, "-o", old, "--force"], folder, number)
        assert result.returncode == 128 + number
        assert old.read_text() == "old"
        old.unlink()
        assert names(folder) == []


def test_interrupt_with_json(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    result = _stop(["pack", GGUF, "-o", folder / "a.qzf", "--json"], folder, signal.SIGINT)
    assert json.loads(result.stdout)["error"]["exit_code"] == result.returncode == 130


@pytest.mark.parametrize(
    "work",
    [
        "time.sleep(60)",  # an operation that does not report
        "deaf(progress)",  # one in which the exception is lost once, as in a finalizer
    ],
)
def test_signals_in_operations_that_do_not_listen(tmp_path: Path, work: str) -> None:
    script = f"""
import time
from pathlib import Path
from qzf import ops
from qzf.cli import main
def deaf(progress):
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        progress(0, 1, 0)
def unpack(container, out, *, progress, **options):
    Path("ready").touch()
    {work}
ops.unpack = unpack
main()
"""
    process = subprocess.Popen(
        command("unpack", "a", script=script), cwd=tmp_path, stderr=subprocess.PIPE, encoding="utf-8"
    )
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "qzf: interrupted\n")


@pytest.mark.parametrize("delay", [0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
def test_signals_at_any_time(packed: Path, delay: float) -> None:
    """While Python and the command start, work or end: never a traceback, and never 0 for nothing done."""
    before = names(packed.parent)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "qzf.cli",
            "unpack",
            str(packed),
            "--force",
            "-o",
            str(packed.with_name("out")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGTERM, 143, 0)
    assert "Traceback" not in err
    left = set(names(packed.parent)) - set(before)
    assert left <= {"out"}
    assert process.returncode or left


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """As under nohup."""
    folder = tmp_path / "out"
    folder.mkdir()
    args: Args = ["pack", GGUF, "-o", folder / "a.qzf", "-q"]
    with _ignored(signal.SIGHUP):
        result = _stop(args, folder, signal.SIGHUP)
    assert result.returncode == 0
    assert names(folder) == ["a.qzf"]


@contextlib.contextmanager
def _ignored(number: int) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_a_killed_process_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert _stop(["pack", GGUF, "-o", folder / "a.qzf"], folder, signal.SIGKILL).returncode == -9
    assert "a.qzf" not in names(folder)


# --- disks, permissions, pipes --------------------------------------------------------------------


def _file_size_limit(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_file_that_grows_too_large(tmp_path: Path, packed: Path, force: list[str]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    if force:
        (folder / "file").write_text("old")
    both: tuple[Args, ...] = (["pack", GGUF], ["unpack", packed])
    for args in both:
        result = run(*args, "-o", folder / "file", *force, preexec_fn=_file_size_limit(50_000))
        assert result.returncode == 4
        assert os.strerror(errno.EFBIG) in result.stderr
        assert result.stderr.count("\n") == 1
        assert names(folder) == (["file"] if force else [])
    assert not force or (folder / "file").read_text() == "old"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "qzf-test", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, packed: Path) -> None:
    both: tuple[Args, ...] = (["pack", GGUF], ["unpack", packed])
    for args in both:
        result = run(*args, "-o", small_disk / "file")
        assert result.returncode == 4
        assert os.strerror(errno.ENOSPC) in result.stderr
        assert names(small_disk) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "args",
    [
        ["pack", GGUF, "-o", "-"],
        ["ls"],
        ["ls", "--json"],
        ["cat", "blk.0.attn_k.weight"],
        ["verify"],
        ["--help"],
    ],
)
def test_a_full_disk_behind_stdout(packed: Path, args: Args) -> None:
    if args[0] in ("ls", "cat", "verify"):
        args = [args[0], packed, *args[1:]]
    with Path("/dev/full").open("w") as full:
        result = run(*args, stdout=full)
    assert result.returncode == 4
    assert result.stderr.endswith(f"qzf: error: {os.strerror(errno.ENOSPC)}\n")


def test_permission(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:  # whom only special file systems refuse
        folder = Path("/sys")
    result = run("pack", GGUF, "-o", folder / "a.qzf")
    assert result.returncode == 4
    assert result.stderr.startswith(f"qzf: error: {folder}")
    assert result.stderr.count("\n") == 1


def test_new_files_follow_the_umask(tmp_path: Path, packed: Path) -> None:
    assert run("unpack", packed, "-o", tmp_path / "a", preexec_fn=lambda: os.umask(0o027)).returncode == 0
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("args", [["cat", "large.qzf", "t"], ["pack", "large.safetensors", "-o", "-"]])
def test_a_reader_that_goes_away(tmp_path: Path, large: Path, args: list[str]) -> None:
    process = subprocess.Popen(
        command(*args), cwd=large.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 141
    assert names(tmp_path) == ["large.qzf", "large.safetensors"]


@pytest.mark.parametrize("args", [[], ["--json"], ["--chunks"]])
def test_a_reader_that_never_was(packed: Path, args: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        result = run("ls", packed, *args, stdout=write_end)
    finally:
        os.close(write_end)
    assert (result.returncode, result.stderr) == (141, "")


def test_stdout_that_is_closed(tmp_path: Path, packed: Path) -> None:
    closed: dict[str, Any] = {"stdout": None, "preexec_fn": lambda: os.close(1)}
    assert run("ls", packed, **closed).returncode == 4
    assert run("cat", packed, "blk.0.attn_k.weight", **closed).returncode == 4
    result = run("unpack", packed, "-o", tmp_path / "out", **closed)  # whose summary nobody asked for
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == GGUF.read_bytes()


def test_binary_output(tmp_path: Path, packed: Path) -> None:
    with (tmp_path / "piped.qzf").open("wb") as out:
        result = run("pack", GGUF, "-o", "-", "--chunk-size", "4K", stdout=out)
    assert result.returncode == 0
    assert result.stderr.startswith("stdout: 304.7 kB -> ")
    assert (tmp_path / "piped.qzf").read_bytes() == packed.read_bytes()


# --- terminals ------------------------------------------------------------------------------------


def _terminal(*args: str | Path, script: str | None = None, term: str = "xterm-256color") -> tuple[int, str]:
    """Run on a terminal of 80 columns; returns the exit code and all that was written there."""
    environment = {**os.environ, "TERM": term, "COLUMNS": "80"}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    terminal, theirs = pty.openpty()
    line = command(*args, script=script)
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # EIO: the process has closed the terminal
        while part := os.read(terminal, 65536):
            written += part
    os.close(terminal)
    return process.wait(timeout=60), written.decode()


def test_progress_bar_on_a_terminal(tmp_path: Path, packed: Path) -> None:
    cases: tuple[tuple[Args, str], ...] = (
        (["pack", GGUF, "-o", tmp_path / "a.qzf", "--chunk-size", "4K"], "packing"),
        (["unpack", packed, "-o", tmp_path / "a"], "unpacking"),
        (["verify", packed], "verifying"),
    )
    for args, verb in cases:
        code, text = _terminal(*args, script=EAGER)
        assert code == 0
        assert f"{verb} " in text
        assert "100%" in text
        assert "B/s" in text
        assert " left" in text
        assert ("% saved" in text.split("digest")[0].split("->")[0]) == (verb == "packing")
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back
        frames = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
        assert max(len(frame) for frame in frames if verb in frame) <= 80


def test_no_bar_where_it_is_not_wanted(packed: Path) -> None:
    cases: tuple[tuple[Args, str], ...] = ((["verify", packed, "-q"], "xterm"), (["verify", packed], "dumb"))
    for args, term in cases:
        code, text = _terminal(*args, script=EAGER, term=term)
        assert (code, "verifying" in text, "\x1b" in text) == (0, False, False)


def test_short_runs_show_no_bar(packed: Path) -> None:
    patient = "from qzf.cli import main, progress\nprogress.DELAY = 60\nmain()"
    code, text = _terminal("verify", packed, script=patient)
    assert (code, "\x1b" in text) == (0, False)


def test_tables_on_a_terminal(packed: Path) -> None:
    for view in ("--members", "--tensors", "--chunks"):
        code, text = _terminal("ls", packed, view)
        assert code == 0
        assert "\x1b[1m" in text
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        lines = [line for line in plain.splitlines() if not re.match("[0-9a-f]{64} ", line)]
        assert max(map(len, lines)) <= 80


def test_piped_output_has_no_escape_codes(tmp_path: Path, packed: Path) -> None:
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "40"}
    for args in (
        ["ls", packed],
        ["ls", packed, "--tensors"],
        ["verify", packed],
        ["pack", GGUF, "-o", tmp_path / "a.qzf"],
        ["unpack", packed, "-o", tmp_path / "a"],
        ["--help"],
        ["nope"],
    ):
        result = run(*args, env=forced)
        assert "\x1b" not in result.stdout + result.stderr
    assert "blk.0.attn_output.weight  Q4_1" in run("ls", packed, "--tensors", env=forced).stdout


@pytest.mark.parametrize("args", [["pack", GGUF, "-o", "-"], ["cat", "PACKED", "blk.0.attn_k.weight"]])
def test_binary_data_is_not_written_to_a_terminal(packed: Path, args: Args) -> None:
    code, text = _terminal(*(packed if arg == "PACKED" else arg for arg in args))
    assert code == 2
    assert "to a terminal; redirect it" in " ".join(text.split())


def test_names_on_an_ascii_terminal(tmp_path: Path) -> None:
    source = tmp_path / "größe-模型.bin"
    source.write_bytes(bytes(100))
    result = run("pack", source, "-o", source.with_suffix(".qzf"), env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    result = run("ls", source.with_suffix(".qzf"), env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert r"gr\xf6\xdfe-\u6a21\u578b.bin  opaque" in result.stdout


# --- what is imported -----------------------------------------------------------------------------


def _modules(*args: str | Path) -> set[str]:
    result = run(*args, script=MODULES)
    assert result.returncode == 0
    return {name.partition(".")[0] if not name.startswith("qzf") else name for name in result.stderr.split()}


def test_commands_import_only_what_they_need(tmp_path: Path, packed: Path) -> None:
    version = _modules("--version")
    assert not {"numpy", "rich", "xxhash", "zstandard", "ml_dtypes", "json", "concurrent"} & version
    assert not {"qzf.ops", "qzf.access", "qzf.cli.pack", "qzf.cli.ls"} & version
    assert "numpy" not in _modules("pack", "--help")
    unpack = _modules("unpack", packed, "-o", tmp_path / "out")
    assert not {"rich", "ml_dtypes", "qzf.cli.pack", "qzf.cli.ls", "qzf.cli.listing"} & unpack
    assert not {"numpy", "concurrent", "qzf.adapters", "qzf.container.writer"} & unpack
    verify = _modules("verify", packed)
    assert not {"numpy", "concurrent", "rich"} & verify
    assert not {"numpy", "rich"} & _modules("pack", GGUF, "-o", tmp_path / "packed")
    assert "rich" not in _modules("ls", packed)


def test_convert(tmp_path: Path) -> None:
    """There and back byte for byte; numpy and libgguf are loaded for what needs them only."""
    raw, again = tmp_path / "raw.safetensors", tmp_path / "again.gguf"
    for source, out in ((GGUF, raw), (raw, again)):
        done = run("convert", source, out, script=MODULES)
        assert done.returncode == 0
        assert not {"numpy", "libgguf"} & set(done.stderr.split())
    assert again.read_bytes() == GGUF.read_bytes()
    floats = run("convert", GGUF, tmp_path / "f.safetensors", "--dequantize", "f16")
    assert floats.returncode == 0
    assert floats.stderr.startswith("lost: block formats; Q4_1, Q8_0 become F16")
    assert names(tmp_path) == ["again.gguf", "f.safetensors", "raw.safetensors"]


def test_convert_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("convert", GGUF, tmp_path / "raw.safetensors", "-j", "1", script=SLOW),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not names(tmp_path) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "qzf: interrupted\n")
    assert names(tmp_path) == []
