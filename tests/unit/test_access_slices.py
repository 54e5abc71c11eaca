"""What parts of tensors cost: chunks decoded, and memory that is held."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import qzf
from qzf.access import numbers
from qzf.container.reader import ContainerReader
from qzf.transforms.dequant import dequantize
from tests.helpers import Q4_0, GgufTensor, gguf_file

#: Rows of 96 KiB and of 40 KiB, which are no whole number of a chunk's; and planes of small rows.
ARRAYS = {
    "wide": np.arange(100 * 24 * 1024, dtype=np.int32).reshape(100, 24 * 1024),
    "rows": np.arange(200 * 10 * 1024, dtype=np.int32).reshape(200, 10 * 1024),
    "planes": np.arange(20 * 50 * 700, dtype=np.int32).reshape(20, 50, 700),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container of ``ARRAYS``, in chunks of 512 KiB. Not to be changed."""
    folder = tmp_path_factory.mktemp("slices")
    save_file(ARRAYS, folder / "m.safetensors")
    qzf.pack(folder / "m.safetensors", folder / "m.qzf", level="fast")
    return folder / "m.qzf"


@pytest.mark.parametrize("cache_bytes", [0, 100 << 20])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("wide", np.s_[:]),
        ("wide", np.s_[:, :100]),
        ("wide", np.s_[:, 5]),
        ("wide", np.s_[::2]),
        ("wide", np.s_[90:3:-3, 7:20000:3]),
        ("rows", np.s_[::2]),
        ("rows", np.s_[::-3]),
        ("rows", np.s_[5:, -3:]),
        ("planes", np.s_[::3, 4:9]),
        ("planes", np.s_[::-2, 40:3:-30]),
        ("planes", np.s_[:, 0, 1]),
    ],
)
def test_no_chunk_is_decoded_twice(
    path: Path, name: str, index: Any, threads: int, cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[int] = Counter()
    plain = ContainerReader.read_chunk

    def counted(self: ContainerReader, chunk: int, *rest: Any, **options: Any) -> memoryview:
        decoded[chunk] += 1
        return plain(self, chunk, *rest, **options)

    monkeypatch.setattr(ContainerReader, "read_chunk", counted)
    with qzf.open(path, threads=threads, cache_bytes=cache_bytes) as container:
        part = container.get_slice(name)[index]
        count = container.info(name).chunk_count
    assert np.array_equal(part, ARRAYS[name][index])
    assert count > 2 and set(decoded.values()) == {1} and len(decoded) <= count


@pytest.mark.parametrize("index", [np.s_[:, :100], np.s_[:, 7], np.s_[::50]])
def test_a_part_of_little_takes_little_memory(path: Path, index: Any) -> None:
    with qzf.open(path, threads=1) as container:
        part = container.get_slice("rows")
        part[:1]  # working memory and tables
        tracemalloc.start()
        try:
            part[index]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < ARRAYS["rows"].nbytes // 4


def test_a_huge_axis_of_nothing_is_not_walked(tmp_path: Path) -> None:
    save_file({"none": np.zeros((1 << 40, 0), np.int8)}, tmp_path / "m.safetensors")
    qzf.pack(tmp_path / "m.safetensors", tmp_path / "m.qzf")
    with qzf.open(tmp_path / "m.qzf") as container:
        assert container.get_slice("none")[::-1].shape == (1 << 40, 0)
        assert container.get_slice("none")[3::2].shape == ((1 << 39) - 1, 0)


# --- floats ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container of Q4_0 blocks of shape (300, 640), and of a row of floats. Not to be changed."""
    folder = tmp_path_factory.mktemp("blocks")
    data = np.random.default_rng(5).integers(0, 60, 300 * 20 * 18, np.uint8).tobytes()
    tensors = [GgufTensor("w", (640, 300), Q4_0, data), GgufTensor("b", (7,))]
    (folder / "m.gguf").write_bytes(gguf_file((), tensors))
    qzf.pack(folder / "m.gguf", folder / "m.qzf", chunk_size=4096)
    return folder / "m.qzf"


_INDICES = [
    np.s_[:, 0],
    np.s_[:, 33:40],
    np.s_[::-7, 600:9:-100],
    np.s_[5, 639:31:-1],
    np.s_[3:50, -40:-3:9],
    np.s_[:, ::2],
    np.s_[:, 9:9],
    np.s_[:, 5:2],
    np.s_[4:4, 3],
    np.s_[::-1, ::-1],
    np.s_[..., 320:],
    np.s_[7],
]


@pytest.mark.parametrize("run", [1, 5000, 16 << 20])
@pytest.mark.parametrize("dtype", ["float32", "bf16"])
@pytest.mark.parametrize("index", _INDICES)
def test_parts_of_floats(
    blocks: Path, index: Any, dtype: str, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "_RUN", run)
    with qzf.open(blocks) as container:
        due = container.tensor("w", dequantize=dtype)[index]
        part = container.get_slice("w", dequantize=dtype)[index]
    assert part.dtype == due.dtype and part.shape == due.shape and part.tobytes() == due.tobytes()


def _held(array: Any) -> int:
    """Bytes of the memory that an array keeps alive."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes if array.base is None else len(memoryview(array.base).cast("B"))


@pytest.mark.parametrize("index", _INDICES)
def test_a_part_of_floats_does_not_hold_on_to_all(blocks: Path, index: Any) -> None:
    with qzf.open(blocks) as container:
        part = container.get_slice("w", dequantize=True)[index]
        assert _held(part) <= 2 * part.nbytes


def test_of_a_row_only_the_blocks_that_are_wanted_become_floats(
    blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(kind: str, data: Any, out: Any, name: str) -> None:
        made.append(len(out) // 4)
        dequantize(kind, data, out, name)

    monkeypatch.setattr(numbers, "dequantize", counted)
    with qzf.open(blocks) as container:
        container.get_slice("w", dequantize=True)[:, 40:70]
    assert sum(made) == 300 * 2 * 32


def test_one_number_is_a_scalar(blocks: Path) -> None:
    with qzf.open(blocks) as container:
        one, whole = container.get_slice("w", dequantize=True)[-1, -1], container.tensor("w", dequantize=True)
        assert type(one) is np.float32 and one == whole[-1, -1]
        for floats in (False, True):
            other = container.get_slice("b", dequantize=floats)[3]
            assert type(other) is np.float32 and other == container.tensor("b")[3]
