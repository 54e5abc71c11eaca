"""What the models of quantized types are made from: statistics of whole blocks, counted by the core."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qzf import _core
from qzf.transforms.modeled import QuantSchema
from qzf.transforms.quant_table import Counts, QuantTable

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["count", "deviations", "has_extrema", "numbers"]


def numbers(schema: QuantSchema, data: Buffer) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """The fp16 fields of the blocks as 16-bit patterns: one array a field, empty where the type lacks it."""
    n = memoryview(data).nbytes // schema.size
    first = np.empty(n if schema.numbers > 0 else 0, np.uint16)
    second = np.empty(n if schema.numbers > 1 else 0, np.uint16)
    _core.quant_numbers(schema.name, data, first.data, second.data)
    return first, second


def has_extrema(schema: QuantSchema, data: Buffer) -> bool:
    """Whether every block holds the extreme codes that quantizers of this type leave."""
    return schema.extrema > 0 and _core.quant_has_extrema(schema.name, data)


def deviations(schema: QuantSchema, data: Buffer, row_blocks: int) -> Counts:
    """How far the codes of each column lie from zero, summed over the rows: uint64 of shape (columns,)."""
    sums = np.zeros(row_blocks * schema.codes, np.uint64)
    _core.quant_deviations(schema.name, data, row_blocks, sums.data)
    return sums


def count(
    table: QuantTable, model: _core.QuantModel, columns: bytes | None, data: Buffer, row_blocks: int
) -> tuple[Counts, Counts] | None:
    """Symbols of scales by context (contexts, 256) and of codes by table (tables, alphabet), as uint64.

    None where the model cannot express the blocks.
    """
    heads = np.zeros((table.contexts, 256), np.uint64)
    codes = np.zeros((table.tables, table.schema.alphabet), np.uint64)
    fits = model.count(columns, data, row_blocks, heads.data, codes.data)
    return (heads, codes) if fits else None
