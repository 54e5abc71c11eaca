"""What a mount shows under which names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import qzf
from qzf.errors import ChecksumError, FormatError, NotFoundError
from qzf.integrations.tree import Tree
from tests.helpers import open_files

ERRORS = Path(__file__).parents[2] / "fixtures" / "errors"


def pack(out: Path, members: Sequence[str]) -> None:
    """A container with files of these names, each of which holds its name and the container's."""
    folder = out.parent / f"{out.name}.src"
    for name in members:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{out.name} {name}")
    qzf.pack(folder if len(members) > 1 else folder / members[0], out, opaque=True)
    shutil.rmtree(folder)


def paths(root: Path) -> list[str]:
    """What there is, with its content checked."""
    with opened(root) as tree:
        for path, file in tree.files.items():
            name = path.rpartition("/")[2]
            assert name in tree.folders[path[: -len(name) - 1] or "/"]
            container = Path(file.reader.source.name)
            assert file.mtime_ns == container.stat().st_mtime_ns
            with qzf.open(container) as there:
                expected = f"{container.name} {file.member}".encode()
                assert there.member_bytes(file.member) == expected
                assert len(expected) == file.size
        for folder in tree.folders:
            if folder != "/":
                parent, _, name = folder.rpartition("/")
                assert name in tree.folders[parent or "/"]
        return sorted(tree.files)


@contextmanager
def opened(root: Path) -> Iterator[Tree]:
    with closing(Tree(str(root), skipped=pytest.fail)) as tree:
        yield tree


def test_one_container(tmp_path: Path) -> None:
    pack(tmp_path / "a.qzf", ["x/y/z", "x/w", "v"])
    assert paths(tmp_path / "a.qzf") == ["/v", "/x/w", "/x/y/z"]
    with opened(tmp_path / "a.qzf") as tree:
        assert tree.folders == {"/": ["v", "x"], "/x": ["w", "y"], "/x/y": ["z"]}


def test_a_folder(tmp_path: Path) -> None:
    pack(tmp_path / "one.qzf", ["model.gguf"])
    pack(tmp_path / "several.qzf", ["config.json", "model.safetensors"])
    (tmp_path / "deep" / "er").mkdir(parents=True)
    pack(tmp_path / "deep" / "er" / "two.qzf", ["a", "b/c"])
    (tmp_path / "not.gguf").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / ".qzf").mkdir()
    (tmp_path / "folder.qzf").mkdir()
    (tmp_path / "again").symlink_to(tmp_path)
    assert paths(tmp_path) == [
        "/deep/er/two/a",
        "/deep/er/two/b/c",
        "/model.gguf",
        "/several/config.json",
        "/several/model.safetensors",
    ]


def test_names_that_clash(tmp_path: Path) -> None:
    """Files of one name, with a folder below, with a folder of a container; and all of them differ."""
    pack(tmp_path / "a.qzf", ["model"])
    pack(tmp_path / "b.qzf", ["model"])
    pack(tmp_path / "c.qzf", ["sub"])
    pack(tmp_path / "d.qzf", ["e"])
    pack(tmp_path / "e.qzf", ["1", "2"])
    pack(tmp_path / "sub.qzf", ["1", "2"])
    (tmp_path / "sub").mkdir()
    pack(tmp_path / "sub" / "x.qzf", ["y"])
    assert paths(tmp_path) == [
        "/a/model",
        "/b/model",
        "/c/sub",
        "/d/e",
        "/e.qzf/1",
        "/e.qzf/2",
        "/sub.qzf/1",
        "/sub.qzf/2",
        "/sub/y",
    ]


def test_names_that_clash_even_with_their_suffix(tmp_path: Path) -> None:
    pack(tmp_path / "a.qzf", ["1", "2"])
    pack(tmp_path / "a.qzf.qzf", ["1", "2"])
    pack(tmp_path / "b.qzf", ["a"])
    assert paths(tmp_path) == ["/a.qzf/1", "/a.qzf/2", "/a.qzf_/1", "/a.qzf_/2", "/b/a"]


def test_containers_that_cannot_be_read(tmp_path: Path) -> None:
    """One of several is passed over, the only one is an error."""
    pack(tmp_path / "good.qzf", ["model"])
    (tmp_path / "bad.qzf").write_text("no container")
    skipped: list[str] = []
    with closing(Tree(str(tmp_path), skipped=skipped.append)) as tree:
        assert list(tree.files) == ["/model"]
    assert len(skipped) == 1
    assert skipped[0].startswith(str(tmp_path / "bad.qzf"))
    (tmp_path / "good.qzf").unlink()
    files = open_files()
    with pytest.raises(NotFoundError):
        Tree(str(tmp_path))
    with pytest.raises(FormatError):
        Tree(str(tmp_path / "bad.qzf"))
    with pytest.raises(FileNotFoundError):
        Tree(str(tmp_path / "nope"))
    assert open_files() == files


def test_digest(tmp_path: Path) -> None:
    pack(tmp_path / "a.qzf", ["model"])
    with qzf.open(tmp_path / "a.qzf") as container:
        digest = container.digest
    Tree(str(tmp_path / "a.qzf"), digest=digest).close()
    with pytest.raises(ChecksumError):
        Tree(str(tmp_path / "a.qzf"), digest="0" * 64)


@pytest.mark.parametrize("path", sorted(ERRORS.glob("name-*.qzf")), ids=lambda path: path.stem)
def test_hostile_names(path: Path) -> None:
    """No name leads out of the mount, or is two things."""
    with pytest.raises(FormatError):
        Tree(str(path))
