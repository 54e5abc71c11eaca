"""Which kind a file is, and models in several files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qzf import limits
from qzf.adapters import describe, detect, read_metadata, read_shard_index, split_gguf_parts
from qzf.errors import GgufError, SafetensorsError, SourceError
from qzf.model import Extent
from qzf.storage import FileSource, MemorySource
from tests.helpers import SOURCES, small_gguf, small_safetensors, u32


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.gguf", small_gguf(), "gguf"),
        ("A.GGUF", small_gguf(), "gguf"),
        ("blobs/sha256-1234", small_gguf(), "gguf"),
        ("a.gguf", b"GGUF", "gguf"),
        ("a.safetensors", small_safetensors(), "safetensors"),
        ("a.safetensors", b"anything", "safetensors"),
        ("blob", small_safetensors(), "opaque"),
        ("config.json", b"{}", "opaque"),
        ("empty", b"", "opaque"),
        ("short", b"GGUF", "opaque"),
        ("README.md", b"GGUF is a file format", "opaque"),
        ("zero", b"GGUF\0\0\0\0", "opaque"),
        ("big-endian", b"GGUF\0\0\0\3" + bytes(16), "gguf"),
        ("future", b"GGUF" + u32(4) + bytes(16), "gguf"),
    ],
)
def test_detect(name: str, data: bytes, kind: str) -> None:
    assert detect(MemorySource(data, name)) == kind
    assert detect(MemorySource(data, "elsewhere.bin"), name) == kind


def test_names_that_promise_too_much() -> None:
    for data in (b"", b"GGU", b"GGML" + bytes(20), small_safetensors()):
        with pytest.raises(GgufError, match="magic"):
            describe(MemorySource(data, "a.gguf"), "a.gguf")
    with pytest.raises(SafetensorsError, match="is a GGUF file"):
        detect(MemorySource(small_gguf(), "a.safetensors"))
    with pytest.raises(SourceError):
        describe(MemorySource(b"", "a.safetensors"), "a.safetensors")


@pytest.mark.parametrize("name", ["a.gguf", "a.safetensors", "a.txt"])
def test_opaque_takes_anything(name: str) -> None:
    for data in (b"", b"broken", small_gguf(), small_safetensors()):
        member = describe(MemorySource(data, name), name, opaque=True)
        assert (member.kind, member.size, member.tensors, member.metadata) == ("opaque", len(data), (), {})
        assert member.verbatim() == ([Extent(0, len(data))] if data else [])


def test_read_metadata_of_every_kind() -> None:
    assert read_metadata(MemorySource(small_gguf(), "a.gguf"))["general.architecture"] == "llama"
    assert read_metadata(MemorySource(small_safetensors(), "a.safetensors")) == {"format": "pt"}
    assert read_metadata(MemorySource(b"text", "a.txt")) == {}


def test_describe_does_not_read_tensor_data(tmp_path: Path) -> None:
    """A shrunken file fails only when what is missing is read, and a header is all that is."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(small_safetensors())
    with FileSource(path) as source:
        with path.open("r+b") as stream:
            stream.truncate(source.size - 48)
        assert len(describe(source, path.name).tensors) == 3


# Models in several files


def write_index(folder: Path, content: object) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_shard_index_of_the_fixture() -> None:
    folder = SOURCES / "safetensors" / "sharded"
    names = read_shard_index(folder / "model.safetensors.index.json")
    assert names == sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(names) == 2


def test_shard_index_names_each_file_once(tmp_path: Path) -> None:
    path = write_index(tmp_path, {"weight_map": {"x": "b.safetensors", "y": "a.bin", "z": "b.safetensors"}})
    assert read_shard_index(path) == ["a.bin", "b.safetensors"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff{}",
        b"[" * 100_000,
        b"9" * 5000,
        b"[]",
        {},
        {"weight_map": None},
        {"weight_map": {}},
        {"weight_map": ["a.safetensors"]},
        {"weight_map": {"x": 1}},
        b'{"weight_map":{"a":"b"},"x":[' + b"1," * limits.SAFETENSORS_MAX_VALUES + b"1]}",
        *({"weight_map": {"x": name}} for name in ("", ".", "..", "/etc/passwd", "../a", "a/b", "a\\b")),
        *({"weight_map": {"x": name}} for name in ("C:a", "a\0", "a\nb", "\ud800", "x" * 256)),
    ],
    ids=lambda content: repr(content)[:40],
)
def test_shard_index_refuses(tmp_path: Path, content: object) -> None:
    path = write_index(tmp_path, content)
    with pytest.raises(SafetensorsError) as caught:
        read_shard_index(path)
    assert caught.value.file == str(path)
    str(caught.value).encode()


def test_split_parts_from_any_part(tmp_path: Path) -> None:
    for source in (SOURCES / "gguf").glob("split-*.gguf"):
        shutil.copy(source, tmp_path)
    expected = [tmp_path / f"split-{part:05d}-of-00003.gguf" for part in (1, 2, 3)]
    for path in expected:
        assert split_gguf_parts(path) == expected
    expected[1].unlink()
    with pytest.raises(GgufError, match=r"part 2 of 3 is missing: split-00002-of-00003\.gguf"):
        split_gguf_parts(expected[0])


@pytest.mark.parametrize("name", ["model.gguf", "a-1-of-2.gguf", "a-00001-of-00002.bin", "\uff11.gguf"])
def test_other_names_are_one_file(name: str, tmp_path: Path) -> None:
    assert split_gguf_parts(tmp_path / name) == [tmp_path / name]


@pytest.mark.parametrize("name", ["a-00000-of-00002.gguf", "a-00003-of-00002.gguf", "a-00001-of-00000.gguf"])
def test_part_numbers_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="cannot be"):
        split_gguf_parts(tmp_path / name)
