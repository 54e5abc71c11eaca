"""GGUF to safetensors and back: raw blocks byte for byte, and floats as the gguf package makes them."""

from __future__ import annotations

import json
import random
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open

import qzf
from qzf.adapters import describe
from qzf.container.reader import ContainerReader
from qzf.errors import GgufError, OptionError, QzfError, SafetensorsError
from qzf.format.ids import NO_TENSOR
from qzf.limits import KIB
from qzf.ops import convert_plan, converting
from qzf.quant import PLAIN
from qzf.storage import FileSource
from qzf.transforms.dequant import DEQUANTIZABLE
from tests.helpers import (
    SOURCES,
    STRING,
    UINT32,
    GgufTensor,
    gguf_file,
    gguf_pair,
    gguf_string,
    small_gguf,
    u32,
)
from tools.fetch_models import default_cache

GGUFS = sorted((SOURCES / "gguf").glob("*.gguf"))
SMOLLM2 = SOURCES / "gguf" / "smollm2-slice.gguf"
NUMPY: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def raw_file(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, list[int], bytes]]]:
    """Metadata and tensors of a safetensors file, by plain code."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    assert (8 + length) % 8 == 0
    tensors = {}
    for name, each in header.items():
        begin, end = each["data_offsets"]
        tensors[name] = (each["dtype"], each["shape"], data[8 + length + begin : 8 + length + end])
    return metadata, tensors


def there_and_back(data: bytes, folder: Path) -> tuple[Path, bytes]:
    source, between, again = folder / "a.gguf", folder / "b.safetensors", folder / "c.gguf"
    source.write_bytes(data)
    report = qzf.convert(source, between)
    assert report.notices == ()
    qzf.convert(between, again)
    return between, again.read_bytes()


@pytest.mark.parametrize("path", GGUFS, ids=lambda path: path.stem)
def test_raw_blocks_come_back_byte_for_byte(path: Path, tmp_path: Path) -> None:
    between, again = there_and_back(path.read_bytes(), tmp_path)
    assert again == path.read_bytes()
    metadata, tensors = raw_file(between)
    types = json.loads(metadata["qzf.ggml_types"])
    with FileSource(path) as source:
        for tensor in describe(source, path.name).tensors:
            dtype, shape, data = tensors.pop(tensor.name)
            assert data == source.read(*tensor.extent)
            assert types.get(tensor.name, dtype) == tensor.dtype
            plain = tensor.dtype in PLAIN
            assert shape == list(tensor.shape if plain else (*tensor.shape[:-1], tensor.row_size))
            assert dtype == (tensor.dtype if plain else "U8")
    assert list(tensors) == [metadata["qzf.gguf_header"]]


def test_the_safetensors_package_reads_it(tmp_path: Path) -> None:
    between, _ = there_and_back(SMOLLM2.read_bytes(), tmp_path)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(SMOLLM2).tensors}
    with safe_open(between, framework="numpy") as file:
        types = json.loads(file.metadata()["qzf.ggml_types"])
        for name, tensor in theirs.items():
            array = file.get_tensor(name)
            assert array.tobytes() == tensor.data.tobytes()
            assert array.shape == tensor.data.shape
            assert types.get(name, "F32") == gguf.GGMLQuantizationType(tensor.tensor_type).name
        assert set(file.keys()) == {*theirs, "qzf.gguf_header"}


def odd_files() -> dict[str, bytes]:
    """Files at the edges of the format."""
    pair = gguf_pair("a.text", STRING, gguf_string("x" * 100))
    wide = gguf_pair("general.alignment", UINT32, u32(256))
    q4, f32 = GgufTensor("q", (64, 3), 2), GgufTensor("f", (5,))
    return {
        "no tensors": gguf_file([pair], tail=b"rest"),
        "version 2": gguf_file([pair], [q4, f32], version=2),
        "alignment": gguf_file([wide], [q4, f32], alignment=256),
        "gaps and tail": gguf_file(
            [], [q4, GgufTensor("f", (5,), offset=4096)], tail=b"something behind all tensors"
        ),
        "order": gguf_file(
            [], [GgufTensor("late", (64, 3), 2, offset=320), GgufTensor("early", (5,), offset=0)]
        ),
        "empty tensors": gguf_file([], [GgufTensor("none", (0, 4)), q4, GgufTensor("no q", (0, 2), 2)]),
        "scalars": gguf_file([], [GgufTensor("s", ()), GgufTensor("one", (1,))]),
        "experts": gguf_file([], [GgufTensor("e", (32, 3, 2), 2), GgufTensor("4", (32, 1, 2, 2), 8)]),
        "unknown type": gguf_file([], [GgufTensor("u", (7, 5), 99, b"u" * 33), f32], tail=b"end"),
        "names": gguf_file(
            [], [GgufTensor("qzf.gguf_header", (3,)), GgufTensor("", (2,)), GgufTensor("ü", (1,))]
        ),
        "values": small_gguf(),
    }


@pytest.mark.parametrize("what", odd_files())
def test_edges_come_back_byte_for_byte(what: str, tmp_path: Path) -> None:
    data = odd_files()[what]
    assert there_and_back(data, tmp_path)[1] == data


def test_shapes_of_blocks(tmp_path: Path) -> None:
    _, tensors = raw_file(there_and_back(odd_files()["experts"], tmp_path)[0])
    assert tensors["e"][:2] == ("U8", [2, 3, 18])
    assert tensors["4"][:2] == ("U8", [2, 2, 1, 34])


def test_wide_numbers_lie_at_multiples_of_their_width(tmp_path: Path) -> None:
    tensors = [
        GgufTensor("b", (3,), 24),
        GgufTensor("h", (3,), 1),
        GgufTensor("d", (3,), 28),
        GgufTensor("f", (3,)),
    ]
    between, _ = there_and_back(gguf_file([], tensors), tmp_path)
    data = between.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    for name, width in {"b": 1, "h": 2, "d": 8, "f": 4}.items():
        assert header[name]["data_offsets"][0] % width == 0


def expected(path: Path, kind: str) -> dict[str, npt.NDArray[np.generic]]:
    """What the gguf package makes of each tensor, rounded by numpy or ml_dtypes."""
    out = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = tuple(int(each) for each in tensor.shape[::-1])
        array = tensor.data
        if gguf.GGMLQuantizationType(tensor.tensor_type).name not in PLAIN:
            array = gguf.quants.dequantize(array, tensor.tensor_type).astype(NUMPY[kind])
        out[tensor.name] = array.reshape(shape)
    return out


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(
    "path",
    [path for path in GGUFS if path.stem.upper() in DEQUANTIZABLE - PLAIN] + [SMOLLM2],
    ids=lambda path: path.stem,
)
def test_dequantized_as_the_gguf_package_does(
    path: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_plan, "_SLICE", 4 * KIB)
    out = tmp_path / "out.safetensors"
    told: list[str] = []

    def notice(notices: Any) -> None:
        assert not out.exists()
        told.extend(notices)

    report = qzf.convert(path, out, dequantize=kind, notice=notice)
    assert told == list(report.notices)
    assert told[0].startswith("lost: block formats; ")
    metadata, tensors = raw_file(out)
    theirs = expected(path, kind)
    assert tensors.keys() == theirs.keys()
    for name, array in theirs.items():
        dtype, shape, data = tensors[name]
        assert shape == list(array.shape)
        assert data == array.tobytes()
        assert dtype in (kind.upper(), "F32")
    reader = gguf.GGUFReader(path)
    types = [gguf.GGMLQuantizationType(tensor.tensor_type).name for tensor in reader.tensors]
    assert report.changed == sum(name not in PLAIN for name in types) > 0
    with safe_open(out, framework="numpy") as file:
        for name, array in theirs.items():
            assert tuple(file.get_slice(name).get_shape()) == array.shape
    assert metadata["gguf.general.architecture"] == reader.fields["general.architecture"].contents()


def test_what_dequantizing_keeps_and_loses_of_the_header(tmp_path: Path) -> None:
    source, out = tmp_path / "a.gguf", tmp_path / "a.safetensors"
    source.write_bytes(small_gguf())
    report = qzf.convert(source, out, dequantize="f16")
    assert raw_file(out)[0] == {
        "format": "pt",
        "gguf.general.architecture": "llama",
        "gguf.general.alignment": "32",
        "gguf.a.float": "1e-05",
        "gguf.a.bool": "true",
        "gguf.a.list": "[7, 8]",
        "gguf.a.nested": "[[5]]",
    }
    assert report.notices[:2] == (
        "lost: block formats; Q4_0, Q8_0 become F16, and the weights are rounded to it",
        "lost: long values of the GGUF header, tokenizer.ggml.tokens",
    )
    assert (report.tensors, report.changed) == (3, 2)


@pytest.mark.parametrize("name", ["q8_1", "q8_k", "q1_0"])
def test_types_that_cannot_be_dequantized(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(GgufError, match=f"{name.upper()} cannot be dequantized"):
        qzf.convert(SOURCES / "gguf" / f"{name}.gguf", out, dequantize="f32")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_safetensors_cannot_have(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf_file([], [GgufTensor("__metadata__", (3,))]))
    with pytest.raises(GgufError, match="can have this name"):
        qzf.convert(tmp_path / "a.gguf", tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_a_shape_that_safetensors_cannot_have(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf_file([], [GgufTensor("a", (0, 1 << 40, 1 << 19), data=b"")]))
    with pytest.raises(GgufError, match="cannot be a safetensors file: the product of its shape overflows"):
        qzf.convert(tmp_path / "a.gguf", tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", [None, "bf16"])
def test_out_of_a_container(
    packed: Path, kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file as from the file; each chunk is decoded once, but for those of the header."""
    direct, out = tmp_path / "direct.safetensors", tmp_path / "out.safetensors"
    qzf.convert(SMOLLM2, direct, dequantize=kind)
    read, read_chunk = list[int](), ContainerReader.read_chunk

    def counted(self: ContainerReader, chunk: int, *args: Any) -> Any:
        read.append(chunk)
        return read_chunk(self, chunk, *args)

    def write_plan(*args: Any, **options: Any) -> None:
        read.clear()  # the header was read through a window, in which tensors may lie too
        convert_plan.write_plan(*args, **options)

    monkeypatch.setattr(ContainerReader, "read_chunk", counted)
    monkeypatch.setattr(converting, "write_plan", write_plan)
    qzf.convert(packed, out, dequantize=kind, threads=2)
    assert out.read_bytes() == direct.read_bytes()
    with FileSource(packed) as source:
        index = ContainerReader(source).index
    of_tensors = Counter(chunk for chunk in read if index.chunks[chunk].tensor != NO_TENSOR)
    assert set(of_tensors.values()) == {1}
    assert len(of_tensors) > 50
    assert not list(tmp_path.glob(".*"))


