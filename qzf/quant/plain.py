"""Types without blocks: integers and floats, each a block of one element."""

from __future__ import annotations

from qzf.quant.base import Field, GgmlType

__all__ = ["TYPES"]


def _plain(number: int, name: str, item: str) -> GgmlType:
    return GgmlType(number, name, 1, (Field("x", item, 1, "value"),))


TYPES = (
    _plain(0, "F32", "<f4"),
    _plain(1, "F16", "<f2"),
    _plain(24, "I8", "i1"),
    _plain(25, "I16", "<i2"),
    _plain(26, "I32", "<i4"),
    _plain(27, "I64", "<i8"),
    _plain(28, "F64", "<f8"),
    _plain(30, "BF16", "<u2"),
)
