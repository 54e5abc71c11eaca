"""One F32 model in the ways that published safetensors checkpoints store weights.

Matrices are converted, all other tensors stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tools.sources import st_quant
from tools.sources.minifloat import E4M3, pack
from tools.sources.source import Floats
from tools.sources.st_quant import Encoder, Stored
from tools.sources.st_writer import of_array, serialize

__all__ = ["FLAVOURS", "make"]

_GROUP: Final = 128


def _half(name: str, rows: Floats) -> Stored:
    return {f"{name}.weight": of_array(rows.astype("<f2"))}


def _bfloat16(name: str, rows: Floats) -> Stored:
    return {f"{name}.weight": st_quant.bfloat16(rows)}


def int4_groups(name: str, rows: Floats) -> Stored:
    """Symmetric 4 bits, eight codes an I32, an F16 scale per 128 columns (pack-quantized)."""
    grouped = rows.reshape(len(rows), -1, _GROUP)
    scale = np.max(np.abs(grouped), axis=2, keepdims=True) / np.float32(7)
    scaled = np.divide(grouped, scale, out=np.zeros_like(grouped), where=scale > 0)
    codes = (np.clip(np.rint(scaled), -8, 7) + 8).astype(np.uint8)
    return {
        f"{name}.weight_packed": of_array(pack(codes, 4).view("<i4").reshape(len(rows), -1)),
        f"{name}.weight_scale": of_array(scale[:, :, 0].astype("<f2")),
    }


FLAVOURS: Final[Mapping[str, Encoder | None]] = {
    "F32": None,
    "BF16": _bfloat16,
    "F16": _half,
    "FP8 E4M3, F32 scale per row": st_quant.float8("F8_E4M3", E4M3),
    "INT8, F32 scale per row": st_quant.symmetric_per_row("i1"),
    "INT4 in I32, F16 scale per 128": int4_groups,
}
"""By the name that the tables give it; None leaves the tensors as they are."""


def make(flavour: str, tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A safetensors file of ``tensors``, whose float32 matrices (``*.weight``) are stored as ``flavour``."""
    encoder, stored = FLAVOURS[flavour], {}
    for full, values in tensors.items():
        matrix = values.ndim == 2 and values.dtype == np.float32
        if encoder is not None and matrix:
            stored.update(encoder(full.removesuffix(".weight"), values))
        else:
            stored[full] = of_array(values)
    return serialize(stored, {"format": "pt"})
