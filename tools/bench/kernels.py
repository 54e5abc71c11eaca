"""Speed of the compiled kernels: MB/s of original bytes for each layout and instruction set.

    python -m tools.bench.kernels [--json] [--mib 8] [--repeat 15] [--isa avx2] [LAYOUT ...]

Each figure is the median of ``--repeat`` runs over one buffer of noise that is written and read again
each time; memcpy over the same bytes stands beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

import numpy as np

from qzf.transforms import fields
from qzf.transforms.layouts import BY_NAME, Layout


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; speeds in MB (10**6 bytes of original data) a second."""

    layout: str
    isa: str
    split: float
    merge: float
    memcpy: float


def mb_per_s(size: int, repeat: int, call: Callable[[], object]) -> float:
    """Median speed of ``call``, which handles ``size`` bytes, over ``repeat`` runs after one to warm up."""
    call()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return size / median(seconds) / 1e6


def measure(layout: Layout, isa: str, size: int, repeat: int) -> Row:
    """Speeds of one layout, straight at the core: no allocation within the timed part."""
    n = max(1, size // layout.block)
    src = np.random.default_rng(n).integers(0, 256, n * layout.block, dtype=np.uint8)
    core = fields.native(layout)
    out = np.zeros(n * sum(layout.widths), np.uint8)
    bounds = np.cumsum([0, *layout.widths]) * n
    streams = [out[a:b].data for a, b in pairwise(bounds)]
    back = np.zeros_like(src)
    return Row(
        layout.name,
        isa,
        mb_per_s(src.size, repeat, lambda: core.split(src.data, out.data, isa)),
        mb_per_s(src.size, repeat, lambda: core.merge(streams, back.data, isa)),
        mb_per_s(src.size, repeat, lambda: np.copyto(back, src)),
    )


def print_table(rows: list[Row]) -> None:
    print(f"{'layout':<10} {'isa':<8} {'split':>8} {'merge':>8} {'memcpy':>8}   MB/s")
    for row in rows:
        print(f"{row.layout:<10} {row.isa:<8} {row.split:>8.0f} {row.merge:>8.0f} {row.memcpy:>8.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("layouts", nargs="*", metavar="LAYOUT", help="names; all by default")
    parser.add_argument("--isa", action="append", help="instruction set; all of this machine by default")
    parser.add_argument("--mib", type=float, default=8, help="size of the buffer in MiB")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    args = parser.parse_args()
    if unknown := set(args.layouts) - set(BY_NAME):
        parser.error(f"no such layout: {', '.join(sorted(unknown))}")

    rows = [
        measure(BY_NAME[name], isa, int(args.mib * (1 << 20)), args.repeat)
        for name in args.layouts or BY_NAME
        for isa in args.isa or fields.isas()
    ]
    if args.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        print()
    else:
        print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
