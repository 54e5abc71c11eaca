"""float32 matrices to the tensors by which published safetensors checkpoints store a quantized weight.

Each function takes the parameter's name (without ``.weight``) and float32 ``[rows, columns]``, and returns
the stored tensors by full name.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tools.sources.minifloat import E2M1, E4M3, Kind, bits, encode, largest, microscale, pack
from tools.sources.source import Bytes, Floats
from tools.sources.st_writer import Tensor, of_array, of_codes

Stored = dict[str, Tensor]
Encoder = Callable[[str, Floats], Stored]

GROUP = 128
"""Rows of the transposed weight that share a GPTQ scale."""

NF4_BLOCK = 64

NF4_VALUES = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The 4-bit NormalFloat levels of the QLoRA paper (Dettmers et al. 2023, appendix E)."""


def bfloat16(values: Floats) -> Tensor:
    """Round float32 of any shape to BF16, ties to even."""
    return of_codes("BF16", values.astype(ml_dtypes.bfloat16))


def _peak(rows: Floats) -> Floats:
    peak: Floats = np.max(np.abs(rows), axis=-1, keepdims=True)
    return peak


def float8(dtype: str, kind: Kind) -> Encoder:
    """8-bit floats with one F32 scale per row (compressed-tensors' channel strategy)."""

    def store(name: str, rows: Floats) -> Stored:
        scale = _peak(rows) / largest(kind)
        codes = encode(rows / scale, kind)
        return {f"{name}.weight": of_codes(dtype, codes), f"{name}.weight_scale": of_array(scale)}

    return store


def mx(dtype: str, kind: Kind) -> Encoder:
    """OCP microscaling: small floats with one E8M0 scale per 32 columns."""

    def store(name: str, rows: Floats) -> Stored:
        codes, scales = microscale(rows, kind)
        return {
            f"{name}.weight": of_codes(dtype, pack(codes, bits(kind)), rows.shape),
            f"{name}.weight_scale": of_codes("F8_E8M0", scales),
        }

    return store


def nvfp4(name: str, rows: Floats) -> Stored:
    """F4 with an E4M3 scale per 16 columns and one F32 scale per tensor (NVIDIA's NVFP4)."""
    grouped = rows.reshape(len(rows), -1, 16)
    whole = np.max(np.abs(rows)) / (largest(E2M1) * largest(E4M3))
    scale_codes = encode(_peak(grouped) / (largest(E2M1) * whole), E4M3)
    scales = scale_codes.view(E4M3).astype(np.float32) * whole
    codes = encode(np.divide(grouped, scales, out=np.zeros_like(grouped), where=scales > 0), E2M1)
    return {
        f"{name}.weight": of_codes("F4", pack(codes, 4), rows.shape),
        f"{name}.weight_scale": of_codes("F8_E4M3", scale_codes[:, :, 0]),
        f"{name}.weight_scale_2": of_array(np.asarray(whole, np.float32)),
    }


def mxfp4_blocks(name: str, rows: Floats) -> Stored:
    """MXFP4 as gpt-oss stores it: U8 blocks of 16 bytes (low nibble first) and U8 scale exponents."""
    codes, scales = microscale(rows, E2M1)
    blocks = pack(codes, 4).reshape(len(rows), -1, 16)
    return {f"{name}.weight_blocks": of_array(blocks), f"{name}.weight_scales": of_array(scales)}


def int8_per_tensor(name: str, rows: Floats) -> Stored:
    """Symmetric I8 with one F32 scale, a scalar tensor."""
    scale = np.max(np.abs(rows)) / np.float32(127)
    codes = np.rint(rows / scale).astype(np.int8)
    return {
        f"{name}.weight": of_array(codes),
        f"{name}.weight_scale": of_array(np.asarray(scale, np.float32)),
    }


def symmetric_per_row(dtype: str) -> Encoder:
    """Symmetric integers of numpy `dtype` with one F32 scale per row."""

    def store(name: str, rows: Floats) -> Stored:
        scale = _peak(rows) / np.float32(np.iinfo(dtype).max)
        codes = np.rint(rows / scale).astype(dtype)
        return {f"{name}.weight": of_array(codes), f"{name}.weight_scale": of_array(scale)}

    return store


def uint16_affine(name: str, rows: Floats) -> Stored:
    """U16 between each row's minimum and maximum, both kept as F32."""
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    codes = np.rint((rows - low) / (high - low) * np.float32(65535)).astype("<u2")
    return {
        f"{name}.weight": of_array(codes),
        f"{name}.weight_min": of_array(low),
        f"{name}.weight_max": of_array(high),
    }


