"""Verify: all damage is reported, each with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import qzf
from qzf.errors import ChecksumError, FormatError, OptionError, SourceError
from qzf.ops.verifying import verify
from tests.helpers import SOURCES, small_gguf
from tools.make_vectors import folders
from tools.vectors.broken import base, chunk, recode
from tools.vectors.parts import CHUNK, Parts, seal, xxh3

VECTORS = folders()["vectors"]
SHARDED = SOURCES / "safetensors" / "sharded"


def _damaged(tmp_path: Path, source: Path, *places: int) -> Path:
    data = bytearray(source.read_bytes())
    for place in places:
        data[place] ^= 0x10
    path = tmp_path / "damaged.qzf"
    path.write_bytes(data)
    return path


def _chunk_places(path: Path) -> list[int]:
    with qzf.open(path) as container:
        return [int(offset) for offset in container.chunks["offset"]]


def test_all_damage_is_reported_with_its_place(sharded: Path, tmp_path: Path) -> None:
    places = _chunk_places(sharded)
    bad = [3, 4, len(places) - 1]
    path = _damaged(tmp_path, sharded, *(places[i] + 64 for i in bad), 20)
    report = verify(path)
    assert not report.ok
    assert [d.what for d in report.damage] == ["header", "chunk", "chunk", "chunk"]
    assert [d.chunk for d in report.damage[1:]] == bad
    with qzf.open(sharded) as container:
        for damage in report.damage[1:]:
            assert damage.chunk is not None
            entry = container.chunks[damage.chunk]
            assert (damage.offset, damage.size) == (int(entry["offset"]), 64 + int(entry["stored_size"]))
            where = container.reader.where(damage.chunk)
            assert (damage.member, damage.tensor) == (where["member"], where["tensor"])
            index = container.reader.index
            assert damage.member_offset == index.member_offset(damage.chunk)
            assert damage.member_size == int(entry["decoded_size"])
            assert "SHA-256" in damage.message
    assert json.loads(json.dumps(report.to_dict()))["damage"][1]["chunk"] == 3


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("threads", [1, 7])
def test_report_of_a_whole_container(sharded: Path, quick: bool, threads: int) -> None:
    seen: list[tuple[int, int, int]] = []
    report = verify(sharded, quick=quick, threads=threads, progress=lambda *a: seen.append(a))
    assert report.ok and not report.damage
    assert report.quick is quick
    assert report.container_size == sharded.stat().st_size
    assert report.original_size == sum(p.stat().st_size for p in SHARDED.iterdir())
    assert set(report.members) == {p.name for p in SHARDED.iterdir()}
    with qzf.open(sharded) as container:
        assert (report.tensors, report.chunks) == (len(container.tensors), len(container.chunks))
    assert len(seen) == report.chunks
    assert seen[-1][:2] == (report.original_size, report.original_size)


def _decodes_to_other_bytes(parts: Parts) -> None:
    """The record is whole, but its payload decodes to something else than its XXH3 says."""
    record = chunk(parts, 5)
    recode(record, record.payload, decoded_xxh3=xxh3(b"other"))


def test_quick_looks_at_stored_bytes_only(tmp_path: Path) -> None:
    parts = base()
    _decodes_to_other_bytes(parts)
    path = tmp_path / "a.qzf"
    path.write_bytes(seal(parts))
    assert verify(path, quick=True).ok
    report = verify(path)
    assert [d.what for d in report.damage] == ["chunk"]
    assert "decoded" in report.damage[0].message


def test_a_damaged_table_is_reported_once_and_with_its_chunks(tmp_path: Path) -> None:
    source = VECTORS / "tables.qzf"
    with qzf.open(source) as container:
        table = next(s for s in container.reader.index.sections if s.kind == 2 and s.id == 7)
        users = container.members[0].chunk_count + container.members[2].chunk_count
    report = verify(_damaged(tmp_path, source, table.offset + 64))
    kinds = [damage.what for damage in report.damage]
    assert kinds == ["section"] + ["chunk"] * users
    quick = verify(_damaged(tmp_path, source, table.offset + 64), quick=True)
    assert [damage.what for damage in quick.damage] == ["section"]


def test_every_record_of_the_error_base_when_damaged(tmp_path: Path) -> None:
    """A bit in each record's header and payload, one at a time, is that record's damage and no other's."""
    parts = base()
    good = tmp_path / "good.qzf"
    good.write_bytes(seal(parts))
    at = 64
    for record in parts.records:
        size = len(record.seal())
        for place in (at, at + 5, at + 63, at + 64, at + size - 1):
            report = verify(_damaged(tmp_path, good, place))
            assert [(d.what, d.offset) for d in report.damage] == [
                ("chunk" if record.kind == CHUNK else "section", at)
            ]
        at += -(-size // 64) * 64


# --- digest and originals -------------------------------------------------------------------------


def test_digest(sharded: Path) -> None:
    digest = verify(sharded).digest
    assert verify(sharded, digest=f"sha256:{digest.upper()}").ok
    with pytest.raises(ChecksumError):
        verify(sharded, digest="00" * 32)
    with pytest.raises(OptionError):
        verify(sharded, digest="00")


def test_against_the_originals(sharded: Path, tmp_path: Path) -> None:
    assert verify(sharded, against=SHARDED).ok
    for path in SHARDED.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = tmp_path / "vocab.txt"
    changed.write_bytes(changed.read_bytes()[:-1] + b"\0")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "new.txt").write_bytes(b"new")
    report = verify(sharded, against=tmp_path)
    assert [d.what for d in report.damage] == ["member"] * 3
    assert {d.member for d in report.damage} == {"vocab.txt", "tokenizer.json", "new.txt"}


def test_against_one_file_whatever_its_name(tmp_path: Path) -> None:
    source = SOURCES / "gguf" / "q4_k.gguf"
    packed, renamed = tmp_path / "a.qzf", tmp_path / "other.gguf"
    qzf.pack(source, packed)
    renamed.write_bytes(source.read_bytes())
    assert verify(packed, against=renamed).ok
    assert verify(packed, against=[renamed], quick=True).ok
    assert not verify(packed, against=SOURCES / "gguf" / "q5_k.gguf").ok


def test_not_containers(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(small_gguf())
    with pytest.raises(FormatError):
        verify(path)
    with pytest.raises(SourceError):
        verify(tmp_path)
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "none")
