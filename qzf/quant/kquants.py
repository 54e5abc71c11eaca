"""K-quants: superblocks of 256 weights with quantized sub-block scales (and mins) under an fp16 ``d``."""

from __future__ import annotations

from qzf.quant.base import Field, GgmlType

__all__ = ["TYPES"]

_D = Field("d", "<f2", 1, "superblock scale of the scales")
_DMIN = Field("dmin", "<f2", 1, "superblock scale of the mins")
_SCALES6 = Field("scales", "u1", 12, "8 scales and 8 mins of 6 bits, packed")

TYPES = (
    GgmlType(
        10,
        "Q2_K",
        256,
        (
            Field("scales", "u1", 16, "per 16 weights: scale in the low, min in the high 4 bits"),
            Field("qs", "u1", 64, "2-bit codes, four a byte"),
            _D,
            _DMIN,
        ),
    ),
    GgmlType(
        11,
        "Q3_K",
        256,
        (
            Field("hmask", "u1", 32, "third bit: weight 32 p + l is bit p of byte l"),
            Field("qs", "u1", 64, "low 2 bits, four a byte"),
            Field("scales", "u1", 12, "16 scales of 6 bits, packed"),
            _D,
        ),
    ),
    GgmlType(12, "Q4_K", 256, (_D, _DMIN, _SCALES6, Field("qs", "u1", 128, "4-bit codes, two a byte"))),
    GgmlType(
        13,
        "Q5_K",
        256,
        (
            _D,
            _DMIN,
            _SCALES6,
            Field("qh", "u1", 32, "fifth bit: weight 32 p + l is bit p of byte l"),
            Field("qs", "u1", 128, "low 4 bits, two a byte"),
        ),
    ),
    GgmlType(
        14,
        "Q6_K",
        256,
        (
            Field("ql", "u1", 128, "low 4 bits, two a byte"),
            Field("qh", "u1", 64, "high 2 bits, four a byte"),
            Field("scales", "i1", 16, "scale per 16 weights"),
            _D,
        ),
    ),
    GgmlType(
        15,
        "Q8_K",
        256,
        (
            Field("d", "<f4", 1, "scale"),
            Field("qs", "i1", 256, "codes"),
            Field("bsums", "<i2", 16, "sum of codes per 16 weights"),
        ),
    ),
)
