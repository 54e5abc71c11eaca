"""``qzf.open``: arrays as the formats' own packages give them, views without a copy, names."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes  # safetensors knows bfloat16 only once this is imported
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

import qzf
from qzf import quant
from qzf.errors import ChecksumError, DamageError, FormatError, NotFoundError, OptionError, QzfError
from qzf.storage import MemorySource
from tests.helpers import SOURCES, entry, safetensors_file
from tools.make_vectors import folders
from tools.vectors.builder import Builder, Tensor, fields, noise, skewed, stored
from tools.vectors.parts import seal

VECTORS = folders()["vectors"]
#: Not Q8_1, for which the gguf package has the block size of long ago (40 bytes; it is 36).
GGUFS = sorted(path for path in (SOURCES / "gguf").glob("*.gguf") if path.stem[:5] not in ("split", "q8_1"))
SAFETENSORS = sorted((SOURCES / "safetensors").glob("*.safetensors"))
#: dtypes that safetensors' numpy face does not know; what they are is checked byte by byte.
PACKED = {"F4", "F6_E2M3", "F6_E3M2"}
NOT_NUMPY = ("F4", "F6", "F8")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    return header, 8 + size


# --- the same as the formats' own packages --------------------------------------------------------


@pytest.mark.parametrize("path", GGUFS, ids=lambda path: path.stem)
def test_gguf_tensors_are_those_of_the_gguf_package(path: Path, tmp_path: Path) -> None:
    qzf.pack(path, tmp_path / "a.qzf", chunk_size=4096)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    with qzf.open(tmp_path / "a.qzf") as container:
        assert container.keys() == list(theirs)
        for name, tensor in theirs.items():
            array, info = container.tensor(name), container.info(name)
            assert info.dtype == tensor.tensor_type.name
            assert list(info.shape) == tensor.shape[::-1].tolist()
            assert array.tobytes() == tensor.data.tobytes()
            if info.dtype in ("F32", "F16", "F64", "I8", "I16", "I32", "I64"):
                assert array.dtype == tensor.data.dtype and array.shape == tensor.data.shape
                assert type(array) is np.ndarray
            elif info.dtype != "BF16":
                assert isinstance(array, qzf.QuantArray)
                assert array.quant is quant.BY_NAME[info.dtype] and array.original == info.dtype
                assert array.shape == tensor.data.reshape(-1, tensor.data.shape[-1]).shape


@pytest.mark.parametrize("path", SAFETENSORS, ids=lambda path: path.stem)
def test_safetensors_tensors_are_those_of_the_safetensors_package(path: Path, tmp_path: Path) -> None:
    qzf.pack(path, tmp_path / "a.qzf", chunk_size=4096)
    header, begin = _header(path)
    raw = path.read_bytes()
    dtypes = {item["dtype"] for item in header.values()}
    theirs = {} if any(dtype.startswith(NOT_NUMPY) for dtype in dtypes) else load_file(path)
    with qzf.open(tmp_path / "a.qzf") as container:
        assert set(container.keys()) == set(header)
        for name, item in header.items():
            array = container.tensor(name)
            start, end = item["data_offsets"]
            assert array.tobytes() == raw[begin + start : begin + end]
            if item["dtype"] in PACKED:
                assert isinstance(array, qzf.QuantArray)
                assert (array.quant, array.original) == (None, item["dtype"])
                assert array.shape == (array.size // container.info(name).row_size, array.shape[1])
            else:
                assert list(array.shape) == item["shape"]
            if name in theirs:
                assert array.dtype == theirs[name].dtype
                assert array.tobytes() == theirs[name].tobytes()


def test_bf16_and_fp8_have_numbers() -> None:
    values = np.array([0.5, -2, 1.5, 0], np.float32)
    builder = Builder()
    pieces, dtypes = [], {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
    for name, kind in dtypes.items():
        data = values.astype(getattr(ml_dtypes, kind)).tobytes()
        pieces.append(Tensor(name, name, [2, 2], len(data) // 2, [stored(data)]))
    builder.member("m", pieces, "safetensors")
    container = _open(builder)
    for name, kind in dtypes.items():
        assert container.tensor(name).dtype == getattr(ml_dtypes, kind)
        assert np.array_equal(container.tensor(name).astype(np.float32), values.reshape(2, 2))


def _open(builder: Builder, **options: Any) -> qzf.Container:
    from qzf.storage import MemorySource

    return qzf.open(MemorySource(seal(builder.parts())), **options)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads(threads: int, smollm2: Path) -> None:
    with qzf.open(smollm2) as one, qzf.open(smollm2, threads=threads) as other:
        for name in one:
            assert np.array_equal(one.tensor(name), other.tensor(name))
            assert b"".join(other.iter_bytes(name)) == one.tensor(name).tobytes()


# --- views ----------------------------------------------------------------------------------------


def _views(path: Path) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    with qzf.open(path) as container:
        return {name: (container.tensor(name, copy=False), container.tensor(name)) for name in container}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Tensors that are stored in one chunk, in two, and coded."""
    builder = Builder()
    pieces = [
        Tensor("stored", "F32", [10, 25], 100, [stored(noise("a", 1000))]),
        Tensor("two", "U8", [2, 100], 100, [stored(noise("b", 100)), stored(noise("c", 100))]),
        Tensor("coded", "F32", [256], 1024, [fields(skewed("d", 1024), "float4")]),
        Tensor("blocks", "Q8_0", [3, 32], 34, [stored(noise("e", 102))]),
        Tensor("none", "F32", [0, 3], 12, []),
    ]
    builder.member("m.gguf", pieces, "gguf")
    path = tmp_path / "mixed.qzf"
    path.write_bytes(seal(builder.parts()))
    return path


