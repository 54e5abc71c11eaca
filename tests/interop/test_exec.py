"""``qzf exec``: what a program gets, and what it leaves; as processes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import qzf
from qzf import ops
from qzf.container.opening import open_reader
from qzf.integrations import memory
from qzf.storage import FileSource
from tests.helpers import SOURCES, flip
from tests.interop.test_cli_process import command

GGUF = SOURCES / "gguf" / "smollm2-slice.gguf"
SHARDED = SOURCES / "safetensors" / "sharded"

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")

#: Says what a program at the path in its first argument finds.
LOOK = """
import hashlib, mmap, os, sys
path = sys.argv[1]
with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    print(hashlib.sha256(file.read()).hexdigest(), hashlib.sha256(mapped).hexdigest())
"""


def run(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("exec", *args), capture_output=True, timeout=60, check=False, encoding="utf-8", **options
    )


def links() -> set[str]:
    """Folders of links that are there."""
    return {str(path) for path in Path("/dev/shm").glob("qzf-*")} if Path("/dev/shm").is_dir() else set()


@pytest.fixture(autouse=True)
def no_folder_stays() -> Iterator[None]:
    before = links()
    yield
    until(lambda: links() <= before)


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_file(smollm2: Path) -> None:
    """By reading and by a map, in whole and inside of an argument; several times."""
    expected = hashlib.sha256(GGUF.read_bytes()).hexdigest()
    result = run(smollm2, "--", sys.executable, "-c", LOOK, "{}")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == [expected, expected]
    result = run(smollm2, "--", "sh", "-c", "sha256sum < {}; cmp {} $1; echo $1", "sh", "{}")
    assert result.stdout.split()[0] == expected
    assert result.stdout.split()[-1].startswith("/proc/")
    assert run(smollm2, "--", "echo", "--model={}", "{}{}").stdout.count("/proc/") == 3


def test_programs_that_the_program_starts(smollm2: Path) -> None:
    """Python hands no descriptor on to them."""
    script = "import subprocess, sys; sys.exit(subprocess.call(['cmp', *sys.argv[1:]]))"
    assert run(smollm2, "--", sys.executable, "-c", script, "{}", GGUF).returncode == 0


def test_nobody_can_change_it(smollm2: Path) -> None:
    script = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR)
for change, value in ((os.write, b"x"), (os.ftruncate, 0), (os.ftruncate, 1 << 30)):
    try:
        change(file, value)
    except PermissionError:
        print("refused")
"""
    assert run(smollm2, "--", sys.executable, "-c", script, "{}").stdout.split() == ["refused"] * 3


def test_exit_codes_and_signals(smollm2: Path) -> None:
    assert run(smollm2, "--", "sh", "-c", "exit 41", "{}").returncode == 41
    assert run(smollm2, "--", "sh", "-c", "kill -SEGV $$", "{}").returncode == -signal.SIGSEGV
    assert run(smollm2, "--", "false", "{}").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_program(smollm2: Path, number: signal.Signals) -> None:
    script = f"trap 'exit 7' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        command("exec", smollm2, "--", "sh", "-c", script, "{}"), stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(timeout=30) == 7
    process.stdout.close()


def test_the_program_starts_as_if_by_the_caller(smollm2: Path) -> None:
    """Environment, ignored signals and open files are as without ``qzf exec``, but for the file."""
    script = """
import os, signal, sys
os.environ.pop("LC_CTYPE", None)  # Python's own, at start-up
print(sorted(os.environ.items()))
print([one for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN])
files = [f"/proc/self/fd/{one}" for one in os.listdir("/proc/self/fd") if int(one) > 2]
print([os.readlink(one).split(":")[0] for one in files if os.path.lexists(one)])
"""
    plain = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, encoding="utf-8")
    result = run(smollm2, "--", sys.executable, "-c", script, "{}")
    ours, theirs = result.stdout.splitlines(), plain.stdout.splitlines()
    assert ours[:2] == theirs[:2]
    assert ours[2] == "['/memfd']"
    assert theirs[2] == "[]"


def test_its_process_is_ours(smollm2: Path) -> None:
    process = subprocess.Popen(
        command("exec", smollm2, "--", "sh", "-c", "echo $$", "{}"), stdout=subprocess.PIPE
    )
    out, _ = process.communicate(timeout=30)
    assert int(out) == process.pid


