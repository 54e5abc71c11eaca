"""What it takes to import qzf, open a container and read a little of it, each time in a new process.

    python tools/bench/opening.py [--model gemma] [--runs 15]

The container is in the page cache. Times are in milliseconds: ``import qzf`` alone, the rest of what opening
imports (numpy is most of it), opening, the smallest tensor, and a tensor of 5 MB: the rows of the largest one
that make up as much, or the tensor of about that size where the model has one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a run as a file, without -m

import qzf
from tools import fetch_models

ROOT = Path(__file__).resolve().parents[2]
WANTED = 5_000_000

_MEASURED = """
import json, sys, time
path, small, middle, rows = sys.argv[1:]
times = [time.perf_counter()]
import qzf; times.append(time.perf_counter())
from qzf import open as qzf_open; times.append(time.perf_counter())
container = qzf_open(path); times.append(time.perf_counter())
container.tensor(small); times.append(time.perf_counter())
if rows == "all":
    container.tensor(middle)
else:
    container.get_slice(middle)[:int(rows)]
times.append(time.perf_counter())
print(json.dumps([1000 * (b - a) for a, b in zip(times, times[1:])]))
"""
NAMES = ("import qzf", "other imports", "open", "smallest tensor", "5 MB", "open + smallest")


def _choose(packed: Path) -> tuple[str, str, str]:
    """The smallest tensor, the one to take 5 MB of, and how many rows of it (``all`` of them)."""
    with qzf.open(packed) as container:
        sizes = {name: container.info(name).extent.size for name in container}
        near = min(sizes, key=lambda name: abs(sizes[name] - WANTED))
        small, large = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
        if 0.8 * WANTED < sizes[near] < 1.2 * WANTED:
            return small, near, "all"
        return small, large, str(max(WANTED * container.get_slice(large).shape[0] // sizes[large], 1))


def measure(source: Path, runs: int, folder: Path) -> dict[str, float]:
    """Medians in milliseconds."""
    packed = folder / "model.qzf"
    qzf.pack(source, packed)
    command = [sys.executable, "-c", _MEASURED, str(packed), *_choose(packed)]
    rounds = []
    for _ in range(runs + 1):  # the first one warms up
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        times = json.loads(done.stdout)
        rounds.append([*times, times[2] + times[3]])
    return dict(zip(NAMES, map(median, zip(*rounds[1:], strict=True)), strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gemma", choices=[*fetch_models.MODELS])
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="qzf-opening-") as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        found = measure(fetch_models.fetch(options.model), options.runs, Path(folder))
    for name, milliseconds in found.items():
        print(f"{name:18} {milliseconds:8.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
