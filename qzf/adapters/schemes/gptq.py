"""GPTQ and AWQ: 4-bit codes in I32 words with packed zeros and float scales, one pair a group of inputs.

Both store the transposed weight, inputs first, under the same names; they differ in the axis that is packed.
Sources: ``QuantLinear.pack`` in AutoGPTQ/AutoGPTQ and ModelCloud/GPTQModel (``qweight`` [inputs * bits / 32,
outputs], ``g_idx`` [inputs]); ``WQLinear_GEMM`` in casper-hansen/AutoAWQ (``qweight`` [inputs, outputs / 8],
its eight codes a word in the order 0 2 4 6 1 3 5 7). In both ``qzeros`` is [groups, outputs * bits / 32] and
``scales`` is [groups, outputs].
"""

from __future__ import annotations

from typing import Final

from qzf.adapters.schemes.base import FLOATS, WORD, Found, QuantConfig, Tensors, columns_grain, matrix
from qzf.model import TensorSpec

__all__ = ["find_gptq_awq"]

_SUFFIX: Final = ".qweight"
_GPTQ_BITS: Final = (2, 3, 4, 8)
#: The only width that AWQ's order of codes is defined for.
_AWQ_BITS: Final = 4


def find_gptq_awq(tensors: Tensors, config: QuantConfig) -> Found:
    """GPTQ's and AWQ's weights, with ``qzeros``, ``scales`` and ``g_idx``."""
    for name, words in tensors.items():
        if not name.endswith(_SUFFIX):
            continue
        base = name.removesuffix("qweight")
        packed = matrix(words, ("I32",))
        zeros = matrix(tensors.get(base + "qzeros"), ("I32",))
        scales = matrix(tensors.get(base + "scales"), FLOATS)
        if packed is None or zeros is None or scales is None or zeros[0] != scales[0]:
            continue
        order = tensors.get(base + "g_idx")
        scheme = _gptq(packed, zeros, scales, order, config)
        if scheme is None and order is None:
            scheme = _awq(packed, zeros, scales, config)
        if scheme is not None:
            index = [] if order is None else [base + "g_idx"]
            yield scheme, [name, base + "qzeros", base + "scales", *index]


def _gptq(
    packed: tuple[int, int],
    zeros: tuple[int, int],
    scales: tuple[int, int],
    order: TensorSpec | None,
    config: QuantConfig,
) -> str | None:
    groups, outputs = scales
    bits, rest = divmod(zeros[1] * WORD, outputs)
    if rest or bits not in _GPTQ_BITS or packed[1] != outputs:
        return None
    inputs, rest = divmod(packed[0] * WORD, bits)
    if rest or (order is not None and (order.dtype, order.shape) != ("I32", (inputs,))):
        return None
    grain = columns_grain(inputs, groups, config.groups)
    return None if grain is None else f"gptq-int{bits}-{grain}"


def _awq(
    packed: tuple[int, int], zeros: tuple[int, int], scales: tuple[int, int], config: QuantConfig
) -> str | None:
    groups, outputs = scales
    if packed[1] != zeros[1] or packed[1] * WORD != outputs * _AWQ_BITS:
        return None
    grain = columns_grain(packed[0], groups, config.groups)
    return None if grain is None else f"awq-int{_AWQ_BITS}-{grain}"
