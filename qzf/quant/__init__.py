"""GGML block types, by number and by name."""

from __future__ import annotations

from typing import Final

from qzf.quant import iq, kquants, legacy, plain, small
from qzf.quant.base import Field, GgmlType

__all__ = ["BY_NAME", "BY_NUMBER", "PLAIN", "Field", "GgmlType"]

_ALL = (*plain.TYPES, *legacy.TYPES, *kquants.TYPES, *iq.TYPES, *small.TYPES)

BY_NUMBER: Final = {ggml_type.number: ggml_type for ggml_type in _ALL}
BY_NAME: Final = {ggml_type.name: ggml_type for ggml_type in _ALL}
#: Names of the types that are ordinary numbers, not quantization blocks.
PLAIN: Final = frozenset(ggml_type.name for ggml_type in plain.TYPES)

if len(BY_NUMBER) != len(_ALL) or len(BY_NAME) != len(_ALL):
    raise RuntimeError("two GGML types share a number or a name")
