"""Speed of dequantization, beside that of the gguf package: MB/s of float32, for each type.

    python -m tools.bench.dequant [--json] [--mib 16] [--repeat 9] [--isa avx2] [TYPE ...]

Each figure is the median of ``--repeat`` runs on one thread over the same noise, ours and gguf's in turn. MB
are 10**6 bytes of weights as float32 for all columns, also where they become 16-bit floats.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

import gguf
import numpy as np

from qzf.quant import BY_NAME
from qzf.transforms.dequant import DEQUANTIZABLE, FLOATS, dequantize
from qzf.transforms.fields import isas


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; speeds in MB (10**6 bytes of float32) a second."""

    type: str
    isa: str
    float32: float
    float16: float
    bfloat16: float
    gguf: float
    memcpy: float


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name: str, isa: str, size: int, repeat: int) -> Row:
    """Speeds of one type; ``size`` bytes of float32 are made by each run."""
    layout = BY_NAME[name]
    n = max(1, size // (4 * layout.block))
    blocks = np.random.default_rng(n).integers(0, 256, (n, layout.size), np.uint8)
    outs = {dtype: np.zeros(n * layout.block * width, np.uint8) for dtype, width in FLOATS.items()}
    copy = np.zeros_like(outs["float32"])
    number = gguf.GGMLQuantizationType[name]
    calls: dict[str, Callable[[], object]] = {
        dtype: lambda dtype=dtype, out=out: dequantize(name, blocks.data, out.data, dtype, isa=isa)  # type: ignore[misc]
        for dtype, out in outs.items()
    }
    # A copy of the result, as gguf gives a view where there is nothing to do.
    calls["gguf"] = lambda: gguf.quants.dequantize(blocks, number).copy()
    calls["memcpy"] = lambda: np.copyto(copy, outs["float32"])
    for call in calls.values():
        call()
    runs = [{key: seconds(call) for key, call in calls.items()} for _ in range(repeat)]
    made = outs["float32"].size / 1e6
    return Row(name, isa, **{key: made / median(run[key] for run in runs) for key in calls})


def print_table(rows: list[Row]) -> None:
    columns = ["float32", "float16", "bfloat16", "gguf", "memcpy"]
    print(f"{'type':<8} {'isa':<7}" + "".join(f"{column:>9}" for column in columns) + "   MB/s")
    for row in rows:
        print(f"{row.type:<8} {row.isa:<7}" + "".join(f"{getattr(row, column):>9.0f}" for column in columns))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="names; all by default")
    parser.add_argument("--isa", action="append", help="instruction set; all of this machine by default")
    parser.add_argument("--mib", type=float, default=16, help="float32 of a run, in MiB")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    args = parser.parse_args()
    if unknown := set(args.types) - DEQUANTIZABLE:
        parser.error(f"no such type: {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore", RuntimeWarning)  # noise has infinite scales

    rows = [
        measure(name, isa, int(args.mib * (1 << 20)), args.repeat)
        for name in args.types or sorted(DEQUANTIZABLE, key=list(BY_NAME).index)
        for isa in args.isa or isas()
    ]
    if args.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        print()
    else:
        print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
