"""Whatever the input and options: what was packed comes out again, and chunks are cut as the spec says."""

from __future__ import annotations

import hashlib
import io
import math
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qzf
from qzf import quant
from qzf.adapters.safetensors import DTYPE_BITS
from qzf.container.payload import Effort, decode, encode, no_table
from qzf.container.reader import ContainerReader
from qzf.limits import MIN_CHUNK
from qzf.model import Extent, MemberSpec, TensorSpec
from qzf.ops.recipe import LEVELS, cuts
from qzf.storage import MemorySource
from qzf.transforms import modeled
from qzf.transforms.layouts import BY_ID, BY_NAME, Layout
from qzf.transforms.modeled import ChunkModel, QuantChunks, SharedTable, ValuesChunks
from qzf.transforms.values_table import FORMS
from tests.helpers import (
    GgufTensor,
    entry,
    gguf_file,
    quant_chunks,
    quantized,
    safetensors_file,
    values_chunks,
    weights,
)
from tools.vectors.builder import noise, skewed

#: Lengths and contents of data, from incompressible to constant.
CONTENT = st.sampled_from([noise, skewed, lambda seed, size: seed.encode()[:1] * size])


@st.composite
def safetensors_files(draw: st.DrawFn) -> bytes:
    """A valid file with tensors of any dtype and shape, and header padding."""
    header: dict[str, Any] = {}
    data, make = bytearray(), draw(CONTENT)
    for i in range(draw(st.integers(0, 5))):
        dtype = draw(st.sampled_from(sorted(DTYPE_BITS)))
        shape = draw(st.lists(st.integers(0, 60), max_size=3))
        bits = math.prod(shape) * DTYPE_BITS[dtype]
        if bits % 8:
            continue
        header[f"t{i}"] = entry(dtype, shape, len(data), len(data) + bits // 8)
        data += make(f"{i}", bits // 8)
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2))
    return safetensors_file(header, bytes(data))


@st.composite
def gguf_files(draw: st.DrawFn) -> bytes:
    """A valid file with tensors of any type, padding between them, and bytes after the last."""
    make = draw(CONTENT)
    tensors = []
    for i in range(draw(st.integers(0, 4))):
        number = draw(st.sampled_from(sorted(quant.BY_NUMBER)))
        row = quant.BY_NUMBER[number].block * draw(st.integers(1, 3))
        shape = (row, *draw(st.lists(st.integers(1, 5), max_size=2)))
        size = (quant.BY_NUMBER[number].row_size(row) or 0) * math.prod(shape[1:])
        tensors.append(GgufTensor(f"t{i}", shape, number, make(f"{i}", size)))
    return gguf_file((), tensors, tail=draw(st.binary(max_size=40)))


NAMED = st.one_of(
    safetensors_files().map(lambda data: ("m.safetensors", data)),
    gguf_files().map(lambda data: ("m.gguf", data)),
    st.builds(lambda make, size: ("m.bin", make("m", size)), CONTENT, st.integers(0, 30_000)),
)
OPTIONS = st.fixed_dictionaries(
    {
        "level": st.sampled_from(["fast", "default"]),
        "chunk_size": st.sampled_from([MIN_CHUNK, 5001, 1 << 19]),
        "threads": st.integers(1, 3),
        "opaque": st.booleans(),
    }
)


