"""float32 rows to GGML blocks, one function for every `GGMLQuantizationType`.

libgguf (llama.cpp's own quantizers) does all that it can. The rest are the two activation types, which no
package quantizes, and the plain integers; their layouts are those of ``block_q8_1`` and ``block_q8_K`` in
llama.cpp's ``ggml/src/ggml-common.h``.
"""

from __future__ import annotations

from collections.abc import Callable

import libgguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from tools.sources.source import Bytes, Floats

FRACTION_BITS = {GGMLQuantizationType.I32: 24, GGMLQuantizationType.I64: 40}
"""Fixed-point fraction bits of the two wide integers; weights lie well within +-128."""

_IMPORTANCE_PREFIXES = ("IQ1", "IQ2", "IQ3")


def type_sizes(qtype: GGMLQuantizationType) -> tuple[int, int]:
    """Return (elements, bytes) of one block as ggml itself has them.

    gguf 0.19 says 40 bytes for Q8_1, where ggml has 36: ``ggml_half d, s; int8_t qs[32]``.
    """
    elements, size = GGML_QUANT_SIZES[qtype]
    return elements, 36 if qtype is GGMLQuantizationType.Q8_1 else size


def quantize(qtype: GGMLQuantizationType, rows: Floats, importance: Floats) -> Bytes:
    """Quantize float32 ``[rows, columns]`` to uint8 ``[rows, bytes per row]``.

    `importance` is float32 ``[columns]``; only the types below 4 bits that profit from it use it.
    """
    own = _OWN.get(qtype)
    if own is not None:
        return own(rows)
    needed = qtype.name.startswith(_IMPORTANCE_PREFIXES)
    blocks = libgguf.quantize_rows(rows, qtype, imatrix=importance if needed else None)
    return np.ascontiguousarray(blocks).view(np.uint8).reshape(len(rows), -1)


def _round(values: Floats) -> Floats:
    """Round half away from zero, as C's roundf (exact: the sum with 0.5 is done in float64)."""
    wide = values.astype(np.float64)
    return (np.sign(wide) * np.floor(np.abs(wide) + 0.5)).astype(np.float32)


def _reciprocal(values: Floats) -> Floats:
    return np.divide(np.float32(1), values, out=np.zeros_like(values), where=values != 0)


def _records(fields: dict[str, tuple[str, int]], rows: int, columns: dict[str, np.ndarray]) -> Bytes:
    """Pack equally long columns as packed records; return uint8 ``[rows, bytes per row]``."""
    dtype = np.dtype([(name, code, (length,)) for name, (code, length) in fields.items()])
    blocks = np.empty(len(next(iter(columns.values()))), dtype)
    for name, column in columns.items():
        blocks[name] = column
    return blocks.view(np.uint8).reshape(rows, -1)


def _q8_1(rows: Floats) -> Bytes:
    """Symmetric 8 bits per 32 elements, with the sum of the dequantized block beside the scale."""
    blocks = rows.reshape(-1, 32)
    scale = np.max(np.abs(blocks), axis=1, keepdims=True) / np.float32(127)
    quants = _round(blocks * _reciprocal(scale))
    total = np.sum(quants, axis=1, keepdims=True) * scale
    fields = {"d": ("<f2", 1), "s": ("<f2", 1), "qs": ("i1", 32)}
    return _records(fields, len(rows), {"d": scale, "s": total, "qs": quants})


def _q8_k(rows: Floats) -> Bytes:
    """Symmetric 8 bits per 256 elements; the element of largest magnitude becomes -127; sums per 16."""
    blocks = rows.reshape(-1, 256)
    largest = np.take_along_axis(blocks, np.argmax(np.abs(blocks), axis=1)[:, None], axis=1)
    inverse = np.float32(-127) * _reciprocal(largest)
    quants = np.minimum(np.rint(inverse * blocks), np.float32(127))
    sums = np.sum(quants.reshape(-1, 16, 16), axis=2)
    fields = {"d": ("<f4", 1), "qs": ("i1", 256), "bsums": ("<i2", 16)}
    return _records(fields, len(rows), {"d": _reciprocal(inverse), "qs": quants, "bsums": sums})


def _scaled(dtype: str) -> Callable[[Floats], Bytes]:
    """Return an encoder to symmetric integers: the tensor's largest magnitude becomes the dtype's maximum."""

    def encode(rows: Floats) -> Bytes:
        limit = np.iinfo(dtype).max
        wide = rows.astype(np.float64)
        codes: Bytes = np.rint(wide * (limit / np.max(np.abs(wide)))).astype(dtype).view(np.uint8)
        return codes

    return encode


def _fixed_point(dtype: str, fraction_bits: int) -> Callable[[Floats], Bytes]:
    """Return an encoder to fixed-point integers."""

    def encode(rows: Floats) -> Bytes:
        return np.rint(np.ldexp(rows.astype(np.float64), fraction_bits)).astype(dtype).view(np.uint8)

    return encode


def _doubles(rows: Floats) -> Bytes:
    return rows.astype("<f8").view(np.uint8)


_OWN: dict[GGMLQuantizationType, Callable[[Floats], Bytes]] = {
    GGMLQuantizationType.Q8_1: _q8_1,
    GGMLQuantizationType.Q8_K: _q8_k,
    GGMLQuantizationType.I8: _scaled("<i1"),
    GGMLQuantizationType.I16: _scaled("<i2"),
    GGMLQuantizationType.I32: _fixed_point("<i4", FRACTION_BITS[GGMLQuantizationType.I32]),
    GGMLQuantizationType.I64: _fixed_point("<i8", FRACTION_BITS[GGMLQuantizationType.I64]),
    GGMLQuantizationType.F64: _doubles,
}
