"""verify --against: comparing with the original files."""

from __future__ import annotations

import shutil
from pathlib import Path

import qzf
from tests.helpers import SOURCES

GGUF = SOURCES / "gguf"
SPLIT = [GGUF / f"split-0000{part}-of-00003.gguf" for part in (1, 2, 3)]


def test_a_container_in_the_folder_it_was_made_of(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(SOURCES / "safetensors" / "sharded", folder)
    qzf.pack(folder, folder / "model.qzf")
    assert qzf.verify(folder / "model.qzf", against=folder).ok
    (folder / "more.txt").write_text("new")
    assert [damage.member for damage in qzf.verify(folder / "model.qzf", against=folder).damage] == [
        "more.txt"
    ]


def test_one_part_packed_as_plain_bytes(tmp_path: Path) -> None:
    qzf.pack(SPLIT[0], tmp_path / "part.qzf", opaque=True)
    assert qzf.verify(tmp_path / "part.qzf", against=SPLIT[0]).ok


def test_a_split_file_and_several_sources(tmp_path: Path) -> None:
    qzf.pack(SPLIT[0], tmp_path / "set.qzf")
    assert qzf.verify(tmp_path / "set.qzf", against=SPLIT[0]).ok
    assert qzf.verify(tmp_path / "set.qzf", against=SPLIT).ok
    assert not qzf.verify(tmp_path / "set.qzf", against=SPLIT[1:]).ok


def test_a_file_of_another_name_but_the_same_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copy(GGUF / "q8_0.gguf", copy)
    qzf.pack(GGUF / "q8_0.gguf", tmp_path / "a.qzf")
    assert qzf.verify(tmp_path / "a.qzf", against=copy).ok
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    assert not qzf.verify(tmp_path / "a.qzf", against=copy).ok
