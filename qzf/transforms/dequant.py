"""Weights of GGML block types as floats; one way only, and no part of the format.

Bit for bit what the ``gguf`` Python package computes (``gguf.quants.dequantize``), for every type that it
supports. The work is done by the compiled core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qzf import _core
from qzf.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DEQUANTIZABLE", "FLOATS", "dequantize"]

#: Types that :func:`dequantize` knows: GGML's names, with the plain ``F32``, ``F16`` and ``BF16``.
DEQUANTIZABLE: Final = frozenset(name for name, _, _ in _core.dequant_types())
#: What weights can become, and the bytes of one.
FLOATS: Final = {"float32": 4, "float16": 2, "bfloat16": 2}


def dequantize(
    type_name: str, blocks: Buffer, out: Buffer, dtype: str = "float32", *, isa: str | None = None
) -> None:
    """Write the weights of ``blocks`` to ``out``, in order and little-endian.

    ``blocks``: whole blocks of the GGML type ``type_name``, any bytes. ``out``: writable, of exactly the size
    of their weights as ``dtype`` (``FLOATS``). ``float16`` and ``bfloat16`` are the float32 values rounded to
    the nearest, ties to even: what is too large becomes infinite, a NaN stays one. The GIL is released.
    ``isa`` is one of ``qzf.transforms.fields.isas()``, the active one by default.

    Raises ``OptionError`` for another type, dtype or size, and for buffers that overlap, are not contiguous
    or not writable.
    """
    if type_name not in DEQUANTIZABLE:
        raise OptionError(f"{type_name} cannot be dequantized")
    try:
        _core.dequantize(type_name, dtype, blocks, out, isa)
    except ValueError as error:
        raise OptionError(f"dequantizing {type_name} to {dtype}: {error}") from None
