"""Pack with models of tensors' types: the same bytes everywhere, never larger, other ways where none fits."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qzf
from qzf.container.reader import ContainerReader
from qzf.format.ids import Transform
from qzf.quant import BY_NUMBER
from qzf.storage import MemorySource
from qzf.transforms.modeled import SCHEMAS
from tests.helpers import F32, GgufTensor, entry, gguf_file, quantized, safetensors_file, weights
from tools.vectors.builder import noise, skewed

NUMBERS = {block.name: number for number, block in BY_NUMBER.items()}
#: So that tensors of a few 100 KB have several chunks.
CHUNK = 1 << 15


def tensor(name: str, dtype: str, rows: int, columns: int, data: bytes | None = None) -> GgufTensor:
    """A tensor of this GGML type; without ``data`` of weights, where a quantizer is quick."""
    if data is None:
        size = BY_NUMBER[NUMBERS[dtype]].row_size(columns)
        assert size is not None
        quick = dtype in SCHEMAS or dtype in ("F32", "F16", "BF16", "I8", "TQ1_0", "Q8_1", "Q8_K")
        data = quantized(dtype, rows, columns, len(name)) if quick else skewed(name, rows * size)
    return GgufTensor(name, (columns, rows), NUMBERS[dtype], data)


def uneven(rows: int, columns: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Weights whose rows have different scales."""
    return weights(rows, columns) * np.ldexp(np.float32(1), np.arange(rows) * 7 % 13 - 6)[:, None]


