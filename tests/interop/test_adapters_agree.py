"""The adapters see the same tensors and metadata as the gguf and safetensors packages."""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from qzf.adapters import describe, read_metadata
from qzf.adapters.safetensors import DTYPE_BITS
from qzf.errors import SafetensorsError
from qzf.model import MemberSpec
from qzf.quant import BY_NUMBER
from qzf.storage import FileSource, MemorySource
from tests.helpers import SOURCES, GgufTensor, entry, gguf_file, safetensors_file
from tools.fetch_models import MODELS, default_cache

GGUFS = sorted((SOURCES / "gguf").glob("*.gguf"))
SAFETENSORS = sorted((SOURCES / "safetensors").rglob("*.safetensors"))

#: gguf 0.19 takes the 36 bytes of a Q8_1 block for 40; ggml-common.h has two halves and 32 codes.
WRONG_IN_PACKAGE = {"Q8_1": (36, 40)}


def test_there_are_fixtures() -> None:
    assert len(GGUFS) > 30
    assert len(SAFETENSORS) > 20


def model_path(name: str) -> Path:
    path = default_cache() / MODELS[name].path
    if not path.is_file():
        pytest.skip(f"{name} is not fetched: python tools/fetch_models.py {name}")
    return path


def check_gguf(path: Path) -> MemberSpec:
    """Compare one file with GGUFReader: names, types, shapes, extents and all metadata."""
    with FileSource(path) as source:
        member = describe(source, path.name)
        metadata = read_metadata(source)
    reader = GGUFReader(path)
    expected = sorted(reader.tensors, key=lambda tensor: int(tensor.data_offset))
    assert [tensor.name for tensor in member.tensors] == [tensor.name for tensor in expected]
    for ours, theirs in zip(member.tensors, expected, strict=True):
        assert ours.dtype == theirs.tensor_type.name
        assert ours.shape == tuple(reversed(theirs.shape.tolist()))
        right, wrong = WRONG_IN_PACKAGE.get(ours.dtype, (1, 1))
        assert (ours.extent.offset, ours.extent.size) == (theirs.data_offset, theirs.n_bytes * right // wrong)
        if ours.dtype not in WRONG_IN_PACKAGE:
            assert ours.row_size == theirs.data.nbytes // math.prod(theirs.data.shape[:-1])
    check_metadata(metadata, reader)
    assert set(member.metadata) == set(metadata)
    json.dumps(dict(member.metadata), allow_nan=False)
    return member


def check_metadata(metadata: dict[str, Any], reader: GGUFReader) -> None:
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert list(metadata) == list(fields)
    for name, field in fields.items():
        ours, theirs = metadata[name], field.contents()
        if GGUFValueType.FLOAT32 in field.types:
            # The shortest decimal rounds to the same float32, which GGUFReader widens bit by bit.
            assert np.array_equal(np.float32(ours), np.float32(theirs))
        else:
            assert ours == theirs


def deserialize(raw: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The Rust code's own reading: pairs of name and dtype, shape, data."""
    found: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
    return found


def check_safetensors(path: Path) -> None:
    """Compare one file with the Rust code behind safetensors.deserialize."""
    raw = path.read_bytes()
    with FileSource(path) as source:
        member = describe(source, path.name)
        metadata = read_metadata(source)
    theirs = {name: (info["dtype"], info["shape"], info["data"]) for name, info in deserialize(raw)}
    ours = {
        tensor.name: (tensor.dtype, list(tensor.shape), raw[tensor.extent.offset : tensor.extent.end])
        for tensor in member.tensors
    }
    assert ours == theirs
    with safetensors.safe_open(path, framework="numpy") as opened:
        assert metadata == (opened.metadata() or {})


@pytest.mark.parametrize("path", GGUFS, ids=lambda path: path.stem)
def test_gguf_fixture(path: Path) -> None:
    check_gguf(path)


@pytest.mark.parametrize("path", SAFETENSORS, ids=lambda path: path.stem)
def test_safetensors_fixture(path: Path) -> None:
    check_safetensors(path)


@pytest.mark.realmodel
@pytest.mark.parametrize("name", ["smollm2", "gemma"])
def test_gguf_model(name: str) -> None:
    member = check_gguf(model_path(name))
    assert len(member.verbatim()) == 1


@pytest.mark.realmodel
@pytest.mark.parametrize("name", ["minilm", "mpnet"])
def test_safetensors_model(name: str) -> None:
    check_safetensors(model_path(name))


@pytest.mark.realmodel
def test_a_large_vocabulary_opens_quickly() -> None:
    """262,144 tokens in less than 0.3 s; it is some 0.03 s where nothing else runs."""
    path = model_path("gemma")
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        with FileSource(path) as source:
            describe(source, path.name)
        best = min(best, time.perf_counter() - start)
    assert best < 0.3


# Any layout

#: The types that the package knows too, and knows right.
TYPES = sorted(
    number
    for number, ggml_type in BY_NUMBER.items()
    if number in set(GGMLQuantizationType) and ggml_type.name not in WRONG_IN_PACKAGE
)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def gguf_layouts(draw: st.DrawFn) -> bytes:
    """Files of up to 6 tensors of known types, in any order, with gaps."""
    tensors = []
    offset = 0
    for name in draw(st.lists(NAMES, max_size=6, unique=True)):
        number = draw(st.sampled_from(TYPES))
        dims = draw(st.lists(st.integers(1, 3), max_size=3))
        tensor = GgufTensor(name, (BY_NUMBER[number].block * draw(st.integers(1, 2)), *dims), number)
        tensors.append(GgufTensor(name, tensor.ne, number, offset=offset))
        offset += -(-len(tensor.content()) // 32) * 32 + 32 * draw(st.integers(0, 2))
    return gguf_file([], draw(st.permutations(tensors)), tail=bytes(64))


@given(gguf_layouts())
def test_any_gguf_layout(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.gguf"
        path.write_bytes(data)
        check_gguf(path)


VALUES = st.one_of(
    st.tuples(st.just("add_uint8"), st.integers(0, 255)),
    st.tuples(st.just("add_int16"), st.integers(-(1 << 15), (1 << 15) - 1)),
    st.tuples(st.just("add_uint64"), st.integers(0, (1 << 64) - 1)),
    st.tuples(st.just("add_float32"), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("add_float64"), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("add_bool"), st.booleans()),
    st.tuples(st.just("add_string"), st.text(min_size=1, max_size=40)),
    st.tuples(st.just("add_array"), st.lists(st.text(max_size=300), min_size=1, max_size=90)),
    st.tuples(
        st.just("add_array"), st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=1, max_size=90)
    ),
)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}\.[a-z_]{1,8}", fullmatch=True), VALUES, max_size=8))
def test_any_gguf_metadata(pairs: dict[str, tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.gguf"
        writer = GGUFWriter(path, "llama")
        for key, (add, value) in pairs.items():
            getattr(writer, add)(key, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        check_gguf(path)


@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(DTYPE_BITS)), st.lists(st.integers(0, 4)))))
def test_any_safetensors_layout(tensors: dict[str, tuple[str, list[int]]]) -> None:
    """Whatever the Rust code serializes is read back the same."""
    header, data = {}, b""
    for name, (dtype, shape) in tensors.items():
        # The last dimension times 4 makes whole bytes of every dtype.
        shape = [*shape[:3], 4]
        size = math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = entry(dtype, shape, len(data), len(data) + size)
        data += bytes(index % 256 for index in range(size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.safetensors"
        path.write_bytes(safetensors_file(header, data))
        check_safetensors(path)


NUMBERS = st.one_of(st.integers(-2, 33), st.integers(0, 1 << 65), st.floats(), st.booleans(), st.none())
FIELDS = {
    "dtype": st.one_of(st.sampled_from([*DTYPE_BITS, "F128", "f32"]), NUMBERS),
    "shape": st.one_of(st.lists(NUMBERS, max_size=3), NUMBERS),
    "data_offsets": st.one_of(st.lists(NUMBERS, max_size=3), NUMBERS),
}


@given(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), st.fixed_dictionaries({}, optional=FIELDS))
)
def test_what_is_taken_the_rust_code_takes(changes: dict[str, dict[str, Any]]) -> None:
    """Break a valid header at random: whatever is still taken, safetensors takes with the same content."""
    header: dict[str, Any] = {"a": entry("F32", (2, 2), 0, 16), "b": entry("U8", (16,), 16, 32)}
    for name, fields in changes.items():
        header[name] = {**header.get(name, {}), **fields}
    data = safetensors_file(json.dumps(header), bytes(range(32)))
    try:
        member = describe(MemorySource(data, "any.safetensors"), "any.safetensors")
    except SafetensorsError:
        with pytest.raises(safetensors.SafetensorError):
            deserialize(data)
        return
    theirs = {name: (info["dtype"], info["shape"]) for name, info in deserialize(data)}
    assert {t.name: (t.dtype, list(t.shape)) for t in member.tensors} == theirs
