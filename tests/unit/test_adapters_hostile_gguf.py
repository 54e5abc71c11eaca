"""GGUF files that break a rule: each ends in a GgufError that names the rule and the offset.

Several are the inputs of known attacks on GGUF parsers: counts and lengths past the file or overflowing
(CVE-2024-21802, CVE-2024-23605, CVE-2026-27940, CVE-2026-33298).
"""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from qzf import limits
from qzf.adapters import describe, read_metadata
from qzf.errors import GgufError
from qzf.storage import FileSource, MemorySource
from tests.helpers import (
    ARRAY,
    F32,
    Q4_0,
    STRING,
    UINT8,
    UINT32,
    UINT64,
    GgufTensor,
    gguf_array,
    gguf_file,
    gguf_pair,
    gguf_string,
    small_gguf,
    u32,
    u64,
)

HEAD = 24
HUGE = (1 << 64) - 1
K = gguf_string("k")
#: Where the value of a first pair with a key of one letter starts.
VALUE = HEAD + 8 + 1 + 4
#: Where things of a first tensor with a name of one letter and one dimension lie.
INFO = HEAD
DIMS = INFO + 8 + 1
TYPE = DIMS + 4 + 8
OFFSET = TYPE + 4


def one(number: int, payload: bytes) -> bytes:
    return gguf_file([gguf_pair("k", number, payload)])


def aligned(number: int, payload: bytes) -> bytes:
    return gguf_file([gguf_pair("general.alignment", number, payload)])


def nested(depth: int) -> bytes:
    payload = gguf_array(UINT8, [b"\1"])
    for _ in range(depth - 1):
        payload = gguf_array(ARRAY, [payload])
    return payload


ALIGNMENT_AT = HEAD + 8 + len("general.alignment") + 4
SECOND = HEAD + len(gguf_pair("k", UINT8, b"\1"))
SHAPE_2 = [GgufTensor("t", (1, 1), data=b"")]

