"""4-bit floats, two a byte, in blocks with a scale of 8 bits: MXFP4 and NVFP4.

Sources: OCP Microscaling Formats 1.0 (E2M1 elements, an E8M0 scale per 32); ``modeling_gpt_oss`` and
``integrations/mxfp4.py`` in huggingface/transformers (``*_blocks`` U8 [..., blocks, 16], ``*_scales`` U8
[..., blocks]); NVIDIA's NVFP4 as TensorRT Model Optimizer exports it (an E4M3 scale per 16, and one F32 a
tensor).
"""

from __future__ import annotations

from typing import Final

from qzf.adapters.schemes.base import Found, QuantConfig, Tensors, elements
from qzf.model import TensorSpec

__all__ = ["find_mxfp4_blocks", "nibble_scheme"]

#: Bytes of the codes of one MXFP4 block.
_BLOCK: Final = 16
#: Dtype of the scales -> name and bytes of codes that share one.
_NIBBLES: Final = {"F8_E4M3": ("nvfp4", 8), "F8_E8M0": ("mxfp4", 16), "U8": ("mxfp4", 16)}


def find_mxfp4_blocks(tensors: Tensors, config: QuantConfig) -> Found:
    """Pairs of blocks and scales as in gpt-oss, whose original files have a dot for the underscore."""
    for name, blocks in tensors.items():
        if not name.endswith(("_blocks", ".blocks")):
            continue
        other = name.removesuffix("blocks") + "scales"
        scales = tensors.get(other)
        if scales is None or (blocks.dtype, scales.dtype) != ("U8", "U8"):
            continue
        if len(blocks.shape) >= 2 and elements(blocks) and blocks.shape == (*scales.shape, _BLOCK):
            yield "mxfp4", [name, other]


def nibble_scheme(codes: TensorSpec, scales: TensorSpec) -> str | None:
    """``mxfp4`` or ``nvfp4`` where ``codes`` are bytes of two codes and ``scales`` fit; else None."""
    name, size = _NIBBLES.get(scales.dtype, ("", 0))
    if codes.dtype != "U8" or not name or len(codes.shape) < 2 or not elements(codes):
        return None
    return name if codes.shape == (*scales.shape[:-1], scales.shape[-1] * size) else None