def fixed_point(dtype: str, fraction_bits: int) -> Encoder:
    """Fixed-point integers of numpy `dtype`."""

    def store(name: str, rows: Floats) -> Stored:
        codes = np.rint(np.ldexp(rows.astype(np.float64), fraction_bits)).astype(dtype)
        return {f"{name}.weight": of_array(codes)}

    return store


def _affine4(rows: Floats, group: int) -> tuple[Bytes, Floats, Floats]:
    """Quantize ``[rows, columns]`` to 0..15 per `group` columns.

    Returns codes uint8 ``[rows, columns]``, and scales and minima float32 ``[rows, columns / group]``.
    """
    grouped = rows.reshape(len(rows), -1, group)
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    scale = (high - low) / np.float32(15)
    codes = np.rint((grouped - low[:, :, None]) / scale[:, :, None])
    return codes.astype(np.uint8).reshape(rows.shape), scale, low


def mlx_int4(name: str, rows: Floats) -> Stored:
    """MLX's 4 bits: eight codes per U32 along the columns, F16 scales and biases per 64 columns."""
    codes, scale, low = _affine4(rows, 64)
    words = pack(codes, 4).view("<u4").reshape(len(rows), -1)
    return {
        f"{name}.weight": of_array(words),
        f"{name}.scales": of_array(scale.astype("<f2")),
        f"{name}.biases": of_array(low.astype("<f2")),
    }


def gptq_int4(name: str, rows: Floats) -> Stored:
    """GPTQ's 4 bits: the transposed weight, eight rows packed in each I32, zeros stored less one."""
    rows = rows[: len(rows) // 8 * 8]
    grouped = rows.reshape(len(rows), -1, GROUP)
    low, high = np.minimum(grouped.min(axis=2), 0), np.maximum(grouped.max(axis=2), 0)
    scale = (high - low) / np.float32(15)
    zeros = np.clip(np.rint(-low / scale), 1, 15)
    codes = np.clip(np.rint(grouped / scale[:, :, None]) + zeros[:, :, None], 0, 15).reshape(rows.shape)
    order = np.arange(rows.shape[1], dtype="<i4") // GROUP
    return {
        f"{name}.qweight": of_array(_pack_eights(codes).T.copy()),
        f"{name}.qzeros": of_array(_pack_eights(zeros.T - 1)),
        f"{name}.scales": of_array(scale.T.astype("<f2", order="C")),
        f"{name}.g_idx": of_array(order),
    }


def _pack_eights(codes: Floats) -> npt.NDArray[np.int32]:
    """Pack eight 4-bit codes per I32 along the last axis, the first in the lowest bits."""
    return pack(codes.astype(np.uint8), 4).view("<i4").reshape(len(codes), -1)


def nf4(name: str, rows: Floats) -> Stored:
    """Store NF4 as bitsandbytes does: two codes a byte (high nibble first), an F32 absmax per 64 elements."""
    blocks = rows.reshape(-1, NF4_BLOCK)
    absmax = _peak(blocks)
    levels = np.asarray(NF4_VALUES, np.float32)
    codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, blocks / absmax).astype(np.uint8)
    pairs = codes.reshape(-1, 2)
    state = {"quant_type": "nf4", "blocksize": NF4_BLOCK, "dtype": "float32", "shape": list(rows.shape)}
    return {
        f"{name}.weight": of_array((pairs[:, :1] << 4) | pairs[:, 1:]),
        f"{name}.weight.absmax": of_array(absmax.reshape(-1)),
        f"{name}.weight.quant_map": of_array(levels),
        f"{name}.weight.quant_state.bitsandbytes__nf4": of_array(
            np.frombuffer(json.dumps(state).encode(), np.uint8)
        ),
    }


def sign_words(name: str, rows: Floats) -> Stored:
    """Binary weights: 64 signs per U64 along the columns, the mean magnitude of each row as F32."""
    words = np.packbits(rows >= 0, axis=1, bitorder="little").view("<u8")
    alpha: Floats = np.mean(np.abs(rows.astype(np.float64)), axis=1, keepdims=True).astype(np.float32)
    return {f"{name}.weight": of_array(words), f"{name}.alpha": of_array(alpha)}


def pruning_mask(name: str, rows: Floats) -> Stored:
    """2:4 sparsity: a BOOL mask of the larger two of every four columns, and the kept weights as BF16."""
    ranks = np.argsort(np.argsort(np.abs(rows).reshape(-1, 4), axis=1, kind="stable"), axis=1, kind="stable")
    mask = (ranks >= 2).reshape(rows.shape)
    return {
        f"{name}.weight": bfloat16(np.where(mask, rows, np.float32(0))),
        f"{name}.weight_mask": of_array(mask),
    }


def complex_pairs(name: str, rows: Floats) -> Stored:
    """Neighbouring columns as the parts of one C64, as rotary embeddings take them."""
    return {f"{name}.weight": of_array(rows.view("<c8"))}
