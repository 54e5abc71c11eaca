"""Dequantized tensors: the gguf package's numbers, whole, in parts, to buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import qzf
from qzf import quant
from qzf.errors import FormatError, OptionError
from tests.helpers import SOURCES
from tools.vectors.builder import Builder, Tensor, stored
from tools.vectors.parts import seal

#: Not Q8_1, for which the gguf package has the block size of long ago (40 bytes; it is 36).
GGUFS = sorted(path for path in (SOURCES / "gguf").glob("*.gguf") if path.stem[:5] not in ("split", "q8_1"))
DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
INTEGERS = {"I8", "I16", "I32", "I64", "F64"}


def _theirs(tensor: Any) -> npt.NDArray[np.float32] | None:
    """What the gguf package makes of a tensor; None where it cannot."""
    try:
        numbers = gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type)
    except NotImplementedError:
        return None
    return numbers.reshape(tensor.shape[::-1]).astype(np.float32)


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("path", GGUFS, ids=lambda path: path.stem)
def test_numbers_are_those_of_the_gguf_package(path: Path, tmp_path: Path) -> None:
    qzf.pack(path, tmp_path / "a.qzf", chunk_size=4096)
    with qzf.open(tmp_path / "a.qzf") as container:
        for tensor in gguf.GGUFReader(path).tensors:
            name, kind = tensor.name, tensor.tensor_type.name
            due = _theirs(tensor) if kind not in INTEGERS else None
            if kind in INTEGERS:
                assert _same(container.tensor(name, dequantize=True), container.tensor(name))
                continue
            if due is None:
                with pytest.raises(OptionError, match="cannot be dequantized"):
                    container.tensor(name, dequantize=True)
                continue
            for dtype, numpy_dtype in DTYPES.items():
                with np.errstate(over="ignore"):
                    rounded = due.astype(numpy_dtype)
                assert _same(container.tensor(name, dequantize=dtype), rounded)
            whole = container.tensor(name, dequantize=True)
            assert _same(whole, due)
            part = container.get_slice(name, dequantize=True)
            assert part.get_shape() == list(due.shape) and part.get_dtype() == kind
            for index in (
                slice(1, 3),
                (slice(None, None, -2), slice(3, 9)),
                0,
                (..., 5),
                (-1, -1),
                slice(0, 0),
            ):
                if due.ndim > 1 or not isinstance(index, tuple) or index == (..., 5):
                    assert _same(part[index], np.asarray(due[index]))


def test_raw_arrays_as_numbers(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        name = next(name for name in container if isinstance(container.tensor(name), qzf.QuantArray))
        raw, due = container.tensor(name), container.tensor(name, dequantize="float16")
        assert _same(qzf.dequantize(raw, "float16").reshape(due.shape), due)
        assert _same(qzf.dequantize(np.asarray(raw).view(np.ndarray), "float16", type=raw.quant), due)
        room = np.zeros(due.shape, np.float16)
        made = qzf.dequantize(raw[::-1], "float16", shape=due.shape, out=room, threads=2)
        assert np.shares_memory(made, room) and _same(made, due[::-1])
        assert _same(qzf.dequantize(raw, "float16", shape=due.size), due.reshape(-1))
        for part in container.stream():
            for found, array in part.tensors.items():
                if isinstance(array, qzf.QuantArray):
                    numbers = container.tensor(found, dequantize=True)
                    assert _same(qzf.dequantize(array).reshape(numbers.shape), numbers)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (np.zeros((2, 18), np.uint8), {}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_9"}),
        (np.zeros((2, 17), np.uint8), {"type": "Q4_0"}),
        (np.zeros((2, 9), np.uint16), {"type": "Q4_0"}),
        (np.zeros((), np.uint8), {"type": "Q4_0"}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_0", "shape": (3, 32)}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_0", "shape": -1}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_0", "shape": (-2, -32)}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_0", "shape": (2, 32.0)}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_0", "shape": "ab"}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_0", "dtype": "float64"}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_0", "out": bytearray(9)}),
        (np.zeros((1, 292), np.uint8), {"type": "Q8_K"}),
        (np.zeros((2, 18), np.uint8), {"type": 2}),
        (np.zeros((2, 18), np.uint8), {"type": "Q4_0", "dtype": False}),
    ],
)
def test_what_cannot_be_dequantized(array: npt.NDArray[Any], options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        qzf.dequantize(array, **options)


def test_names_of_types_and_dtypes(smollm2: Path) -> None:
    blocks = np.arange(36, dtype=np.uint8).reshape(2, 18)
    assert _same(qzf.dequantize(blocks, "bf16", type="q4_0"), qzf.dequantize(blocks, "bfloat16", type="Q4_0"))
    with pytest.raises(OptionError, match="there is no GGML type 'Q4'"):
        qzf.dequantize(blocks, type="Q4")
    with qzf.open(smollm2) as container:
        name = next(iter(container))
        for short, long in (("f32", "float32"), ("f16", "float16"), ("bf16", "bfloat16")):
            assert _same(container.tensor(name, dequantize=short), container.tensor(name, dequantize=long))
        wrong: list[Any] = [["float32"], None, 1, 0, np.float16, "F32 ", ""]
        for dequantize in wrong:
            with pytest.raises(OptionError, match="dequantize is True"):
                container.tensor(name, dequantize=dequantize)


def test_floats_are_not_written_over_their_blocks() -> None:
    memory = np.zeros(18 * 4 + 32 * 4 * 4, np.uint8)
    blocks = memory[-18 * 4 :].reshape(4, 18)
    qzf.dequantize(blocks, type="Q4_0", out=memory[: 32 * 4 * 4])
    with pytest.raises(OptionError, match="overlaps"):
        qzf.dequantize(blocks, type="Q4_0", out=memory[1 : 32 * 4 * 4 + 1])


def test_buffers_are_looked_at_before_anything_is_decoded(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with qzf.open(smollm2) as container:
        name = list(container)[-1]
        size = container.tensor(name, dequantize=True).nbytes
        monkeypatch.setattr(container.reader, "read_chunk", None)
        with pytest.raises(OptionError, match=f"'{name}' needs .* {size} bytes; this has 10 bytes"):
            container.load(dequantize=True, out={name: bytearray(10)})


def test_to_buffers(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        due = container.load(dequantize="bfloat16")
        rooms = {name: np.zeros(array.shape, array.dtype) for name, array in due.items()}
        found = container.load(dequantize="bfloat16", out=rooms)
        for name, array in due.items():
            assert _same(found[name], array) and np.shares_memory(found[name], rooms[name])
        with pytest.raises(OptionError, match="dequantize"):
            container.load(dequantize="int4")


def test_shapes_that_do_not_fit_the_blocks() -> None:
    for shape, row in (([64], 18), ([2, 32], 12), ([2, 16], 18), ([], 36), ([4, 16], 9)):
        builder = Builder()
        builder.member("m", [Tensor("t", "Q4_0", shape, row, [stored(bytes(36))])], "gguf")
        with qzf.open(seal(builder.parts())) as container:
            if (shape, row) == ([64], 18):
                with pytest.raises(FormatError):
                    container.tensor("t", dequantize=True)
            else:
                with pytest.raises((FormatError, OptionError)):
                    container.tensor("t", dequantize=True)


def test_other_files_have_no_blocks(tmp_path: Path) -> None:
    """A dtype of a safetensors file is never taken for a GGML type."""
    builder = Builder()
    builder.member("m", [Tensor("t", "Q4_0", [2, 32], 18, [stored(bytes(36))])], "safetensors")
    with qzf.open(seal(builder.parts())) as container:
        assert container.tensor("t", dequantize=True).shape == (2, 18)
    assert quant.BY_NAME["Q4_0"].size == 18
