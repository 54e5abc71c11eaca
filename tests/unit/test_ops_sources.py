"""What sources stand for: files, sets of files, folders, and names that clash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import qzf
from qzf.errors import GgufError, OptionError, SafetensorsError, SourceError
from qzf.ops.sources import find_sources
from qzf.storage import FileSource, JoinedSource, MemorySource
from tests.helpers import SOURCES

SHARDED = SOURCES / "safetensors" / "sharded"
SPLIT = [SOURCES / "gguf" / f"split-0000{i}-of-00003.gguf" for i in (1, 2, 3)]


def _found(*sources: Path, opaque: bool = False) -> list[str]:
    return [file.name for file in find_sources(sources, opaque=opaque).files]


def _tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def _round_trip(sources: list[Path], tmp_path: Path) -> set[Path]:
    """Pack and unpack; returns the paths of the files that came out."""
    container = tmp_path / "packed.qzf"
    qzf.pack(sources, container)
    assert qzf.verify(container, against=list(sources)).ok
    out = tmp_path / "out"
    qzf.unpack(container, f"{out}/")
    return {path.relative_to(out) for path in out.rglob("*") if path.is_file()}


def test_the_first_part_of_a_split_gguf_brings_the_others(tmp_path: Path) -> None:
    assert _found(SPLIT[0]) == [path.name for path in SPLIT]
    assert _found(SPLIT[1]) == [SPLIT[1].name]
    assert _found(SPLIT[0], opaque=True) == [SPLIT[0].name]
    assert _found(*SPLIT) == [path.name for path in SPLIT]
    assert _round_trip([SPLIT[0]], tmp_path) == {Path(path.name) for path in SPLIT}
    for path in SPLIT:
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_split_gguf_with_a_part_missing(tmp_path: Path) -> None:
    for path in SPLIT[:2]:
        shutil.copy(path, tmp_path)
    with pytest.raises(GgufError, match="00003-of-00003"):
        _found(tmp_path / SPLIT[0].name)


def test_an_index_brings_its_shards(tmp_path: Path) -> None:
    index = SHARDED / "model.safetensors.index.json"
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert _found(index) == [index.name, *shards]
    assert _found(index, opaque=True) == [index.name]
    assert _round_trip([index], tmp_path) == {Path(index.name), *map(Path, shards)}
    for name in (index.name, *shards):
        assert (tmp_path / "out" / name).read_bytes() == (SHARDED / name).read_bytes()


def test_an_index_that_leaves_its_folder(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for name in ("../secret", "/etc/passwd", "a/b.safetensors"):
        index.write_text(json.dumps({"weight_map": {"w": name}}))
        with pytest.raises(SafetensorsError):
            _found(index)
    index.write_text(json.dumps({"weight_map": {"w": "missing.safetensors"}}))
    with pytest.raises(FileNotFoundError):
        qzf.pack(index, tmp_path / "a.qzf")


def test_a_folder_is_all_files_below_it(tmp_path: Path) -> None:
    folder = _tree(
        tmp_path / "model", "b.txt", "a.txt", "sub/z", "sub/deep/y", ".git/x", ".cache/x", ".hidden"
    )
    assert _found(folder) == [".hidden", "a.txt", "b.txt", "sub/z", "sub/deep/y"]
    assert _round_trip([folder], tmp_path) == {Path(name) for name in _found(folder)}


def test_a_real_checkpoint_folder(tmp_path: Path) -> None:
    _round_trip([SHARDED], tmp_path)
    for path in SHARDED.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_several_sources(tmp_path: Path) -> None:
    one, two = _tree(tmp_path / "one", "a", "b"), _tree(tmp_path / "two", "a", "c")
    single = _tree(tmp_path, "single.txt") / "single.txt"
    names = ["one/a", "one/b", "single.txt", "two/a", "two/c"]
    assert _found(one, single, two) == names
    assert _round_trip([one, single, two], tmp_path) == {Path(name) for name in names}


def test_names_that_clash(tmp_path: Path) -> None:
    one, two = _tree(tmp_path / "one", "a"), _tree(tmp_path / "two", "a")
    with pytest.raises(OptionError, match="both become"):
        _found(one / "a", two / "a")
    assert _found(one / "a", one / "a") == ["a"]
    link = tmp_path / "link"
    link.mkdir()
    (link / "a").symlink_to(one / "a")
    assert _found(one / "a", link / "a") == ["a"]
    same = tmp_path / "other" / "one"
    _tree(same, "b")
    assert _found(one, same) == ["one/a", "one/b"]
    _tree(same, "a")
    with pytest.raises(OptionError):
        _found(one, same)


def test_one_is_the_folder_of_another(tmp_path: Path) -> None:
    file = _tree(tmp_path / "x", "model") / "model"
    folder = _tree(tmp_path / "y" / "model", "a")
    with pytest.raises(qzf.QzfError):
        qzf.pack([file, folder], tmp_path / "a.qzf")
    assert not (tmp_path / "a.qzf").exists()


def test_links(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "model", "a")
    (folder / "link").symlink_to(_tree(tmp_path / "blobs", "sha") / "sha")  # as in a hub's cache
    assert _found(folder) == ["a", "link"]
    qzf.pack(folder, tmp_path / "a.qzf")
    qzf.unpack(tmp_path / "a.qzf", f"{tmp_path}/out/")
    assert (tmp_path / "out" / "link").read_bytes() == b"sha"
    assert not (tmp_path / "out" / "link").is_symlink()
    (tmp_path / "whole").symlink_to(folder)
    assert _found(tmp_path / "whole") == ["a", "link"]
    (folder / "folder").symlink_to(tmp_path / "blobs")
    with pytest.raises(SourceError, match="link to a folder"):
        _found(folder)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "model", "a")
    (folder / "loop").symlink_to(folder)
    with pytest.raises(SourceError):
        _found(folder)


def test_file_names_that_cannot_be_members(tmp_path: Path) -> None:
    for name in ("back\\slash", "new\nline", "colon:x", "dot."):
        folder = _tree(tmp_path / "odd", name)
        with pytest.raises(SourceError):
            _found(folder)
        shutil.rmtree(folder)
    folder.mkdir()
    (folder / "half\udcff").write_bytes(b"not UTF-8")
    with pytest.raises(SourceError):
        _found(folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file"):
        _found(tmp_path)


def test_an_output_inside_of_the_source_folder(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "model", "a", "b")
    out = folder / "model.qzf"
    assert qzf.pack(folder, out).members == 2
    assert qzf.pack(folder, out, force=True).members == 2
    assert qzf.verify(out).ok


def test_the_output_is_no_source(tmp_path: Path) -> None:
    """Else --force would replace the only copy of a model with a container that lacks it."""
    model = tmp_path / "model.gguf"
    model.write_bytes((SOURCES / "gguf" / "q8_0.gguf").read_bytes())
    before = model.read_bytes()
    link = tmp_path / "link.gguf"
    link.symlink_to(model)
    for source, out in ((model, model), (model, link), (link, model)):
        with pytest.raises(OptionError, match="one of the sources"):
            qzf.pack(source, out, force=True)
        assert model.read_bytes() == before


# --- bytes that are no files ----------------------------------------------------------------------


def test_a_byte_source_becomes_a_member_of_its_name(tmp_path: Path) -> None:
    path = SOURCES / "safetensors" / "sharded" / "config.json"
    model = next((SOURCES / "safetensors").glob("*.safetensors"))
    memory = MemorySource(model.read_bytes(), "below/model.safetensors")
    report = qzf.pack([path, memory], tmp_path / "both.qzf", chunk_size=4096)
    assert report.members == 2 and report.original_size == path.stat().st_size + model.stat().st_size
    with qzf.open(tmp_path / "both.qzf") as container:
        assert [(member.name, member.kind) for member in container.members] == [
            ("config.json", "opaque"),
            ("below/model.safetensors", "safetensors"),
        ]
        assert container.member_bytes("below/model.safetensors") == model.read_bytes()
    qzf.pack(model, tmp_path / "alone.qzf")
    qzf.pack(MemorySource(model.read_bytes(), model.name), tmp_path / "memory.qzf")
    assert (tmp_path / "memory.qzf").read_bytes() == (tmp_path / "alone.qzf").read_bytes()


def test_a_source_of_the_callers_is_left_open(tmp_path: Path) -> None:
    path = SOURCES / "safetensors" / "sharded" / "config.json"
    with FileSource(path) as source:
        with pytest.raises(SourceError):  # an absolute path is no name of a member
            qzf.pack(source, tmp_path / "a.qzf")
        assert source.read(0, 1) == b"{"
    inside = JoinedSource([memoryview(b"ab"), memoryview(b"c")], "abc")
    qzf.pack(inside, tmp_path / "a.qzf")
    qzf.pack([inside], tmp_path / "b.qzf")
    assert (tmp_path / "a.qzf").read_bytes() == (tmp_path / "b.qzf").read_bytes()
    assert inside.read(1, 2) == b"bc"


def test_a_byte_source_needs_an_output_and_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = MemorySource(b"1", "a"), MemorySource(b"2", "a")
    with pytest.raises(OptionError, match="needs an output"):
        qzf.pack(one)
    with pytest.raises(OptionError, match="both become"):
        qzf.pack([one, other], "out.qzf")
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(OptionError, match="both become"):
        qzf.pack(["a", other], "out.qzf")
    with pytest.raises(SafetensorsError):
        qzf.pack(MemorySource(b"nothing", "a.safetensors"), "out.qzf")
    assert not (tmp_path / "out.qzf").exists()
    qzf.pack(one, "a", force=True)  # the file of that name is another
    assert qzf.open("a").member_bytes("a") == b"1"