def test_a_view_is_aligned_and_cannot_be_written_to(mixed: Path) -> None:
    arrays = _views(mixed)
    for name in ("stored", "blocks"):
        view, copy = arrays[name]
        assert not view.flags.writeable and not view.flags.owndata
        assert view.ctypes.data % 64 == 0
        assert view.dtype == copy.dtype and view.shape == copy.shape
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0
    for view, copy in arrays.values():  # the container is closed by now
        assert np.array_equal(view.view(np.uint8), copy.view(np.uint8))
        assert copy.flags.writeable


def test_a_view_is_of_the_file_itself(mixed: Path) -> None:
    view, _ = _views(mixed)["stored"]
    before = view[0, 0].tobytes()
    with mixed.open("r+b") as file:
        data = mixed.read_bytes()
        file.seek(data.index(noise("a", 1000)))
        file.write(b"\0\0\0\0")
    assert view[0, 0].tobytes() == b"\0\0\0\0" != before


def test_a_view_is_checked_first(mixed: Path) -> None:
    data = bytearray(mixed.read_bytes())
    data[data.index(noise("a", 1000)) + 500] ^= 1
    mixed.write_bytes(data)
    with qzf.open(mixed) as container:
        for copy in (True, False):
            with pytest.raises(ChecksumError) as caught:
                container.tensor("stored", copy=copy)
            assert caught.value.tensor == "stored"


def test_a_view_with_a_trusted_digest(mixed: Path) -> None:
    digest = qzf.verify(mixed).digest
    with qzf.open(mixed, digest=digest) as container:
        assert container.tensor("stored", copy=False).tobytes() == noise("a", 1000)
    data = bytearray(mixed.read_bytes())
    at = data.index(noise("a", 1000)) - 64
    data[at + 16] ^= 1  # the record's header, which no view shows
    mixed.write_bytes(data)
    with qzf.open(mixed) as container:
        container.tensor("stored", copy=False)
    with qzf.open(mixed, digest=digest) as container, pytest.raises(ChecksumError):
        container.tensor("stored", copy=False)


# --- names and shapes -----------------------------------------------------------------------------


