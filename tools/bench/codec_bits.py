"""Where the bits of a coded type are: each field before and after, from chunks as they are packed.

The symbols of all scales share one stream, so each field's part of it is what its symbols cost by the
table's frequencies; what then remains of the stored bytes is overhead. Formats: spec/tables/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qzf.container import payload
from qzf.format.ids import RECORD_HEADER_SIZE, pad64
from qzf.transforms.modeled import CodedStream, QuantChunks, QuantSchema, ValuesChunks
from qzf.transforms.values_table import FORMS
from tools.bench.codec_samples import EFFORT, Sample

__all__ = ["Bits", "bits_of"]

_TABLE_HEAD: Final = struct.Struct("<BBBBHHHBBBBHH")
_MAPS: Final = (128, 64, 256, 128)
_RANS_SUM: Final = 4096
_TAILS_HEAD: Final = 12
_EXCEPTION_BITS: Final = 48

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bits:
    """A field of a type: how many of it for a weight, and the mean bits of one before and after.

    ``before`` is None for a part of the field above it, and for what the original does not have.
    """

    dtype: str
    field: str
    per_weight: float
    before: float | None
    after: float


def bits_of(sample: Sample) -> list[Bits]:
    """A row for each field, then the overhead and the sum; empty where no chunk is coded by a model."""
    coded = [(c.data, m) for c, m in zip(sample.chunks, sample.models(), strict=True) if m is not None]
    quant = [
        (data, m, found) for data, m in coded if isinstance(m, QuantChunks) and (found := m.encode(data))
    ]
    values = [
        (data, m, found) for data, m in coded if isinstance(m, ValuesChunks) and (found := m.encode(data))
    ]
    if quant:
        schema = quant[0][1].schema
        weights = sum(len(data) for data, _, _ in quant) // schema.size * schema.codes
        rows = _quant_rows(sample, schema, quant)
        stored = sum(_stored(data, m) for data, m, _ in quant)
    elif values:
        weights, rows = _values_rows(sample, values)
        stored = sum(_stored(data, m) for data, m, _ in values)
    else:
        return []
    size = sum(len(data) for data, *_ in (quant or values))
    total = 8 * (stored + sample.table_bytes * size / sample.size) / weights
    whole = [row for row in rows if row.before is not None]
    overhead = total - sum(row.per_weight * row.after for row in whole)
    before = sum(row.per_weight * (row.before or 0) for row in whole)
    rows.append(Bits(sample.dtype, "overhead: states, headers, tables", 1, None, overhead))
    return [*rows, Bits(sample.dtype, "all, for a weight", 1, before, total)]


def _stored(data: bytes, model: QuantChunks | ValuesChunks) -> int:
    """Bytes of the chunk's record."""
    return RECORD_HEADER_SIZE + pad64(payload.encode(data, None, EFFORT, model=model).size)