CASES = {
    "empty": (b"", "does not start with the magic", 0),
    "other magic": (b"GGML" + bytes(40), "does not start with the magic", 0),
    "short": (b"GGUF\3\0", "ends inside the version", 4),
    "version 0": (gguf_file(version=0), "version 0 is not supported", 4),
    "version 1": (gguf_file(version=1), "version 1 is not supported", 4),
    "version 4": (gguf_file(version=4), "version 4 is not supported", 4),
    "big-endian": (b"GGUF" + bytes((0, 0, 0, 3)) + bytes(16), "big-endian", 4),
    "tensors past any limit": (gguf_file(counts=(HUGE, None)), "limit is 1048576", 8),
    "tensors past the file": (gguf_file(counts=(1 << 20, None)), "more than the 0 bytes", 8),
    "pairs past any limit": (gguf_file(counts=(None, 1 << 63)), "limit is 1048576", 16),
    "pairs past the file": (gguf_file([gguf_pair("k", 0, b"\1")], counts=(0, 2)), "more than", 8),
    "key past the file": (gguf_file([u64(7) + b"k" + bytes(5)]), "a key is 7 bytes long", HEAD),
    "key of 2**64 - 1": (gguf_file([u64(HUGE) + b"k" + bytes(5)]), f"a key is {HUGE} bytes", HEAD),
    "key too long": (one(STRING, b"")[:HEAD] + u64(70_000) + bytes(70_005), "limit is 65535", HEAD),
    "key empty": (gguf_file([gguf_pair("", UINT32, u32(1))]), "a key is empty", HEAD),
    "key not UTF-8": (gguf_file([gguf_pair(b"ab\xff", UINT8, b"\1")]), "a key is not UTF-8", HEAD + 10),
    "key twice": (gguf_file([gguf_pair("k", UINT8, b"\1")] * 2), "'k' occurs twice", SECOND),
    "value type": (one(13, bytes(8)), "unknown value type 13", VALUE - 4),
    "value cut off": (one(UINT64, bytes(7)), "ends inside the value of 'k'", VALUE),
    "string past the file": (one(STRING, u64(5) + b"abcd"), "is 5 bytes long, the file has 4 more", VALUE),
    "string of 2**63": (one(STRING, u64(1 << 63)), f"is {1 << 63} bytes long", VALUE),
    "array element type": (one(ARRAY, gguf_array(99, [])), "unknown value type 99", VALUE),
    "array past the file": (one(ARRAY, gguf_array(UINT32, [bytes(4)] * 2, 3)), "3 elements", VALUE + 4),
    "array overflow": (one(ARRAY, gguf_array(UINT64, [], 1 << 61)), f"{1 << 61} elements", VALUE + 4),
    "strings overflow": (one(ARRAY, gguf_array(STRING, [], HUGE)), f"{HUGE} elements", VALUE + 4),
    "arrays overflow": (one(ARRAY, gguf_array(ARRAY, [], 1 << 60)), f"{1 << 60} elements", VALUE + 4),
    "string in a short array": (
        one(ARRAY, gguf_array(STRING, [gguf_string("a"), u64(HUGE)])),
        "a string in the value of 'k' is",
        VALUE + 12 + 9,
    ),
    "string in a long array": (
        one(ARRAY, gguf_array(STRING, [gguf_string("a")] * 80 + [u64(9)])),
        "a string in the value of 'k' is 9 bytes long, the file has 0 more",
        VALUE + 12 + 80 * 9,
    ),
    "huge string in a long array": (
        one(ARRAY, gguf_array(STRING, [gguf_string("a")] * 80 + [u64(HUGE)] + [u64(0)] * 9)),
        f"is {HUGE} bytes long",
        VALUE + 12 + 80 * 9,
    ),
    "last length of a long array": (
        one(ARRAY, gguf_array(STRING, [gguf_string(bytes(8))] * 80, 81) + b"\1\2\3"),
        "ends inside the length of a string in",
        VALUE + 12 + 80 * 16,
    ),
    "nesting": (one(ARRAY, nested(5)), "nests arrays more than 4 deep", VALUE + 12 * 3 + 4),
    "array bomb": (
        one(ARRAY, gguf_array(ARRAY, [bytes(13 << 20)], (1 << 20) + 1)),
        "more than 1048576 arrays",
        VALUE + 4,
    ),
    "alignment 0": (aligned(UINT32, u32(0)), "no power of two", ALIGNMENT_AT),
    "alignment 33": (aligned(UINT32, u32(33)), "no power of two", ALIGNMENT_AT),
    "alignment 2**31": (aligned(UINT32, u32(1 << 31)), "limit is 1048576", ALIGNMENT_AT),
    "alignment uint64": (aligned(UINT64, u64(32)), "must be a uint32, it is a uint64", ALIGNMENT_AT),
    "alignment string": (aligned(STRING, gguf_string("32")), "must be a uint32", ALIGNMENT_AT),
    "alignment array": (aligned(ARRAY, gguf_array(UINT32, [u32(32)])), "must be a uint32", ALIGNMENT_AT),
    "name past the file": (
        gguf_file(tensors=[GgufTensor("t", (1,))])[:HEAD] + u64(99) + bytes(30),
        "a tensor's name is 99 bytes long",
        INFO,
    ),
    "name not UTF-8": (gguf_file(tensors=[GgufTensor(b"\x80", (1,))]), "name is not UTF-8", INFO + 8),
    "5 dimensions": (gguf_file(tensors=[GgufTensor("t", (1,) * 5, data=b"")]), "5 dimensions", DIMS),
    "2**32 - 1 dimensions": (
        gguf_file(tensors=SHAPE_2)[:DIMS] + u32(0xFFFFFFFF) + bytes(40),
        "4294967295 dimensions",
        DIMS,
    ),
    "dimension 2**63": (gguf_file(tensors=[GgufTensor("t", (1 << 63,), data=b"")]), "overflows", DIMS),
    "product 2**64": (gguf_file(tensors=[GgufTensor("t", (1 << 32,) * 2, data=b"")]), "overflows", DIMS),
    "empty but overflowing": (
        gguf_file(tensors=[GgufTensor("t", (0, 1 << 62, 1 << 62), data=b"")]),
        "overflows",
        DIMS,
    ),
    "empty but overflowing in bytes": (
        gguf_file(tensors=[GgufTensor("t", (0, 1 << 60), data=b"")]),
        "overflows",
        DIMS,
    ),
    "bytes overflow": (
        gguf_file(tensors=[GgufTensor("t", (1 << 61,), F32, data=b"")]),
        "the size in bytes, 9223372036854775808, overflows",
        TYPE,
    ),
    "half a block": (gguf_file(tensors=[GgufTensor("t", (33,), Q4_0, data=b"")]), "blocks of 32", TYPE),
    "scalar block": (gguf_file(tensors=[GgufTensor("t", (), Q4_0, data=b"")]), "1 weights a row", DIMS + 4),
    "misaligned": (gguf_file(tensors=[GgufTensor("t", (1,), offset=16)]), "multiple of the align", OFFSET),
    "offset past the end": (gguf_file(tensors=[GgufTensor("t", (1,), offset=1 << 40)]), "past the", OFFSET),
    "offset 2**64 - 32": (gguf_file(tensors=[GgufTensor("t", (1,), offset=HUGE - 31)]), "past the", OFFSET),
    "data past the end": (gguf_file(tensors=[GgufTensor("t", (9,), data=bytes(32))]), "36 bytes", OFFSET),
    "unknown type without data": (
        gguf_file(tensors=[GgufTensor("t", (9,), 99, data=b"")]),
        "past the end",
        OFFSET,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile(case: str) -> None:
    data, message, offset = CASES[case]
    tracemalloc.start()
    try:
        with pytest.raises(GgufError) as caught:
            describe(MemorySource(data, "dir/h.gguf"), "h.gguf")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message in caught.value.message
    assert caught.value.offset == offset
    assert caught.value.file == "dir/h.gguf"
    assert str(caught.value).startswith("dir/h.gguf, offset ")
    assert peak < 2 << 20


def test_names_occur_once() -> None:
    tensors = [GgufTensor("same", (1,)), GgufTensor("same", (1,))]
    with pytest.raises(GgufError, match="two tensors have this name") as caught:
        describe(MemorySource(gguf_file(tensors=tensors)), "h.gguf")
    assert caught.value.tensor == "same"


@pytest.mark.parametrize("offsets", [(0, 0), (0, 32), (32, 0), (64, 32)])
@pytest.mark.parametrize("type_number", [F32, 99])
def test_overlap(offsets: tuple[int, int], type_number: int) -> None:
    """Known types that run into the next tensor; unknown ones end there, unless both start at one place."""
    first = GgufTensor("first", (16,), type_number, data=bytes(64), offset=offsets[0])
    second = GgufTensor("second", (16,), type_number, data=bytes(64), offset=offsets[1])
    source = MemorySource(gguf_file(tensors=[first, second]))
    if type_number == F32 or offsets[0] == offsets[1]:
        with pytest.raises(GgufError, match=r"overlaps the tensor '(first|second)'") as caught:
            describe(source, "h.gguf")
        assert caught.value.tensor in {"first", "second"}
    else:
        assert len(describe(source, "h.gguf").tensors) == 2


def test_truncation_at_every_prefix() -> None:
    """All of the small file is needed: it ends with its last tensor."""
    data = small_gguf()
    for length in range(len(data)):
        with pytest.raises(GgufError) as caught:
            describe(MemorySource(data[:length], "cut.gguf"), "cut.gguf")
        assert caught.value.file == "cut.gguf"
        assert caught.value.offset is not None
        # In full there is only one more way to read: metadata, which may be whole already.
        if length < 100:
            with pytest.raises(GgufError):
                read_metadata(MemorySource(data[:length], "cut.gguf"))
    assert len(describe(MemorySource(data), "whole.gguf").tensors) == 3


def _sparse(path: Path, head: bytes, size: int) -> FileSource:
    path.write_bytes(head)
    os.truncate(path, size)
    return FileSource(path)


def test_strings_are_bounded_in_number(tmp_path: Path) -> None:
    """A sparse file costs nothing to make; walking over its strings would take an hour."""
    count = limits.GGUF_MAX_STRINGS + 1
    head = one(ARRAY, gguf_array(STRING, [], count))
    with (
        _sparse(tmp_path / "h.gguf", head, 1 << 40) as source,
        pytest.raises(GgufError, match="more than 67108864 strings"),
    ):
        describe(source, "h.gguf")


def test_names_are_bounded_together(tmp_path: Path) -> None:
    """Keys of zero bytes that differ in length, about 72 MB together."""
    pairs = [gguf_pair(bytes(65_535 - index), UINT8, b"\1") for index in range(1100)]
    with pytest.raises(GgufError, match="more than 67108864 bytes together"):
        describe(MemorySource(gguf_file(pairs)), "h.gguf")


def test_full_metadata_is_bounded(tmp_path: Path) -> None:
    head = one(ARRAY, gguf_array(UINT8, [], limits.METADATA_MAX_FULL + 1))
    with _sparse(tmp_path / "h.gguf", head, 1 << 40) as source:
        assert describe(source, "h.gguf").metadata["k"]["length"] == limits.METADATA_MAX_FULL + 1
        with pytest.raises(GgufError, match="more than 67108864 bytes of metadata"):
            read_metadata(source)


def test_everything_in_the_catalog_is_json() -> None:
    json.dumps(dict(describe(MemorySource(small_gguf()), "m.gguf").metadata), allow_nan=False)
