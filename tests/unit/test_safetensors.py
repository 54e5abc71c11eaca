"""safetensors files: what must be taken, and what must be refused naming the rule that is broken."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from qzf import limits
from qzf.adapters import describe, read_metadata
from qzf.adapters.safetensors import DTYPE_BITS
from qzf.errors import SafetensorsError
from qzf.model import Extent, MemberSpec
from qzf.storage import MemorySource
from tests.helpers import SOURCES, entry, safetensors_file, small_safetensors, u64

NAME = "m.safetensors"
HEAD = 8
OK = entry("F32", (2,), 0, 8)


def described(data: bytes) -> MemberSpec:
    return describe(MemorySource(data, "dir/" + NAME), NAME)


def test_small_file() -> None:
    data = small_safetensors()
    member = described(data)
    start = len(data) - 48
    assert (member.name, member.kind, member.size) == (NAME, "safetensors", len(data))
    assert [(t.name, t.dtype, t.shape, t.extent, t.row_size) for t in member.tensors] == [
        ("a", "F32", (2, 3), Extent(start, 24), 12),
        ("empty", "I8", (0, 5), Extent(start + 24, 0), 5),
        ("b", "BF16", (3, 4), Extent(start + 24, 24), 8),
    ]
    assert member.verbatim() == [Extent(0, start)]
    assert member.metadata == {"format": "pt"}


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype(dtype: str) -> None:
    """Rows of 4 elements are whole bytes in every dtype; of 1 and 3 rows of F4 and F6 one is not."""
    size = DTYPE_BITS[dtype] * 12 // 8
    for shape in ((3, 4), (4, 3), (12,)):
        member = described(safetensors_file({"t": entry(dtype, shape, 0, size)}, bytes(size)))
        bits = DTYPE_BITS[dtype] * shape[-1]
        assert member.tensors[0].row_size == (bits // 8 if bits % 8 == 0 else size)
        assert member.tensors[0].extent.size == size


def test_scalars_empties_and_nothing() -> None:
    scalar = described(safetensors_file({"s": entry("F64", (), 0, 8)}, bytes(8))).tensors[0]
    assert (scalar.shape, scalar.row_size) == ((), 8)
    empty = described(safetensors_file({"e": entry("F4", (3, 0), 0, 0)})).tensors[0]
    assert (empty.extent.size, empty.row_size) == (0, 0)
    assert described(safetensors_file({})).tensors == ()
    assert described(safetensors_file("{}      ")).size == 16


def test_many_empty_tensors_at_one_place() -> None:
    """Sorting by begin and end keeps the empty ones apart from what starts where they lie."""
    header = {
        "full": entry("U8", (4,), 0, 4),
        "z": entry("U8", (0,), 4, 4),
        "a": entry("U8", (0,), 0, 0),
        "b": entry("U8", (0,), 0, 0),
    }
    assert [t.name for t in described(safetensors_file(header, bytes(4))).tensors] == ["a", "b", "full", "z"]


def test_what_the_rust_code_lets_pass() -> None:
    assert described(safetensors_file({"__metadata__": None, "t": OK}, bytes(8))).metadata == {}
    assert len(described(safetensors_file({"t": {**OK, "more": [1, {}]}}, bytes(8))).tensors) == 1
    assert len(described(safetensors_file(json.dumps({"t": OK}) + " \n\t\r", bytes(8))).tensors) == 1
    assert described(safetensors_file({"": OK}, bytes(8))).tensors[0].name == ""
    escaped = '{"\\ud83d\\ude00": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}}'
    assert described(safetensors_file(escaped, b"x")).tensors[0].name == "\N{GRINNING FACE}"


def test_long_metadata_stays_in_the_file() -> None:
    long = "ä" * limits.METADATA_MAX_STRING
    metadata = {"long": long, **{f"k{index}": "x" * 4096 for index in range(300)}}
    data = safetensors_file({"__metadata__": metadata})
    short = described(data).metadata
    assert short["long"] == {"type": "string", "length": 2 * limits.METADATA_MAX_STRING}
    assert short["k255"] == "x" * 4096
    assert short["k256"] == {"type": "string", "length": 4096}
    assert read_metadata(MemorySource(data, NAME)) == metadata


def raw(text: str) -> bytes:
    return safetensors_file(text)


def tensor(**changes: Any) -> bytes:
    return safetensors_file({"t": {**OK, **changes}}, bytes(8))


#: name: (file, part of the message, offset or None where it is the tensor's name in the header).
CASES: dict[str, tuple[bytes, str, int]] = {
    "empty": (b"", "the file has 0 bytes", 0),
    "short": (bytes(7), "a header length takes 8", 0),
    "header too long": (u64(100_000_001) + b"{}", "limit is 100000000 bytes", 0),
    "header of 2**64 - 1": (u64((1 << 64) - 1) + b"{}", "limit is 100000000", 0),
    "header past the file": (u64(3) + b"{}", "3 bytes long, the file has 2 more", 0),
    "no header": (u64(0), "does not begin with '{'", HEAD),
    "leading space": (raw(" {}"), "does not begin with '{'", HEAD),
    "a list": (raw("[]"), "does not begin with '{'", HEAD),
    "not UTF-8": (safetensors_file(b'{"\xff":1}'), "not UTF-8", HEAD + 2),
    "overlong UTF-8": (safetensors_file(b'{"\xc0\x80":1}'), "not UTF-8", HEAD + 2),
    "surrogate in UTF-8": (safetensors_file(b'{"\xed\xa0\x80":1}'), "not UTF-8", HEAD + 2),
    "not JSON": (raw('{"t": }'), "not JSON", HEAD + 6),
    "offset in bytes": (raw('{"ä": }'), "not JSON", HEAD + 7),
    "cut off": (raw('{"t": {'), "not JSON", HEAD + 7),
    "NUL padding": (raw("{}\0\0"), "not JSON", HEAD + 2),
    "control character": (raw('{"a\tb": 1}'), "not JSON", HEAD + 3),
    "two values": (raw("{}{}"), "not JSON", HEAD + 2),
    "NaN": (raw('{"t": NaN}'), "NaN is no JSON value", HEAD),
    "nesting bomb": (raw('{"t":' + "[" * 200_000), "nests JSON too deeply", HEAD),
    "object bomb": (raw('{"t":' * 200_000), "nests JSON too deeply", HEAD),
    "huge integer": (raw('{"t":' + "9" * 5000 + "}"), "a number that cannot be", HEAD),
    "too many values": (raw('{"t":[' + "1," * (1 << 22) + "1]}"), "JSON values, the limit", HEAD),
    "key twice": (raw('{"t":1,"t":2}'), "'t' occurs twice", HEAD + 7),
    "field twice": (raw('{"t":{"dtype":"U8","dtype":"U8"}}'), "'dtype' occurs twice", HEAD + 19),
    "metadata twice": (raw('{"__metadata__":{},"__metadata__":{}}'), "occurs twice", HEAD + 19),
    "metadata key twice": (raw('{"__metadata__":{"a":"","a":""}}'), "'a' occurs twice", HEAD + 24),
    "metadata list": (raw('{"__metadata__":[]}'), "no map of strings", HEAD + 1),
    "metadata number": (raw('{"__metadata__":{"a":1}}'), "no map of strings", HEAD + 1),
    "metadata surrogate": (raw('{"__metadata__":{"a":"\\ud800"}}'), "surrogate", HEAD + 1),
    "name surrogate": (raw('{"\\udc00":{}}'), "surrogate", HEAD),
    "no object": (raw('{"t":[]}'), "no JSON object", HEAD + 1),
    "no dtype": (raw('{"t":{"shape":[],"data_offsets":[0,0]}}'), "no 'dtype'", HEAD + 1),
    "no shape": (raw('{"t":{"dtype":"U8","data_offsets":[0,0]}}'), "no 'shape'", HEAD + 1),
    "no offsets": (raw('{"t":{"dtype":"U8","shape":[0]}}'), "no 'data_offsets'", HEAD + 1),
    "dtype unknown": (tensor(dtype="F128"), "'F128' is unknown; --opaque", HEAD + 1),
    "dtype number": (tensor(dtype=7), "dtype 7 is unknown", HEAD + 1),
    "dtype list": (tensor(dtype=["F32"]), "is unknown", HEAD + 1),
    "shape string": (tensor(shape="2"), "no list of sizes", HEAD + 1),
    "shape negative": (tensor(shape=[-2, -1]), "no list of sizes", HEAD + 1),
    "shape float": (tensor(shape=[2.0]), "no list of sizes", HEAD + 1),
    "shape bool": (tensor(shape=[2, True]), "no list of sizes", HEAD + 1),
    "shape 2**63": (tensor(shape=[1 << 63]), "no list of sizes", HEAD + 1),
    "shape null": (tensor(shape=None), "no list of sizes", HEAD + 1),
    "65 dimensions": (tensor(shape=[2] + [1] * 64), "65 dimensions", HEAD + 1),
    "product 2**64": (tensor(shape=[1 << 32, 1 << 32]), "overflows", HEAD + 1),
    "bits 2**63": (tensor(shape=[1 << 57, 2]), "overflows", HEAD + 1),
    "empty but overflowing": (tensor(shape=[0, 1 << 40, 1 << 40]), "overflows", HEAD + 1),
    "offsets missing": (tensor(data_offsets=[0]), "no pair of offsets", HEAD + 1),
    "offsets three": (tensor(data_offsets=[0, 8, 8]), "no pair of offsets", HEAD + 1),
    "offsets object": (tensor(data_offsets={"0": 0, "1": 8}), "no pair of offsets", HEAD + 1),
    "offsets negative": (tensor(data_offsets=[-8, 0]), "no pair of offsets", HEAD + 1),
    "offsets float": (tensor(data_offsets=[0, 8.0]), "no pair of offsets", HEAD + 1),
    "offsets 2**64": (tensor(data_offsets=[1 << 64, (1 << 64) + 8]), "no pair of offsets", HEAD + 1),
    "offsets backwards": (tensor(data_offsets=[8, 0]), "out of order", HEAD + 1),
    "offsets past the end": (tensor(data_offsets=[0, 9]), "end at 9, the byte buffer has 8", HEAD + 1),
    "size too small": (tensor(shape=[1]), "span 8 bytes, its dtype and shape need 4", HEAD + 1),
    "size too large": (tensor(shape=[3]), "span 8 bytes, its dtype and shape need 12", HEAD + 1),
    "half a byte": (tensor(dtype="F4", shape=[15]), "60 bits of F4 are no whole number", HEAD + 1),
    "F6 not whole": (tensor(dtype="F6_E2M3", shape=[3]), "18 bits of F6_E2M3", HEAD + 1),
    "hole at the start": (tensor(shape=[1], data_offsets=[4, 8]), "leaves a hole", HEAD + 1),
    "overlap": (
        safetensors_file({"t": OK, "u": entry("F32", (1,), 4, 8)}, bytes(8)),
        "begins at 4 of the byte buffer and overlaps",
        HEAD + len('{"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '),
    ),
    "same place": (
        safetensors_file({"t": OK, "u": OK}, bytes(8)),
        "overlaps",
        HEAD + len('{"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '),
    ),
    "hole": (
        safetensors_file({"t": OK, "u": entry("F32", (1,), 12, 16)}, bytes(16)),
        "leaves a hole before it, which ends at 8",
        HEAD + len('{"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '),
    ),
    "empty in the middle": (
        safetensors_file({"t": OK, "u": entry("F32", (0,), 4, 4)}, bytes(8)),
        "overlaps",
        HEAD + len('{"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '),
    ),
    "trailing bytes": (safetensors_file("{}", b"x"), "end at 10, the file has 11", HEAD + 2),
    "GGUF inside": (b"GGUF\3\0\0\0" + bytes(16), "is a GGUF file", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile(case: str) -> None:
    data, message, offset = CASES[case]
    tracemalloc.start()
    try:
        with pytest.raises(SafetensorsError) as caught:
            described(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message in caught.value.message
    assert (caught.value.file, caught.value.offset) == ("dir/" + NAME, offset)
    str(caught.value).encode()
    # Header bytes, its text, and what the JSON scanner held when it stopped.
    assert peak < 200_000 + 20 * len(data)


def test_truncation_at_every_prefix() -> None:
    data = small_safetensors()
    for length in range(len(data)):
        with pytest.raises(SafetensorsError) as caught:
            described(data[:length])
        assert caught.value.offset is not None


def test_values_at_the_limit_stay_affordable() -> None:
    """The densest header allowed, in an entry's unknown field, costs what limits.py says."""
    values = limits.SAFETENSORS_MAX_VALUES // 2 - 10
    header = '{"t":{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":[' + "[]," * values + "[]]}}"
    tracemalloc.start()
    try:
        assert len(described(safetensors_file(header, b"x")).tensors) == 1
        assert tracemalloc.get_traced_memory()[1] < 400 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "path", sorted((SOURCES / "safetensors").rglob("*.safetensors")), ids=lambda path: path.stem
)
def test_fixtures_are_covered_by_tensors_and_header(path: Path) -> None:
    member = described(path.read_bytes())
    assert [gap.offset for gap in member.verbatim()] == [0]
    assert sum(t.extent.size for t in member.tensors) + member.verbatim()[0].size == member.size
    assert all(t.extent.size % t.row_size == 0 for t in member.tensors if t.extent.size)
