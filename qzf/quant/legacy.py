"""Legacy types: one fp16 scale ``d`` (and in the ``_1`` types one minimum ``m``) for 32 weights."""

from __future__ import annotations

from qzf.quant.base import Field, GgmlType

__all__ = ["TYPES"]

_D = Field("d", "<f2", 1, "scale")
_M = Field("m", "<f2", 1, "minimum")
_QS4 = Field("qs", "u1", 16, "low 4 bits: weight j in the low, j + 16 in the high half of byte j")
_QH = Field("qh", "u1", 4, "fifth bit: weight j is bit j of the little-endian 32-bit word")

TYPES = (
    GgmlType(2, "Q4_0", 32, (_D, _QS4)),
    GgmlType(3, "Q4_1", 32, (_D, _M, _QS4)),
    GgmlType(6, "Q5_0", 32, (_D, _QH, _QS4)),
    GgmlType(7, "Q5_1", 32, (_D, _M, _QH, _QS4)),
    GgmlType(8, "Q8_0", 32, (_D, Field("qs", "i1", 32, "codes"))),
    GgmlType(9, "Q8_1", 32, (_D, Field("s", "<f2", 1, "d * sum of codes"), Field("qs", "i1", 32, "codes"))),
)
