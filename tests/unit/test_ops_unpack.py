"""Unpack: where things go, what is selected, and that files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qzf
from qzf.errors import (
    ChecksumError,
    DamageError,
    FormatError,
    NotFoundError,
    OptionError,
    OutputExistsError,
)
from tests.helpers import SOURCES, open_files
from tools.make_vectors import folders
from tools.vectors.builder import Builder, Tensor, Verbatim, stored
from tools.vectors.parts import seal

SHARDED = SOURCES / "safetensors" / "sharded"
SLICE = SOURCES / "gguf" / "smollm2-slice.gguf"
VECTORS = folders()["vectors"]


@pytest.fixture
def single(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "slice.gguf.qzf"
    path.parent.mkdir()
    qzf.pack(SLICE, path, chunk_size=8192)
    return path


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- where ----------------------------------------------------------------------------------------


def test_one_member_goes_beside_the_container(single: Path) -> None:
    report = qzf.unpack(single)
    assert report.files == (str(single.parent / "smollm2-slice.gguf"),)
    assert report.bytes_written == SLICE.stat().st_size
    assert Path(report.files[0]).read_bytes() == SLICE.read_bytes()


def test_several_members_go_into_a_folder_beside_it(sharded: Path, tmp_path: Path) -> None:
    for name, folder in [
        ("model.qzf", "model"),
        ("model.bin", "model.bin.d"),
        (".qzf", "members"),
        ("llm.safetensors.index.json.qzf", "llm"),
        ("llm2-00001-of-00003.gguf.qzf", "llm2"),
    ]:
        path = tmp_path / name
        path.write_bytes(sharded.read_bytes())
        qzf.unpack(path)
        assert _files(tmp_path / folder) == {p.name for p in SHARDED.iterdir()}


@pytest.mark.parametrize(
    ("out", "becomes"),
    [
        ("file", "file"),
        ("new/", "new/smollm2-slice.gguf"),
        ("there", "there/smollm2-slice.gguf"),
        ("there/", "there/smollm2-slice.gguf"),
        ("new/deep/file", "new/deep/file"),
    ],
)
def test_output_of_one_member(out: str, becomes: str, single: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    qzf.unpack(single, f"{tmp_path}/{out}")
    assert (tmp_path / becomes).read_bytes() == SLICE.read_bytes()


def test_output_of_several_members_is_a_folder(sharded: Path, tmp_path: Path) -> None:
    qzf.unpack(sharded, tmp_path / "folder")
    assert _files(tmp_path / "folder") == {p.name for p in SHARDED.iterdir()}


def test_the_folder_of_a_single_member(tmp_path: Path) -> None:
    builder = Builder()
    builder.member("deep/er/name.bin", [Verbatim([stored(b"data")])])
    path = tmp_path / "a.qzf"
    path.write_bytes(seal(builder.parts()))
    assert qzf.unpack(path).files == (str(tmp_path / "name.bin"),)
    assert qzf.unpack(path, f"{tmp_path}/x/").files == (str(tmp_path / "x/deep/er/name.bin"),)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads(threads: int, sharded: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    report = qzf.unpack(sharded, tmp_path / "x", threads=threads, progress=lambda *a: seen.append(a))
    total = sum(path.stat().st_size for path in SHARDED.iterdir())
    assert report.bytes_written == total
    assert seen[-1] == (total, total, total)
    for path in SHARDED.iterdir():
        assert (tmp_path / "x" / path.name).read_bytes() == path.read_bytes()


# --- what -----------------------------------------------------------------------------------------


def test_members(sharded: Path, tmp_path: Path) -> None:
    qzf.unpack(sharded, f"{tmp_path}/a/", members=["vocab.txt", "config.json", "vocab.txt"])
    assert _files(tmp_path / "a") == {"vocab.txt", "config.json"}
    qzf.unpack(sharded, tmp_path / "config", members=["config.json"])
    assert (tmp_path / "config").read_bytes() == (SHARDED / "config.json").read_bytes()
    with pytest.raises(NotFoundError, match="vocab"):
        qzf.unpack(sharded, f"{tmp_path}/b/", members=["config.json", "vocab"])
    assert not (tmp_path / "b").exists()


def test_tensors(single: Path, tmp_path: Path) -> None:
    with qzf.open(single) as container:
        names = [name for name in container if name.endswith("norm.weight")]
        qzf.unpack(single, f"{tmp_path}/t/", tensors=["*norm.weight"])
        assert _files(tmp_path / "t") == {f"{name}.bin" for name in names}
        for name in names:
            assert (tmp_path / "t" / f"{name}.bin").read_bytes() == container.tensor(name).tobytes()
        qzf.unpack(single, tmp_path / "one", tensors=[names[0]])
        assert np.fromfile(tmp_path / "one", np.uint8).tobytes() == container.tensor(names[0]).tobytes()
        qzf.unpack(single, f"{tmp_path}/all/", tensors=["*", names[0]])
        assert len(_files(tmp_path / "all")) == len(container)
    with pytest.raises(NotFoundError):
        qzf.unpack(single, f"{tmp_path}/none/", tensors=["*", "none*"])


def test_tensors_of_several_members(tmp_path: Path) -> None:
    builder = Builder()
    for i, name in enumerate(("one", "two")):
        builder.member(name, [Tensor("t", "U8", [3], 3, [stored(bytes([i] * 3))])])
    path = tmp_path / "a.qzf"
    path.write_bytes(seal(builder.parts()))
    with pytest.raises(OptionError, match="select one member"):
        qzf.unpack(path, f"{tmp_path}/x/", tensors=["t"])
    qzf.unpack(path, f"{tmp_path}/x/", tensors=["t"], members=["two"])
    assert (tmp_path / "x" / "t.bin").read_bytes() == b"\1\1\1"


def test_tensor_names_do_not_leave_the_folder(tmp_path: Path) -> None:
    builder = Builder()
    names = ["../../up", "/etc/absolute", "back\\slash", "nul\0", "..", "."]
    pieces = [Tensor(name, "U8", [1], 1, [stored(b"x")]) for name in names]
    builder.member("m", pieces)
    path = tmp_path / "a.qzf"
    path.write_bytes(seal(builder.parts()))
    qzf.unpack(path, f"{tmp_path}/deep/x/", tensors=["*"])
    assert len(_files(tmp_path / "deep" / "x")) == len(names)
    assert {p.name for p in tmp_path.iterdir()} == {"a.qzf", "deep"}


# --- whole or not at all --------------------------------------------------------------------------


def test_existing_files_are_kept(single: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        qzf.unpack(single, out)
    assert out.read_bytes() == b"precious"
    qzf.unpack(single, out, force=True)
    assert out.read_bytes() == SLICE.read_bytes()


def test_nothing_is_written_if_one_file_is_in_the_way(sharded: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        qzf.unpack(sharded, tmp_path)
    assert _files(tmp_path) == {"vocab.txt"}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_middle_leaves_no_half_file(
    error: type[BaseException], threads: int, single: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"old")

    def interrupt(done: int, total: int, _: int) -> None:
        if done > total // 2:
            raise error

    descriptors = open_files()
    with pytest.raises(error):
        qzf.unpack(single, out, force=True, threads=threads, progress=interrupt)
    assert out.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert open_files() == descriptors


@pytest.mark.parametrize("threads", [1, 4])
def test_few_files_are_open_at_a_time(threads: int, tmp_path: Path) -> None:
    """Small ones and empty ones in a row."""
    source = tmp_path / "many"
    source.mkdir()
    for number in range(300):
        (source / f"{number:03}").write_bytes(bytes(number % 3))
    qzf.pack(source, tmp_path / "many.qzf")
    before, most = open_files(), 0

    def count(*_: int) -> None:
        nonlocal most
        most = max(most, open_files(collect=False))

    qzf.unpack(tmp_path / "many.qzf", tmp_path / "out", threads=threads, progress=count)
    assert _files(tmp_path / "out") == _files(source)
    assert most <= before + 2 * threads + 2 + 3


def test_damage_leaves_no_half_file(single: Path, tmp_path: Path) -> None:
    with qzf.open(single) as container:
        offset = int(container.chunks["offset"][-2])
        tensor = container.tensors[int(container.chunks["tensor"][-2])].name
    data = bytearray(single.read_bytes())
    data[offset + 64] ^= 1
    single.write_bytes(data)
    with pytest.raises(DamageError) as caught:
        qzf.unpack(single, tmp_path / "out")
    assert caught.value.tensor == tensor and caught.value.offset == offset
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_digest(single: Path, tmp_path: Path) -> None:
    digest = qzf.verify(single).digest
    qzf.unpack(single, tmp_path / "out", digest=digest)
    with pytest.raises(ChecksumError):
        qzf.unpack(single, tmp_path / "other", digest="11" * 32)
    assert not (tmp_path / "other").exists()


def test_not_a_container(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        qzf.unpack(SLICE, tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        qzf.unpack(tmp_path / "none.qzf")


def test_no_members(tmp_path: Path) -> None:
    report = qzf.unpack(VECTORS / "no-members.qzf", f"{tmp_path}/x/")
    assert report.files == () and report.bytes_written == 0


def test_the_container_is_not_overwritten_by_its_own_content(tmp_path: Path) -> None:
    container = tmp_path / SLICE.name
    qzf.pack(SLICE, container)
    before = container.read_bytes()
    with pytest.raises(OptionError, match="the container itself"):
        qzf.unpack(container, force=True)
    assert container.read_bytes() == before


def test_one_name_may_be_given_as_text(sharded: Path, tmp_path: Path) -> None:
    report = qzf.unpack(sharded, f"{tmp_path}/", members="config.json")
    assert report.files == (str(tmp_path / "config.json"),)


def test_a_file_where_the_folder_is_due(sharded: Path, tmp_path: Path) -> None:
    container = tmp_path / "model.qzf"
    container.write_bytes(sharded.read_bytes())
    (tmp_path / "model").write_text("a file")
    with pytest.raises(OutputExistsError, match="-o"):
        qzf.unpack(container)
