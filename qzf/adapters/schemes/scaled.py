"""Weights of 8 bits or less in a dtype of their own (``F8_E4M3``, ``I8``, ``F4`` ...) and a tensor of scales.

Sources of the names: ``weight_scale_inv`` in deepseek-ai/DeepSeek-V3 (README_WEIGHTS.md: blocks of 128 x 128)
and ``scale`` in its inference code; ``weight_scale``, ``input_scale`` and zero points in compressed-tensors
and TensorRT Model Optimizer; ``input_scale_ub`` in FBGEMM's checkpoints; ``qscale_weight`` and ``qscale_act``
in Mistral's own; ``scale_weight`` and ``scale_input`` in ComfyUI's. Fused experts have names without
``.weight`` (``gate_up_proj``, ``gate_up_proj_scale``).
"""

from __future__ import annotations

import math
from typing import Final

from qzf.adapters.schemes.base import (
    FLOATS,
    Found,
    QuantConfig,
    Tensors,
    columns_grain,
    elements,
    group_size,
    present,
)
from qzf.adapters.schemes.microscaling import nibble_scheme
from qzf.model import TensorSpec

__all__ = ["find_scaled"]

#: Dtype of a weight -> how a scheme calls it. U8 is only known with the scales of a 4-bit float.
_TYPES: Final = {
    "I8": "int8",
    "F8_E4M3": "fp8-e4m3",
    "F8_E5M2": "fp8-e5m2",
    "F8_E4M3FNUZ": "fp8-e4m3fnuz",
    "F8_E5M2FNUZ": "fp8-e5m2fnuz",
    "F6_E2M3": "fp6-e2m3",
    "F6_E3M2": "fp6-e3m2",
    "F4": "fp4",
}
_DTYPES: Final = frozenset({*_TYPES, "U8"})
_SCALES: Final = frozenset({*FLOATS, "F8_E8M0", "F8_E4M3", "U8"})
#: Columns that share an E8M0 scale in the OCP formats, and an E4M3 scale in NVFP4.
_MX_GROUP: Final = 32
_NVFP4_GROUP: Final = 16
#: What a scale's name has behind the weight's, or in place of ``weight``.
_AFTER: Final = ("_scale_inv", "_scale")
_INSTEAD: Final = ("qscale_weight", "scale_weight", "scale")
_PARTNERS_AFTER: Final = ("_scale_2", "_global_scale", "_zero_point")
_PARTNERS_INSTEAD: Final = (
    "input_scale",
    "input_scale_ub",
    "input_zero_point",
    "input_global_scale",
    "activation_scale",
    "qscale_act",
    "scale_input",
)


def find_scaled(tensors: Tensors, config: QuantConfig) -> Found:
    """Weights of these dtypes, with their scales and those of their inputs."""
    tool = "compressed-tensors-" if config.method == "compressed-tensors" else ""
    for name, weight in tensors.items():
        if weight.dtype not in _DTYPES or len(weight.shape) not in (2, 3) or not elements(weight):
            continue
        base = name.removesuffix("weight") if name.endswith(".weight") else None
        instead = [] if base is None else [base + part for part in _INSTEAD]
        for scale in present(tensors, [*(name + part for part in _AFTER), *instead]):
            scheme = _scheme(weight, tensors[scale], config)
            if scheme is not None:
                yield tool + scheme, [name, scale, *_partners(tensors, name, base, scale)]
                break


def _partners(tensors: Tensors, name: str, base: str | None, scale: str) -> list[str]:
    """The small tensors beside a weight: none has more elements than its scales."""
    names = [name + part for part in _PARTNERS_AFTER]
    names += [] if base is None else [base + part for part in _PARTNERS_INSTEAD]
    most = elements(tensors[scale])
    return [partner for partner in present(tensors, names) if elements(tensors[partner]) <= most]


def _scheme(weight: TensorSpec, scale: TensorSpec, config: QuantConfig) -> str | None:
    if scale.dtype not in _SCALES or not elements(scale):
        return None
    if weight.dtype == "U8":
        return nibble_scheme(weight, scale)
    kind, groups = _TYPES[weight.dtype], _groups(weight, scale)
    if groups is not None and kind != "int8":
        size = group_size(weight.shape[-1], groups)
        if scale.dtype == "F8_E8M0" and size == _MX_GROUP:
            return "mxfp4" if kind == "fp4" else f"mx{kind}"
        if (kind, scale.dtype, size) == ("fp4", "F8_E4M3", _NVFP4_GROUP):
            return "nvfp4"
    if not kind.startswith(("int8", "fp8")) or scale.dtype not in FLOATS | {"F8_E8M0"}:
        return None
    grain = _grain(weight, scale, config)
    return None if grain is None else f"{kind}-{grain}"


def _groups(weight: TensorSpec, scale: TensorSpec) -> int | None:
    """How many scales a row has where every row has its own; else None."""
    same = scale.shape[:-1] == weight.shape[:-1]
    return scale.shape[-1] if same and scale.shape else None


def _grain(weight: TensorSpec, scale: TensorSpec, config: QuantConfig) -> str | None:
    """What shares a scale, for a weight of [rows, columns] or [experts, rows, columns]."""
    *experts, rows, columns = weight.shape
    shape, block = scale.shape, config.block
    if len(shape) == len(weight.shape) and list(shape[:-2]) == experts:
        down, across = shape[-2:]
        if block is not None and (down, across) == (-(-rows // block[0]), -(-columns // block[1])):
            return f"block{block[0]}x{block[1]}"
    if elements(scale) == 1 or (experts and _is_like(shape, experts)):
        return "tensor"
    if _is_like(shape, [*experts, rows]):
        return "row"
    if len(shape) != len(weight.shape) or list(shape[:-2]) != experts:
        return None
    if down == 1 and across == columns:
        return "column"
    if down == rows:
        return columns_grain(columns, across, config.groups)
    return _block(rows, down, columns, across)


def _is_like(shape: tuple[int, ...], expected: list[int]) -> bool:
    """Whether ``shape`` is ``expected``, up to dimensions of 1 behind it."""
    behind = shape[len(expected) :]
    return list(shape[: len(expected)]) == expected and math.prod(behind) == 1


def _block(rows: int, down: int, columns: int, across: int) -> str | None:
    """Blocks of rows and columns; where one block holds all of a side, that side may be cut short by it."""
    high = rows if down == 1 else group_size(rows, down)
    wide = columns if across == 1 else group_size(columns, across)
    if high is None or wide is None:
        return None
    if down == 1 or across == 1:  # blocks are square, unless that side is too long for it
        high, wide = max(high, wide if down == 1 else 0), max(wide, high if across == 1 else 0)
    return f"block{high}x{wide}"
