"""Recognition of schemes takes any tensors: it names whole sets, or nothing, and never fails."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qzf.adapters.safetensors import DTYPE_BITS
from qzf.adapters.schemes import QuantConfig, recognise
from qzf.model import Extent, TensorSpec

PARTS = st.sampled_from(
    [
        "weight",
        "qweight",
        "qzeros",
        "scales",
        "g_idx",
        "weight_packed",
        "weight_scale",
        "weight_shape",
        "weight_zero_point",
        "weight_g_idx",
        "weight_scale_inv",
        "weight_scale_2",
        "input_scale",
        "scale",
        "SCB",
        "weight.absmax",
        "weight.quant_map",
        "weight_blocks",
        "weight_scales",
        "weight.quant_state.bitsandbytes__nf4",
        "bias",
    ]
)
SIZES = st.integers(0, 40) | st.sampled_from([64, 128, 4096, (1 << 62) - 1])
SHAPES = st.lists(SIZES, max_size=4).map(tuple)
DTYPES = st.sampled_from(list(DTYPE_BITS))
COUNTS = st.integers(1, 256)
CONFIGS = st.builds(
    QuantConfig,
    st.none() | st.just("compressed-tensors"),
    st.lists(st.tuples(COUNTS, st.none() | COUNTS), max_size=3).map(tuple),
    st.none() | st.tuples(COUNTS, COUNTS),
)


@given(st.dictionaries(PARTS, st.tuples(DTYPES, SHAPES, st.integers(0, 1 << 40)), max_size=12), CONFIGS)
def test_any_tensors(parts: dict[str, tuple[str, tuple[int, ...], int]], config: QuantConfig) -> None:
    tensors = {
        f"m.{part}": TensorSpec(f"m.{part}", dtype, shape, Extent(0, size), 1)
        for part, (dtype, shape, size) in parts.items()
    }
    named = recognise(tensors, config)
    assert named.keys() <= tensors.keys()
    assert "m.bias" not in named
    assert all(list(named.values()).count(scheme) >= 2 for scheme in named.values())
