"""compressed-tensors' packed weights: ``pack-quantized`` integers and 4-bit floats.

Source: ``compressors/quantized_compressors`` in vllm-project/compressed-tensors: ``weight_packed`` I32
[rows, ceil(columns * bits / 32)], ``weight_scale`` [rows, groups], ``weight_shape`` I64 [2], and where there
are any ``weight_zero_point`` I32 [ceil(rows * bits / 32), groups] and ``weight_g_idx`` I32 [columns];
``nvfp4-pack-quantized`` and ``mxfp4-pack-quantized`` have two codes a byte and a scale of 8 bits per 16 and
32 columns. Its weights that are not packed are in ``scaled``.
"""

from __future__ import annotations

from typing import Final

from qzf.adapters.schemes.base import (
    FLOATS,
    WORD,
    Found,
    QuantConfig,
    Tensors,
    columns_grain,
    matrix,
    present,
)
from qzf.adapters.schemes.microscaling import nibble_scheme

__all__ = ["find_compressed"]

_SUFFIX: Final = ".weight_packed"
_BITS: Final = (2, 3, 4, 5, 6, 7, 8)
_PARTNERS: Final = (
    "weight_zero_point",
    "weight_g_idx",
    "weight_global_scale",
    "input_global_scale",
    "input_scale",
    "input_zero_point",
)


def find_compressed(tensors: Tensors, config: QuantConfig) -> Found:
    """The packed weights, with their scales, shapes and what else belongs to them."""
    for name, packed in tensors.items():
        if not name.endswith(_SUFFIX):
            continue
        base = name.removesuffix("weight_packed")
        scale = tensors.get(base + "weight_scale")
        names = [name, base + "weight_scale"]
        if packed.dtype == "I32":
            shape = tensors.get(base + "weight_shape")
            if shape is None or shape.shape != (2,):
                continue
            names.append(base + "weight_shape")
            scheme = _integers(tensors, base, config)
        else:
            scheme = None if scale is None else nibble_scheme(packed, scale)
        if scheme is not None:
            partners = present(tensors, (base + partner for partner in _PARTNERS))
            yield f"compressed-tensors-{scheme}", names + partners


def _integers(tensors: Tensors, base: str, config: QuantConfig) -> str | None:
    """Width and grain; ``packed`` where nothing says how wide the integers are.

    Words and scales alone do not: 4 bits in groups of 128 fill as many words as 8 bits in groups of 64, and
    the number of columns is data (``weight_shape``), which is not read.
    """
    packed = matrix(tensors.get(base + "weight_packed"), ("I32",))
    scales = matrix(tensors.get(base + "weight_scale"), FLOATS)
    if packed is None or scales is None or packed[0] != scales[0]:
        return None
    words, groups = packed[1], scales[1]
    possible = _widths(tensors, base, packed, groups)
    said = {
        f"int{bits}-row" if group is None else f"int{bits}-g{group}"
        for bits, group in config.weights
        if bits in possible and _fits(words, groups, bits, group)
    }
    if len(said) == 1:
        return said.pop()
    if len(possible) == 1:
        bits = possible[0]
        grain = columns_grain(words * WORD // bits, groups, config.groups)
        return None if grain is None else f"int{bits}-{grain}"
    return "packed" if possible else None


def _widths(tensors: Tensors, base: str, packed: tuple[int, int], groups: int) -> list[int]:
    """The widths that all shapes allow, in bits."""
    rows, words = packed
    possible = list(_BITS)
    index = tensors.get(base + "weight_g_idx")
    if index is not None and len(index.shape) == 1:
        possible = [bits for bits in possible if -(-index.shape[0] * bits // WORD) == words]
    zeros = matrix(tensors.get(base + "weight_zero_point"), ("I32",))
    if zeros is not None:
        possible = [bits for bits in possible if (-(-rows * bits // WORD), groups) == zeros]
    return possible


def _fits(words: int, groups: int, bits: int, group: int | None) -> bool:
    """Whether rows of ``words`` words and ``groups`` scales can be of this width and group size."""
    if group is None:
        return groups == 1
    return -(-groups * group * bits // WORD) == words
