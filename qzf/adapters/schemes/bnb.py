"""bitsandbytes: 4-bit NF4 and FP4, and LLM.int8().

Source: ``QuantState.as_dict`` in bitsandbytes/functional.py and ``Linear8bitLt._save_to_state_dict`` in
bitsandbytes/nn/modules.py (bitsandbytes-foundation/bitsandbytes): a 4-bit ``weight`` is one column of bytes
(or of the dtype chosen as storage), with ``weight.absmax`` per block, ``weight.quant_map`` of 16 levels, a
state in JSON whose name ends in ``bitsandbytes__nf4`` or ``__fp4``, and where absmax itself is quantized
``nested_absmax`` and ``nested_quant_map``; an 8-bit ``weight`` is I8 [rows, columns] with ``SCB`` F32 [rows].
"""

from __future__ import annotations

from typing import Final

from qzf.adapters.schemes.base import FLOATS, Found, QuantConfig, Tensors, elements, present
from qzf.model import TensorSpec

__all__ = ["find_bnb"]

_STATE: Final = ".quant_state.bitsandbytes__"
_TYPES: Final = ("nf4", "fp4")
#: The block sizes that bitsandbytes has kernels for.
_BLOCKS: Final = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_LEVELS: Final = 16


def find_bnb(tensors: Tensors, config: QuantConfig) -> Found:
    """The weights of both kinds, with what belongs to them."""
    for name, tensor in tensors.items():
        weight, found, kind = name.partition(_STATE)
        if found and kind in _TYPES and _is_four_bits(tensors, weight):
            parts = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
            partners = present(tensors, (f"{weight}.{part}" for part in parts))
            yield f"bnb-{kind}", [weight, *partners, name]
        elif name.endswith(".SCB"):
            base = name.removesuffix("SCB")
            if _is_rows(tensors.get(base + "weight"), tensor):
                yield "bnb-int8", [base + "weight", name, *present(tensors, [base + "weight_format"])]


def _is_four_bits(tensors: Tensors, name: str) -> bool:
    weight, absmax, levels = (tensors.get(name + part) for part in ("", ".absmax", ".quant_map"))
    if weight is None or absmax is None or levels is None:
        return False
    if len(weight.shape) != 2 or 1 not in weight.shape or elements(levels) != _LEVELS:
        return False
    count = 2 * weight.extent.size
    return bool(count) and any(-(-count // block) == elements(absmax) for block in _BLOCKS)


def _is_rows(weight: TensorSpec | None, scale: TensorSpec) -> bool:
    return (
        weight is not None
        and weight.dtype == "I8"
        and len(weight.shape) == 2
        and scale.dtype in FLOATS
        and elements(scale) == weight.shape[0]
    )
