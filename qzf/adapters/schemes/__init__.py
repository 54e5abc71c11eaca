"""Quantization schemes of safetensors checkpoints: which tensors together are one quantized weight.

safetensors has no dtype for a quantized matrix, so every tool stores one as several tensors under names of
its own. What a set of tensors is follows from their names, dtypes and shapes. The configuration beside the
file only decides between readings that the shapes leave open, and is passed over where it contradicts them.

The text that names a scheme is ``[TOOL-]TYPE[-GRAIN]``: a tool where its packing is its own (``gptq``,
``awq``, ``compressed-tensors``, ``bnb``), the type of an element, and what shares one scale: ``tensor``,
``row``, ``column``, ``gN`` (N columns of a row) or ``blockRxC``. Rows and columns are those of the stored
tensor, in GPTQ and AWQ, which store it transposed, those of the weight [outputs, inputs].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from qzf.adapters.schemes.base import NO_CONFIG, Found, QuantConfig, Tensors
from qzf.adapters.schemes.bnb import find_bnb
from qzf.adapters.schemes.compressed import find_compressed
from qzf.adapters.schemes.config import read_quant_config
from qzf.adapters.schemes.gptq import find_gptq_awq
from qzf.adapters.schemes.microscaling import find_mxfp4_blocks
from qzf.adapters.schemes.scaled import find_scaled
from qzf.model import TensorSpec

__all__ = ["NO_CONFIG", "QuantConfig", "read_quant_config", "recognise"]

#: The families, the more telling names first: a tensor belongs to the first that claims it.
_FAMILIES: Final[tuple[Callable[[Tensors, QuantConfig], Found], ...]] = (
    find_gptq_awq,
    find_compressed,
    find_bnb,
    find_mxfp4_blocks,
    find_scaled,
)


def recognise(tensors: Mapping[str, TensorSpec], config: QuantConfig = NO_CONFIG) -> dict[str, str]:
    """Name the scheme of every tensor of a checkpoint that belongs to one, by the tensor's name.

    ``tensors`` are those of one checkpoint by name, of all its shards. Tensors that stand for themselves are
    not in the result.
    """
    named: dict[str, str] = {}
    for find in _FAMILIES:
        for scheme, names in find(tensors, config):
            if not any(name in named for name in names):
                named.update(dict.fromkeys(names, scheme))
    return named
