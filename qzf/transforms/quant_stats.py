"""What the models of quantized types are made from: statistics of whole blocks, counted by the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qzf import _core
from qzf.transforms.modeled import QuantSchema
from qzf.transforms.quant_table import Counts, Tally, zeros

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Look", "count", "deviations", "look"]


class Look(NamedTuple):
    """What is seen of blocks before there is a table.

    ``extrema``: every block holds the extreme codes that quantizers of its type leave. ``first`` and
    ``second``: the fp16 fields as 16-bit patterns (uint16), empty where the type lacks one.
    """

    extrema: bool
    first: bytearray
    second: bytearray


def look(schema: QuantSchema, data: Buffer) -> Look:
    n = memoryview(data).nbytes // schema.size
    first = bytearray(2 * n if schema.numbers > 0 else 0)
    second = bytearray(2 * n if schema.numbers > 1 else 0)
    return Look(_core.quant_look(schema.name, data, first, second), first, second)


def deviations(schema: QuantSchema, data: Buffer, row_blocks: int) -> Counts:
    """How far the codes of each column lie from zero, summed over the rows."""
    sums = zeros(row_blocks * schema.codes)
    _core.quant_deviations(schema.name, data, row_blocks, sums)
    return sums


def count(
    model: _core.QuantModel, columns: bytes | None, data: Buffer, row_blocks: int, tally: Tally
) -> bool:
    """Add symbols to a tally of the model's table; False, with nothing added, if it cannot express them."""
    return model.count(columns, data, row_blocks, tally.heads, tally.codes)
