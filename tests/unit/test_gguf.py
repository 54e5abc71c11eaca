"""GGUF files that must be taken, and how."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from qzf import limits
from qzf.adapters import describe, read_metadata
from qzf.errors import GgufError
from qzf.model import Extent, MemberSpec
from qzf.storage import MemorySource
from tests.helpers import (
    ARRAY,
    BOOL,
    F16,
    F32,
    FLOAT32,
    FLOAT64,
    Q4_0,
    SOURCES,
    STRING,
    UINT8,
    UINT32,
    GgufTensor,
    gguf_array,
    gguf_file,
    gguf_pair,
    gguf_string,
    small_gguf,
    u32,
)


def described(data: bytes) -> MemberSpec:
    return describe(MemorySource(data, "m.gguf"), "m.gguf")


def metadata_of(number: int, payload: bytes, *, full: bool = False) -> Any:
    data = gguf_file([gguf_pair("key", number, payload)])
    found = read_metadata(MemorySource(data, "m.gguf")) if full else described(data).metadata
    return found["key"]


def test_small_file() -> None:
    data = small_gguf()
    member = described(data)
    assert (member.name, member.kind, member.size) == ("m.gguf", "gguf", len(data))
    assert [(t.name, t.dtype, t.shape, t.extent.size, t.row_size) for t in member.tensors] == [
        ("token_embd.weight", "Q4_0", (5, 32), 90, 18),
        ("norm.weight", "F32", (7,), 28, 28),
        ("output.weight", "Q8_0", (3, 64), 204, 68),
    ]
    for tensor in member.tensors:
        extent = tensor.extent
        assert data[extent.offset : extent.end] == bytes(index % 251 for index in range(extent.size))
    assert member.metadata["a.float"] == 1e-5
    assert member.metadata["a.bool"] is True
    assert member.metadata["a.list"] == [7, 8]
    assert member.metadata["a.nested"] == [[5]]
    assert member.metadata["tokenizer.ggml.tokens"] == {"type": "array", "of": "string", "length": 70}
    full = read_metadata(MemorySource(data, "m.gguf"))
    assert full["tokenizer.ggml.tokens"] == [f"t{index}" for index in range(70)]
    assert {**full, "tokenizer.ggml.tokens": None} == {**member.metadata, "tokenizer.ggml.tokens": None}


def test_version_2_is_the_same() -> None:
    data = small_gguf()
    old = data[:4] + u32(2) + data[8:]
    assert described(old).tensors == described(data).tensors


@pytest.mark.parametrize(
    ("number", "code", "value"),
    [
        (0, "B", 255),
        (1, "b", -128),
        (2, "H", 65535),
        (3, "h", -32768),
        (4, "I", (1 << 32) - 1),
        (5, "i", -(1 << 31)),
        (10, "Q", (1 << 64) - 1),
        (11, "q", -(1 << 63)),
        (12, "d", 0.1),
    ],
)
def test_numbers(number: int, code: str, value: float) -> None:
    payload = struct.pack(f"<{code}", value)
    assert metadata_of(number, payload) == value
    assert metadata_of(ARRAY, gguf_array(number, [payload] * 3)) == [value] * 3


@pytest.mark.parametrize("value", [0.1, 1e-5, 1e-45, 3.4028235e38, -0.0, 16777216.0])
def test_float32_is_its_shortest_decimal(value: float) -> None:
    found = metadata_of(FLOAT32, struct.pack("<f", value))
    assert repr(found) == repr(value)


def test_what_json_cannot_say() -> None:
    for code, number in (("f", FLOAT32), ("d", FLOAT64)):
        for value in ("nan", "inf", "-inf"):
            assert metadata_of(number, struct.pack(f"<{code}", float(value))) == value
    assert metadata_of(STRING, gguf_string(b"a\xffb")) == "a\N{REPLACEMENT CHARACTER}b"
    assert metadata_of(BOOL, b"\2") is True


def test_what_is_too_long_for_the_catalog() -> None:
    limit = limits.METADATA_MAX_STRING
    assert metadata_of(STRING, gguf_string("x" * limit)) == "x" * limit
    long = gguf_string("x" * (limit + 1))
    assert metadata_of(STRING, long) == {"type": "string", "length": limit + 1}
    assert metadata_of(STRING, long, full=True) == "x" * (limit + 1)
    most = limits.METADATA_MAX_ARRAY
    assert metadata_of(ARRAY, gguf_array(UINT8, [b"\1"] * most)) == [1] * most
    longer = gguf_array(UINT8, [b"\1"] * (most + 1))
    assert metadata_of(ARRAY, longer) == {"type": "array", "of": "uint8", "length": most + 1}
    assert metadata_of(ARRAY, longer, full=True) == [1] * (most + 1)
    mixed = gguf_array(STRING, [gguf_string("a"), long])
    assert metadata_of(ARRAY, mixed) == ["a", {"type": "string", "length": limit + 1}]
    nested = gguf_array(ARRAY, [gguf_array(UINT32, [u32(1)])] * (most + 1))
    assert metadata_of(ARRAY, nested) == {"type": "array", "of": "array", "length": most + 1}


def test_the_catalog_takes_only_so_much_metadata() -> None:
    text = gguf_string("x" * limits.METADATA_MAX_STRING)
    pairs = [gguf_pair(f"k{index:03d}", STRING, text) for index in range(300)]
    values = list(described(gguf_file(pairs)).metadata.values())
    kept = limits.METADATA_MAX_TOTAL // limits.METADATA_MAX_STRING
    assert all(isinstance(value, str) for value in values[:kept])
    assert all(value == {"type": "string", "length": 4096} for value in values[kept:])


@pytest.mark.parametrize("lengths", [[0] * 500, [300] * 1000, [1, 400_000, 2] * 70, [262_144 - 8] * 70])
def test_strings_are_walked_over_windows(lengths: list[int]) -> None:
    """Lengths around the cursor's window, and the key behind shows that the walk ended right."""
    strings = gguf_array(STRING, [gguf_string(b"y" * length) for length in lengths])
    pairs = [gguf_pair("a", ARRAY, strings), gguf_pair("behind", UINT32, u32(42))]
    metadata = described(gguf_file(pairs)).metadata
    assert metadata["a"]["length"] == len(lengths)
    assert metadata["behind"] == 42


