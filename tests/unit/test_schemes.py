"""Quantization schemes by names, dtypes and shapes: as published checkpoints have them, and near misses."""

from __future__ import annotations

import math

import pytest

from qzf.adapters.safetensors import DTYPE_BITS
from qzf.adapters.schemes import QuantConfig, recognise
from qzf.model import Extent, TensorSpec

#: Name -> dtype and shape.
Stored = dict[str, tuple[str, tuple[int, ...]]]

LAYER = "model.layers.0.mlp.down_proj"
CT = "compressed-tensors"


def specs(stored: Stored) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(name, dtype, shape, Extent(0, math.prod(shape) * DTYPE_BITS[dtype] // 8), 1)
        for name, (dtype, shape) in stored.items()
    }


def found(stored: Stored, config: QuantConfig | None = None) -> dict[str, str]:
    return recognise(specs(stored)) if config is None else recognise(specs(stored), config)


def only(stored: Stored, config: QuantConfig | None = None) -> str | None:
    """The one scheme, which all tensors share but for a bias that is added to them; None for no scheme."""
    named = found(stored | {f"{LAYER}.bias": ("F16", (4096,))}, config)
    assert set(named) in (set(), set(stored)), named
    schemes = set(named.values())
    assert len(schemes) <= 1
    return schemes.pop() if schemes else None


def under(**parts: tuple[str, tuple[int, ...]]) -> Stored:
    return {f"{LAYER}.{part}": value for part, value in parts.items()}


# --- GPTQ and AWQ ---------------------------------------------------------------------------------


def gptq(inputs: int, outputs: int, bits: int, groups: int, order: bool = True) -> Stored:
    stored = under(
        qweight=("I32", (inputs * bits // 32, outputs)),
        qzeros=("I32", (groups, outputs * bits // 32)),
        scales=("F16", (groups, outputs)),
    )
    return stored | under(g_idx=("I32", (inputs,))) if order else stored


def awq(inputs: int, outputs: int, groups: int) -> Stored:
    return under(
        qweight=("I32", (inputs, outputs // 8)),
        qzeros=("I32", (groups, outputs // 8)),
        scales=("F16", (groups, outputs)),
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "bits", "groups", "scheme"),
    [
        (11008, 4096, 4, 86, "gptq-int4-g128"),
        (4096, 4096, 4, 128, "gptq-int4-g32"),
        (4096, 11008, 8, 64, "gptq-int8-g64"),
        (4096, 4096, 3, 32, "gptq-int3-g128"),
        (4096, 4096, 2, 64, "gptq-int2-g64"),
        (4096, 4096, 4, 4, "gptq-int4-g1024"),
        (4096, 4096, 4, 1, "gptq-int4-row"),
        (576, 576, 4, 5, "gptq-int4-g128"),  # the last group is short
    ],
)
def test_gptq(inputs: int, outputs: int, bits: int, groups: int, scheme: str) -> None:
    assert only(gptq(inputs, outputs, bits, groups)) == scheme
    assert only(gptq(inputs, outputs, bits, groups, order=False)) == scheme


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "scheme"),
    [(4096, 11008, 32, "awq-int4-g128"), (4096, 4096, 64, "awq-int4-g64"), (4096, 512, 1, "awq-int4-row")],
)
def test_awq(inputs: int, outputs: int, groups: int, scheme: str) -> None:
    assert only(awq(inputs, outputs, groups)) == scheme


def test_the_axis_that_is_packed_decides_and_not_the_configuration() -> None:
    config = QuantConfig("awq", ((8, 64),))
    assert only(gptq(4096, 4096, 4, 32), config) == "gptq-int4-g128"
    assert only(awq(4096, 4096, 32), QuantConfig("gptq", ((8, 64),))) == "awq-int4-g128"


def test_a_configuration_decides_where_shapes_fit_several_group_sizes() -> None:
    short = gptq(192, 64, 4, 2)
    assert only(short) == "gptq-int4-g128"
    assert only(short, QuantConfig(weights=((4, 96),))) == "gptq-int4-g96"
    assert only(short, QuantConfig(weights=((4, 64),))) == "gptq-int4-g128"


@pytest.mark.parametrize("part", ["qweight", "qzeros", "scales"])
def test_gptq_needs_all_its_parts(part: str) -> None:
    for stored in (gptq(4096, 4096, 4, 32, order=False), awq(4096, 4096, 32)):
        del stored[f"{LAYER}.{part}"]
        assert found(stored) == {}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("qweight", ("I16", (512, 4096))),
        ("qweight", ("I32", (512, 4095))),
        ("qweight", ("I32", (512 * 4096,))),
        ("qweight", ("I32", (0, 4096))),
        ("qweight", ("I32", (100, 4096))),
        ("qzeros", ("I32", (31, 512))),
        ("qzeros", ("I32", (32, 511))),
        ("qzeros", ("I32", (32, 4096))),
        ("scales", ("F16", (32, 4097))),
        ("scales", ("I32", (32, 4096))),
        ("scales", ("F16", (0, 4096))),
        ("g_idx", ("I32", (4095,))),
        ("g_idx", ("F32", (4096,))),
    ],
)
def test_what_is_nearly_gptq(part: str, value: tuple[str, tuple[int, ...]]) -> None:
    assert found(gptq(4096, 4096, 4, 32) | under(**{part: value})) == {}


def test_awq_of_the_gemv_kind_is_not_mistaken() -> None:
    """Its outputs come first: [outputs, inputs / 8], zeros and scales [outputs, groups] with padding."""
    parts = {"qweight": ("I32", (4096, 512)), "qzeros": ("I32", (4096, 4)), "scales": ("F16", (4096, 32))}
    assert found(under(**parts)) == {}


# --- compressed-tensors ---------------------------------------------------------------------------


def packed(rows: int, words: int, groups: int) -> Stored:
    return under(
        weight_packed=("I32", (rows, words)),
        weight_scale=("BF16", (rows, groups)),
        weight_shape=("I64", (2,)),
    )


def test_packed_integers_with_a_configuration() -> None:
    assert only(packed(4096, 1376, 86), QuantConfig(CT, ((4, 128),))) == f"{CT}-int4-g128"
    assert only(packed(4096, 1376, 86), QuantConfig(CT, ((8, 64),))) == f"{CT}-int8-g64"
    assert only(packed(4096, 1024, 1), QuantConfig(CT, ((8, None),))) == f"{CT}-int8-row"
    mixed = QuantConfig(CT, ((4, 128), (8, None)))
    assert only(packed(4096, 512, 32), mixed) == f"{CT}-int4-g128"
    assert only(packed(4096, 1024, 1), mixed) == f"{CT}-int8-row"


@pytest.mark.parametrize("weights", [(), ((4, 64),), ((16, 128),), ((4, None),), ((4, 128), (8, 64))])
def test_packed_integers_of_unknown_width(weights: tuple[tuple[int, int | None], ...]) -> None:
    """4 bits in groups of 128 or 8 bits in groups of 64: nothing says so, or what does contradicts shapes."""
    assert only(packed(4096, 512, 32), QuantConfig(CT, weights)) == f"{CT}-packed"


def test_packed_integers_whose_partners_tell_the_width() -> None:
    zeros = packed(4096, 512, 32) | under(weight_zero_point=("I32", (512, 32)))
    assert only(zeros) == f"{CT}-int4-g128"
    assert only(zeros, QuantConfig(CT, ((8, 64),))) == f"{CT}-int4-g128"
    order = packed(4096, 512, 32) | under(weight_g_idx=("I32", (2048,)))
    assert only(order) == f"{CT}-int8-g64"
    assert found(order | under(weight_zero_point=("I32", (512, 32)))) == {}


def test_packed_floats() -> None:
    nvfp4 = under(
        weight_packed=("U8", (4096, 2048)),
        weight_scale=("F8_E4M3", (4096, 256)),
        weight_global_scale=("F32", (1,)),
        input_global_scale=("F32", (1,)),
    )
    assert only(nvfp4) == f"{CT}-nvfp4"
    mxfp4 = under(weight_packed=("U8", (4096, 2048)), weight_scale=("U8", (4096, 128)))
    assert only(mxfp4) == f"{CT}-mxfp4"
    assert found(mxfp4 | under(weight_scale=("U8", (4096, 127)))) == {}


@pytest.mark.parametrize(
    "broken",
    [
        under(weight_scale=("BF16", (4095, 32))),
        under(weight_scale=("I64", (4096, 32))),
        under(weight_shape=("I64", (3,))),
        under(weight_packed=("U8", (4096, 512))),
        under(weight_packed=("I32", (4096, 0))),
    ],
)
def test_what_is_nearly_packed(broken: Stored) -> None:
    assert found(packed(4096, 512, 32) | broken) == {}


def test_unpacked_weights_carry_the_tool_where_the_configuration_names_it() -> None:
    stored = under(weight=("I8", (64, 128)), weight_scale=("BF16", (64, 1)))
    assert only(stored, QuantConfig(CT)) == f"{CT}-int8-row"
    assert only(stored, QuantConfig("modelopt")) == "int8-row"


# --- bitsandbytes ---------------------------------------------------------------------------------


def four_bits(kind: str, count: int, block: int = 64, nested: bool = False) -> Stored:
    weight, blocks = f"{LAYER}.weight", -(-count // block)
    stored: Stored = {
        weight: ("U8", (count // 2, 1)),
        f"{weight}.absmax": ("U8" if nested else "F32", (blocks,)),
        f"{weight}.quant_map": ("F32", (16,)),
        f"{weight}.quant_state.bitsandbytes__{kind}": ("U8", (90,)),
    }
    if nested:
        stored[f"{weight}.nested_absmax"] = ("F32", (-(-blocks // 256),))
        stored[f"{weight}.nested_quant_map"] = ("F32", (256,))
    return stored


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_of_4_bits(kind: str, nested: bool) -> None:
    assert only(four_bits(kind, 4096 * 11008, nested=nested)) == f"bnb-{kind}"
    assert only(four_bits(kind, 4096 * 11008, 128, nested=nested)) == f"bnb-{kind}"
    stored = four_bits(kind, 4096, nested=nested)
    assert (
        only(stored | {f"{LAYER}.weight": ("BF16", (1024, 1))}) == f"bnb-{kind}"
    )  # storage of another dtype


@pytest.mark.parametrize(
    "broken",
    [
        under(weight=("U8", (64, 32))),
        under(weight=("U8", (0, 1))),
        {f"{LAYER}.weight.absmax": ("F32", (63,))},
        {f"{LAYER}.weight.quant_map": ("F32", (256,))},
    ],
)
def test_what_is_nearly_bitsandbytes(broken: Stored) -> None:
    assert found(four_bits("nf4", 4096) | broken) == {}


def test_bitsandbytes_needs_all_its_parts() -> None:
    for part in four_bits("nf4", 4096):
        assert found({name: value for name, value in four_bits("nf4", 4096).items() if name != part}) == {}
    assert found(four_bits("nf5", 4096)) == {}


def test_llm_int8() -> None:
    stored = under(weight=("I8", (64, 128)), SCB=("F32", (64,)))
    assert only(stored) == "bnb-int8"
    assert only(stored | under(weight_format=("U8", ()))) == "bnb-int8"
    assert found(stored | under(SCB=("F32", (128,)))) == {}
    assert found(stored | under(weight=("U8", (64, 128)))) == {}
    assert found(under(SCB=("F32", (64,)))) == {}


# --- scales beside weights ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "scales"),
    [("experts.down_proj_blocks", "experts.down_proj_scales"), ("mlp1_weight.blocks", "mlp1_weight.scales")],
)
def test_mxfp4_blocks(blocks: str, scales: str) -> None:
    stored: Stored = {blocks: ("U8", (32, 5760, 90, 16)), scales: ("U8", (32, 5760, 90))}
    assert only(stored) == "mxfp4"
    assert found(stored | {scales: ("U8", (32, 5760, 91))}) == {}
    assert found(stored | {scales: ("F32", (32, 5760, 90))}) == {}
    assert found(stored | {blocks: ("U8", (32, 5760, 90, 15))}) == {}
    assert found({blocks: stored[blocks]}) == {}


@pytest.mark.parametrize(
    ("shape", "scale", "grain"),
    [
        ((7168, 2048), (), "tensor"),
        ((7168, 2048), (1,), "tensor"),
        ((7168, 2048), (1, 1), "tensor"),
        ((7168, 2048), (7168,), "row"),
        ((7168, 2048), (7168, 1), "row"),
        ((7168, 2048), (1, 2048), "column"),
        ((7168, 2048), (7168, 16), "g128"),
        ((7168, 2048), (56, 16), "block128x128"),
        ((576, 7168), (5, 56), "block128x128"),  # kv_a_proj_with_mqa: the last block is short
        ((2112, 7168), (17, 56), "block128x128"),
        ((64, 7168), (1, 56), "block128x128"),
        ((7168, 64), (56, 1), "block128x128"),
        ((200, 7168), (1, 56), "block200x128"),
        ((4096, 4096), (64, 128), "block64x32"),
        ((8, 512, 256), (8,), "tensor"),
        ((8, 512, 256), (8, 1, 1), "tensor"),
        ((8, 512, 256), (8, 512), "row"),
        ((8, 512, 256), (8, 512, 1), "row"),
        ((8, 512, 256), (8, 1, 256), "column"),
        ((8, 512, 256), (8, 4, 2), "block128x128"),
    ],
)
def test_grain(shape: tuple[int, ...], scale: tuple[int, ...], grain: str) -> None:
    for dtype, kind in [("F8_E4M3", "fp8-e4m3"), ("F8_E5M2", "fp8-e5m2"), ("I8", "int8")]:
        stored = under(weight=(dtype, shape), weight_scale=("F32", scale))
        assert only(stored) == f"{kind}-{grain}"


@pytest.mark.parametrize(
    "scale", [(2048,), (0,), (2, 3), (7168, 2000), (7169, 1), (7168, 1, 2), (1, 56, 16), (3, 16)]
)
def test_scales_that_do_not_fit(scale: tuple[int, ...]) -> None:
    assert found(under(weight=("I8", (7168, 2047)), weight_scale=("F32", scale))) == {}


def test_names_of_scales() -> None:
    for part in ("weight_scale_inv", "weight_scale", "qscale_weight", "scale_weight", "scale"):
        assert only(under(weight=("F8_E4M3", (64, 128)), **{part: ("F32", ())})) == "fp8-e4m3-tensor"
    for part in ("input_scale", "input_scale_ub", "activation_scale", "qscale_act", "scale_input"):
        stored = under(weight=("F8_E4M3", (64, 128)), weight_scale=("F32", ()), **{part: ("F32", (1,))})
        assert only(stored) == "fp8-e4m3-tensor"
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    assert found({experts: ("F8_E4M3", (4, 64, 128)), f"{experts}_scale": ("BF16", (4, 1, 128))}) == {
        experts: "fp8-e4m3-column",
        f"{experts}_scale": "fp8-e4m3-column",
    }


def test_zero_points_belong_to_their_weight() -> None:
    stored = under(weight=("I8", (64, 128)), weight_scale=("F32", (64, 1)), weight_zero_point=("I8", (64, 1)))
    assert only(stored) == "int8-row"
    assert set(found(stored | under(weight_zero_point=("I8", (64, 128))))) == {
        f"{LAYER}.weight",
        f"{LAYER}.weight_scale",
    }


def test_a_configuration_decides_for_a_weight_of_one_block() -> None:
    stored = under(weight=("F8_E4M3", (64, 96)), weight_scale_inv=("F32", (1, 1)))
    assert only(stored) == "fp8-e4m3-tensor"
    assert only(stored, QuantConfig("fp8", (), (128, 128))) == "fp8-e4m3-block128x128"
    assert only(stored, QuantConfig("fp8", (), (32, 32))) == "fp8-e4m3-tensor"
    large = under(weight=("F8_E4M3", (512, 512)), weight_scale_inv=("F32", (4, 4)))
    assert only(large, QuantConfig("fp8", (), (64, 64))) == "fp8-e4m3-block128x128"


def test_microscaling() -> None:
    for dtype, scheme in [("F8_E4M3", "mxfp8-e4m3"), ("F6_E3M2", "mxfp6-e3m2"), ("F4", "mxfp4")]:
        stored = under(weight=(dtype, (64, 128)), weight_scale=("F8_E8M0", (64, 4)))
        assert only(stored) == scheme
    blocks = under(weight=("F8_E4M3", (512, 256)), weight_scale_inv=("F8_E8M0", (4, 2)))
    assert only(blocks) == "fp8-e4m3-block128x128"
    for dtype, shape in [("F4", (64, 128)), ("U8", (64, 64))]:
        stored = under(weight=(dtype, shape), weight_scale=("F8_E4M3", (64, 8)), weight_scale_2=("F32", ()))
        assert only(stored | under(input_scale=("F32", ()))) == "nvfp4"
        assert found(stored | under(weight_scale=("F8_E4M3", (64, 9)))) == {}
    assert only(under(weight=("U8", (64, 64)), weight_scale=("U8", (64, 4)))) == "mxfp4"


# --- what is none ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored",
    [
        {},
        under(weight=("BF16", (64, 128)), weight_scale=("F32", (64, 1))),
        under(weight=("I16", (64, 128)), weight_scale=("F32", (64, 1))),
        under(weight=("U8", (64, 128)), weight_scale=("F32", (64, 1))),
        under(weight=("U32", (64, 16)), scales=("F16", (64, 2)), biases=("F16", (64, 2))),
        under(weight=("I8", (64,)), weight_scale=("F32", ())),
        under(weight=("I8", (0, 128)), weight_scale=("F32", ())),
        under(weight=("I8", (64, 128)), weight_scale=("I8", (64, 1))),
        under(weight=("I8", (64, 128)), bias=("F32", (64,))),
        under(qweight=("I32", (512, 4096))),
        {"": ("U8", (1,)), ".qweight": ("I32", (1, 1)), "_blocks": ("U8", ()), ".SCB": ("F32", ())},
        {".quant_state.bitsandbytes__nf4": ("U8", ())},
    ],
)
def test_tensors_that_stand_for_themselves(stored: Stored) -> None:
    assert found(stored) == {}


def test_schemes_side_by_side() -> None:
    stored: Stored = {"embed.weight": ("BF16", (32000, 4096)), "norm.weight": ("BF16", (4096,))}
    for layer, parts in enumerate([gptq(4096, 4096, 4, 32), awq(4096, 4096, 32), four_bits("nf4", 4096)]):
        stored |= {name.replace("layers.0", f"layers.{layer}"): value for name, value in parts.items()}
    named = found(stored)
    assert set(named) == {name for name in stored if name.startswith("model.")}
    assert {name[:14]: scheme for name, scheme in named.items()} == {
        "model.layers.0": "gptq-int4-g128",
        "model.layers.1": "awq-int4-g128",
        "model.layers.2": "bnb-nf4",
    }
