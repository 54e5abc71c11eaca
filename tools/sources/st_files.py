"""The safetensors sources: one file per dtype of the format, and one per common quantization layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.sources import minifloat, st_quant
from tools.sources.source import MPNET, Floats, Source, Weights
from tools.sources.st_quant import Encoder, Stored
from tools.sources.st_writer import Tensor, of_array, serialize

MATRIX_BYTES = 50_000
"""Bytes aimed at for each of the two matrices of a file."""

METADATA = {"format": "pt"}

_LAYER = "encoder.layer.0."
_MATRICES = (f"{_LAYER}attention.attn.q", f"{_LAYER}output.dense")
_PLAIN = (f"{_LAYER}output.LayerNorm.weight", f"{_LAYER}intermediate.dense.bias")
_POSITIONS = "embeddings.position_ids"


@dataclass(frozen=True)
class _Plan:
    """How one file comes about; `bits` is the stored size per weight, `plain` stores norm and bias."""

    stem: str
    bits: float
    encode: Encoder
    recipe: str
    plain: Callable[[Floats], Tensor] = of_array


def _cast(dtype: str) -> Callable[[Floats], Tensor]:
    return lambda values: of_array(values.astype(dtype))


def _dense(stem: str, bits: int, store: Callable[[Floats], Tensor]) -> _Plan:
    def encode(name: str, rows: Floats) -> Stored:
        return {f"{name}.weight": store(rows)}

    return _Plan(stem, bits, encode, f"all tensors as {stem.upper()}", store)


def _minifloat(stem: str, kind: minifloat.Kind) -> _Plan:
    dtype = stem.upper()
    return _Plan(
        stem, 8, st_quant.float8(dtype, kind), f"weights {dtype}, F32 scale per row", st_quant.bfloat16
    )


def _mx(stem: str, dtype: str, kind: minifloat.Kind) -> _Plan:
    recipe = f"weights {dtype} (packed, low bits first), F8_E8M0 scale per 32 columns (OCP MX)"
    return _Plan(stem, minifloat.bits(kind) + 0.25, st_quant.mx(dtype, kind), recipe, st_quant.bfloat16)


_PLANS = (
    _dense("f64", 64, _cast("<f8")),
    _dense("f32", 32, _cast("<f4")),
    _dense("f16", 16, _cast("<f2")),
    _dense("bf16", 16, st_quant.bfloat16),
    _minifloat("f8_e4m3", minifloat.E4M3),
    _minifloat("f8_e5m2", minifloat.E5M2),
    _minifloat("f8_e4m3fnuz", minifloat.E4M3FNUZ),
    _minifloat("f8_e5m2fnuz", minifloat.E5M2FNUZ),
    _mx("f8_e8m0", "F8_E4M3", minifloat.E4M3),
    _mx("f6_e2m3", "F6_E2M3", minifloat.E2M3),
    _mx("f6_e3m2", "F6_E3M2", minifloat.E3M2),
    _Plan(
        "f4", 4.5, st_quant.nvfp4, "weights F4, F8_E4M3 scale per 16 columns, F32 scale per tensor (NVFP4)"
    ),
    _Plan("i8", 8, st_quant.int8_per_tensor, "weights I8, F32 scale per tensor"),
    _Plan("u8", 4.25, st_quant.mxfp4_blocks, "MXFP4 blocks and scale exponents as U8 (as gpt-oss has them)"),
    _Plan("i16", 16, st_quant.symmetric_per_row("<i2"), "weights I16, F32 scale per row"),
    _Plan("u16", 16, st_quant.uint16_affine, "weights U16 between the row's F32 minimum and maximum"),
    _Plan("i32", 32, st_quant.fixed_point("<i4", 24), "weights I32, fixed point with 24 fraction bits"),
    _Plan("u32", 4.5, st_quant.mlx_int4, "4 bits packed in U32, F16 scales and biases per 64 columns (MLX)"),
    _Plan(
        "i64", 64, st_quant.fixed_point("<i8", 40), "weights I64, 40 fraction bits; the model's position_ids"
    ),
    _Plan("u64", 1, st_quant.sign_words, "64 signs per U64, mean magnitude per row as F32"),
    _Plan("bool", 24, st_quant.pruning_mask, "BOOL mask of 2:4 sparsity, the kept weights as BF16"),
    _Plan("c64", 32, st_quant.complex_pairs, "neighbouring columns as C64"),
    _Plan("int8-per-row", 8, st_quant.symmetric_per_row("<i1"), "weights I8, F32 scale per row"),
    _Plan(
        "gptq-int4",
        4.25,
        st_quant.gptq_int4,
        "GPTQ layout: qweight, qzeros, g_idx I32, scales F16, group 128",
    ),
    _Plan("nf4", 4.5, st_quant.nf4, "bitsandbytes NF4 layout: packed U8, absmax per 64, quant map and state"),
)


def dtype_files(cache: Path | None) -> Iterator[Source]:
    """Yield the single-file safetensors sources."""
    mpnet = Weights("mpnet", cache)
    for plan in _PLANS:
        tensors: Stored = {}
        for name in _MATRICES:
            tensors |= plan.encode(name, _rows(mpnet, f"{name}.weight", plan.bits))
        for name in _PLAIN:
            tensors[name] = plan.plain(mpnet.rows(name))
        if plan.stem == "i64":
            tensors[_POSITIONS] = of_array(mpnet.integers(_POSITIONS))
        yield Source(
            path=f"safetensors/{plan.stem}.safetensors",
            data=serialize(tensors, METADATA),
            origin=MPNET,
            recipe=f"first rows of layer 0's query and output weights: {plan.recipe}",
        )


def _rows(mpnet: Weights, tensor: str, bits: float) -> Floats:
    """Return the leading rows, an odd number, that take about `MATRIX_BYTES` at `bits` per weight."""
    whole = mpnet.rows(tensor)
    fitting = int(MATRIX_BYTES * 8 / (bits * whole.shape[1]))
    return whole[: (min(fitting, len(whole)) - 1) | 1]