@given(st.lists(NAMED, min_size=1, max_size=3), OPTIONS)
@settings(max_examples=60)
def test_files_come_out_as_they_went_in(files: list[tuple[str, bytes]], options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        for i, (name, data) in enumerate(files):
            (folder / "in" / f"{i}-{name}").write_bytes(data)
        report = qzf.pack(folder / "in", folder / "a.qzf", **options)
        assert qzf.verify(folder / "a.qzf", digest=report.digest).ok
        qzf.unpack(folder / "a.qzf", f"{folder}/out/", threads=options["threads"])
        for i, (name, data) in enumerate(files):
            assert (folder / "out" / f"{i}-{name}").read_bytes() == data
        with qzf.open(folder / "a.qzf") as container:
            _check_chunks(container)
            for key in container:
                info = container.info(key)
                member = container.members[info.member]
                whole = (folder / "in" / member.name).read_bytes()
                assert container.tensor(key).tobytes() == whole[info.extent.offset : info.extent.end]


def _check_chunks(container: qzf.Container) -> None:
    """Aligned records, and no chunk larger than what it holds."""
    chunks = container.chunks
    assert not (chunks["offset"] % 64).any()
    assert (chunks["stored_size"] <= chunks["decoded_size"]).all()
    for member in container.members:
        assert len(member.sha256 or "") == 64


@given(
    st.integers(1, 400),
    st.integers(0, 60),
    st.integers(0, 100),
    st.integers(0, 100),
    st.sampled_from([16, 64, 100, 1000]),
    st.sampled_from(["Q4_0", "Q6_K", "F32", "BF16", "I8", "GGML_99"]),
)
def test_cuts_cover_a_member_at_rows_or_blocks(
    columns: int, rows: int, before: int, after: int, chunk_size: int, dtype: str
) -> None:
    layout = BY_NAME.get({"F32": "float4", "BF16": "float2"}.get(dtype, dtype))
    block = layout.block if layout else 1
    row, size = columns * block, columns * rows * block
    tensor = TensorSpec("t", dtype, (rows, columns), Extent(before, size), row)
    member = MemberSpec("m", "gguf", before + size + after, (tensor,))
    at = 0
    for cut in cuts(member, chunk_size):
        assert cut.offset == at and cut.size > 0
        inside = before <= at < before + size
        assert cut.tensor == (0 if inside else None)
        if inside:
            unit = row if row <= chunk_size else block
            assert (at - before) % unit == 0 and at + cut.size <= before + size
            assert cut.layout is layout
            assert cut.size <= max(2.5 * chunk_size, chunk_size + unit)
        at += cut.size
    assert at == member.size


@given(
    st.sampled_from([None, *BY_ID.values()]),
    st.integers(1, 300),
    CONTENT,
    st.sampled_from(list(LEVELS.values())[:2]),
    st.none() | st.integers(1, 2000),
)
def test_payloads_decode_to_what_was_encoded(
    layout: Any, blocks: int, make: Any, effort: Effort, dictionary: int | None
) -> None:
    data = make("p", blocks * (layout.block if layout else 7))
    table = None if dictionary is None else (5, make("p", dictionary))
    coded = encode(data, layout, effort, table)
    body = b"".join(bytes(part) for part in coded.parts)
    assert len(body) == coded.size <= len(data)

    def load(ident: int) -> SharedTable:
        assert table is not None and ident == 5
        return SharedTable(bytes(table[1]))

    assert decode(coded.transform, coded.layout, memoryview(body), len(data), load) == data
    out = bytearray(len(data))
    decode(coded.transform, coded.layout, memoryview(body), len(data), load, memoryview(out))
    assert out == data


@given(
    st.lists(st.binary(max_size=300), max_size=60),
    st.binary(max_size=9),
    st.sampled_from(list(LEVELS.values())),
)
def test_strings_and_what_is_none_decode_to_what_was_encoded(
    items: list[bytes], rest: bytes, effort: Effort
) -> None:
    data = b"".join(len(item).to_bytes(8, "little") + item for item in items) + rest or bytes(8)
    coded = encode(data, None, effort, strings=True)
    body = b"".join(bytes(part) for part in coded.parts)
    assert len(body) == coded.size <= len(data)
    assert decode(coded.transform, coded.layout, memoryview(body), len(data), no_table) == data


#: How bytes are made that a model may or may not suit: like those that it was made from, or not at all.
LIKE = st.sampled_from(["same", "other", "damaged", "noise", "zero"])


def _made(kind: str, source: bytes, unit: int, units: int, draw: random.Random) -> bytes:
    """``units`` blocks or numbers of ``unit`` bytes each."""
    size = unit * units
    if kind == "noise":
        return draw.randbytes(size)
    if kind == "zero":
        return bytes(size)
    first = 0 if kind == "same" else draw.randrange(len(source) // unit) * unit
    data = bytearray((source[first:] + source * (size // len(source) + 1))[:size])
    for _ in range(3 if kind == "damaged" else 0):
        data[draw.randrange(size)] = draw.randrange(256)
    return bytes(data)


def _check_model(
    model: ChunkModel, tables: dict[int, SharedTable], data: bytes, layout: Layout, effort: Effort
) -> None:
    """By the model or otherwise, a payload is no larger than what it holds, and decodes to it."""
    coded = encode(data, layout, effort, None, model)
    body = b"".join(bytes(part) for part in coded.parts)
    assert len(body) == coded.size <= len(data)
    assert decode(coded.transform, coded.layout, memoryview(body), len(data), tables.__getitem__) == data
    # The model alone, also where that makes the data larger.
    streams = model.encode(data)
    if streams is not None:
        out = bytearray(len(data))
        modeled.decode(model.transform, layout, streams, list(tables.values()), memoryview(out))
        assert out == data


@cache
def _quant(dtype: str, classes: int) -> tuple[bytes, QuantChunks, dict[int, SharedTable]]:
    data = quantized(dtype, 40, 512, spread=float(classes > 1))
    return data, *quant_chunks(dtype, data, 512 // modeled.SCHEMAS[dtype].codes, classes)


@given(
    st.sampled_from(sorted(modeled.SCHEMAS)),
    st.sampled_from([1, 4]),
    LIKE,
    st.integers(1, 300),
    st.sampled_from(list(LEVELS.values())),
    st.randoms(use_true_random=False),
)
def test_blocks_decode_whatever_model_was_tried(
    dtype: str, classes: int, kind: str, blocks: int, effort: Effort, draw: random.Random
) -> None:
    source, model, tables = _quant(dtype, classes)
    data = _made(kind, source, model.schema.size, blocks, draw)
    _check_model(model, tables, data, BY_NAME[dtype], effort)
    if classes > 1:  # whole rows, which alone have columns
        row = model.row_blocks * model.schema.size
        _check_model(model, tables, _made(kind, source, row, 1 + blocks // 20, draw), BY_NAME[dtype], effort)


@cache
def _values(dtype: str, contexts: int) -> tuple[bytes, ValuesChunks, dict[int, SharedTable]]:
    if dtype == "I8":
        data = quantized("I8", 40, 128)
    else:
        numbers = weights(40, 128)
        data = (numbers.astype(np.float16) if dtype == "F16" else numbers).tobytes()
        if dtype == "BF16":
            data = (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return data, *values_chunks(dtype, data, 128, contexts)


@given(
    st.sampled_from(["F32", "F16", "BF16", "I8"]),
    st.sampled_from([1, 5]),
    LIKE,
    st.integers(1, 2000),
    st.integers(1, 2047),
    st.sampled_from(list(LEVELS.values())),
    st.randoms(use_true_random=False),
)
def test_numbers_decode_whatever_model_was_tried(
    dtype: str, contexts: int, kind: str, count: int, segment: int, effort: Effort, draw: random.Random
) -> None:
    source, model, tables = _values(dtype, contexts)
    data = _made(kind, source, FORMS[dtype].width, count, draw)
    _check_model(model._replace(segment=32 * segment), tables, data, BY_ID[model.layout], effort)


@pytest.mark.parametrize("threads", [1, 3])
def test_digest_is_of_the_content(threads: int, tmp_path: Path) -> None:
    """The container digest changes with any byte of the input, and with nothing else."""
    digests = set()
    for i in range(20):
        (tmp_path / "a.bin").write_bytes(hashlib.sha256(bytes([i])).digest() * 300)
        sink = io.BytesIO()
        digest = qzf.pack(tmp_path / "a.bin", sink, threads=threads).digest
        assert ContainerReader(MemorySource(sink.getvalue())).digest.hex() == digest
        digests.add(digest)
    assert len(digests) == 20
