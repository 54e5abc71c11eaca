"""The golden containers: qzf decodes each to the manifest's hashes, and rejects each broken one as it says.

The files are immutable; only ``tools/make_vectors.py`` writes them. A missing one is a failure.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import qzf
from qzf.format.ids import Codec, Transform
from qzf.transforms.layouts import BY_ID
from tools import make_vectors

VECTORS, ERRORS = make_vectors.folders().values()
Entry = dict[str, Any]
#: What only verify finds: an index that is whole says something else of a member than was written.
TRUSTED_INDEX = ("members-sha256.qzf",)


def _entries(folder: Path) -> list[Entry]:
    """The manifest's list; empty where there is none, which the first test below reports."""
    path = folder / "manifest.json"
    entries: list[Entry] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return entries


def _each(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", _entries(folder), ids=lambda entry: Path(entry["file"]).stem)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_files_are_what_the_tool_makes() -> None:
    assert make_vectors.check() == []
    assert len(_entries(VECTORS)) >= 50
    assert len(_entries(ERRORS)) >= 300


def test_vectors_cover_the_format() -> None:
    """Every transform, layout and codec there is, in some chunk."""
    seen: dict[str, set[int]] = {"transform": set(), "layout": set()}
    codecs: set[str] = set()
    for entry in _entries(VECTORS):
        with qzf.open(VECTORS / entry["file"]) as container:
            for name, values in seen.items():
                values.update(container.chunks[name].tolist())
            codecs.update(codec for tensor in container.tensors for codec in tensor.pipeline.codecs)
    assert seen["transform"] == set(Transform)
    assert seen["layout"] == {0, *BY_ID}
    assert codecs == {codec.name.lower() for codec in Codec}


@_each(VECTORS)
def test_vector_verifies(entry: Entry) -> None:
    path = VECTORS / entry["file"]
    assert _sha256(path.read_bytes()) == entry["sha256"]
    report = qzf.verify(path, digest=entry["digest"])
    assert report.ok, report.damage
    assert report.digest == entry["digest"]
    assert report.members == tuple(member["name"] for member in entry["members"])
    assert qzf.verify(path, quick=True).ok


@_each(VECTORS)
@pytest.mark.parametrize("threads", [1, 3])
def test_vector_unpacks(entry: Entry, threads: int, tmp_path: Path) -> None:
    report = qzf.unpack(VECTORS / entry["file"], f"{tmp_path}/", threads=threads, digest=entry["digest"])
    written = {path: (tmp_path / path).read_bytes() for path in (m["name"] for m in entry["members"])}
    assert {name: (len(data), _sha256(data)) for name, data in written.items()} == {
        member["name"]: (member["size"], member["sha256"]) for member in entry["members"]
    }
    assert len(report.files) == len(entry["members"])
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == len(entry["members"])


@_each(VECTORS)
def test_vector_tensors(entry: Entry, tmp_path: Path) -> None:
    """Each tensor, with and without a copy, is its extent of the member."""
    path = VECTORS / entry["file"]
    qzf.unpack(path, f"{tmp_path}/")
    with qzf.open(path) as container:
        for key in container:
            info = container.info(key)
            member = container.members[info.member]
            data = (tmp_path / member.name).read_bytes()[info.extent.offset : info.extent.end]
            assert container.tensor(key).tobytes() == data
            assert container.tensor(key, copy=False).tobytes() == data
            assert b"".join(container.iter_bytes(key)) == data


@_each(ERRORS)
def test_broken_container_is_reported(entry: Entry) -> None:
    path = ERRORS / entry["file"]
    if entry["error"] == "Damage":
        report = qzf.verify(path)
        assert not report.ok
        assert all(damage.message for damage in report.damage)
        return
    with pytest.raises(qzf.QzfError) as caught:
        qzf.verify(path)
    assert type(caught.value).__name__ == entry["error"]
    assert caught.value.file == str(path)


@_each(ERRORS)
def test_broken_container_yields_no_wrong_data(entry: Entry, tmp_path: Path) -> None:
    """What verify finds beyond the index may not matter to unpack, but then the bytes are the members'."""
    path = ERRORS / entry["file"]
    try:
        qzf.unpack(path, f"{tmp_path}/")
    except qzf.QzfError:
        pass
    else:
        assert entry["error"] == "Damage"
        with qzf.open(path) as container:
            members = {member.name: member.sha256 for member in container.members}
        if entry["file"] not in TRUSTED_INDEX:
            assert {name: _sha256((tmp_path / name).read_bytes()) for name in members} == members
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
