"""``qzf.torch`` beside ``safetensors.torch``: loading, slices and saving of MiniLM, in F32 and in BF16.

    python tools/bench/frameworks.py [--runs 9] [--json FILE]

Both sides take turns in one process, with the files in the page cache; medians, and the quickest. What
safetensors loads are maps of the file, whose pages come when they are touched: "loaded" has touched each of
them once, "called" none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a run as a file, without -m

import safetensors
import safetensors.torch
import torch

import qzf
import qzf.torch
from tools.bench.compare import machine
from tools.fetch_models import default_cache

_PAGE = 4096
_EMBEDDING = "embeddings.word_embeddings.weight"


class Row(NamedTuple):
    """What was done, to what, and the seconds of each run: of safetensors, and of qzf."""

    job: str
    dtype: str
    theirs: list[float]
    ours: list[float]

    def text(self) -> str:
        """The row of a table: medians, and the least."""
        cells = [
            f"{statistics.median(side) * 1e3:8.1f} ({min(side) * 1e3:.1f})"
            for side in (self.theirs, self.ours)
        ]
        return f"{self.job:<24} {self.dtype:<5} {cells[0]:>18} {cells[1]:>18}"


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes, without what it takes to drop its result."""
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    del result
    return seconds


def in_turns(
    theirs: Callable[[], Any], ours: Callable[[], Any], runs: int
) -> tuple[list[float], list[float]]:
    """Seconds of both, who take turns; one round before that does not count."""
    rounds = [(timed(theirs), timed(ours)) for _ in range(runs + 1)][1:]
    return [one for one, _ in rounds], [other for _, other in rounds]


def touched(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors, with a byte of each page read."""
    for tensor in tensors.values():
        tensor.reshape(-1).view(torch.uint8)[::_PAGE].sum()
    return tensors


def piece(module: Any, path: Path, index: Any) -> Any:
    """A part of the embedding, with the file opened for it."""
    with module.safe_open(path, "pt") as file:
        return file.get_slice(_EMBEDDING)[index].clone()


def measure(tensors: dict[str, Any], dtype: str, folder: Path, runs: int) -> list[Row]:
    """All rows of one dtype."""
    theirs, ours, out = (folder / name for name in (f"{dtype}.safetensors", f"{dtype}.qzf", "out"))
    safetensors.torch.save_file(tensors, theirs, {"format": "pt"})
    qzf.torch.save_file(tensors, ours, {"format": "pt"})
    loaded = qzf.torch.load_file(ours)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    jobs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "load_file, called": (
            lambda: safetensors.torch.load_file(theirs),
            lambda: qzf.torch.load_file(ours),
        ),
        "load_file, loaded": (
            lambda: touched(safetensors.torch.load_file(theirs)),
            lambda: touched(qzf.torch.load_file(ours)),
        ),
        "rows 1000:1100": (
            lambda: piece(safetensors, theirs, slice(1000, 1100)),
            lambda: piece(qzf, ours, slice(1000, 1100)),
        ),
        "save_file": (
            lambda: safetensors.torch.save_file(tensors, out),
            lambda: qzf.torch.save_file(tensors, out),
        ),
    }
    return [Row(job, dtype, *in_turns(*sides, runs)) for job, sides in jobs.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path, default=default_cache() / "minilm" / "model.safetensors")
    options = parser.parse_args(arguments)
    whole = safetensors.torch.load_file(options.model)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype, torch_dtype in (("F32", torch.float32), ("BF16", torch.bfloat16)):
            tensors = {
                name: tensor.to(torch_dtype) if tensor.is_floating_point() else tensor
                for name, tensor in whole.items()
            }
            rows += measure(tensors, dtype, Path(folder), options.runs)
    print(
        f"{machine()}; safetensors {safetensors.__version__}, torch {torch.__version__}; ms, median (least)\n"
    )
    print(f"{'job':<24} {'dtype':<5} {'safetensors':>18} {'qzf':>18}")
    print("\n".join(row.text() for row in rows))
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
