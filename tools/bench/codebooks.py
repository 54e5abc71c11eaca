"""What can be saved of types without a model: bits of each field alone, and beside what is decoded before it.

    python tools/bench/codebooks.py [TYPE ...]

Blocks are made by libgguf from matrices of three layers of mpnet, with the mean squares of their columns as
importance; for TQ1_0 weights are made ternary first, as models of that type have them. Frequencies are
counted in even rows and the cost is that of odd ones, so that what is learnt by heart does not count. Of a
field of more than 8 bits, which is more than a symbol of ``rans`` has, the upper 8 are coded; what an index
would cost as a whole stands in brackets.

A cell has the number in a block, bits of one, bits alone and in contexts. Shares are per cent of all bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

ROOT = Path(__file__).resolve().parents[2]
if __package__ in (None, ""):  # run as a script: make `tools` importable
    sys.path.insert(0, str(ROOT))

from qzf.container import payload  # noqa: E402
from qzf.format.ids import RECORD_HEADER_SIZE, pad64  # noqa: E402
from qzf.limits import DEFAULT_CHUNK  # noqa: E402
from qzf.transforms.layouts import BY_NAME  # noqa: E402
from tools import fetch_models  # noqa: E402
from tools.bench.codec_samples import EFFORT, matrices  # noqa: E402
from tools.bench.compare_report import markdown  # noqa: E402
from tools.sources.ggml import quantize  # noqa: E402
from tools.sources.source import Bytes, Floats, mean_square  # noqa: E402

__all__ = ["FIELDS", "Part", "main", "measure"]

_LAYERS: Final = (1, 6, 11)
_COLUMNS: Final = ("d", "scale", "index", "sign")
_CLASSES: Final = 16
#: How many symbols of the type as a whole each context starts with.
_PRIOR: Final = 64

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """``count`` numbers of ``bits`` bits: number i is at bit ``start + i // run * jump + i % run * step``."""

    bits: int
    start: int
    count: int
    step: int
    run: int = 1 << 16
    jump: int = 0

    @property
    def starts(self) -> Ints:
        i = np.arange(self.count)
        return self.start + i // self.run * self.jump + i % self.run * self.step


_D: Final = (Part(16, 0, 1, 0),)

#: Fields by type, in the order of ``_COLUMNS``; the parts of a field are put together, the lowest bits first.
#: Without fields only what is saved now is told. Types: ``qzf/quant/``.
FIELDS: Final[dict[str, tuple[tuple[Part, ...], ...]]] = {
    "IQ1_S": (
        _D,
        (Part(3, 284, 8, 16),),
        (Part(8, 16, 32, 8), Part(3, 272, 32, 3, 4, 16)),
        (Part(1, 287, 8, 16),),
    ),
    "IQ1_M": (
        tuple(Part(4, 396 + 16 * i, 1, 0) for i in range(4)),
        (Part(3, 384, 16, 3, 4, 16),),
        (Part(8, 0, 32, 8), Part(3, 256, 32, 4)),
        (Part(1, 259, 32, 4),),
    ),
    "IQ2_XXS": (_D, (Part(4, 76, 8, 64),), (Part(8, 16, 32, 8, 4, 64),), (Part(1, 48, 224, 1, 28, 64),)),
    "IQ2_XS": (_D, (Part(4, 528, 16, 4),), (Part(9, 16, 32, 16),), (Part(1, 25, 224, 1, 7, 16),)),
    "IQ2_S": (
        _D,
        (Part(4, 592, 16, 4),),
        (Part(8, 16, 32, 8), Part(2, 528, 32, 2)),
        (Part(1, 272, 256, 1),),
    ),
    "IQ3_XXS": (_D, (Part(4, 556, 8, 32),), (Part(8, 16, 64, 8),), (Part(1, 528, 224, 1, 28, 32),)),
    "IQ3_S": (
        _D,
        (Part(4, 848, 8, 4),),
        (Part(8, 16, 64, 8), Part(1, 528, 64, 1)),
        (Part(1, 592, 256, 1),),
    ),
    "TQ1_0": (),
    "Q1_0": (),
}


def _values(blocks: Bytes, parts: tuple[Part, ...]) -> Ints:
    """A field of ``[blocks, bytes]``: ``[blocks, count]``."""
    bits = np.unpackbits(blocks, axis=1, bitorder="little")
    out, shift = np.zeros((len(blocks), parts[0].count), np.int64), 0
    for part in parts:
        for bit in range(part.bits):
            out |= bits[:, part.starts + bit].astype(np.int64) << shift
            shift += 1
    return out


def _near(values: npt.NDArray[Any]) -> Floats:
    """The mean of each value's left and upper neighbour and its column's, of the rows before only."""
    wide = values.astype(np.float64)
    left, upper = np.roll(wide, 1, axis=1), np.roll(wide, 1, axis=0)
    left[:, 0], upper[0] = upper[:, 0], left[0]
    column = np.roll(np.cumsum(wide, axis=0) / np.arange(1, len(wide) + 1)[:, None], 1, axis=0)
    column[0] = upper[0]
    near: Floats = ((left + upper) / 4 + column / 2).astype(np.float32)
    return near