def test_chunks_larger_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_plan, "_SLICE", KIB)
    container, direct, out = tmp_path / "c.qzf", tmp_path / "direct.safetensors", tmp_path / "out.safetensors"
    qzf.pack(SMOLLM2, container)
    qzf.convert(SMOLLM2, direct, dequantize="f16", threads=1)
    qzf.convert(container, out, dequantize="f16", threads=3)
    assert out.read_bytes() == direct.read_bytes()


# --- hostile or changed files with a kept header --------------------------------------------------


def rewritten(path: Path, metadata: dict[str, str], tensors: dict[str, tuple[str, list[int], bytes]]) -> Path:
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture
def kept(tmp_path: Path) -> tuple[dict[str, str], dict[str, tuple[str, list[int], bytes]]]:
    between, _ = there_and_back(small_gguf(), tmp_path)
    return raw_file(between)


def test_another_order_is_no_matter(kept: Any, tmp_path: Path) -> None:
    metadata, tensors = kept
    path = rewritten(tmp_path / "x.safetensors", metadata, dict(reversed(tensors.items())))
    qzf.convert(path, tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == small_gguf()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("qzf.gguf_header"), "names is missing or not of bytes"),
        (
            lambda tensors: tensors.update({"qzf.gguf_header": ("I8", [8], bytes(8))}),
            "missing or not of bytes",
        ),
        (lambda tensors: tensors.pop("norm.weight"), "kept GGUF header"),
        (lambda tensors: tensors.update({"new": ("U8", [1], b"x")}), "the kept GGUF header does not have it"),
        (lambda tensors: tensors.update({"norm.weight": ("F16", [7], bytes(14))}), "kept GGUF header"),
        (
            lambda tensors: tensors.update({"norm.weight": ("F32", [7, 1], bytes(28))}),
            "kept GGUF header",
        ),
        (lambda tensors: tensors.update({"norm.weight": ("F32", [6], bytes(24))}), "kept GGUF header"),
    ],
)
def test_tensors_that_do_not_fit_the_header(kept: Any, change: Any, message: str, tmp_path: Path) -> None:
    metadata, tensors = kept
    change(tensors)
    path = rewritten(tmp_path / "x.safetensors", metadata, tensors)
    with pytest.raises(SafetensorsError, match=message):
        qzf.convert(path, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_a_damaged_header_is_a_typed_error_or_another_file(kept: Any, tmp_path: Path) -> None:
    metadata, tensors = kept
    dtype, _, good = tensors["qzf.gguf_header"]
    rng, made = random.Random(5), 0
    for _ in range(300):
        head = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            head[rng.randrange(min(len(head), 400) if rng.random() < 0.5 else len(head))] = rng.choice(
                (0, 1, 2, 32, 128, 255, rng.randrange(256))
            )
        head = head[: rng.randrange(len(head))] if rng.random() < 0.2 else head
        tensors["qzf.gguf_header"] = (dtype, [len(head)], bytes(head))
        path = rewritten(tmp_path / "x.safetensors", metadata, tensors)
        try:
            qzf.convert(path, tmp_path / "x.gguf", force=True)
        except QzfError:
            continue
        made += 1
        assert (tmp_path / "x.gguf").stat().st_size == sum(len(each[2]) for each in tensors.values())
    assert 0 < made < 300


def test_options_have_no_meaning_for_a_kept_header(kept: Any, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "x.safetensors", *kept)
    for options in ({"quantize": "q8_0"}, {"arch": "llama"}):
        with pytest.raises(OptionError, match="the GGUF file it was made of is restored"):
            qzf.convert(path, tmp_path / "x.gguf", **options)  # type: ignore[arg-type]


@pytest.mark.realmodel
def test_smollm2_comes_back(tmp_path: Path) -> None:
    model = default_cache() / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not model.is_file():
        pytest.skip(f"{model} is not there: python tools/fetch_models.py")
    qzf.convert(model, tmp_path / "a.safetensors")
    qzf.convert(tmp_path / "a.safetensors", tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == model.read_bytes()


# --- split models ---------------------------------------------------------------------------------

PARTS = sorted((SOURCES / "gguf").glob("split-*.gguf"))


def test_a_split_model_becomes_one_file_of_floats(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    report = qzf.convert(PARTS[0], out, dequantize="f32")
    theirs = {name: array for path in PARTS for name, array in expected(path, "f32").items()}
    tensors = raw_file(out)[1]
    assert {name: each[2] for name, each in tensors.items()} == {n: a.tobytes() for n, a in theirs.items()}
    assert report.tensors == len(theirs)
    assert not any("alone" in notice for notice in report.notices)
    container = tmp_path / "split.qzf"
    qzf.pack(PARTS[0], container)
    qzf.convert(container, tmp_path / "again.safetensors", dequantize="f32")
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()
    with pytest.raises(OptionError, match="3 members of that kind; name one"):
        qzf.convert(container, tmp_path / "raw.safetensors")
    qzf.pack(PARTS[1:], tmp_path / "lacking.qzf")
    with pytest.raises(OptionError, match="2 members of that kind; name one"):
        qzf.convert(tmp_path / "lacking.qzf", tmp_path / "raw.safetensors", dequantize="f32")


def test_parts_alone(tmp_path: Path) -> None:
    for number, path in enumerate(PARTS, 1):
        raw, again = tmp_path / f"{number}.safetensors", tmp_path / f"{number}.gguf"
        report = qzf.convert(path, raw)
        assert report.notices == (f"this is part {number} of 3 alone; each is converted on its own",)
        qzf.convert(raw, again)
        assert again.read_bytes() == path.read_bytes()
    report = qzf.convert(PARTS[1], tmp_path / "f.safetensors", dequantize="f32")
    assert report.notices[-1] == "this is part 2 of 3 alone; each is converted on its own"


def test_a_tensor_in_two_parts(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-{number:05d}-of-00002.gguf").write_bytes(gguf_file([], [GgufTensor("same", (3,))]))
    with pytest.raises(GgufError, match="another part has a tensor of this name"):
        qzf.convert(tmp_path / "m-00001-of-00002.gguf", tmp_path / "a.safetensors", dequantize="f16")


def test_a_damaged_container(packed: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.qzf").write_bytes(data)
    for options in ({}, {"dequantize": "f16"}):
        with pytest.raises(qzf.DamageError):
            qzf.convert(tmp_path / "bad.qzf", tmp_path / "a.safetensors", **options)  # type: ignore[arg-type]
        assert [path.name for path in tmp_path.iterdir()] == ["bad.qzf"]


def test_a_container_of_both_kinds(tmp_path: Path) -> None:
    """An option tells which of them is meant."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(small_gguf())
    qzf.convert(SMOLLM2, folder / "b.safetensors", dequantize="f16")
    container = tmp_path / "m.qzf"
    qzf.convert(folder, container)
    qzf.convert(container, tmp_path / "same.safetensors")
    assert (tmp_path / "same.safetensors").read_bytes() == (folder / "b.safetensors").read_bytes()
    qzf.convert(container, tmp_path / "made.safetensors", dequantize="f32")
    assert "norm.weight" in raw_file(tmp_path / "made.safetensors")[1]
    qzf.convert(container, tmp_path / "same.gguf")
    assert (tmp_path / "same.gguf").read_bytes() == small_gguf()
    qzf.convert(container, tmp_path / "made.gguf", arch="llama")
    assert (tmp_path / "made.gguf").read_bytes() != small_gguf()
