"""What a GGML block type is: its number, how many weights a block holds, and its fields.

Source of all block layouts: ``ggml/src/ggml-common.h`` and the ``ggml_type`` enum of ``ggml.h`` in
ggml-org/ggml. Multi-byte fields are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Field", "GgmlType"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a block: ``count`` items of the numpy dtype ``item`` (``<f2``, ``u1`` ...)."""

    name: str
    item: str
    count: int
    meaning: str

    @property
    def size(self) -> int:
        """Bytes of the field."""
        return self.count * int(self.item[-1])


class GgmlType(NamedTuple):
    """A GGML type: ``block`` weights take ``size`` bytes, made of ``fields`` in this order."""

    number: int
    name: str
    block: int
    fields: tuple[Field, ...]

    @property
    def dtype(self) -> np.dtype[np.void]:
        """The block as a packed numpy structured dtype."""
        import numpy as np

        return np.dtype([(f.name, f.item, (f.count,)) for f in self.fields])

    @property
    def size(self) -> int:
        """Bytes of one block."""
        return sum(field.size for field in self.fields)

    def offset(self, name: str) -> int:
        """Byte offset of the field ``name`` in the block."""
        at = 0
        for field in self.fields:
            if field.name == name:
                return at
            at += field.size
        raise KeyError(name)

    def row_size(self, columns: int) -> int | None:
        """Bytes of a row of ``columns`` weights, or None where that is no whole number of blocks."""
        return columns // self.block * self.size if columns % self.block == 0 else None