@dataclass(frozen=True)
class _Field:
    """All of a field: ``values`` and ``contexts`` (floats to be classed, or numbers that are classes)."""

    values: list[Ints]
    contexts: list[npt.NDArray[Any]]

    def cost(self, drop: int, *, alone: bool) -> float:
        """Mean bits of one, without its ``drop`` lowest bits, which are stored."""
        odd = np.concatenate(
            [np.broadcast_to(np.arange(len(v))[:, None] % 2, v.shape).ravel() for v in self.values]
        )
        symbols = np.concatenate([values.ravel() for values in self.values]) >> drop
        size = int(symbols.max()) + 1
        test = odd.astype(bool)
        base = np.bincount(symbols[~test], minlength=size) + 0.5
        base /= base.sum()
        if alone:
            return drop - float(np.log2(base[symbols[test]]).mean())
        context = _classes(self.contexts)
        counts = np.bincount(
            context[~test] * size + symbols[~test], minlength=size * (int(context.max()) + 1)
        )
        table = counts.reshape(-1, size) + _PRIOR * base
        table /= table.sum(axis=1, keepdims=True)
        return drop - float(np.log2(table[context[test], symbols[test]]).mean())


def _classes(contexts: list[npt.NDArray[Any]]) -> Ints:
    """Whole numbers stand for themselves, floats fall into classes of the same size."""
    every = np.concatenate([each.ravel() for each in contexts])
    if every.dtype.kind == "i":
        return np.unique(every, return_inverse=True)[1].astype(np.int64)
    return np.searchsorted(np.quantile(every, np.arange(1, _CLASSES) / _CLASSES), every).astype(np.int64)


def _fields(name: str, tensors: Sequence[Bytes]) -> dict[str, _Field]:
    """Fields in the order of rows, with contexts.

    d and scales have their neighbours, indices the residual of their scale (as in ``quant``: what it has over
    its row and column), signs their column.
    """
    parts = dict(zip(_COLUMNS, FIELDS[name], strict=False))
    size, found = BY_NAME[name].block, {field: _Field([], []) for field in parts}
    for ordinal, rows in enumerate(tensors if found else ()):
        blocks = rows.reshape(-1, size)
        got = {k: _values(blocks, of).reshape(len(rows), -1) for k, of in parts.items()}
        d, scale = got["d"] & 0x7FFF, got["scale"]
        wide, steps = np.repeat(d, scale.shape[1] // d.shape[1], axis=1), 1024 * np.log2(2 * scale + 1)
        logs = wide + steps
        residual = logs - logs.mean(axis=1, keepdims=True) - logs.mean(axis=0, keepdims=True)
        column = np.arange(got["sign"].shape[1]) + (ordinal << 32)
        contexts: dict[str, npt.NDArray[Any]] = {
            "d": _near(d),
            "scale": _near(logs) - wide,
            "index": np.repeat(residual + logs.mean(), got["index"].shape[1] // logs.shape[1], axis=1),
            "sign": np.broadcast_to(column, got["sign"].shape),
        }
        for field, values in got.items():
            found[field].values.append(values)
            found[field].contexts.append(contexts[field])
    return found


def _now(name: str, tensors: Sequence[Bytes]) -> float:
    """Per cent saved by the transform that the type has, in chunks of the default size."""
    before = after = 0
    for rows in tensors:
        for part in np.array_split(rows, max(1, round(rows.nbytes / DEFAULT_CHUNK))):
            before += part.nbytes
            coded = payload.encode(part.tobytes(), BY_NAME[name], EFFORT)
            after += RECORD_HEADER_SIZE + pad64(coded.size)
    return 100 * (1 - after / before)


def measure(name: str, tensors: Sequence[Bytes]) -> list[str]:
    """A row of the table: tensors are uint8 ``[rows, bytes of a row]``."""
    cells, saved = {}, np.zeros(2)
    for parts, (field, data) in zip(FIELDS[name], _fields(name, tensors).items(), strict=True):
        width, count = sum(part.bits for part in parts), parts[0].count
        # Of d a list may tell which values there are, if they are few.
        drops = {max(0, width - 8), 0} if field == "d" else {max(0, width - 8)}
        costs = [min(data.cost(drop, alone=alone) for drop in drops) for alone in (True, False)]
        saved += [count * max(0.0, width - cost) for cost in costs]
        cells[field] = f"{count} of {width} → {costs[0]:.2f}, {costs[1]:.2f}"
        if field == "index" and width > 8:
            cells[field] += f" ({data.cost(0, alone=True):.2f})"
    shares = [f"{share:.1f}" if cells else "" for share in 100 * saved / (8 * BY_NAME[name].block)]
    return [name, *(cells.get(field, "") for field in _COLUMNS), f"{_now(name, tensors):.1f}", *shares]


def _tensors(name: str, weights: Sequence[Floats]) -> Iterator[Bytes]:
    for rows in weights:
        size = np.abs(rows).mean()
        made = np.clip(np.rint(rows / size), -1, 1) * size if name == "TQ1_0" else rows
        yield quantize(GGMLQuantizationType[name], made.astype(np.float32), mean_square(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("types", nargs="*", metavar="TYPE", help=f"of {', '.join(FIELDS)}; all by default")
    names = parser.parse_args(arguments).types or list(FIELDS)
    if unknown := set(names) - set(FIELDS):
        parser.error(f"not measured here: {', '.join(sorted(unknown))}")
    prefixes = tuple(f"encoder.layer.{layer}." for layer in _LAYERS)
    # Half of the rows tell as much as all, and libgguf takes half the time.
    weights = [rows[: len(rows) // 2] for rows in matrices(fetch_models.fetch("mpnet"), prefixes).values()]
    table = [["type", *_COLUMNS, "saved now", "alone", "in contexts"]]
    table += [measure(name, list(_tensors(name, weights))) for name in names]
    print(markdown(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
