"""Damaged and hostile models: shared tables, and the streams of chunks that are coded by them."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qzf
from qzf.errors import ChunkError, QzfError
from qzf.quant import BY_NUMBER
from qzf.transforms import modeled
from qzf.transforms.layouts import BY_ID, BY_NAME
from qzf.transforms.modeled import ChunkModel, SharedTable
from tests.fuzz.container_mutations import Mutator, exercise
from tests.helpers import GgufTensor, gguf_file, quant_chunks, quantized, values_chunks, weights
from tools.vectors.builder import Builder, Coded, Tensor
from tools.vectors.parts import Stream, seal, streams_payload, take_apart, zstd

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {block.name: number for number, block in BY_NUMBER.items()}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A container with several models, one with classes of columns, and chunks coded by each."""
    folder = tmp_path_factory.mktemp("models")
    kinds = (
        ("a", "Q4_K", 300, 0.0),
        ("b", "Q4_0", 1200, 1.5),
        ("c", "Q3_K", 400, 0.0),
        ("d", "F16", 300, 0.0),
    )
    tensors = [
        GgufTensor(name, (256, rows), NUMBERS[dtype], quantized(dtype, rows, 256, spread=spread))
        for name, dtype, rows, spread in kinds
    ]
    (folder / "m.gguf").write_bytes(gguf_file((), tensors))
    qzf.pack(folder / "m.gguf", folder / "a.qzf", chunk_size=1 << 16)
    return (folder / "a.qzf").read_bytes()


@given(seed=st.integers(0, 1 << 40))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_tables_and_streams_with_all_checksums_right(packed: bytes, seed: int) -> None:
    parts = take_apart(packed)
    Mutator(random.Random(seed)).damage(parts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qzf"
        path.write_bytes(seal(parts))
        exercise(path, Path(folder) / "out")


def test_a_damaged_table_loses_only_what_names_it(packed: bytes, tmp_path: Path) -> None:
    parts = take_apart(packed)
    tables = parts.of_kind(2)
    assert len(tables) >= 3
    content = b"\1\0" + bytes(100)
    tables[0].payload = content
    tables[0].fields |= {"transform": 0, "decoded_size": len(content)}
    path = tmp_path / "a.qzf"
    path.write_bytes(seal(parts))
    read, lost = [], []
    with qzf.open(path, threads=1) as container:
        for name in container:
            try:
                container.tensor(name)
                read.append(name)
            except QzfError:
                lost.append(name)
    assert read and lost


# --- decoding alone: whatever the bytes are, a chunk decodes or is a ChunkError -----------------------

MODELS = {
    dtype: (data, *quant_chunks(dtype, data, 2 if dtype in ("Q4_K", "Q2_K") else 8, classes))
    for dtype, classes in (("Q4_0", 1), ("Q8_0", 4), ("Q5_1", 1), ("Q4_K", 3), ("Q2_K", 1), ("MXFP4", 1))
    for data in [quantized(dtype, 20, 512 if dtype in ("Q4_K", "Q2_K") else 256)]
}
PLAIN = {"F32": values_chunks("F32", weights(20, 256).tobytes()), "I8": values_chunks("I8", bytes(5000))}
PLAIN_DATA = {"F32": weights(20, 256).tobytes(), "I8": bytes(5000)}


def _changed(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([0, 0, 1, 2])):
        match draw.randrange(4):
            case 0 if changed:
                del changed[draw.randrange(len(changed)) :]
            case 1:
                changed += draw.randbytes(draw.choice([1, 2, 64]))
            case _ if changed:
                near = min(len(changed), draw.choice([12, 32, len(changed)]))
                changed[draw.randrange(near)] = draw.choice([0, 1, 255, draw.randrange(256)])
    return bytes(changed)


@given(st.sampled_from([*MODELS, *PLAIN]), st.integers(0, 1 << 40))
@settings(max_examples=500)
def test_changed_streams_and_tables(dtype: str, seed: int) -> None:
    draw = random.Random(seed)
    model: ChunkModel
    if dtype in MODELS:
        data, model, tables = MODELS[dtype]
    else:
        data, (model, tables) = PLAIN_DATA[dtype], PLAIN[dtype]
    streams = model.encode(data)
    assert streams is not None
    chosen = draw.randrange(len(streams))
    changed = [
        stream._replace(body=_changed(draw, bytes(stream.body))) if i == chosen else stream
        for i, stream in enumerate(streams)
    ]
    if draw.random() < 0.8:  # the size of a raw stream follows
        changed = [s._replace(size=len(bytes(s.body))) if s.codec == 0 else s for s in changed]
    contents = [
        _changed(draw, table.content) if draw.random() < 0.3 else table.content for table in tables.values()
    ]
    unchanged = changed == streams and contents == [table.content for table in tables.values()]
    out = bytearray(len(data) if draw.random() < 0.9 else draw.randrange(1, 40) * BY_ID[model.layout].block)
    try:
        modeled.decode(
            model.transform, BY_ID[model.layout], changed, [SharedTable(c) for c in contents], memoryview(out)
        )
    except ChunkError as error:
        assert str(error)
        assert not unchanged or len(out) != len(data)
    else:
        assert out == data or not unchanged


# --- memory ---------------------------------------------------------------------------------------


def _large_model() -> bytes:
    """A table of 34 KB, which takes a few 100 bytes as a zstd frame, for a model of a megabyte."""
    head = struct.pack("<BBBBHHHBBBBHH", 1, 0, 8, 8, 0, 0, 1, 1, 64, 0, 0, 0, 0)
    even = struct.pack("<H", 16) * 256 * 64
    return head + bytes(128 + 64 + 256 + 128) + even + bytes([241] + [1] * 15)


def test_many_large_models_in_bounded_memory(tmp_path: Path) -> None:
    """As many as a container may name; a reader that kept all that it made of them would need 3 GB."""
    content, count = _large_model(), 3000
    data = bytes(18 * 400)
    coded = SharedTable(content).quant("Q4_0").encode(None, data, 400)
    assert coded is not None
    codecs, slots, sizes = (2, 0, 3, 0), (0, 255, 0, 255), (400, len(coded[1]), 400 * 32, len(coded[3]))
    streams = [Stream(*each) for each in zip(codecs, map(bytes, coded), sizes, slots, strict=True)]
    frame = streams_payload([zstd(content, 19)])
    builder = Builder(chunk_size=len(data))
    chunks = []
    for ident in range(count):
        builder.table(ident, content, frame)
        chunks.append(Coded(data, streams_payload(streams, (ident,)), 3, BY_NAME["Q4_0"].wire_id, codecs))
    builder.member("m.bin", [Tensor("t", "Q4_0", [count, 400 * 32], 400 * 18, chunks)], "gguf")
    path = tmp_path / "a.qzf"
    path.write_bytes(seal(builder.parts()))
    assert qzf.verify(path).ok
    command = [sys.executable, "-m", "tests.fuzz.run_bounded", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
