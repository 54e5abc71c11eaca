"""IQ types: superblocks of 256 weights coded by codebook (IQ1-IQ3) or a non-linear 4-bit table (IQ4)."""

from __future__ import annotations

from qzf.quant.base import Field, GgmlType

__all__ = ["TYPES"]

_D = Field("d", "<f2", 1, "scale")

TYPES = (
    GgmlType(16, "IQ2_XXS", 256, (_D, Field("qs", "<u2", 32, "grid indices, signs, 4-bit scales"))),
    GgmlType(
        17,
        "IQ2_XS",
        256,
        (
            _D,
            Field("qs", "<u2", 32, "9-bit grid index and 7-bit signs per 8 weights"),
            Field("scales", "u1", 8, "4-bit scales"),
        ),
    ),
    GgmlType(18, "IQ3_XXS", 256, (_D, Field("qs", "u1", 96, "64 grid indices, then signs and scales"))),
    GgmlType(
        19,
        "IQ1_S",
        256,
        (
            _D,
            Field("qs", "u1", 32, "grid index, low 8 bits"),
            Field("qh", "<u2", 8, "grid index, high 3 bits; scale; shift sign"),
        ),
    ),
    GgmlType(20, "IQ4_NL", 32, (_D, Field("qs", "u1", 16, "4-bit codebook indices, two a byte"))),
    GgmlType(
        21,
        "IQ3_S",
        256,
        (
            _D,
            Field("qs", "u1", 64, "grid index, low 8 bits"),
            Field("qh", "u1", 8, "grid index, ninth bit"),
            Field("signs", "u1", 32, "signs"),
            Field("scales", "u1", 4, "4-bit scales"),
        ),
    ),
    GgmlType(
        22,
        "IQ2_S",
        256,
        (
            _D,
            Field("qs", "u1", 32, "grid index, low 8 bits"),
            Field("signs", "u1", 32, "signs"),
            Field("qh", "u1", 8, "grid index, high 2 bits"),
            Field("scales", "u1", 8, "4-bit scales"),
        ),
    ),
    GgmlType(
        23,
        "IQ4_XS",
        256,
        (
            _D,
            Field("scales_h", "<u2", 1, "high 2 bits of the 8 scales"),
            Field("scales_l", "u1", 4, "low 4 bits of the 8 scales"),
            Field("qs", "u1", 128, "4-bit codebook indices, two a byte"),
        ),
    ),
    GgmlType(
        29,
        "IQ1_M",
        256,
        (
            Field("qs", "u1", 32, "grid index, low 8 bits"),
            Field("qh", "u1", 16, "grid index, high 3 bits; shift sign"),
            Field("scales", "u1", 8, "3-bit scales; the fp16 scale in their top bits"),
        ),
    ),
)