def test_mapping(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        names = container.keys()
        assert list(container) == names and len(container) == len(names)
        assert names[0] in container and "none" not in container and 5 not in container
        assert container.digest == qzf.verify(smollm2).digest
        assert container.metadata["general.architecture"] == "llama"
        assert [member.name for member in container.members] == ["smollm2-slice.gguf"]
        for call in (container.tensor, container.info, lambda name: list(container.iter_bytes(name))):
            with pytest.raises(NotFoundError) as caught:
                call("none")
            assert isinstance(caught.value, KeyError) and "none" in str(caught.value)


def test_names_that_several_members_have() -> None:
    builder = Builder()
    for i, name in enumerate(("a.gguf", "b/c.gguf")):
        pieces = [
            Tensor("same", "U8", [2], 2, [stored(bytes([i, i]))]),
            Tensor(f"own{i}", "U8", [1], 1, [stored(bytes([i]))]),
        ]
        builder.member(name, pieces, metadata={"i": i, f"only{i}": True})
    container = _open(builder)
    assert container.keys() == ["a.gguf:same", "own0", "b/c.gguf:same", "own1"]
    assert container.tensor("b/c.gguf:same").tolist() == [1, 1]
    assert container.metadata == {"i": 0, "only0": True, "only1": True}
    with pytest.raises(NotFoundError):
        container.tensor("same")


def test_scalar_and_empty() -> None:
    with qzf.open(VECTORS / "empty-tensors.qzf") as container:
        assert container.tensor("scalar").shape == ()
        assert float(container.tensor("scalar")) == 0.1
        assert container.tensor("between").shape == (3, 0)
        assert container.tensor("last", copy=False).shape == (5, 0, 5)
        assert list(container.iter_bytes("too")) == []


@pytest.mark.parametrize(
    ("dtype", "shape", "row_size"),
    [("F32", [3], 12), ("F32", [3, 1 << 58, 0], 12), ("F64", [1], 12), ("Q4_0", [12], 5), ("BF16", [7], 12)],
)
def test_shapes_that_do_not_fit_the_bytes(dtype: str, shape: list[int], row_size: int) -> None:
    size = 10 if dtype == "Q4_0" else 12
    row_size = min(row_size, size)
    builder = Builder()
    builder.member("m", [Tensor("t", dtype, shape, row_size, [stored(bytes(size))])], "gguf")
    container = _open(builder)
    if dtype == "Q4_0":
        assert container.tensor("t").shape == (2, 5)
    elif shape == [3]:
        assert container.tensor("t").shape == (3,)
    else:
        with pytest.raises(FormatError, match="do not fit") as caught:
            container.tensor("t")
        assert caught.value.tensor == "t"


def test_rows_that_do_not_divide_the_tensor() -> None:
    builder = Builder()
    builder.member("m", [Tensor("t", "Q4_0", [12], 7, [stored(bytes(10))])], "gguf")
    with pytest.raises(QzfError):
        _open(builder).tensor("t")


def test_bool_and_complex(tmp_path: Path) -> None:
    source = tmp_path / "a.safetensors"
    header = {"b": entry("BOOL", (4,), 0, 4), "c": entry("C64", (1,), 4, 12)}
    source.write_bytes(safetensors_file(header, bytes([1, 0, 1, 1]) + np.complex64(1 - 2j).tobytes()))
    qzf.pack(source, tmp_path / "a.qzf")
    with qzf.open(tmp_path / "a.qzf") as container:
        assert container.tensor("b").tolist() == [True, False, True, True]
        assert container.tensor("c").tolist() == [1 - 2j]


def test_quant_arrays_keep_what_they_are(mixed: Path) -> None:
    with qzf.open(mixed) as container:
        array = container.tensor("blocks")
    assert isinstance(array, qzf.QuantArray) and array.shape == (3, 34)
    part = array[1:]
    assert isinstance(part, qzf.QuantArray) and part.quant is array.quant and part.original == "Q8_0"
    assert array.quant is not None
    blocks = array.view(np.ndarray).view(array.quant.dtype)
    assert blocks["qs"].shape == (3, 1, 32)


def test_opening_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        qzf.open(tmp_path / "none")
    with pytest.raises(OptionError):
        qzf.open(VECTORS / "stored.qzf", digest="abc")
    with pytest.raises(OptionError):
        qzf.open(VECTORS / "stored.qzf", threads=0)


def test_a_closed_container(smollm2: Path) -> None:
    container = qzf.open(smollm2)
    container.close()
    container.close()
    with pytest.raises(QzfError):
        container.tensor(container.keys()[0])


def test_pickling(tmp_path: Path) -> None:
    container = tmp_path / "a.qzf"
    qzf.pack(SOURCES / "gguf" / "q4_k.gguf", container)
    with qzf.open(container) as opened:
        array = opened.tensor("blk.0.attn_q.weight")
        again = pickle.loads(pickle.dumps(array))
        assert isinstance(again, qzf.QuantArray)
        assert again.quant is quant.BY_NAME["Q4_K"]
        assert again.original == "Q4_K"
        assert np.array_equal(again, array)
        with pytest.raises(TypeError, match="each process"):
            pickle.dumps(opened)


def test_what_is_no_path_is_refused() -> None:
    for wrong in (3, None, ["a"]):
        with pytest.raises(OptionError, match="a path, bytes, a file object or a byte source"):
            qzf.open(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gguf/smollm2-slice.gguf", "safetensors/int8-per-row.safetensors"])
def test_members_can_be_read_in_pieces(tmp_path: Path, name: str) -> None:
    source, container = SOURCES / name, tmp_path / "a.qzf"
    qzf.pack(source, container, chunk_size=4096)
    whole = source.read_bytes()
    with qzf.open(container) as opened:
        assert opened.member_bytes(source.name) == whole
        for offset, size in ((0, 0), (1, 1), (4090, 9000), (len(whole) - 5, 5), (len(whole), 0)):
            assert opened.member_bytes(source.name, offset, size) == whole[offset : offset + size]
        with pytest.raises(OptionError):
            opened.member_bytes(source.name, len(whole), 1)
        for offset in (10**9, -1):
            with pytest.raises(OptionError, match=f"offset {offset} is not within the {len(whole)} bytes"):
                opened.member_bytes(source.name, offset)
        with pytest.raises(NotFoundError):
            opened.member_bytes("other")


def test_full_metadata(tmp_path: Path) -> None:
    source, container = SOURCES / "gguf" / "smollm2-slice.gguf", tmp_path / "a.qzf"
    qzf.pack(source, container)
    field = gguf.GGUFReader(source).fields["tokenizer.ggml.tokens"]
    with qzf.open(container) as opened:
        assert opened.full_metadata()["tokenizer.ggml.tokens"] == field.contents()
        assert opened.full_metadata(source.name).keys() == opened.metadata.keys()
        with pytest.raises(NotFoundError):
            opened.full_metadata("other")


# --- many tensors at once -------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("file", sorted(SOURCES.glob("*/*.*")), ids=lambda path: path.name)
def test_load_is_tensor_for_all(file: Path, threads: int, tmp_path: Path) -> None:
    qzf.pack(file, tmp_path / "a.qzf", chunk_size=4096)
    with qzf.open(tmp_path / "a.qzf", threads=threads) as container:
        rooms = {
            name: np.full(container.info(name).extent.size, 7, np.uint8) for name in list(container)[::2]
        }
        loaded = container.load(out=rooms)
        assert list(loaded) == container.keys()
        for name, array in loaded.items():
            alone = container.tensor(name)
            assert type(array) is type(alone) and array.tobytes() == alone.tobytes()
            assert (array.dtype, array.shape) == (alone.dtype, alone.shape)
            assert getattr(array, "quant", None) is getattr(alone, "quant", None)
            assert name not in rooms or not rooms[name].size or np.shares_memory(array, rooms[name])


def test_load_of_some(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        some = container.keys()[3:0:-1]
        assert list(container.load([*some, some[0]])) == some
        assert container.load([]) == {}
        with pytest.raises(NotFoundError):
            container.load([some[0], "nothing"])


def test_buffers_that_do_not_fit(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        name = next(iter(container))
        size = container.info(name).extent.size
        array = np.empty(size, np.uint8)
        for fits in (bytearray(size), memoryview(bytearray(size)), array, array.reshape(2, -1)):
            container.load([name], out={name: fits})
        bad: list[Any] = [
            bytearray(size + 1),
            bytearray(size - 1),
            bytes(size),
            np.empty(2 * size, np.uint8)[::2],
            memoryview(np.empty(-(-size // 8), object)),  # type: ignore[arg-type]  # a buffer all the same
            np.empty(-(-size // 16), [("O", "u8"), ("x", object)]),
            size,
        ]
        frozen = array.copy()
        frozen.flags.writeable = False
        for buffer in (*bad, frozen, memoryview(bytearray(2 * size))[::2], "text"):
            with pytest.raises(OptionError, match=f"{size} bytes"):
                container.load([name], out={name: buffer})
        with pytest.raises(OptionError, match="a dict of buffers"):
            container.load([name], out=[bytearray(size)])  # type: ignore[arg-type]


def test_buffers_that_overlap(mixed: Path) -> None:
    with qzf.open(mixed) as container:
        one, other = list(container)[:2]
        sizes = [container.info(name).extent.size for name in (one, other)]
        memory = bytearray(sum(sizes))
        first, second = memoryview(memory)[: sizes[0]], memoryview(memory)[sizes[0] :]
        container.load([one, other], out={one: first, other: second})
        assert first == container.tensor(one).tobytes() and second == container.tensor(other).tobytes()
        for buffers in (
            {one: first, other: memoryview(memory)[sizes[0] - 1 : -1]},
            {one: memoryview(memory)[1 : sizes[0] + 1], other: second},
        ):
            with pytest.raises(OptionError, match="overlap"):
                container.load([one, other], out=buffers)


def test_names_are_no_string(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        for wrong in (next(iter(container)), "", b"a"):
            with pytest.raises(OptionError, match="a list of names"):
                container.load(wrong)  # type: ignore[arg-type]
    with qzf.safe_open(smollm2, "numpy") as file, pytest.raises(TypeError):
        file.get_tensors(file.keys()[0])


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [("F4", [3, 4], 8), ("F4", [], 1), ("F6_E2M3", [2, 4], 5), ("F6_E3M2", [4], 4), ("F4", [1 << 40, 0], 4)],
)
@pytest.mark.parametrize("framework", ["numpy", "pt"])
def test_packed_shapes_that_do_not_fit_the_bytes(
    dtype: str, shape: list[int], size: int, framework: str, tmp_path: Path
) -> None:
    if framework == "pt":
        pytest.importorskip("torch")
    builder = Builder()
    builder.member("m", [Tensor("t", dtype, shape, size, [stored(bytes(size))])], "safetensors")
    (tmp_path / "m.qzf").write_bytes(seal(builder.parts()))
    with qzf.open(tmp_path / "m.qzf") as container, pytest.raises(FormatError, match="do not fit"):
        container.tensor("t")
    with qzf.safe_open(tmp_path / "m.qzf", framework) as file, pytest.raises(FormatError, match="do not fit"):
        file.get_slice("t")[...]


def test_packed_shapes_that_fit() -> None:
    builder = Builder()
    builder.member("m", [Tensor("t", "F6_E2M3", [2, 4], 3, [stored(bytes(6))])], "safetensors")
    assert _open(builder).tensor("t").shape == (2, 3)


def test_load_says_where_the_damage_is(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        entry = container.tensors[5]
        chunk = container.chunks[entry.first_chunk]
    data = bytearray(smollm2.read_bytes())
    data[int(chunk["offset"]) + 64 + int(chunk["stored_size"]) - 1] ^= 1
    with qzf.open(MemorySource(bytes(data)), threads=3) as container:
        with pytest.raises(DamageError) as caught:
            container.load()
        assert (caught.value.tensor, caught.value.chunk) == (entry.name, entry.first_chunk)