def test_a_program_that_cannot_be_run(smollm2: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    cases = (("no-such-program", 127), (str(tmp_path / "nope"), 127), (str(plain), 126), (str(tmp_path), 126))
    for name, code in cases:
        result = run(smollm2, "--", name, "{}")
        assert result.returncode == code
        assert result.stderr.startswith(f"qzf: error: {name}: ")
        assert result.stderr.count("\n") == 1
    plain.chmod(0o755)  # only the kernel can tell
    result = run(smollm2, "--", str(plain), "{}")
    assert (result.returncode, result.stderr) == (126, f"qzf: error: {plain}: Exec format error\n")


def test_wrong_usage(smollm2: Path) -> None:
    for args in (
        [smollm2, "--", "true"],
        [smollm2, "--", "{}", "x"],
        [smollm2],
        [smollm2, "--member", "nope", "--", "true", "{}"],
        [smollm2, "--threads", "0", "--", "true", "{}"],
    ):
        result = run(*args)
        assert result.returncode == 2, args
        assert result.stderr.startswith("qzf: error: ")


def test_damage(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run on a file that is not whole."""
    monkeypatch.chdir(tmp_path)
    with FileSource(smollm2) as source:
        place = open_reader(source).index.chunks[20].offset + 200
    result = run(flip(smollm2, place), "--", "touch", tmp_path / "ran", "{}")
    assert result.returncode == 1
    assert "chunk 20" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_digest(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        digest = container.digest
    assert run(smollm2, "--digest", digest, "--", "cmp", "{}", GGUF).returncode == 0
    assert run(smollm2, "--digest", "0" * 64, "--", "true", "{}").returncode == 1


# --- several files --------------------------------------------------------------------------------


def test_a_folder(sharded: Path) -> None:
    result = run(sharded, "--", "diff", "-r", "{}", SHARDED)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_chosen_members(sharded: Path) -> None:
    names = sorted(path.name for path in SHARDED.iterdir())
    one = run(sharded, "--member", names[0], "--", "cmp", "{}", SHARDED / names[0])
    assert (one.returncode, one.stderr) == (0, "")
    two = run(sharded, "--member", names[0], "--member", names[1], "--", "ls", "{}")
    assert two.stdout.split() == names[:2]


def test_a_name(smollm2: Path) -> None:
    result = run(smollm2, "--named", "--", "sh", "-c", 'echo "$1"; cmp "$1" "$2"', "sh", "{}", GGUF)
    assert result.returncode == 0
    assert result.stdout.endswith(f"/{GGUF.name}\n")


def test_the_folder_stays_as_long_as_a_program_of_it_runs(smollm2: Path, tmp_path: Path) -> None:
    """And the process that removes it is nobody's child, for which a program could wait."""
    script = """
import os, subprocess, sys
try:
    os.wait()
except ChildProcessError:
    print("no child")
"""
    result = run(smollm2, "--named", "--", sys.executable, "-c", script, "{}")
    assert (result.returncode, result.stdout) == (0, "no child\n")
    process = subprocess.Popen(
        command(
            "exec",
            smollm2,
            "--named",
            "--",
            "sh",
            "-c",
            'echo "$1"; read line; exec cmp "$1" "$2"',
            "sh",
            "{}",
            GGUF,
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    assert process.stdout is not None
    link = Path(process.stdout.readline().strip())
    time.sleep(0.1)
    assert link.is_symlink()
    assert process.communicate("\n", timeout=30)[0] == ""
    assert process.returncode == 0
    until(lambda: not link.parent.exists())


def test_names_that_are_orders_to_a_shell(tmp_path: Path) -> None:
    """They come out of a file that anyone may have made."""
    source = tmp_path / "a$(touch ran)"
    source.write_bytes(b"x")
    ops.pack(source, tmp_path / "a.qzf")
    result = run(tmp_path / "a.qzf", "--named", "--", "sh", "-c", "cat {}", cwd=tmp_path)
    assert result.returncode == 2
    assert "shell" in result.stderr
    assert not (tmp_path / "ran").exists()
    assert run(tmp_path / "a.qzf", "--named", "--", "cat", "{}").stdout == "x"
    assert run(tmp_path / "a.qzf", "--", "sh", "-c", "cat {}").stdout == "x"


def test_parts_of_a_split() -> None:
    parts = [f"a-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    assert memory.first_of_split(reversed(parts)) == parts[0]
    for names in (parts[:2], [*parts, "a"], [], ["a.gguf"], [*parts[:2], "b-00003-of-00003.gguf"]):
        assert memory.first_of_split(names) is None


# --- memory ---------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the system has to end programs for it."""
    with FileSource(smollm2) as source:
        reader = open_reader(source)
        member = reader.index.members[0]._replace(size=1 << 60)
        with pytest.raises(OSError, match="bytes of memory"):
            memory.unpack_to_memory(reader, [member])
        monkeypatch.delattr(os, "memfd_create")
        with pytest.raises(qzf.OptionError, match="Linux"):
            memory.unpack_to_memory(reader, reader.index.members)


def test_files_are_closed_when_unpacking_fails(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with FileSource(smollm2) as source:
        place = open_reader(source).index.chunks[20].offset + 200
    with FileSource(flip(smollm2, place)) as source:
        reader, before = open_reader(source), open_files()
        with pytest.raises(qzf.DamageError):
            memory.unpack_to_memory(reader, reader.index.members, threads=2)
        assert open_files() == before


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    ops.pack(tmp_path / "empty", tmp_path / "empty.qzf")
    result = run(tmp_path / "empty.qzf", "--", "cmp", "{}", "/dev/null")
    assert (result.returncode, result.stderr) == (0, "")


def test_progress_can_stop_it(smollm2: Path) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int, output: int) -> None:
        assert 0 < done == output <= total == GGUF.stat().st_size
        raise StopError

    with FileSource(smollm2) as source:
        reader = open_reader(source)
        with pytest.raises(StopError):
            memory.unpack_to_memory(reader, reader.index.members, progress=stop)


def test_it_starts_fast() -> None:
    script = "import sys, qzf.cli.exec, qzf.integrations.memory; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, encoding="utf-8")
    assert not {"numpy", "construct", "subprocess", "tempfile"} & set(found.stdout.split())
