"""Recovery: what is whole is saved, what is lost is said."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import qzf
from qzf.errors import FormatError
from tests.helpers import SOURCES

ONE = SOURCES / "gguf" / "q4_0.gguf"
TWO = SOURCES / "gguf" / "q8_0.gguf"


def _pair(folder: Path) -> Path:
    out = folder / "pair.qzf"
    qzf.pack([ONE, TWO], out, chunk_size=4096)
    return out


def _cut(container: Path, size: int) -> None:
    data = container.read_bytes()
    container.write_bytes(data[:size])


def _chunk_offset(container: Path, member: int) -> int:
    """Where the last chunk of a member starts."""
    with qzf.open(container) as opened:
        entry = opened.members[member]
        return int(opened.chunks[entry.first_chunk + entry.chunk_count - 1]["offset"])


def test_nothing_is_lost_with_the_end_alone(tmp_path: Path) -> None:
    container = _pair(tmp_path)
    _cut(container, container.stat().st_size - 100)
    report = qzf.unpack(container, tmp_path / "out", recover=True)
    assert report.lost == ()
    assert (tmp_path / "out" / ONE.name).read_bytes() == ONE.read_bytes()
    assert (tmp_path / "out" / TWO.name).read_bytes() == TWO.read_bytes()


def test_whole_tensors_of_a_cut_member_are_saved(tmp_path: Path) -> None:
    container = _pair(tmp_path)
    with qzf.open(container) as opened:
        expected = {name: opened.tensor(name).tobytes() for name in opened if name.startswith(TWO.name)}
    _cut(container, _chunk_offset(container, 1))
    report = qzf.unpack(container, tmp_path / "out", recover=True)
    assert len(report.lost) == 1
    assert TWO.name in report.lost[0]
    assert (tmp_path / "out" / ONE.name).read_bytes() == ONE.read_bytes()
    assert not (tmp_path / "out" / TWO.name).exists()
    saved = {path.name: path.read_bytes() for path in (tmp_path / "out" / f"{TWO.name}.recovered").iterdir()}
    assert 0 < len(saved) < len(expected)
    for name, data in saved.items():
        assert expected[f"{TWO.name}:{name.removesuffix('.bin')}"] == data
    with qzf.open(container, recover=True) as opened:
        assert opened.reader.lost == report.lost


def test_a_damaged_chunk_costs_its_file_only(tmp_path: Path) -> None:
    container = _pair(tmp_path)
    at = _chunk_offset(container, 0) + 64 + 10
    data = bytearray(container.read_bytes())
    data[at] ^= 1
    container.write_bytes(data)
    report = qzf.unpack(container, tmp_path / "out", recover=True)
    assert len(report.lost) == 1
    assert ONE.name in report.lost[0]
    assert [Path(name).name for name in report.files] == [TWO.name]
    assert report.bytes_written == TWO.stat().st_size
    assert (tmp_path / "out" / TWO.name).read_bytes() == TWO.read_bytes()
    assert not (tmp_path / "out" / ONE.name).exists()


def test_a_lost_manifest_is_said(tmp_path: Path) -> None:
    container = _pair(tmp_path)
    with qzf.open(container) as opened:
        manifest = opened.reader.index.sections[1].offset
    data = bytearray(container.read_bytes())
    data[manifest + 70] ^= 1
    container.write_bytes(data)
    report = qzf.unpack(container, f"{tmp_path}/out/", recover=True)
    assert [Path(name).name for name in report.files] == [ONE.name]
    assert "manifest" in report.lost[0]


def test_a_hostile_scan_takes_linear_time(tmp_path: Path) -> None:
    container = tmp_path / "hostile.qzf"
    container.write_bytes((b"QZFR" + bytes(60)) * 200_000)
    started = time.perf_counter()
    with pytest.raises(FormatError, match="nothing can be recovered"):
        qzf.unpack(container, tmp_path / "out", recover=True)
    assert time.perf_counter() - started < 30  # reading 1 MiB for each of them took minutes
