"""What parts of tensors cost: chunks decoded, and memory that is held."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import qzf
from qzf.container.reader import ContainerReader

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


def test_a_huge_axis_of_nothing_is_not_walked(tmp_path: Path) -> None:
    save_file({"none": np.zeros((1 << 40, 0), np.int8)}, tmp_path / "m.safetensors")
    qzf.pack(tmp_path / "m.safetensors", tmp_path / "m.qzf")
    with qzf.open(tmp_path / "m.qzf") as container:
        assert container.get_slice("none")[::-1].shape == (1 << 40, 0)
        assert container.get_slice("none")[3::2].shape == ((1 << 39) - 1, 0)
