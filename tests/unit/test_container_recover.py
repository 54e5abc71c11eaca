"""Recovery: containers without their end, with damage in the middle, and made to mislead the scan."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import qzf
from qzf.container.recover import recover_index
from qzf.errors import FormatError, OptionError, QzfError
from qzf.storage import MemorySource
from tests.helpers import SOURCES
from tools.make_vectors import folders
from tools.vectors.broken import base, chunk, manifest, table
from tools.vectors.parts import CHUNK, Parts, Record, seal

VECTORS = folders()["vectors"]
MANIFEST: list[dict[str, Any]] = json.loads((VECTORS / "manifest.json").read_text(encoding="utf-8"))
SHARDED = SOURCES / "safetensors" / "sharded"


def _index_at(data: bytes) -> int:
    return int.from_bytes(data[-80:-72], "little")


def _cut(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "cut.qzf"
    path.write_bytes(data)
    return path


def _is_recovered(data: bytes, names: list[str]) -> bool:
    return [member.name for member in recover_index(MemorySource(data)).index.members] == names


@pytest.mark.parametrize(
    "entry", [e for e in MANIFEST if e["members"]], ids=lambda entry: entry["file"].removesuffix(".qzf")
)
def test_vectors_without_their_index(entry: dict[str, Any], tmp_path: Path) -> None:
    data = (VECTORS / entry["file"]).read_bytes()
    path = _cut(tmp_path, data[: _index_at(data)])
    with pytest.raises(FormatError):
        qzf.open(path)
    qzf.unpack(path, f"{tmp_path}/out/", recover=True)
    for member in entry["members"]:
        content = (tmp_path / "out" / member["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == member["sha256"]
    with qzf.open(VECTORS / entry["file"]) as whole, qzf.open(path, recover=True) as found:
        assert found.keys() == whole.keys()
        for name in whole:
            assert found.tensor(name).tobytes() == whole.tensor(name).tobytes()
            assert (found.info(name).dtype, found.info(name).shape) == (
                whole.info(name).dtype,
                whole.info(name).shape,
            )


def test_members_that_are_not_whole_are_left_out(sharded: Path, tmp_path: Path) -> None:
    data = sharded.read_bytes()
    with qzf.open(sharded) as container:
        members = container.members
        places = [int(offset) for offset in container.chunks["offset"]]
    lost = members[3]
    cut = _cut(tmp_path, data[: places[lost.first_chunk] + 32])
    qzf.unpack(cut, tmp_path / "out", recover=True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {m.name for m in members[:3]}
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (SHARDED / path.name).read_bytes()


def test_a_digest_cannot_be_had(sharded: Path) -> None:
    with pytest.raises(OptionError):
        qzf.open(sharded, recover=True, digest="00" * 32)
    with pytest.raises(OptionError):
        qzf.unpack(sharded, recover=True, digest="00" * 32)


@pytest.mark.parametrize("size", [0, 64, 100, 128, 200])
def test_nothing_to_recover(size: int) -> None:
    data = (VECTORS / "stored.qzf").read_bytes()
    with pytest.raises(FormatError):
        recover_index(MemorySource(data[:size]))


def test_header_lost_as_well() -> None:
    data = seal(base())
    assert _is_recovered(bytes(64) + data[64 : _index_at(data)], ["dir/model.bin", "config.json"])


def test_unknown_version_is_not_guessed_at() -> None:
    parts = base()
    parts.header["version_major"] = parts.head["version_major"] = 2
    with pytest.raises(FormatError, match="version"):
        recover_index(MemorySource(seal(parts)))


def test_damaged_record_headers_are_skipped() -> None:
    parts = base()
    parts.records[-1].fields["header_xxh3"] = 1  # the optional section
    table(parts).fields["magic"] = b"none"
    assert _is_recovered(seal(parts), ["dir/model.bin", "config.json"])
    chunk(parts, 5).fields["header_xxh3"] = 1
    assert _is_recovered(seal(parts), ["dir/model.bin"])


def test_a_damaged_manifest_costs_its_member_only() -> None:
    parts = base()
    data = bytearray(seal(parts))
    data[data.index(manifest(parts).payload) + 20] ^= 1
    assert _is_recovered(bytes(data), ["config.json"])


def _copy(record: Record, **changes: Any) -> Record:
    return Record(record.fields | changes, record.payload)


def test_of_two_claims_the_first_counts() -> None:
    parts = base()
    last = chunk(parts, 5)
    other = _copy(last, transform=0, decoded_size=600)
    other.payload = b"!" * 600
    parts.records += [_copy(table(parts)), _copy(manifest(parts, 1)), other]
    index = recover_index(MemorySource(seal(parts))).index
    assert [member.name for member in index.members] == ["dir/model.bin", "config.json"]
    assert index.chunks[5].transform == 1
    assert sum(section.kind == 2 for section in index.sections) == 1


def test_a_container_in_a_container_is_not_mixed_up(tmp_path: Path) -> None:
    inner = tmp_path / "inner.qzf"
    qzf.pack(SOURCES / "gguf" / "q8_0.gguf", inner)
    outer = tmp_path / "outer.qzf"
    qzf.pack(inner, outer)
    data = outer.read_bytes()
    for start in (bytes(data[:64]), bytes(64)):
        cut = _cut(tmp_path, start + data[64 : _index_at(data)])
        qzf.unpack(cut, tmp_path / "again", recover=True, force=True)
        assert (tmp_path / "again").read_bytes() == inner.read_bytes()
    # With the outer manifest's record lost, the scan walks through the inner container.
    first = bytearray(data[: _index_at(data)])
    first[64] ^= 1
    with pytest.raises(FormatError):
        recover_index(MemorySource(bytes(first)))


HOSTILE: list[dict[str, Any]] = [
    {"decoded_size": 0},
    {"decoded_size": 0xFFFFFFFF},
    {"offset": (1 << 64) - 1},
    {"offset": 1},
    {"tensor": 0xFFFFFFFE},
    {"tensor": 0},
    {"member": 0xFFFFFFFF},
    {"transform": 200},
    {"layout": 65535, "transform": 2},
    {"kind": 255},
    {"stored_size": (1 << 64) - 1},
    {"stored_size": (1 << 63) - 128},
    {"stored_size": 0},
]


@pytest.mark.parametrize("changes", HOSTILE, ids=str)
@pytest.mark.parametrize("place", range(9))
def test_hostile_headers_end_in_typed_errors(changes: dict[str, Any], place: int, tmp_path: Path) -> None:
    parts = base()
    parts.records[place].fields.update(changes)
    path = _cut(tmp_path, _records_only(parts))
    try:
        qzf.unpack(path, f"{tmp_path}/out/", recover=True)
        with qzf.open(path, recover=True) as container:
            for name in container:
                container.tensor(name)
    except QzfError:
        pass


def _records_only(parts: Parts) -> bytes:
    """Header and records; the index could not even be built of some."""
    out = bytearray(seal(base())[:64])
    for record in parts.records:
        record.salt = parts.salt
        out += record.seal()
        out += bytes(-len(out) % 64)
    return bytes(out)


def test_the_order_of_hostile_places_is_the_bases() -> None:
    kinds = [record.kind for record in base().records]
    assert kinds == [2, 3, *[CHUNK] * 5, 3, CHUNK, 200]
