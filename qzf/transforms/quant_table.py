"""Making shared tables of kind 1: the model of a quantized type from what a sample of its chunks counts.

Format: spec/tables/01-quant.md. What the fields mean for decoding is the core's matter; how they are chosen
is here and binds no one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from qzf import _core
from qzf.transforms.modeled import QuantSchema

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "Counts",
    "Numbers",
    "QuantTable",
    "Tally",
    "add_counts",
    "column_classes",
    "cost",
    "quantize",
    "zeros",
]

_HEAD: Final = struct.Struct("<BBBBHHHBBBBHH")
_KIND: Final = 1
#: Contexts that are left of a second number and of integer minima, whose tables take 16 KiB each.
_SECONDS: Final = 8
_MINS: Final = 12
#: Contexts of a second number and of integer minima before they are joined.
_SECOND_PARTS: Final = 24
_MIN_STEPS: Final = 38
_RANS_SUM: Final = 4096
_LANES_SUM: Final = 256

#: uint64 numbers, row by row.
Counts = memoryview


def zeros(count: int) -> Counts:
    """So many counts of nothing."""
    return memoryview(bytearray(8 * count)).cast("Q")


def _counts(data: bytes) -> Counts:
    return memoryview(data).cast("Q")


def add_counts(to: Counts, counts: Counts) -> None:
    """Add counts to others."""
    _core.add_counts(to, counts)


class Tally(NamedTuple):
    """Symbols of scales by context, 256 a row, and of codes by table, an alphabet a row."""

    heads: Counts
    codes: Counts


def quantize(counts: Counts, width: int, total: int, *, every: bool = False) -> bytes:
    """Frequencies (uint16), each below ``total``, that sum to it in each row and cost the counts little.

    What was counted gets at least 1; with ``every`` all symbols do, else those not counted get 0. Only whole
    numbers and single divisions are used, so that every machine makes the same tables.
    """
    return _core.quantize(counts, width, total, every)


def cost(counts: Counts, width: int) -> int:
    """Bits that the counted symbols take at the entropy of their row; a whole number, the same everywhere."""
    return _core.cost(counts, width)


def column_classes(deviations: Counts, classes: int) -> bytes:
    """Classes of columns by how far their codes lie from zero: equally many columns in each."""
    return _core.column_classes(deviations, classes)


class Numbers(NamedTuple):
    """How 16-bit patterns are ranked: low bits of a rank, and a base or a list of values (uint16)."""

    shift: int
    base: int
    values: bytes

    @classmethod
    def of(cls, patterns: Buffer, *, alone: bool) -> Numbers:
        """A ranking that suits a sample of patterns (uint16).

        ``alone``: the symbols of these numbers have no context.
        """
        return cls(*_core.rank_patterns(patterns, alone)) if len(memoryview(patterns)) else cls(0, 0, b"")


@dataclass
class QuantTable:
    """A table in the making: the maps, one byte a context or key, then the frequencies."""

    schema: QuantSchema
    extrema: bool
    numbers: tuple[Numbers, Numbers]
    ratio_keys: bytes
    residual_keys: bytes
    column_classes: int
    second_contexts: bytes
    min_contexts: bytes
    scale_context: int
    contexts: int

    @property
    def keys(self) -> int:
        return max(self.ratio_keys) + max(self.residual_keys) + 1

    @property
    def tables(self) -> int:
        return self.keys * self.column_classes

    @classmethod
    def plan(
        cls, schema: QuantSchema, extrema: bool, first: Buffer, second: Buffer, columns: int
    ) -> QuantTable:
        """The maps for chunks of this kind, given samples of the two numbers (uint16).

        ``columns`` is the number of column classes.
        """
        contexts = 1
        seconds = bytes(256)
        if len(memoryview(second)):
            seconds = bytes(1 + part for part in _core.pattern_parts(first, _SECOND_PARTS))
            contexts += _SECOND_PARTS
        scale_context = contexts if schema.scales else 0
        contexts += 1 if schema.scales else 0
        mins = bytes(128)
        if schema.mins:  # 1/8 of an octave each
            mins = bytes(contexts + min(max(log - 31, 0), _MIN_STEPS - 1) for log in range(128))
            contexts += _MIN_STEPS
        return cls(
            schema,
            extrema,
            (Numbers.of(first, alone=True), Numbers.of(second, alone=False)),
            *_key_maps(schema, columns),
            columns,
            seconds,
            mins,
            scale_context,
            contexts,
        )

    def tally(self) -> Tally:
        """Room to count in."""
        return Tally(zeros(256 * self.contexts), zeros(self.schema.alphabet * self.tables))

    def dump(self, counted: Tally | None = None) -> bytes:
        """The table's bytes, with frequencies from these counts, or even ones to count with."""
        schema, (first, second) = self.schema, self.numbers
        if counted is None:
            rans = struct.pack("<H", _RANS_SUM // 256) * (256 * self.contexts)
            lanes = self._code_frequencies(zeros(schema.alphabet)) * self.tables
        else:
            numbers = 256 * (self.scale_context or self.contexts)
            rans = quantize(counted.heads[:numbers], 256, _RANS_SUM)
            rans += self._integer_frequencies(counted.heads[numbers:])
            lanes = self._code_frequencies(counted.codes)
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
            len(first.values) // 2,
            len(second.values) // 2,
        )
        maps = (self.ratio_keys, self.residual_keys, self.second_contexts, self.min_contexts)
        return b"".join([head, *maps, first.values, second.values, rans, lanes])

    def finish(self, counted: Tally) -> bytes:
        """The table's bytes for these counts, once contexts of like symbols are joined."""
        return self.dump(counted._replace(heads=self.merge_contexts(counted.heads)))

    def merge_contexts(self, heads: Counts) -> Counts:
        """Join contexts of like symbols, given their counts, until few are left; returns the counts left.

        Tables of many contexts would not stay in a core's cache, and few symbols would not fill them.
        """
        rows = [bytes(heads[:256])]
        self.second_contexts = self._merged(self.second_contexts, _SECONDS, heads, rows)
        if self.schema.scales:
            rows.append(bytes(heads[256 * self.scale_context :][:256]))
            self.scale_context = sum(map(len, rows)) // 2048 - 1
        self.min_contexts = self._merged(self.min_contexts, _MINS, heads, rows)
        joined = _counts(b"".join(rows))
        self.contexts = len(joined) // 256
        return joined

    @staticmethod
    def _merged(contexts: bytes, most: int, heads: Counts, rows: list[bytes]) -> bytes:
        """A map with its contexts joined to at most ``most``, whose counts are added to ``rows``."""
        if not any(contexts):
            return contexts
        low, high = min(contexts), max(contexts)
        sizes = [sum(heads[256 * context :][:256]) for context in range(low, high + 1)]
        symbols = sum(sizes[context - low] for context in contexts)
        room = min(max(symbols // 1500, 1), most)
        groups, joined = _core.join_counts(heads[256 * low : 256 * (high + 1)], 256, room)
        base = sum(map(len, rows)) // 2048
        rows.append(joined)
        return bytes(base + groups[context - low] for context in contexts)

    def _integer_frequencies(self, counts: Counts) -> bytes:
        """Integer scales have no exceptions, so all that may occur gets a frequency."""
        six_bits = self.schema.mins > 0 or self.schema.name in ("Q3_K", "IQ4_XS")
        return _core.quantize_leaning(counts, 256, _ones(64 if six_bits else 256), _RANS_SUM)

    def _code_frequencies(self, counts: Counts) -> bytes:
        """Every code that the type has gets a frequency in every table; rare tables lean on all of them."""
        width = self.schema.alphabet
        common = _counts(_core.sum_counts(counts, width))[: 1 << (self.schema.bits - self.schema.low)]
        total, lean = max(sum(common), 1), zeros(len(common))
        for code, count in enumerate(common):
            lean[code] = 128 * count // total + 1
        return _core.quantize_leaning(counts, width, lean, _LANES_SUM)[::2]


def _ones(count: int) -> Counts:
    return _counts(struct.pack("<Q", 1) * count)


def _key_maps(schema: QuantSchema, columns: int) -> tuple[bytes, bytes]:
    """Where zero lies, in steps of 3/4 of a code; then the residual of the scale, in parts of an octave."""
    by_ratio = schema.numbers > 1
    steps = 16 if not by_ratio else 4 if columns > 1 else 8
    width = 32 // steps  # in 1/16 of an octave; from an octave below to an octave above
    residual = ((part - 32 + width // 2) // width + steps // 2 for part in range(64))
    ratio = [0] * 128
    if by_ratio:
        logs = range(2048 + 32, 2048 + 32 + 128 * 64, 64)  # of 16 x minimum / scale
        centers = (
            ((log & 1023) + 1024 << (log >> 10)) >> 10 for log in logs
        )  # straight lines between octaves
        ratio = [steps * min(max((center * 4 // 3 >> schema.bits) - 1, 0), 15) for center in centers]
    return bytes(ratio), bytes(min(max(part, 0), steps - 1) for part in residual)