class _Quant:
    """Sums over the chunks of a quantized type, in bits."""

    def __init__(self, sample: Sample, schema: QuantSchema) -> None:
        self.sample, self.schema = sample, schema
        self.numbers = np.zeros(2)
        self.scales = self.mins = self.codes = self.low = self.positions = 0.0

    def add(self, data: bytes, model: QuantChunks, streams: Iterable[CodedStream]) -> None:
        schema, n = self.schema, len(data) // self.schema.size
        _heads, tails, codes, rest = (memoryview(stream.body) for stream in streams)
        table = _Table(self.sample.tables[model.tables[0]], schema)
        costs = table.costs(model, data)
        self.numbers[0] += costs[0] if schema.numbers else 0
        self.numbers[1] += costs[table.second].sum() if schema.numbers > 1 else 0
        self.scales += costs[table.scale] if schema.scales else 0
        self.mins += costs[table.mins].sum() if schema.mins else 0
        exceptions = struct.unpack_from("<II", tails, 4)
        for k in range(schema.numbers):
            self.numbers[k] += n * table.shifts[k] + _EXCEPTION_BITS * exceptions[k]
        lanes = n * schema.lanes
        sets = min(4, -(-lanes // 64))
        self.codes += 8 * (len(codes) - sets * 64 * 2)
        low = lanes * schema.low * schema.elements
        self.low += low
        self.positions += 8 * len(rest) - low


class _Table:
    """What of a shared table of kind 1 is needed here."""

    def __init__(self, content: bytes, schema: QuantSchema) -> None:
        _, _, *shifts, _, _, self.keys, self.classes, self.contexts, self.scale, _, _, _ = (
            _TABLE_HEAD.unpack_from(content)
        )
        self.shifts = shifts
        self.lanes = self.keys * self.classes * schema.alphabet
        end = len(content) - self.lanes
        self.frequencies = np.frombuffer(content[end - 512 * self.contexts : end], "<u2").reshape(-1, 256)
        at = _TABLE_HEAD.size + sum(_MAPS[:2])
        self.second = np.unique(np.frombuffer(content, np.uint8, _MAPS[2], at))
        self.mins = np.unique(np.frombuffer(content, np.uint8, _MAPS[3], at + _MAPS[2]))

    def costs(self, model: QuantChunks, data: bytes) -> Floats:
        """Bits of the symbols of scales in a chunk, by context."""
        heads, codes = np.zeros((self.contexts, 256), np.uint64), np.zeros(self.lanes, np.uint64)
        model.model.count(model.columns, data, _row_blocks(model, data), heads.data, codes.data)
        bits = np.log2(_RANS_SUM / np.maximum(self.frequencies, 1))
        # A symbol without a frequency is coded as the commonest of its context, with an exception.
        bits = np.where(self.frequencies > 0, bits, bits.min(axis=1, keepdims=True))
        costs: Floats = (heads * bits).sum(axis=1)
        return costs


def _row_blocks(model: QuantChunks, data: bytes) -> int:
    n = len(data) // model.schema.size
    return model.row_blocks if n % model.row_blocks == 0 else n


def _quant_rows(
    sample: Sample, schema: QuantSchema, chunks: Iterable[tuple[bytes, QuantChunks, list[CodedStream]]]
) -> list[Bits]:
    sums, blocks = _Quant(sample, schema), 0
    for data, model, streams in chunks:
        sums.add(data, model, streams)
        blocks += len(data) // schema.size
    dtype, weights = sample.dtype, blocks * schema.codes
    rows = []
    names = ("scale d", "scale of minima dmin" if schema.mins or schema.name == "Q2_K" else "minimum m")
    for k in range(schema.numbers):
        rows.append(Bits(dtype, names[k], 1 / schema.codes, 16, float(sums.numbers[k]) / blocks))
    integers = schema.scales + schema.mins
    if integers:
        width = (8 * schema.size - 16 * schema.numbers - schema.bits * schema.codes) / integers
        both = "integer scale and minimum" if schema.name == "Q2_K" else "integer scale"
        each = schema.scales / schema.codes
        rows.append(Bits(dtype, both, each, width, sums.scales / (blocks * schema.scales)))
        if schema.mins:
            each = schema.mins / schema.codes
            rows.append(Bits(dtype, "integer minimum", each, width, sums.mins / (blocks * schema.mins)))
    code = (sums.codes + sums.low + sums.positions) / weights
    rows.append(Bits(dtype, "code", 1, schema.bits, code))
    parts = {"coded": sums.codes, "low bits": sums.low, "places of extrema": sums.positions}
    present = {name: bits for name, bits in parts.items() if bits}
    if len(present) > 1:
        rows += [Bits(dtype, f"code: {name}", 1, None, bits / weights) for name, bits in present.items()]
    return rows


def _values_rows(
    sample: Sample, chunks: Iterable[tuple[bytes, ValuesChunks, list[CodedStream]]]
) -> tuple[int, list[Bits]]:
    form, sums, count = FORMS[sample.dtype], np.zeros(5), 0
    for data, _, streams in chunks:
        sums += [8 * len(memoryview(stream.body)) for stream in streams]
        count += len(data) // form.width
    classes, symbols, extras, low, words = (float(each) / count for each in sums)
    raw = 8 * form.width - form.key_bits
    key = "exponent and top" if raw else "byte"
    rows = [Bits(sample.dtype, key, 1, form.key_bits, classes + symbols + extras)]
    for name, bits in {
        "coded": symbols,
        "extra bits": extras,
        "choice of contexts": classes,
    }.items():
        rows.append(Bits(sample.dtype, f"{key}: {name}", 1, None, bits))
    if raw:
        rows.append(Bits(sample.dtype, "raw bits and sign", 1, raw, low + words))
    return count, rows
