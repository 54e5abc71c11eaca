"""Loading over HTTP: a container by ``qzf.open(url)``, beside the plain file by fsspec, on lines of any kind.

    python tools/bench/remote.py [MODEL ...] [--delay 30] [--rate 12.5 50 250 0] [--runs 3] [--json FILE]

Delays are milliseconds before each answer, rates MB/s of the whole line (0: as fast as loopback goes). A
server of its own process has both. Jobs: ``tensor``, from the URL to the one tensor in the middle of the file
in memory; ``model``, from the URL to all tensors in memory. The plain file is read in two ways: ``file``, as
an fsspec file with its default cache, header parsed, tensors read one by one; ``whole`` (model only), by one
``cat_file``. Medians of the runs, all in one process; requests and bytes are counted by the server.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a run as a file, without -m

import fsspec

import qzf
from qzf.adapters import describe
from qzf.model import MemberSpec
from qzf.storage import ObjectSource
from tools import fetch_models
from tools.bench.compare import machine

ROOT: Final = Path(__file__).resolve().parents[2]
MB: Final = 1_000_000


@dataclass(frozen=True)
class Cell:
    """What a method took for a job: seconds (median), and what the server counted in the last run."""

    model: str
    job: str
    method: str
    delay_ms: float
    rate_mb: float
    seconds: float
    requests: int
    bytes: int


@contextmanager
def line(folder: Path, delay_ms: float, rate_mb: float) -> Iterator[str]:
    """The URL of a server with that delay and rate."""
    command = [sys.executable, "-m", "tools.bench.remote_server", str(folder)]
    command += ["--delay", str(delay_ms / 1000), "--rate", str(int(rate_mb * MB))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def counts(url: str) -> dict[str, int]:
    """What the server has counted since it was last asked."""
    with urllib.request.urlopen(url) as answer:
        found: dict[str, int] = json.load(answer)
    return found


def qzf_tensor(url: str, name: str) -> int:
    with qzf.open(url + ".qzf") as container:
        return len(container.tensor(name).tobytes())


def qzf_model(url: str, _: str) -> int:
    with qzf.open(url + ".qzf") as container:
        return sum(array.nbytes for array in container.load().values())


def _file_system() -> Any:
    return fsspec.filesystem("http", skip_instance_cache=True)


def _plain(file: Any, url: str) -> MemberSpec:
    with ObjectSource(file) as source:
        return describe(source, Path(url).name)


def file_tensor(url: str, name: str) -> int:
    with _file_system().open(url, "rb") as file:
        extent = next(tensor.extent for tensor in _plain(file, url).tensors if tensor.name == name)
        file.seek(extent.offset)
        return len(file.read(extent.size))


def file_model(url: str, _: str) -> int:
    total = 0
    with _file_system().open(url, "rb") as file:
        for tensor in _plain(file, url).tensors:
            file.seek(tensor.extent.offset)
            total += len(file.read(tensor.extent.size))
    return total


def whole_model(url: str, _: str) -> int:
    return len(_file_system().cat_file(url))


#: (job, method, what does it); each returns the bytes that it has got.
JOBS: Final[tuple[tuple[str, str, Callable[[str, str], int]], ...]] = (
    ("tensor", "qzf", qzf_tensor),
    ("tensor", "plain file", file_tensor),
    ("model", "qzf", qzf_model),
    ("model", "plain file", file_model),
    ("model", "plain whole", whole_model),
)


def measure(model: Path, base: str, name: str, delay_ms: float, rate_mb: float, runs: int) -> list[Cell]:
    """All jobs on a line, in turn, ``runs`` times."""
    url = f"{base}/{model.name}"
    seconds: list[list[float]] = [[] for _ in JOBS]
    counted: list[dict[str, int]] = [{} for _ in JOBS]
    for _ in range(runs):
        for place, (job, method, do) in enumerate(JOBS):
            counts(base)
            begin = time.perf_counter()
            size = do(url, name)
            seconds[place].append(time.perf_counter() - begin)
            counted[place] = counts(base)
            if not size:
                raise RuntimeError(f"{method} has got nothing for {job}")
    return [
        Cell(model.stem, job, method, delay_ms, rate_mb, statistics.median(taken), *found.values())
        for (job, method, _), taken, found in zip(JOBS, seconds, counted, strict=True)
    ]


def middle(container: Path) -> str:
    """A tensor of more than a megabyte in the middle of the file, or the largest one."""
    with qzf.open(container) as opened:
        large = [t for t in opened.tensors if t.extent.size > MB] or [
            max(opened.tensors, key=lambda t: t.extent.size)
        ]
        return large[len(large) // 2].name


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The report: conditions, and a cell for each model, line, job and method."""
    cells: list[Cell] = []
    sizes: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for model in map(Path, options.models):
            path = model if model.is_file() else fetch_models.fetch(str(model))
            plain, packed = folder / path.name, folder / f"{path.name}.qzf"
            plain.symlink_to(path.resolve())
            qzf.pack(path, packed)
            sizes[plain.stem] = {"plain": path.stat().st_size, "qzf": packed.stat().st_size}
            name = middle(packed)
            for delay in options.delay:
                for rate in options.rate:
                    with line(folder, delay, rate) as base:
                        found = measure(plain, base, name, delay, rate, options.runs)
                    cells += found
                    print(as_text(found), flush=True)
    facts = {"date": date.today().isoformat(), "machine": machine(), "runs": options.runs, "sizes": sizes}
    return {**facts, "cells": [asdict(cell) for cell in cells]}


def as_text(cells: Sequence[Cell]) -> str:
    """A table of the cells of one line."""
    first = cells[0]
    rate = f"{first.rate_mb:g} MB/s" if first.rate_mb else "no limit"
    lines = [f"{first.model}, {first.delay_ms:g} ms, {rate}"]
    lines += [
        f"  {cell.job:7} {cell.method:13} {cell.seconds:8.3f} s {cell.requests:5} requests {cell.bytes:12,} B"
        for cell in cells
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Loading over HTTP, beside the plain file by fsspec.")
    parser.add_argument("models", nargs="*", default=["gemma"], help="names of fetch_models, or files")
    parser.add_argument("--delay", type=float, nargs="+", default=[30.0], help="ms before each answer")
    parser.add_argument("--rate", type=float, nargs="+", default=[12.5, 50, 250, 0], help="MB/s of the line")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    report = run(options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + os.linesep)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
