"""The ``strings`` transform: lengths and text apart, and back."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from qzf.container.payload import decode, encode, no_table
from qzf.errors import ChunkError
from qzf.format.ids import Transform
from qzf.ops.recipe import LEVELS
from qzf.transforms.strings import split_strings
from tools.vectors.builder import leb128
from tools.vectors.parts import raw, streams_payload, zstd


def joined(items: Sequence[bytes]) -> bytes:
    return b"".join(len(item).to_bytes(8, "little") + item for item in items)


def decoded(payload: bytes, size: int, layout: int = 0) -> bytes:
    return bytes(decode(Transform.STRINGS, layout, memoryview(payload), size, no_table))


CASES = {
    "one": [b"token"],
    "empty": [b""],
    "only empty": [b""] * 100,
    "empty between": [b"", b"a", b"", b"", b"bc", b""],
    "edges": [bytes([i]) * size for i, size in enumerate((0, 1, 127, 128, 16_383, 16_384, 2**21 - 1, 2**21))],
    "no text": [b"\xff\x00" * 70, b"\x80" * 200],
    "words": [random.Random(i).randbytes(i % 13) for i in range(3000)],
}


@pytest.mark.parametrize("items", CASES.values(), ids=CASES)
def test_apart_and_together(items: list[bytes]) -> None:
    data = joined(items)
    apart = split_strings(data)
    assert apart == (b"".join(leb128(len(item)) for item in items), b"".join(items))
    assert decoded(streams_payload([raw(stream) for stream in apart]), len(data)) == data
    assert decoded(streams_payload([zstd(stream) for stream in apart]), len(data)) == data


@pytest.mark.parametrize("level", LEVELS)
def test_payloads(level: str) -> None:
    data = joined([each.hex().encode() for each in CASES["words"]])
    coded = encode(data, None, LEVELS[level], strings=True)
    assert coded.transform == Transform.STRINGS
    assert coded.size < 0.95 * encode(data, None, LEVELS[level]).size
    body = b"".join(bytes(part) for part in coded.parts)
    out = bytearray(len(data))
    decode(coded.transform, coded.layout, memoryview(body), len(data), no_table, memoryview(out))
    assert out == data


def test_no_strings() -> None:
    data = joined([b"abc", b"", b"defghij"])
    for cut in range(1, len(data)):
        if cut not in (11, 19):
            assert split_strings(data[:cut]) is None
    for length in (8, 2**28, 2**32 + 3, 2**63, 2**64 - 11, 2**64 - 8, 2**64 - 1):
        assert split_strings(length.to_bytes(8, "little") + b"abcdefg") is None
        assert split_strings(data + length.to_bytes(8, "little") + b"abcdefg") is None
    assert split_strings(data + bytes(7)) is None


@pytest.mark.parametrize("level", LEVELS)
def test_bytes_that_are_no_strings_are_left_whole(level: str) -> None:
    data = joined([b"token"] * 1000)[3:]
    coded = encode(data, None, LEVELS[level], strings=True)
    assert coded.transform == Transform.NONE
    body = b"".join(bytes(part) for part in coded.parts)
    assert decode(coded.transform, 0, memoryview(body), len(data), no_table) == data


@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_small_chunks(size: int) -> None:
    """Too small for a length, for one and no text, and for one and a byte."""
    if size == 8:
        assert decoded(streams_payload([raw(b"\0"), raw(b"")]), size) == bytes(8)
    for lengths, text in ((b"", b""), (b"\0\0", b""), (b"\1", b""), (b"\0", b"a"), (b"\2", b"ab")):
        with pytest.raises(ChunkError):
            decoded(streams_payload([raw(lengths), raw(text)]), size)


def test_a_layout_is_refused() -> None:
    with pytest.raises(ChunkError, match="layout"):
        decoded(streams_payload([raw(b"\3"), raw(b"abc")]), 11, layout=7)


def test_damage_never_gives_other_bytes_without_an_error() -> None:
    """Of the same size, what the streams say is what comes out."""
    draw, items = random.Random(1), CASES["words"][:60]
    lengths, text, size = b"".join(leb128(len(each)) for each in items), b"".join(items), len(joined(items))
    for _ in range(2000):
        damaged = bytearray(lengths)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        with pytest.raises(ChunkError):
            decoded(streams_payload([raw(bytes(damaged)), raw(text)]), size)