def test_alignments() -> None:
    for alignment in (1, 2, 8, 64, limits.GGUF_MAX_ALIGNMENT):
        pairs = [gguf_pair("general.alignment", UINT32, u32(alignment))]
        tensors = [GgufTensor("a", (3,)), GgufTensor("b", (5,))]
        member = described(gguf_file(pairs, tensors, alignment=alignment))
        assert [tensor.extent.offset % alignment for tensor in member.tensors] == [0, 0]


def test_no_tensors_needs_no_padding() -> None:
    member = described(gguf_file([gguf_pair("k", UINT8, b"\1")]))
    assert member.tensors == ()
    assert member.verbatim() == [Extent(0, member.size)]
    assert described(gguf_file()).size == 24


def test_gaps_order_and_tail() -> None:
    """Bytes between and behind tensors are verbatim, and the header's order is not the file's."""
    tensors = [GgufTensor("late", (4,), offset=128), GgufTensor("early", (4,), offset=32)]
    data = gguf_file([], tensors, tail=b"tail bytes")
    member = described(data)
    start = member.size - 10 - 144
    assert [tensor.name for tensor in member.tensors] == ["early", "late"]
    assert member.verbatim() == [Extent(0, start + 32), Extent(start + 48, 80), Extent(start + 144, 10)]


def test_scalars_and_empty_tensors() -> None:
    tensors = [
        GgufTensor("scalar", (), F32),
        GgufTensor("none", (32, 0), Q4_0),
        GgufTensor("no columns", (0, 3), Q4_0, data=b""),
        GgufTensor("after", (2,), F16),
        GgufTensor("last", (0,), F32),
    ]
    member = described(gguf_file([], tensors))
    by_name = {tensor.name: tensor for tensor in member.tensors}
    assert (by_name["scalar"].shape, by_name["scalar"].row_size) == ((), 4)
    assert (by_name["none"].shape, by_name["none"].extent.size, by_name["none"].row_size) == ((0, 32), 0, 18)
    assert (by_name["no columns"].extent.size, by_name["no columns"].row_size) == (0, 0)
    assert by_name["last"].extent.size == 0
    assert [tensor.name for tensor in member.tensors][3] == "after"
    assert sum(extent.size for extent in member.verbatim()) == member.size - 4 - 4


def test_the_last_empty_tensor_may_lie_at_the_end_but_not_behind() -> None:
    tensors = [GgufTensor("a", (8,)), GgufTensor("empty", (0,))]
    assert described(gguf_file([], tensors)).tensors[1].extent.size == 0
    with pytest.raises(GgufError, match="past the end"):
        described(gguf_file([], [GgufTensor("a", (7,)), GgufTensor("empty", (0,), offset=32)])[:-4])


@pytest.mark.parametrize("number", [4, 31, 38, 43, 1000, (1 << 32) - 1])
def test_unknown_types_reach_to_the_next_tensor(number: int) -> None:
    tensors = [
        GgufTensor("x", (5, 2), number, data=bytes(70)),
        GgufTensor("empty", (5, 0), number, data=b""),
        GgufTensor("known", (4,)),
        GgufTensor("y", (3,), number, data=bytes(11)),
    ]
    member = described(gguf_file([], tensors, tail=b"123"))
    found = {tensor.name: tensor for tensor in member.tensors}
    assert found["x"].dtype == f"GGML_{number}"
    assert (found["x"].shape, found["x"].extent.size, found["x"].row_size) == ((2, 5), 96, 96)
    assert found["empty"].extent.size == 0
    assert (found["y"].extent.size, found["y"].row_size) == (14, 14)
    assert found["y"].extent.end == member.size


def test_long_and_empty_names() -> None:
    tensors = [GgufTensor("", (1,)), GgufTensor("\N{SNOWMAN}" * 100, (1,)), GgufTensor("a\0b", (1,))]
    assert {t.name for t in described(gguf_file([], tensors)).tensors} == {t.name for t in tensors}


@pytest.mark.parametrize("path", sorted((SOURCES / "gguf").glob("*.gguf")), ids=lambda path: path.stem)
def test_fixtures_are_covered_by_tensors_and_verbatim(path: Path) -> None:
    data = path.read_bytes()
    member = described(data)
    covered = sorted(
        (*member.verbatim(), *(tensor.extent for tensor in member.tensors)), key=lambda part: part.offset
    )
    assert b"".join(data[part.offset : part.end] for part in covered) == data
    assert all(tensor.extent.size % tensor.row_size == 0 for tensor in member.tensors)
