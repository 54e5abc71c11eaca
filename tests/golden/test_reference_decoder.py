"""``spec/reference_decoder.py`` decodes all golden vectors and rejects all broken containers.

The vectors are immutable; only ``tools/make_vectors.py`` writes them. A missing one is a failure.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import random
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import qzf
from qzf.container.payload import decode as payload_decode
from qzf.container.payload import no_table
from qzf.format.ids import Transform
from tests.fuzz.container_mutations import mutated
from tools.vectors.builder import leb128
from tools.vectors.parts import raw, seal, streams_payload, take_apart

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "fixtures" / "vectors" / "v1"
ERRORS = ROOT / "fixtures" / "errors"

Entry = dict[str, Any]


def _load_decoder() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "qzf_reference_decoder", ROOT / "spec" / "reference_decoder.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


REFERENCE = _load_decoder()


def _entries(folder: Path) -> list[Entry]:
    """The manifest's list; empty if there is none, which `test_manifests_list_all_files` reports."""
    path = folder / "manifest.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    assert isinstance(entries, list)
    return entries


def _each(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", _entries(folder), ids=lambda entry: Path(entry["file"]).stem)


def _verify(data: bytes, digest: bytes | None = None) -> None:
    container = REFERENCE.open_container(memoryview(data), digest)
    for member in container.members:
        for _ in REFERENCE.decode_member(container, member):
            pass


def _index_at(data: bytes) -> int:
    (index_at,) = struct.unpack("<Q", data[-80:-72])
    assert isinstance(index_at, int)
    return index_at


def _smallest_vector() -> bytes:
    paths: list[Path] = [VECTORS / entry["file"] for entry in _entries(VECTORS)]
    assert paths, "no vectors"
    return min(paths, key=lambda path: path.stat().st_size).read_bytes()


@pytest.mark.parametrize("folder", [VECTORS, ERRORS], ids=["vectors", "errors"])
def test_manifests_list_all_files(folder: Path) -> None:
    listed = [entry["file"] for entry in _entries(folder)]
    assert listed, f"{folder / 'manifest.json'} is missing or empty"
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.qzf")]
    assert sorted(listed) == sorted(files)


@_each(VECTORS)
def test_vector_is_unchanged(entry: Entry) -> None:
    assert hashlib.sha256((VECTORS / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


@_each(VECTORS)
def test_vector_decodes(entry: Entry, tmp_path: Path) -> None:
    path = VECTORS / entry["file"]
    assert REFERENCE.main([str(path), "-o", str(tmp_path), "--digest", entry["digest"]]) == 0
    written = {
        file.relative_to(tmp_path).as_posix(): file.read_bytes()
        for file in tmp_path.rglob("*")
        if file.is_file()
    }
    assert {
        name: {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in written.items()
    } == {member["name"]: member for member in entry["members"]}


@_each(VECTORS)
def test_vector_under_another_digest(entry: Entry) -> None:
    with pytest.raises(REFERENCE.Invalid, match="container digest"):
        _verify((VECTORS / entry["file"]).read_bytes(), bytes(32))


@_each(VECTORS)
def test_vector_without_index_is_recovered(entry: Entry, tmp_path: Path) -> None:
    data = (VECTORS / entry["file"]).read_bytes()
    assert REFERENCE.recover(memoryview(data)[: _index_at(data)], tmp_path) == []
    for member in entry["members"]:
        content = (tmp_path / member["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == member["sha256"]


@_each(ERRORS)
def test_broken_container_is_invalid(entry: Entry) -> None:
    with pytest.raises(REFERENCE.Invalid):
        _verify((ERRORS / entry["file"]).read_bytes())


def test_exit_status(tmp_path: Path) -> None:
    path = tmp_path / "broken.qzf"
    path.write_bytes(bytes(1000))
    assert REFERENCE.main([str(path)]) == 1
    assert REFERENCE.main([str(tmp_path / "missing.qzf")]) == 2


def test_nothing_of_an_invalid_container_is_written(tmp_path: Path) -> None:
    broken = bytearray(_smallest_vector())
    broken[64 + 64] ^= 1  # the first record's payload
    path, target = tmp_path / "broken.qzf", tmp_path / "target"
    path.write_bytes(broken)
    assert REFERENCE.main([str(path), "-o", str(target)]) == 1
    assert not target.exists()


def test_every_byte_matters() -> None:
    whole = _smallest_vector()
    _verify(whole)
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 0x10
        with pytest.raises(REFERENCE.Invalid):
            _verify(bytes(broken))


def test_every_prefix_is_invalid() -> None:
    whole = _smallest_vector()
    for size in range(len(whole)):
        with pytest.raises(REFERENCE.Invalid):
            _verify(whole[:size])


# --- hostile containers, resealed ---


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_decoders_agree_on_mutants(first: int, tmp_path: Path) -> None:
    path = tmp_path / "mutant.qzf"
    for seed in range(first, first + 100):
        data = mutated(seed)
        path.write_bytes(data)
        try:
            ours = qzf.verify(path, threads=1).ok
        except qzf.QzfError:
            ours = False
        try:
            _verify(data)
        except REFERENCE.Invalid:
            theirs = False
        else:
            theirs = True
        assert ours == theirs, f"seed {seed}: qzf {ours}, reference decoder {theirs}"


@pytest.mark.parametrize("seed", range(5))
def test_decoders_agree_on_strings(seed: int) -> None:
    """Streams of any lengths and sizes: the same bytes, or both find them wrong."""
    draw, valid = random.Random(seed), 0
    for _ in range(400):
        sizes = [draw.choice([0, 1, 5, 127, 128, 300, 16_384]) for _ in range(draw.randrange(1, 9))]
        lengths, text = bytearray(b"".join(map(leb128, sizes))), draw.randbytes(sum(sizes))
        for _ in range(draw.randrange(3)):
            at = draw.randrange(len(lengths) + 1)
            lengths[at : at + draw.randrange(2)] = bytes([draw.choice([0, 1, 0x7F, 0x80, 0x81, 0xFF])])
        chunk_size = max(8 * len(sizes) + len(text) + draw.choice([0, 0, 0, 8, -8, 1]), 1)
        payload = memoryview(streams_payload([raw(bytes(lengths)), raw(text)]))
        try:
            ours = bytes(payload_decode(Transform.STRINGS, 0, payload, chunk_size, no_table))
        except qzf.QzfError:
            ours = None
        try:
            theirs = REFERENCE.decode_strings(REFERENCE.parse_streams(0, payload, {})[0], chunk_size, 0)
        except REFERENCE.Invalid:
            theirs = None
        assert ours == theirs
        valid += ours is not None
    assert 50 < valid < 350


def test_tensor_without_data_has_no_chunks() -> None:
    parts = take_apart((VECTORS / "empty-tensors.qzf").read_bytes())
    tensor = parts.catalog["tensors"][0]
    assert tensor["size"] == tensor["row_size"] == 0
    tensor["chunk_count"] = 1
    with pytest.raises(REFERENCE.Invalid, match="chunks without data"):
        _verify(seal(parts))


# --- a container in a container ---

Nested = tuple[bytes, dict[str, bytes], list[int]]


def _packed(folder: Path, sizes: dict[str, int]) -> bytes:
    """A container of files that cannot be made smaller."""
    folder.mkdir(exist_ok=True)
    for name, size in sizes.items():
        (folder / name).write_bytes(random.Random(name).randbytes(size))
    sink = io.BytesIO()
    qzf.pack(folder, sink, chunk_size=6400)
    return sink.getvalue()


@pytest.fixture
def nested(tmp_path: Path) -> Nested:
    """A container with a container, its members, and where its records are.

    Pack cuts a file evenly: with 49 chunks it can be at multiples of 64, where the inner records start.
    """
    size = 49 * 4096 - 48
    sizes = {"a": 30 * 6400, "filler": 5000}
    sizes["filler"] += size - len(_packed(tmp_path / "inner", sizes))
    members = {"a.qzf": _packed(tmp_path / "inner", sizes), "b": bytes(20_000)}
    source = tmp_path / "source"
    source.mkdir()
    for name, content in members.items():
        (source / name).write_bytes(content)
    qzf.pack(source, tmp_path / "outer.qzf", chunk_size=4096, opaque=True)
    data = (tmp_path / "outer.qzf").read_bytes()
    return data, members, [at for at, _ in REFERENCE.scan(memoryview(data))]


def _salts(data: bytes, places: list[int]) -> set[bytes]:
    return {data[12:16]} | {data[at + 36 : at + 40] for at in places}


def _salt_of(members: dict[str, bytes]) -> bytes:
    """As section 2.6 has it."""
    text = "".join(f"{name}\n{len(content)}\n" for name, content in members.items())
    return hashlib.sha256(text.encode()).digest()[:4]


def test_a_nested_container_has_whole_records_of_another_salt(nested: Nested, tmp_path: Path) -> None:
    data, members, places = nested
    assert _salts(data, places) == {_salt_of(members)}
    inner = members["a.qzf"]
    inner_places = [at for at, _ in REFERENCE.scan(memoryview(inner))]
    inner_members = {name: (tmp_path / "inner" / name).read_bytes() for name in ("a", "filler")}
    assert _salts(inner, inner_places) == {_salt_of(inner_members)}
    headers = [data.find(inner[at : at + 64]) for at in inner_places]
    assert sum(at > 0 and at % 64 == 0 for at in headers) >= 20, "there is nothing that a scan could fall for"


@pytest.mark.parametrize("header_too", [False, True], ids=["header", "no-header"])
def test_recovery_takes_no_record_of_a_nested_container(
    nested: Nested, tmp_path: Path, header_too: bool
) -> None:
    """Whichever record header is lost, what comes back is the outer container's, and all that is whole."""
    data, members, places = nested
    end, path = _index_at(data), tmp_path / "damaged.qzf"
    for at in (at for at in places if at < end):
        damaged = bytearray(data[:end])
        damaged[at] ^= 1
        if header_too:
            damaged[:64] = bytes(64)
        path.write_bytes(damaged)
        record = REFERENCE.parse_record(data[at : at + 64], at)
        hit = list(members)[record.member]
        whole = {name: content for name, content in members.items() if name != hit}

        ours = tmp_path / f"qzf-{at}"
        qzf.unpack(path, f"{ours}/", recover=True)
        assert {file.name: file.read_bytes() for file in ours.iterdir()} == whole

        theirs = tmp_path / f"reference-{at}"
        lost = REFERENCE.recover(memoryview(damaged), theirs)
        found = {file.name: file.read_bytes() for file in theirs.iterdir()}
        if record.kind == REFERENCE.MEMBER:
            assert lost == [f"member {record.member} has no manifest (section 7)"]
        else:
            begin, stop = record.offset, record.offset + record.decoded_size
            assert lost == [f"{hit}: bytes {begin} to {stop}"]
            partial = found.pop(hit)
            assert partial[:begin] == members[hit][:begin]
            assert partial[stop:] == members[hit][stop:]
        assert found == whole
