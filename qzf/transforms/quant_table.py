"""Making shared tables of kind 1: the model of a quantized type from what a sample of its chunks counts.

Format: spec/tables/01-quant.md. What the fields mean for decoding is the core's matter; how they are chosen
is here and binds no one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from qzf.transforms.modeled import QuantSchema

__all__ = ["Counts", "Numbers", "Patterns", "QuantTable", "column_classes", "cost", "quantize"]

_HEAD: Final = struct.Struct("<BBBBHHHBBBBHH")
_KIND: Final = 1
#: Values of a scale that are worth a list; more are coded as they are.
_MAX_VALUES: Final = 4096
#: Contexts that are left of a second number and of integer minima, whose tables take 16 KiB each.
_SECONDS: Final = 8
_MINS: Final = 12
_RANS_SUM: Final = 4096
_LANES_SUM: Final = 256

Counts = npt.NDArray[np.uint64]
Patterns = npt.NDArray[np.uint16]


def quantize(counts: npt.NDArray[np.int64], total: int, *, every: bool) -> npt.NDArray[np.int64]:
    """Rows of frequencies that sum to ``total`` and cost the counts little, each below ``total``.

    What was counted gets at least 1; with ``every`` all symbols do, else those not counted get 0. Only whole
    numbers and single divisions are used, so that every machine makes the same tables.
    """
    live = (counts > 0) | (every or ~counts.any(axis=1, keepdims=True))
    (alone,) = (live.sum(axis=1) == 1).nonzero()
    # no symbol may have all of the probability
    live[alone, (counts[alone].argmax(axis=1) + 1) % counts.shape[1]] = True
    weights = np.where(live, np.maximum(counts, 1), 0)
    shares = np.rint(weights * total / weights.sum(axis=1, keepdims=True)).astype(np.int64)
    out = np.where(live, np.clip(shares, 1, total - 1), 0)
    _settle(out, weights, total)
    return out


def _settle(frequencies: npt.NDArray[np.int64], weights: npt.NDArray[np.int64], total: int) -> None:
    """Change frequencies one by one in each row, where it costs least, until the rows sum to ``total``."""
    left = total - frequencies.sum(axis=1)
    while len(rows := left.nonzero()[0]):
        step, ours, weight = np.sign(left[rows])[:, None], frequencies[rows], weights[rows]
        may = (weight > 0) & (ours + step >= 1) & (ours + step < total)
        # Bits won by a step from f are about weight / (f + step / 2).
        gain = np.where(may, step * weight / np.maximum(ours + step / 2, 0.5), -np.inf)
        frequencies[rows, gain.argmax(axis=1)] += step[:, 0]
        left[rows] -= step[:, 0]


def cost(counts: Counts) -> int:
    """Bits that the counted symbols take at the entropy of their row; a whole number, the same everywhere."""
    rows = counts.astype(np.float64)
    sums = np.broadcast_to(rows.sum(axis=-1, keepdims=True), rows.shape)
    some = rows > 0
    # Logarithms differ in their last bits between machines: rounded, they hardly do.
    logs = np.rint(1024 * np.log2(sums[some] / rows[some])).astype(np.int64)
    return int((counts[some].astype(np.int64) * logs).sum()) >> 10


@dataclass(frozen=True)
class Numbers:
    """How 16-bit patterns are ranked: a list of values, or a base; and how many low bits a rank has."""

    shift: int
    base: int
    values: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, patterns: npt.NDArray[np.uint16], *, alone: bool) -> Numbers:
        """A ranking that suits a sample of patterns.

        Of many values those seen only once are left to be exceptions. A list of few values is in the order of
        how common they are where that makes low bits more even, and only for a number whose symbols have no
        context (``alone``), as symbols say little of the value then.
        """
        counts = np.bincount(patterns, minlength=1 << 16)
        seen, often = counts.nonzero()[0], (counts > 1).nonzero()[0]
        if len(seen) <= _MAX_VALUES and counts[often].sum() >= 0.9 * len(patterns):
            often = seen
        elif counts[often].sum() < 0.98 * len(patterns) or len(often) > _MAX_VALUES:
            low, high = int(seen[0]), int(seen[-1])
            shift = _low_bits(high - low + 1)
            return cls(shift, min(low, (1 << 16) - (256 << shift)), np.empty(0, np.uint16))
        orders = [often, often[np.argsort(-counts[often], kind="stable")]][: 2 if alone else 1]
        shift = _low_bits(len(often))
        costs = [cost(_pad(counts[order], 1 << shift).sum(axis=1)) for order in orders]
        return cls(shift, 0, orders[costs.index(min(costs))].astype(np.uint16))


def _pad(counts: npt.NDArray[np.int64], width: int) -> Counts:
    """The counts in rows of ``width``, filled up with zeros."""
    return np.pad(counts, (0, -len(counts) % width)).reshape(-1, width).astype(np.uint64)


def _low_bits(ranks: int) -> int:
    """Bits of a rank that are left when its symbol has eight."""
    return max(0, (ranks - 1).bit_length() - 8)


@dataclass
class QuantTable:
    """A table in the making: the maps, then the frequencies."""

    schema: QuantSchema
    extrema: bool
    numbers: tuple[Numbers, Numbers]
    ratio_keys: npt.NDArray[np.int64]
    residual_keys: npt.NDArray[np.int64]
    column_classes: int
    second_contexts: npt.NDArray[np.int64]
    min_contexts: npt.NDArray[np.int64]
    scale_context: int
    contexts: int

    @property
    def keys(self) -> int:
        return int(self.ratio_keys.max() + self.residual_keys.max()) + 1

    @property
    def tables(self) -> int:
        return self.keys * self.column_classes

    @classmethod
    def plan(
        cls,
        schema: QuantSchema,
        extrema: bool,
        first: npt.NDArray[np.uint16],
        second: npt.NDArray[np.uint16],
        columns: int,
    ) -> QuantTable:
        """The maps for chunks of this kind, given samples of the two numbers.

        ``columns`` is the number of column classes.
        """
        ranked = [
            Numbers.of(x, alone=k == 0) if len(x) else Numbers(0, 0, np.empty(0, np.uint16))
            for k, x in enumerate((first, second))
        ]
        contexts = 1
        seconds = np.zeros(256, np.int64)
        if len(second):
            share = 24
            ranks = np.bincount(first >> 7 & 255, minlength=256).cumsum()
            seconds = 1 + np.minimum(ranks * share // len(first), share - 1)
            contexts += share
        scale_context = contexts if schema.scales else 0
        contexts += 1 if schema.scales else 0
        mins = np.zeros(128, np.int64)
        if schema.mins:
            mins = contexts + np.clip(np.arange(128) - 31, 0, 37)  # 1/8 of an octave each
            contexts += 38
        ratio, residual = _key_maps(schema, columns)
        return cls(
            schema,
            extrema,
            (ranked[0], ranked[1]),
            ratio,
            residual,
            columns,
            seconds,
            mins,
            scale_context,
            contexts,
        )

    def dump(self, heads: Counts | None = None, codes: Counts | None = None) -> bytes:
        """The table's bytes, with frequencies from these counts, or even ones to count with."""
        schema, (first, second) = self.schema, self.numbers
        if heads is None or codes is None:
            rans = np.full((self.contexts, 256), _RANS_SUM // 256)
            even = self._code_frequencies(np.zeros((1, schema.alphabet), np.int64))
            lanes = np.broadcast_to(even, (self.tables, schema.alphabet))
        else:
            signed, numbers = heads.astype(np.int64), self.scale_context or self.contexts
            floats = quantize(signed[:numbers], _RANS_SUM, every=False)
            rans = np.concatenate([floats, self._integer_frequencies(signed[numbers:])])
            lanes = self._code_frequencies(codes.astype(np.int64))
        head = _HEAD.pack(
            _KIND,
            self.extrema,
            first.shift,
            second.shift,
            first.base,
            second.base,
            self.keys,
            self.column_classes,
            self.contexts,
            self.scale_context,
            0,
            len(first.values),
            len(second.values),
        )
        maps = (self.ratio_keys, self.residual_keys, self.second_contexts, self.min_contexts)
        return b"".join(
            [
                head,
                *(each.astype(np.uint8).tobytes() for each in maps),
                *(each.values.astype("<u2").tobytes() for each in (first, second)),
                rans.astype("<u2").tobytes(),
                lanes.astype(np.uint8).tobytes(),
            ]
        )

    def merge_contexts(self, heads: Counts) -> Counts:
        """Join contexts of like symbols, given their counts, until few are left; returns the counts left.

        Tables of many contexts would not stay in a core's cache, and few symbols would not fill them.
        """
        rows = [heads[0]]
        for name, most in (("second_contexts", _SECONDS), ("min_contexts", _MINS)):
            map_, symbols = getattr(self, name), int(heads[getattr(self, name)].sum())
            if name == "min_contexts" and self.schema.scales:
                rows.append(heads[self.scale_context])
                self.scale_context = len(rows) - 1
            if not map_.any():
                continue
            groups = _join(heads[map_.min() : map_.max() + 1], int(np.clip(symbols // 1500, 1, most)))
            setattr(self, name, groups[map_ - map_.min()] + len(rows))
            for group in range(int(groups.max()) + 1):
                rows.append(heads[map_.min() : map_.max() + 1][groups == group].sum(axis=0))
        self.contexts = len(rows)
        return np.stack(rows)

    def _integer_frequencies(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Integer scales have no exceptions, so all that may occur gets a frequency."""
        six_bits = self.schema.mins > 0 or self.schema.name in ("Q3_K", "IQ4_XS")
        most = 64 if six_bits else 256
        out = np.zeros(counts.shape, np.int64)
        out[:, :most] = quantize(64 * counts[:, :most] + 1, _RANS_SUM, every=True)
        return out

    def _code_frequencies(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Every code that the type has gets a frequency in every table; rare tables lean on all of them."""
        most = 1 << (self.schema.bits - self.schema.low)
        counts = counts[:, :most]
        common = 128 * counts.sum(axis=0) // max(int(counts.sum()), 1)
        out = np.zeros((len(counts), self.schema.alphabet), np.int64)
        out[:, :most] = quantize(64 * counts + common + 1, _LANES_SUM, every=True)
        return out


def _join(rows: Counts, most: int) -> npt.NDArray[np.int64]:
    """Which of at most ``most`` groups each row belongs to: neighbours are joined where it costs least."""
    groups = [rows[i : i + 1].sum(axis=0) for i in range(len(rows))]
    members = [[i] for i in range(len(rows))]
    alone = [cost(group) for group in groups]
    pairs = [cost(a + b) for a, b in pairwise(groups)]
    while len(groups) > most:
        added = [pair - alone[i] - alone[i + 1] for i, pair in enumerate(pairs)]
        i = added.index(min(added))
        groups[i : i + 2] = [groups[i] + groups[i + 1]]
        members[i : i + 2] = [members[i] + members[i + 1]]
        alone[i : i + 2] = [pairs[i]]
        pairs[max(i - 1, 0) : i + 2] = [cost(a + b) for a, b in pairwise(groups[max(i - 1, 0) : i + 2])]
    out = np.zeros(len(rows), np.int64)
    for group, each in enumerate(members):
        out[each] = group
    return out


def _key_maps(schema: QuantSchema, columns: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where zero lies, in steps of 3/4 of a code; then the residual of the scale, in parts of an octave."""
    by_ratio = schema.numbers > 1
    steps = 16 if not by_ratio else 4 if columns > 1 else 8
    width = 32 // steps  # in 1/16 of an octave; from an octave below to an octave above
    residual = np.clip((np.arange(64) - 32 + width // 2) // width + steps // 2, 0, steps - 1)
    ratio = np.zeros(128, np.int64)
    if by_ratio:
        log = np.arange(128) * 64 + 2048 + 32  # of 16 x minimum / scale; straight lines between octaves
        zero = ((log & 1023) + 1024 << (log >> 10)) >> 10
        ratio = np.clip((zero * 4 // 3 >> schema.bits) - 1, 0, 15) * steps
    return ratio, residual.astype(np.int64)


def column_classes(sums: Counts, classes: int) -> bytes:
    """Classes of columns by how far their codes lie from zero: equally many columns in each."""
    order = sums.argsort(kind="stable").argsort(kind="stable")
    return (order * classes // len(sums)).astype(np.uint8).tobytes()
