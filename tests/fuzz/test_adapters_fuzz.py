"""Mutated headers: only typed errors come out, and nothing large is allocated on the way."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qzf.adapters import describe, read_metadata
from qzf.errors import QzfError
from qzf.model import MemberSpec
from qzf.storage import MemorySource
from tests.helpers import (
    ARRAY,
    STRING,
    GgufTensor,
    gguf_array,
    gguf_file,
    gguf_pair,
    gguf_string,
    small_gguf,
    small_safetensors,
    u64,
)

GGUF = small_gguf()
SAFETENSORS = small_safetensors()

#: Bytes that a header of some KiB may make the parser hold: the windows, Python objects, an error.
BOUND = 1 << 20

#: What counts and lengths are set to: small, past the file, at the edges of signed and unsigned.
NASTY = st.one_of(
    st.integers(0, 300), st.integers(0, (1 << 64) - 1), st.sampled_from([(1 << k) - 1 for k in range(8, 65)])
)


def survives(data: bytes, name: str) -> None:
    """Describe the file: it works or is a QzfError with its place, and memory stays in bounds."""
    tracemalloc.start()
    try:
        for read in (described, read_metadata):
            try:
                found = read(MemorySource(data, name))
            except QzfError as error:
                assert error.file == name
                assert error.offset is not None
                assert 0 <= error.offset <= len(data)
                str(error).encode()
            else:
                check(found, len(data))
        assert tracemalloc.get_traced_memory()[1] < BOUND
    finally:
        tracemalloc.stop()


def described(source: MemorySource) -> MemberSpec:
    return describe(source, source.name)


def check(found: MemberSpec | dict[str, Any], size: int) -> None:
    """What came out is what the container may rely on."""
    if isinstance(found, dict):
        json.dumps(found, allow_nan=False).encode()
        return
    tensors = found.tensors
    assert sum(extent.size for extent in found.verbatim()) + sum(t.extent.size for t in tensors) == size
    at = 0
    for tensor in tensors:
        assert at <= tensor.extent.offset <= tensor.extent.end <= size
        assert tensor.extent.size == 0 or tensor.extent.size % tensor.row_size == 0
        at = tensor.extent.end
    assert len({tensor.name for tensor in tensors}) == len(tensors)
    json.dumps(dict(found.metadata), allow_nan=False).encode()


def mutated(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for at, value in changes:
        out[at % len(out)] = value
    return bytes(out)


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6)


@pytest.mark.parametrize("name", ["f.gguf", "f.safetensors", "f"])
@given(data=st.binary(max_size=200))
@example(data=b"")
def test_any_bytes(name: str, data: bytes) -> None:
    survives(data, name)
    survives(GGUF[:24] + data, name)
    survives(u64(len(data)) + data, name)


@given(CHANGES)
def test_gguf_bytes(changes: list[tuple[int, int]]) -> None:
    survives(mutated(GGUF, changes), "f.gguf")


@given(st.integers(0, len(GGUF) - 300), NASTY, st.sampled_from([4, 8]))
def test_gguf_numbers(at: int, value: int, width: int) -> None:
    number = (value & ((1 << (8 * width)) - 1)).to_bytes(width, "little")
    survives(GGUF[:at] + number + GGUF[at + width :], "f.gguf")


@given(st.integers(0, len(GGUF)), st.integers(0, len(GGUF)), st.binary(max_size=20))
def test_gguf_splices(start: int, end: int, between: bytes) -> None:
    survives(GGUF[:start] + between + GGUF[end:], "f.gguf")


@given(
    st.lists(st.tuples(st.lists(NASTY, max_size=5), st.integers(0, 50), NASTY, st.booleans()), max_size=4),
    st.sampled_from([1, 8, 32]),
)
def test_gguf_tensor_entries(entries: list[tuple[list[int], int, int, bool]], unit: int) -> None:
    """Any dimensions, types and offsets, the latter mostly aligned."""
    tensors = [
        GgufTensor(f"t{index}", tuple(ne), number, data=bytes(100), offset=min(at * unit, (1 << 64) - 1))
        if placed
        else GgufTensor(f"t{index}", tuple(ne), number, data=bytes(100))
        for index, (ne, number, at, placed) in enumerate(entries)
    ]
    survives(gguf_file([], tensors), "f.gguf")


def test_gguf_every_length_is_every_nasty_number() -> None:
    """All positions of a small header times the numbers that overflow things, without chance."""
    header = gguf_file(
        [gguf_pair("k", ARRAY, gguf_array(STRING, [gguf_string("ab")] * 2))], [GgufTensor("t", (3,))]
    )
    for at in range(len(header) - 8):
        for value in (0, 1 << 31, (1 << 32) - 1, 1 << 61, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            survives(header[:at] + u64(value) + header[at + 8 :], "f.gguf")


@given(CHANGES)
def test_safetensors_bytes(changes: list[tuple[int, int]]) -> None:
    survives(mutated(SAFETENSORS, changes), "f.safetensors")


@given(
    st.integers(8, len(SAFETENSORS)),
    st.integers(8, len(SAFETENSORS)),
    st.text('{}[]",:0129eE-.\\u ', max_size=8),
)
def test_safetensors_splices(start: int, end: int, between: str) -> None:
    body = SAFETENSORS[8:start] + between.encode() + SAFETENSORS[end:]
    for length in (len(body), max(0, len(body) - 48)):
        survives(u64(length) + body, "f.safetensors")
