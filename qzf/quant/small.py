"""Binary, ternary and 4-bit floating-point types."""

from __future__ import annotations

from qzf.quant.base import Field, GgmlType

__all__ = ["TYPES"]

_D = Field("d", "<f2", 1, "scale")

TYPES = (
    GgmlType(
        34,
        "TQ1_0",
        256,
        (
            Field("qs", "u1", 48, "five ternary digits a byte"),
            Field("qh", "u1", 4, "four ternary digits a byte"),
            _D,
        ),
    ),
    GgmlType(35, "TQ2_0", 256, (Field("qs", "u1", 64, "2-bit codes, four a byte"), _D)),
    GgmlType(
        39,
        "MXFP4",
        32,
        (Field("e", "u1", 1, "E8M0 scale"), Field("qs", "u1", 16, "E2M1 values, two a byte")),
    ),
    GgmlType(
        40,
        "NVFP4",
        64,
        (
            Field("d", "u1", 4, "UE4M3 scale per 16 weights"),
            Field("qs", "u1", 32, "E2M1 values, two a byte"),
        ),
    ),
    GgmlType(41, "Q1_0", 128, (_D, Field("qs", "u1", 16, "sign bits"))),
    GgmlType(42, "Q2_0", 64, (_D, Field("qs", "u1", 16, "2-bit codes, four a byte"))),
)
