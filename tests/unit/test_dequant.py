"""Dequantization, bit for bit against the gguf package, on noise and on slices of real models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from qzf.errors import OptionError
from qzf.quant import BY_NAME
from qzf.transforms.dequant import DEQUANTIZABLE, FLOATS, dequantize
from qzf.transforms.fields import isas

gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")

SOURCES = Path(__file__).parents[2] / "fixtures/sources/gguf"
TYPES = sorted(DEQUANTIZABLE)
BITS: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<u4"),
    "float16": np.dtype("<u2"),
    "bfloat16": np.dtype("<u2"),
}
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.generic]

#: Halves that scales are set to: zeros, subnormal ones, the largest, infinite ones, NaNs.
EDGES = np.array(
    [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF], "<u2"
)


def expected(name: str, blocks: Bytes, dtype: str) -> Floats:
    """The gguf package's float32 weights, rounded by numpy or ml_dtypes."""
    with np.errstate(all="ignore"):
        weights = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
        return np.asarray(weights).reshape(-1).astype(DTYPES[dtype])


def ours(name: str, blocks: Bytes, dtype: str, isa: str | None = None) -> Floats:
    out = np.full(blocks.size // BY_NAME[name].size * BY_NAME[name].block, 0x55, BITS[dtype])
    dequantize(name, blocks.data, out.data, dtype, isa=isa)
    return out.view(DTYPES[dtype])


def same(ours: Floats, theirs: Floats, dtype: str) -> bool:
    """Whether all bits agree; a NaN is like any other."""
    nans = np.isnan(theirs.astype(np.float32))
    equal = ours.view(BITS[dtype]) == theirs.view(BITS[dtype])
    return bool(np.array_equal(np.isnan(ours.astype(np.float32)), nans) and np.all(equal | nans))


def noise(name: str, n: int, seed: int) -> Bytes:
    """Random blocks; in every second one the halves, or some other bytes, are set to an edge."""
    layout = BY_NAME[name]
    rng = np.random.default_rng([seed, layout.number])
    blocks = rng.integers(0, 256, (n, layout.size), np.uint8)
    halves = [layout.offset(field.name) for field in layout.fields if field.item == "<f2"]
    for at in halves:
        picked = rng.choice(EDGES, (n + 1) // 2)
        blocks[::2, at : at + 2] = picked.view(np.uint8).reshape(-1, 2)
    # Subnormal and ordinary scales too, where noise has mostly huge and tiny ones.
    for at in halves:
        usual = rng.normal(0, 0.02, (n + 3) // 4).astype("<f2")
        blocks[1::4, at : at + 2] = usual[: len(blocks[1::4])].view(np.uint8).reshape(-1, 2)
    blocks[3::8] = rng.choice(np.array([0, 1, 127, 128, 255], np.uint8), blocks[3::8].shape)
    return blocks


def test_every_type_that_gguf_supports() -> None:
    supported = set()
    for each in gguf.GGMLQuantizationType:
        try:
            gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[each][1]), np.uint8), each)
        except NotImplementedError:
            continue
        supported.add(each.name)
    assert supported <= DEQUANTIZABLE
    assert supported >= DEQUANTIZABLE - {"NVFP4"}, "older gguf packages lack NVFP4 only"


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", TYPES)
def test_noise(name: str, isa: str) -> None:
    for seed in range(12):
        blocks = noise(name, 2048 // (BY_NAME[name].block // 32 or 1) + 3, seed)
        for dtype in FLOATS:
            assert same(ours(name, blocks, dtype, isa), expected(name, blocks, dtype), dtype), (seed, dtype)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", [name for name in TYPES if name.startswith("IQ") and "4" not in name])
def test_every_point_of_the_codebooks(name: str, isa: str) -> None:
    """Many blocks under the scale 1: each index comes up."""
    blocks = noise(name, 4096, 99)
    for field in BY_NAME[name].fields:
        if field.item == "<f2":
            at = BY_NAME[name].offset(field.name)
            blocks[:, at : at + 2] = np.frombuffer(b"\0\x3c", np.uint8)
    assert same(ours(name, blocks, "float32", isa), expected(name, blocks, "float32"), "float32")


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.gguf")), ids=lambda path: path.stem)
def test_real_slices(path: Path) -> None:
    for tensor in gguf.GGUFReader(path).tensors:
        name = gguf.GGMLQuantizationType(tensor.tensor_type).name
        if name not in DEQUANTIZABLE:
            continue
        blocks = np.frombuffer(tensor.data.tobytes(), np.uint8).reshape(-1, BY_NAME[name].size)
        for dtype in FLOATS:
            assert same(ours(name, blocks, dtype), expected(name, blocks, dtype), dtype), tensor.name


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding(dtype: str, isa: str) -> None:
    """Every pattern of the top 20 bits, with what lies just at and beside the middle of two values."""
    top = np.arange(1 << 20, dtype=np.uint32)[:, None] << 12
    values = (top | np.array([0, 1, 0x7FF, 0x800, 0x801, 0xFFF], np.uint32)).reshape(-1, 6)
    blocks = values.view(np.uint8)
    assert same(ours("F32", blocks, dtype, isa), expected("F32", blocks, dtype), dtype)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", sorted(FLOATS))
@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_16_bit_number(name: str, dtype: str, isa: str) -> None:
    blocks = np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(-1, 2)
    assert same(ours(name, blocks, dtype, isa), expected(name, blocks, dtype), dtype)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", TYPES)
def test_memory_need_not_be_aligned_and_nothing_else_is_written(name: str, isa: str) -> None:
    blocks = noise(name, 5, 1)
    for dtype, width in FLOATS.items():
        weights = ours(name, blocks, dtype, isa).tobytes()
        for shift in (1, 3):
            memory = memoryview(bytearray(shift) + blocks.tobytes())
            out = memoryview(bytearray(b"\xa5") * (shift + len(weights) + 8))
            dequantize(name, memory[shift:], out[shift : shift + len(weights)], dtype, isa=isa)
            assert out[shift : shift + len(weights)] == weights
            assert set(out[:shift].tobytes() + out[shift + len(weights) :].tobytes()) == {0xA5}
        assert len(weights) == 5 * BY_NAME[name].block * width


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", TYPES)
def test_any_number_of_blocks(name: str, isa: str) -> None:
    """None of them too; the plain types are worked on in runs, so their ends are of interest."""
    many = 600 if BY_NAME[name].block == 1 else 9
    blocks = noise(name, many, 2)
    for dtype in FLOATS:
        whole = ours(name, blocks, dtype, isa)
        for n in range(many):
            some = ours(name, blocks[:n].copy(), dtype, isa)
            assert some.tobytes() == whole[: n * BY_NAME[name].block].tobytes()


@pytest.mark.parametrize("name", TYPES)
def test_sizes_that_do_not_fit(name: str) -> None:
    size, block = BY_NAME[name].size, BY_NAME[name].block
    for wrong in {1, size - 1, size + 1, 2 * size - 1} - {size, 0}:
        if wrong % size == 0:
            continue
        with pytest.raises(OptionError, match=f"{name} to float32: src is not a whole number of blocks"):
            dequantize(name, bytes(wrong), bytearray(4 * block))
    for dtype, width in FLOATS.items():
        for wrong in (0, block * width - 1, block * width + 1, 2 * block * width):
            with pytest.raises(OptionError, match="out has not the size of the weights"):
                dequantize(name, bytes(size), bytearray(wrong), dtype)


def test_arguments_that_do_not_fit() -> None:
    for name in ("Q8_1", "Q8_K", "I32", "q4_0", ""):
        with pytest.raises(OptionError, match=f"{name} cannot be dequantized"):
            dequantize(name, b"", bytearray())
    with pytest.raises(OptionError, match="no such dtype"):
        dequantize("Q4_0", b"", bytearray(), "float64")
    with pytest.raises(OptionError, match="'mmx' is not available"):
        dequantize("Q4_0", b"", bytearray(), isa="mmx")
    with pytest.raises(OptionError, match="writable"):
        dequantize("Q4_0", bytes(18), bytes(128))
    memory = memoryview(bytearray(128))
    with pytest.raises(OptionError, match="overlap"):
        dequantize("Q4_0", memory[:18], memory)
    with pytest.raises(OptionError, match="contiguous"):
        dequantize("Q4_0", memoryview(bytes(36))[::2], bytearray(128))
