"""Programs on containers beside the plain file: a mount, ``qzf exec``, and loading by llama.cpp.

    python -m tools.bench.programs [--runs 9] MODEL

MODEL is a name that ``tools/fetch_models.py`` knows, or a path to a GGUF file. What is read is in the page
cache, but not what the mount has decoded. All is measured in turn, so that what disturbs the machine disturbs
all of it; medians are printed as a Markdown table. What needs FUSE or an optional package is left out where
that is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tools.fetch_models import fetch

ROOT: Final = Path(__file__).parents[2]
QZF: Final = (sys.executable, "-m", "qzf.cli")
LLAMA: Final[dict[str, Any]] = {"n_ctx": 64, "n_threads": 2, "verbose": False}

#: What is measured: a name, and what is done.
Cases = dict[str, Callable[[], object]]


def run(*command: str | Path) -> None:
    """Run a program to its end, and throw away what it says."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def mounted(packed: Path) -> Iterator[Path]:
    """A folder that the container is mounted to."""
    with tempfile.TemporaryDirectory() as point:
        run(*QZF, "mount", "-q", packed, point)
        try:
            yield Path(point)
        finally:
            run(
                shutil.which("fusermount3") or "umount",
                *(["-u"] if shutil.which("fusermount3") else []),
                point,
            )


def reading(plain: Path, point: Path) -> Cases:
    """Whole reads, through a mount and of the plain file."""
    inside = point / plain.name

    def dd(path: Path) -> None:
        run("dd", f"if={path}", f"of={os.devnull}", "bs=1M")

    return {
        "mount: first `dd bs=1M`": lambda: dd(inside),
        "mount: second `dd bs=1M`": lambda: dd(inside),
        "plain file: `dd bs=1M`": lambda: dd(plain),
    }


def starting(plain: Path, packed: Path, room: Path) -> Cases:
    """Until a program has all of the file in memory, whole processes."""
    return {
        "`qzf exec FILE -- true {}`": lambda: run(*QZF, "exec", "-q", packed, "--", "true", "{}"),
        "plain file: `cp` to memory": lambda: run("cp", plain, room / "copy"),
    }


def loading(plain: Path, packed: Path) -> Cases:
    """Until llama.cpp has a model, without imports."""
    import llama_cpp

    import qzf.llama_cpp

    return {
        "`qzf.llama_cpp.load(FILE)`": lambda: qzf.llama_cpp.load(packed, **LLAMA).close(),
        "plain file: `Llama(use_mmap=False)`": lambda: llama_cpp.Llama(
            str(plain), use_mmap=False, **LLAMA
        ).close(),
        "`qzf.llama_cpp.load(FILE, use_mmap=True)`": lambda: qzf.llama_cpp.load(
            packed, use_mmap=True, **LLAMA
        ).close(),
        "plain file: `Llama()`": lambda: llama_cpp.Llama(str(plain), **LLAMA).close(),
    }


def measure(plain: Path, runs: int) -> dict[str, list[float]]:
    """Seconds of each case, ``runs`` times."""
    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
        packed = folder / "model.qzf"
        run(*QZF, "pack", plain, "-o", packed)
        cases: Cases = {}
        mount = None
        if find_spec("mfusepy") is not None and os.access("/dev/fuse", os.R_OK | os.W_OK):
            mount = stack.enter_context(mounted(packed))
            cases |= reading(plain, mount)
        cases |= starting(plain, packed, room)
        if find_spec("llama_cpp") is not None:
            cases |= loading(plain, packed)
        run("cat", plain, packed)
        for _ in range(runs):
            if mount is not None:
                forget(mount / plain.name)
            for name, work in cases.items():
                start = time.perf_counter()
                work()
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    return seconds


def table(seconds: dict[str, list[float]], size: int) -> str:
    """Medians, as Markdown."""
    lines = ["| | seconds | MB/s | best |", "| --- | ---: | ---: | ---: |"]
    for name, times in seconds.items():
        median = statistics.median(times)
        lines.append(f"| {name} | {median:.3f} | {size / median / 1e6:.0f} | {min(times):.3f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args(arguments)
    plain = Path(options.model).resolve() if options.model.endswith(".gguf") else fetch(options.model)
    print(table(measure(plain, options.runs), plain.stat().st_size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