def packed(
    folder: Path, data: bytes, name: str = "m.gguf", chunk_size: int = CHUNK, **options: object
) -> bytes:
    """The container of one file; unpacked and compared."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    qzf.pack(folder / name, folder / "a.qzf", force=True, chunk_size=chunk_size, **options)  # type: ignore[arg-type]
    assert qzf.verify(folder / "a.qzf").ok
    qzf.unpack(folder / "a.qzf", folder / "back", force=True)
    assert (folder / "back").read_bytes() == data
    return (folder / "a.qzf").read_bytes()


def transforms(container: bytes) -> list[int]:
    """The transforms of the chunks that hold tensors, in order."""
    chunks = ContainerReader(MemorySource(container)).index.chunks
    return [chunk.transform for chunk in chunks if chunk.tensor != 0xFFFFFFFF]


def tables(container: bytes) -> int:
    """How many shared tables there are."""
    return len(ContainerReader(MemorySource(container)).index.tables)


# --- every type -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(NUMBERS))
def test_every_type_at_every_level(dtype: str, tmp_path: Path) -> None:
    data = gguf_file(
        (), [tensor("a", dtype, 900, 512), tensor("bb", dtype, 61, 512), tensor("norm", "F32", 1, 512)]
    )
    sizes = {}
    for level in ("fast", "default", "max"):
        container = packed(tmp_path, data, level=level)
        sizes[level] = len(container)
        with qzf.open(tmp_path / "a.qzf") as opened:
            chunks = opened.chunks
            assert (chunks["stored_size"] <= chunks["decoded_size"]).all()
        used = set(transforms(container))
        if level == "fast":
            assert not used & {Transform.QUANT, Transform.VALUES}
            assert tables(container) == 0
        elif dtype in SCHEMAS and dtype != "Q8_0":  # of which half the bits are noise: it may not pay
            assert Transform.QUANT in used
            assert 1 <= tables(container) <= 3
    assert sizes["max"] <= sizes["default"] + 64
    if dtype in SCHEMAS:
        assert sizes["default"] <= sizes["fast"]


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "I8"])
def test_plain_numbers_of_safetensors(dtype: str, tmp_path: Path) -> None:
    plain = uneven(500, 256)
    content = {
        "F32": plain.tobytes(),
        "BF16": (plain.view(np.uint32) >> 16).astype(np.uint16).tobytes(),
        "F16": plain.astype(np.float16).tobytes(),
        "I8": quantized("I8", 500, 256),
    }[dtype]
    header = {
        "w": entry(dtype, (500, 256), 0, len(content)),
        "pad": entry("U8", (3,), len(content), len(content) + 3),
    }
    data = safetensors_file(header, content + b"abc")
    used = transforms(packed(tmp_path, data, "m.safetensors"))
    assert Transform.VALUES in used or dtype == "I8"
    assert Transform.VALUES not in transforms(packed(tmp_path, data, "m.safetensors", level="fast"))


def test_block_types_of_safetensors_are_no_blocks(tmp_path: Path) -> None:
    """A dtype of this name says nothing of GGML there."""
    data = safetensors_file({"w": entry("U8", (100_000,), 0, 100_000)}, skewed("w", 100_000))
    assert Transform.QUANT not in transforms(packed(tmp_path, data, "m.safetensors"))


# --- the same bytes everywhere --------------------------------------------------------------------


def mixed() -> bytes:
    """Several types, small and large, with and without classes of columns."""
    return gguf_file(
        (),
        [
            tensor("a", "Q4_K", 400, 512),
            tensor("bb", "Q4_0", 3000, 256, quantized("Q4_0", 3000, 256, spread=1.5)),
            tensor("ccc", "Q4_0", 300, 512),
            tensor("dddd", "Q4_K", 100, 512),
            tensor("eeeee", "F32", 200, 512, uneven(200, 512).tobytes()),
            tensor("f", "BF16", 100, 512),
            tensor("gg", "Q6_K", 150, 512),
            tensor("tiny", "Q5_1", 2, 64),
        ],
    )


@pytest.mark.parametrize("level", ["default", "max"])
def test_same_bytes_for_all_threads(level: str, tmp_path: Path) -> None:
    data = mixed()
    (tmp_path / "m.gguf").write_bytes(data)
    results = []
    for threads in (1, 2, 5):
        sink = io.BytesIO()
        qzf.pack(tmp_path / "m.gguf", sink, level=level, threads=threads, chunk_size=CHUNK)
        results.append(sink.getvalue())
    assert results[0] == results[1] == results[2]
    assert {Transform.QUANT, Transform.VALUES} <= set(transforms(results[0]))


SCRIPT = """
import io, sys, qzf
sink = io.BytesIO()
qzf.pack(sys.argv[1], sink, chunk_size=32768, threads=2)
sys.stdout.buffer.write(sink.getvalue())
"""


def test_same_bytes_by_every_instruction_set(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(mixed())
    found = {}
    for isa in ("scalar", "avx2", "avx512", "neon"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path / "m.gguf"],
            capture_output=True,
            env=os.environ | {"QZF_FORCE_ISA": isa},
        )
        if done.returncode == 0:
            found[isa] = done.stdout
        else:
            assert isa != "scalar" and b"is not available here" in done.stderr, done.stderr.decode()
    assert set(found.values()) == {found["scalar"]}
    assert qzf.active_isa() in found


# --- what is shared -------------------------------------------------------------------------------


def test_tensors_of_a_type_share_a_table(tmp_path: Path) -> None:
    one = packed(tmp_path, gguf_file((), [tensor("a", "Q4_K", 300, 512)]))
    many = packed(tmp_path, gguf_file((), [tensor("a" * n, "Q4_K", 300, 512) for n in range(1, 6)]))
    assert tables(one) == tables(many) == 1
    assert set(transforms(many)) == {Transform.QUANT}
    two = packed(tmp_path, gguf_file((), [tensor("a", "Q4_K", 300, 512), tensor("b", "Q3_K", 300, 512)]))
    assert tables(two) == 2


def test_members_have_tables_of_their_own(tmp_path: Path) -> None:
    """Ids go on from member to member."""
    source = tmp_path / "in"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.gguf").write_bytes(gguf_file((), [tensor("a" * (i + 1), "Q4_K", 300, 512)]))
    (source / "1b.bin").write_bytes(noise("b", 1000))
    qzf.pack(source, tmp_path / "a.qzf", chunk_size=CHUNK)
    qzf.unpack(tmp_path / "a.qzf", f"{tmp_path}/out/")
    for path in source.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    data = (tmp_path / "a.qzf").read_bytes()
    assert tables(data) == 3
    assert sorted(ContainerReader(MemorySource(data)).index.tables) == [0, 1, 2]


def spread(rows: int, columns: int, dtype: str = "Q4_0") -> GgufTensor:
    """A tensor whose columns differ by far."""
    return tensor("w", dtype, rows, columns, quantized(dtype, rows, columns, spread=1.5))


@pytest.mark.parametrize("dtype", ["Q4_0", "Q5_0", "Q6_K", "IQ4_NL"])
def test_columns_that_differ_have_classes(dtype: str, tmp_path: Path) -> None:
    """A second table, of columns, is worth its bytes where columns differ, and not where they are alike."""
    rows = 20_000 // BY_NUMBER[NUMBERS[dtype]].size * BY_NUMBER[NUMBERS[dtype]].block // 8
    different = packed(tmp_path, gguf_file((), [spread(rows, 256, dtype)]), chunk_size=1 << 17)
    alike = packed(tmp_path, gguf_file((), [tensor("w", dtype, rows, 256)]), chunk_size=1 << 17)
    assert (tables(different), tables(alike)) == (2, 1)
    assert set(transforms(different)) == set(transforms(alike)) == {Transform.QUANT}


def test_tensors_with_classes_beside_tensors_without(tmp_path: Path) -> None:
    small = tensor("small", "Q4_0", 200, 256)
    other = tensor("other", "Q4_0", 3000, 256, quantized("Q4_0", 3000, 256, seed=3, spread=1.5))
    container = packed(tmp_path, gguf_file((), [spread(3000, 256), small, other]), chunk_size=1 << 17)
    # Two models, and two tables of columns; or one model fewer where it would not pay.
    assert tables(container) in (3, 4)
    with qzf.open(tmp_path / "a.qzf") as opened:
        assert [info.pipeline.transform for info in opened.tensors][::2] == ["quant", "quant"]


# --- where no model fits --------------------------------------------------------------------------


def test_chunks_that_the_sample_has_not_seen_are_coded_otherwise(tmp_path: Path) -> None:
    """Blocks without the extrema that all others have, in the first chunk of many."""
    chunks, rows, row = 200, 28, 1024 // 32 * 18
    data = bytearray(quantized("Q4_0", chunks * rows, 1024))
    data[9 * 18 : 10 * 18] = b"\x00\x3c" + b"\x77" * 16  # a scale, and only the code 7
    file = gguf_file((), [tensor("w", "Q4_0", chunks * rows, 1024, bytes(data))])
    used = transforms(packed(tmp_path, file, chunk_size=rows * row))
    assert len(used) == chunks
    assert used[0] in (Transform.FIELDS, Transform.NONE, Transform.STORED)
    assert set(used[1:]) == {Transform.QUANT}


def test_blocks_that_no_quantizer_made(tmp_path: Path) -> None:
    """Noise is stored, and has no table."""
    for dtype in ("Q4_0", "Q4_K", "Q8_0", "IQ4_XS", "MXFP4"):
        size = BY_NUMBER[NUMBERS[dtype]].row_size(512)
        assert size is not None
        data = gguf_file((), [tensor("w", dtype, 400, 512, noise(dtype, 400 * size))])
        container = packed(tmp_path, data)
        assert len(container) <= len(data) + 4096 + 200 * len(transforms(container))
        with qzf.open(tmp_path / "a.qzf") as opened:
            assert (opened.chunks["stored_size"] <= opened.chunks["decoded_size"]).all()


@pytest.mark.parametrize("dtype", [*SCHEMAS, "F32", "F16", "BF16", "I8"])
def test_all_zero(dtype: str, tmp_path: Path) -> None:
    size = BY_NUMBER[NUMBERS[dtype]].row_size(512)
    assert size is not None
    data = gguf_file((), [tensor("w", dtype, 400, 512, bytes(400 * size))])
    assert len(packed(tmp_path, data, level="max")) < len(data) // 10 + 4096


def test_types_too_small_for_a_model(tmp_path: Path) -> None:
    small: Sequence[GgufTensor] = [
        tensor("a", "Q4_K", 1, 512),
        tensor("b", "Q8_0", 3, 64),
        tensor("c", "F32", 1, 100),
        GgufTensor("empty", (0,), F32),
    ]
    container = packed(tmp_path, gguf_file((), small))
    assert tables(container) == 0
    assert not {Transform.QUANT, Transform.VALUES} & set(transforms(container))


def test_no_tensors(tmp_path: Path) -> None:
    assert tables(packed(tmp_path, gguf_file())) == 0


def test_rows_larger_than_a_chunk(tmp_path: Path) -> None:
    """Chunks of parts of rows; the last of a tensor may be of any number of blocks."""
    data = gguf_file((), [tensor("w", "Q4_K", 9, 256 * 301), tensor("v", "Q4_0", 5, 32 * 2111)])
    container = packed(tmp_path, data)
    assert Transform.QUANT in transforms(container)


def test_many_small_tensors_and_one_of_rare_numbers(tmp_path: Path) -> None:
    """Only rare numbers, each of which but the escape stands for, make a whole segment."""
    constant = np.full(200, 1.5, np.float32).tobytes()
    odd = (np.arange(128, 256, dtype=np.uint32) << 23 | 0x123456).tobytes()
    for place in range(300, 310):  # one of them is in the sample
        tensors = [GgufTensor(f"t{i}", (200,), F32, constant) for i in range(600)]
        tensors[place] = GgufTensor("odd", (128,), F32, odd)
        packed(tmp_path, gguf_file((), tensors))


def test_infinities_and_nan(tmp_path: Path) -> None:
    numbers = weights(300, 512)
    numbers[::7, ::5] = np.inf
    numbers[::11, 3] = -np.nan
    numbers[5] = 0.0
    numbers[6] = -0.0
    container = packed(tmp_path, gguf_file((), [tensor("w", "F32", 300, 512, numbers.tobytes())]))
    assert Transform.VALUES in transforms(container)
