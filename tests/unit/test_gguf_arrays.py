"""The long arrays of a GGUF header: where they are, how they are cut, and what becomes of them."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import qzf
from qzf import limits
from qzf.adapters import describe, read_metadata
from qzf.errors import GgufError, SourceChangedError
from qzf.format.ids import NO_TENSOR, Transform
from qzf.limits import KIB, MIB, MIN_CHUNK
from qzf.model import ArraySpec, Extent, MemberSpec
from qzf.ops import packing
from qzf.ops.recipe import cuts
from qzf.storage import MemorySource
from tests.helpers import (
    ARRAY,
    BOOL,
    F32,
    FLOAT32,
    FLOAT64,
    STRING,
    UINT8,
    UINT32,
    UINT64,
    GgufTensor,
    gguf_array,
    gguf_file,
    gguf_pair,
    gguf_string,
    u32,
    u64,
)

INT32 = 5
WORDS = [random.Random(i).randbytes(1 + i % 11).hex() for i in range(6000)]
LONG = [b"x" * size for size in (0, 5000, 3, 9000, 70_000, 0, 1)] * 10


def described(data: bytes) -> MemberSpec:
    return describe(MemorySource(data, "m.gguf"), "m.gguf")


def pair(key: str, of: int, elements: list[bytes]) -> bytes:
    return gguf_pair(key, ARRAY, gguf_array(of, elements))


def vocabulary(words: list[str], *more: bytes) -> bytes:
    scores = [struct.pack("<f", -i) for i in range(len(words))]
    pairs = [
        pair("tokens", STRING, [gguf_string(word) for word in words]),
        pair("scores", FLOAT32, scores),
        pair("types", INT32, [u32(1)] * len(words)),
        *more,
    ]
    return gguf_file(pairs, [GgufTensor("w", (32, 9), F32)])


def test_extents_and_types() -> None:
    data = vocabulary(WORDS)
    strings, scores, types = described(data).arrays
    assert (strings.dtype, scores.dtype, types.dtype) == ("STRING", "F32", "I32")
    content = b"".join(gguf_string(word) for word in WORDS)
    assert data[strings.extent.offset : strings.extent.end] == content
    assert scores.extent == Extent(data.index(struct.pack("<3f", 0, -1, -2)), 4 * len(WORDS))
    assert data[types.extent.offset : types.extent.end] == u32(1) * len(WORDS)
    assert scores.stops == types.stops == ()


def starts(array: ArraySpec, items: list[bytes]) -> set[int]:
    found, at = set(), array.extent.offset
    for item in items:
        found.add(at)
        at += 8 + len(item)
    assert at == array.extent.end
    return found


@pytest.mark.parametrize("items", [[word.encode() for word in WORDS] * 12, LONG], ids=["words", "long"])
def test_stops_are_where_strings_begin(items: list[bytes]) -> None:
    """Also where the window of the header ends between two of them."""
    (array,) = described(gguf_file([pair("a", STRING, [gguf_string(item) for item in items])])).arrays
    assert set(array.stops) <= starts(array, items) - {array.extent.offset}
    places = (array.extent.offset, *array.stops, array.extent.end)
    longest = max(map(len, items)) + 8
    assert all(b - a > limits.GGUF_STOP for a, b in pairwise(places[:-1]))
    assert all(b - a <= 2 * limits.GGUF_STOP + 8 + longest for a, b in pairwise(places))


@pytest.mark.parametrize(
    ("of", "dtype", "size"),
    [
        (UINT8, "U8", 1),
        (1, "I8", 1),
        (2, "U16", 2),
        (3, "I16", 2),
        (UINT32, "U32", 4),
        (INT32, "I32", 4),
        (FLOAT32, "F32", 4),
        (BOOL, "BOOL", 1),
        (UINT64, "U64", 8),
        (11, "I64", 8),
        (FLOAT64, "F64", 8),
    ],
)
def test_types_of_numbers(of: int, dtype: str, size: int) -> None:
    (array,) = described(gguf_file([pair("a", of, [bytes(size)] * 4096)])).arrays
    assert (array.dtype, array.extent.size, array.stops) == (dtype, 4096 * size, ())


def test_what_is_not_taken() -> None:
    """Short arrays, those that metadata holds, those in arrays; and none of them where all is asked for."""
    nested = gguf_array(STRING, [gguf_string("word")] * 5000)
    data = gguf_file(
        [
            pair("short", UINT8, [bytes([1])] * (limits.GGUF_MIN_ARRAY - 1)),
            pair("inlined", STRING, [gguf_string("y" * 200)] * limits.METADATA_MAX_ARRAY),
            pair("nested", ARRAY, [nested, gguf_array(FLOAT32, [bytes(4)] * 5000)]),
            gguf_pair("text", STRING, gguf_string("z" * 10_000)),
        ]
    )
    assert described(data).arrays == ()
    assert len(read_metadata(MemorySource(data, "m.gguf"))["short"]) == limits.GGUF_MIN_ARRAY - 1


def test_stops_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GGUF_MAX_STOPS", 5)
    pairs = [pair(f"a{i}", STRING, [gguf_string("w" * 100)] * 150) for i in range(3)]
    assert [len(array.stops) for array in described(gguf_file(pairs)).arrays] == [3, 2, 0]


def test_a_length_past_the_end_is_still_told() -> None:
    content = [gguf_string("w" * 50)] * 300 + [u64(1 << 60)]
    with pytest.raises(GgufError, match=f"{1 << 60} bytes long"):
        described(gguf_file([pair("a", STRING, content)]))


# --- cuts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [MIN_CHUNK, 5000, 30_000, 512 * KIB, 16 * MIB])
@pytest.mark.parametrize("items", [[word.encode() for word in WORDS], LONG], ids=["words", "long"])
def test_cuts_cover_the_member(items: list[bytes], chunk_size: int) -> None:
    more = pair("more", STRING, [gguf_string(item) for item in items])
    member, at, marked = described(vocabulary(WORDS, more)), 0, 0
    begins = starts(member.arrays[0], [word.encode() for word in WORDS]) | starts(member.arrays[3], items)
    ends = {array.extent.end for array in member.arrays}
    for cut in cuts(member, chunk_size):
        assert cut.offset == at and 0 < cut.size <= 4 * chunk_size
        at += cut.size
        inside = [array for array in member.arrays if array.extent.offset <= cut.offset < array.extent.end]
        assert all(at <= array.extent.end for array in inside)
        if cut.strings:
            assert cut.offset in begins and (at in begins or at in ends)
            assert cut.layout is None and cut.tensor is None
            marked += cut.size
        elif inside and not inside[0].strings:
            layout = {"F32": "float4", "I32": "planes4"}[inside[0].dtype]
            assert cut.layout is not None and cut.layout.name == layout
            assert (cut.offset - inside[0].extent.offset) % 4 == cut.size % 4 == 0
    assert at == member.size
    assert marked > 0.9 * member.arrays[0].extent.size
    if chunk_size >= 30_000:
        assert marked == sum(array.extent.size for array in member.arrays if array.strings)


def test_an_array_without_stops_and_a_tensor_beside_it() -> None:
    array = ArraySpec(Extent(10, 100 * MIN_CHUNK), "STRING")
    member = MemberSpec("m", "gguf", 20 + 100 * MIN_CHUNK, arrays=(array,))
    found = list(cuts(member, MIN_CHUNK))
    assert sum(cut.size for cut in found) == member.size
    assert max(cut.size for cut in found) <= 1.5 * MIN_CHUNK
    assert not any(cut.strings for cut in found)


# --- packing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["fast", "default", "max"])
@pytest.mark.parametrize("chunk_size", [MIN_CHUNK, 512 * KIB])
def test_round_trip(level: str, chunk_size: int, tmp_path: Path) -> None:
    data = vocabulary(WORDS, pair("more", STRING, [gguf_string(item) for item in LONG]))
    (tmp_path / "m.gguf").write_bytes(data)
    qzf.pack(tmp_path / "m.gguf", tmp_path / "a.qzf", level=level, chunk_size=chunk_size)
    assert qzf.verify(tmp_path / "a.qzf").ok
    qzf.unpack(tmp_path / "a.qzf", tmp_path / "b.gguf")
    assert (tmp_path / "b.gguf").read_bytes() == data
    with qzf.open(tmp_path / "a.qzf") as container:
        chunks = container.chunks
        coded = np.isin(chunks["transform"], [Transform.STRINGS, Transform.FIELDS])
        assert (chunks["transform"] == Transform.STRINGS).any()
        assert (chunks["tensor"][chunks["transform"] == Transform.STRINGS] == NO_TENSOR).all()
        assert container.member_bytes("m.gguf", 0, len(data)) == data
    if chunk_size > MIN_CHUNK:
        assert chunks["decoded_size"][coded].sum() > 0.9 * len(data)


def test_vocabularies_get_smaller_by_it(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(vocabulary(WORDS))
    sizes = [
        qzf.pack(tmp_path / "m.gguf", tmp_path / f"{opaque}.qzf", opaque=opaque).container_size
        for opaque in (False, True)
    ]
    assert sizes[0] < 0.8 * sizes[1]


def test_strings_that_have_become_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that changed since it was looked at is an error at its end, and none before."""
    path = tmp_path / "m.gguf"
    path.write_bytes(vocabulary(WORDS))
    look = packing._look

    def changed(*arguments: object) -> object:
        found = look(*arguments)  # type: ignore[arg-type]
        with path.open("r+b") as file:
            file.seek(found[0].spec.arrays[0].extent.offset)
            file.write(b"\xff" * 20_000)
        return found

    monkeypatch.setattr(packing, "_look", changed)
    with pytest.raises(SourceChangedError):
        qzf.pack(path, tmp_path / "a.qzf")
    assert not (tmp_path / "a.qzf").exists()
