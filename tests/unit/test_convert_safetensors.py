"""safetensors to GGUF: numbers as they are, and quantized as libgguf does."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import gguf
import libgguf
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

import qzf
from qzf.errors import NotFoundError, OptionError, OutputExistsError, SafetensorsError, SourceError
from qzf.limits import KIB
from qzf.ops import convert_plan
from qzf.ops.converting import QUANTIZED
from tests.helpers import SOURCES, entry, safetensors_file

SHARDED = SOURCES / "safetensors" / "sharded"
Array = npt.NDArray[Any]


def rows(rows: int, columns: int, dtype: Any = np.float32) -> Array:
    rng = np.random.default_rng(rows * columns)
    return (rng.standard_normal((rows, columns)) * rng.uniform(0.01, 3, (rows, 1))).astype(dtype)


def read(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Tensors of a GGUF file as the gguf package sees them: type, shape, bytes."""
    return {
        tensor.name: (
            gguf.GGMLQuantizationType(tensor.tensor_type).name,
            tuple(int(each) for each in tensor.shape[::-1]),
            tensor.data.tobytes(),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


MIXED: dict[str, Array] = {
    "b.weight": rows(6, 256),
    "a.weight": rows(5, 64, np.float16),
    "c.weight": rows(3, 512, ml_dtypes.bfloat16),
    "odd": rows(4, 33),
    "norm": rows(1, 256)[0],
    "cube": rows(6, 64).reshape(2, 3, 64),
    "ids": np.arange(12).reshape(1, 12),
    "small": np.arange(-3, 4, dtype=np.int8),
    "double": np.linspace(0, 1, 5),
    "scalar": np.array(2.5, np.float32),
    "none": np.zeros((0, 256), np.float32),
}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "Some Model.safetensors"
    save_file(MIXED, path, {"format": "pt", "made": "here"})
    return path


def test_numbers_stay_as_they_are(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    report = qzf.convert(mixed, out, arch="bert")
    tensors = read(out)
    names = {"f4": "F32", "f2": "F16", "V2": "BF16", "i8": "I64", "i1": "I8", "f8": "F64"}
    assert tensors.keys() == MIXED.keys()
    for name, array in MIXED.items():
        shape = array.shape or (1,)
        assert tensors[name] == (names[array.dtype.str[1:]], shape, array.tobytes()), name
    assert (report.tensors, report.changed) == (11, 0)
    fields = gguf.GGUFReader(out).fields
    assert {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")} == {
        "general.architecture": "bert",
        "general.name": "Some Model",
    }
    assert report.notices == (
        "llama.cpp cannot run the result: safetensors have neither hyperparameters nor a tokenizer",
        "lost: __metadata__, format, made",
        "lost: how the safetensors header is written",
        "lost: that these are scalars and not vectors of one: scalar",
    )
    assert out.stat().st_size % 32 == 0


def test_the_gguf_file_can_be_packed_and_converted_again(mixed: Path, tmp_path: Path) -> None:
    """Our own adapter takes it, and its raw form holds the same tensors."""
    qzf.convert(mixed, tmp_path / "a.gguf")
    qzf.convert(tmp_path / "a.gguf", tmp_path / "b.safetensors")
    back = load_file(tmp_path / "b.safetensors")
    for name, array in MIXED.items():
        assert back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_as_libgguf_does(
    kind: str, threads: int, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces that end within rows, which is no matter."""
    monkeypatch.setattr(convert_plan, "_SLICE", 3 * KIB)
    out = tmp_path / "out.gguf"
    report = qzf.convert(mixed, out, quantize=kind, threads=threads)
    qtype = gguf.GGMLQuantizationType[kind.upper()]
    block = gguf.GGML_QUANT_SIZES[qtype][0]
    changed = {name for name in ("a.weight", "b.weight", "c.weight") if MIXED[name].shape[1] % block == 0}
    tensors = read(out)
    for name, array in MIXED.items():
        if name not in changed:
            assert tensors[name][2] == array.tobytes()
            continue
        expected = libgguf.quantize_rows(array.astype(np.float32), qtype)
        assert tensors[name] == (qtype.name, array.shape, expected.tobytes())
    assert report.changed == len(changed) >= 2
    assert report.notices[-1] == f"lost: precision; {len(changed)} of 11 tensors become {qtype.name}"
    assert gguf.GGUFReader(out).fields["general.quantization_version"].contents() == 2


def test_q8_0_is_that_of_the_gguf_package_too(mixed: Path, tmp_path: Path) -> None:
    qzf.convert(mixed, tmp_path / "out.gguf", quantize="q8_0")
    expected = gguf.quants.quantize(MIXED["b.weight"], gguf.GGMLQuantizationType.Q8_0)
    assert read(tmp_path / "out.gguf")["b.weight"][2] == expected.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_quantized(bad: float, tmp_path: Path) -> None:
    array = rows(4, 256)
    array[2, 17] = bad
    save_file({"fine": rows(2, 256), "w": array}, tmp_path / "a.safetensors")
    with pytest.raises(SafetensorsError, match="infinities or NaNs") as caught:
        qzf.convert(tmp_path / "a.safetensors", tmp_path / "a.gguf", quantize="q4_k")
    assert caught.value.tensor == "w"
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    qzf.convert(tmp_path / "a.safetensors", tmp_path / "a.gguf")


def test_without_libgguf(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libgguf", None)
    with pytest.raises(OptionError, match=r"pip install 'qzf\[convert\]'"):
        qzf.convert(mixed, tmp_path / "a.gguf", quantize="q8_0")
    qzf.convert(mixed, tmp_path / "a.gguf")


@pytest.mark.parametrize("name", ["bool", "c64", "f4", "f8_e4m3", "u8", "u16", "u64"])
def test_dtypes_that_gguf_lacks(name: str, tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match=r"GGUF has no type for [A-Z0-9_, ]+; it has BF16, F16, F32"):
        qzf.convert(SOURCES / "safetensors" / f"{name}.safetensors", tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == []


def test_too_many_dimensions(tmp_path: Path) -> None:
    save_file({"a": np.zeros((1, 1, 1, 1, 2), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(SafetensorsError, match="5 dimensions, GGUF has up to 4"):
        qzf.convert(tmp_path / "a.safetensors", tmp_path / "a.gguf")


def test_a_name_that_gguf_cannot_have(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(
        safetensors_file({"n" * 70000: entry("F32", (1,), 0, 4)}, bytes(4))
    )
    with pytest.raises(SafetensorsError, match="cannot be a GGUF file: a tensor's name is 70000 bytes long"):
        qzf.convert(tmp_path / "a.safetensors", tmp_path / "a.gguf")


def test_long_names_are_told_of(tmp_path: Path) -> None:
    save_file({"n" * 63: rows(1, 3), "m" * 64: rows(1, 3)}, tmp_path / "a.safetensors")
    report = qzf.convert(tmp_path / "a.safetensors", tmp_path / "a.gguf")
    assert report.notices[-1] == f"ggml takes names of up to 63 bytes, not {'m' * 64}"


def test_no_tensors(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    assert qzf.convert(tmp_path / "a.safetensors", tmp_path / "a.gguf").tensors == 0
    assert read(tmp_path / "a.gguf") == {}


# --- sets of files, and containers ----------------------------------------------------------------


def shards() -> dict[str, Array]:
    return {
        name: array
        for path in sorted(SHARDED.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def test_shards_become_one_file(tmp_path: Path, sharded: Path) -> None:
    """By their index, their folder, and out of a container: the same file but for the model's name."""
    index = next(SHARDED.glob("*.index.json"))
    folder = tmp_path / "model"
    shutil.copytree(SHARDED, folder)
    made = {}
    for number, source in enumerate((index, SHARDED, folder, sharded)):
        out = tmp_path / f"{number}.gguf"
        report = qzf.convert(source, out)
        made[source] = {name: each[2] for name, each in read(out).items()}
        assert made[source] == {name: array.tobytes() for name, array in shards().items()}
        assert any("which file has which tensor" in notice for notice in report.notices)
    assert gguf.GGUFReader(tmp_path / "2.gguf").fields["general.name"].contents() == "model"
    assert (tmp_path / "2.gguf").read_bytes() == (tmp_path / "3.gguf").read_bytes()


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"same": rows(1, 3)}, tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"same": "a.safetensors", "other": "b.safetensors"}}')
    with pytest.raises(SafetensorsError, match="another file has a tensor of this name"):
        qzf.convert(index, tmp_path / "a.gguf")


def test_a_folder_without_one_model(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="0 safetensors models in the folder"):
        qzf.convert(tmp_path, tmp_path / "a.gguf")
    for name in ("a", "b"):
        save_file({"same": rows(1, 3)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(OptionError, match="2 safetensors models"):
        qzf.convert(tmp_path, tmp_path / "a.gguf")


def test_to_and_from_a_container(mixed: Path, tmp_path: Path) -> None:
    container = tmp_path / "m.qzf"
    packed = qzf.convert(mixed, container)
    assert (packed.tensors, packed.output_size) == (11, container.stat().st_size)
    qzf.convert(container, tmp_path / "same.safetensors")
    assert (tmp_path / "same.safetensors").read_bytes() == mixed.read_bytes()
    qzf.convert(container, tmp_path / "c.gguf", quantize="q8_0")
    qzf.convert(mixed, tmp_path / "d.gguf", quantize="q8_0")
    assert read(tmp_path / "c.gguf") == read(tmp_path / "d.gguf")


def test_a_container_of_several(sharded: Path, tmp_path: Path) -> None:
    qzf.convert(sharded, f"{tmp_path / 'all'}{os.sep}")
    for path in SHARDED.iterdir():
        assert (tmp_path / "all" / path.name).read_bytes() == path.read_bytes()
    one = sorted(path.name for path in SHARDED.glob("*.safetensors"))[0]
    with pytest.raises(OptionError, match="members of that kind; name one"):
        qzf.convert(sharded, tmp_path / "a.safetensors")
    qzf.convert(sharded, tmp_path / "a.safetensors", member=one)
    assert (tmp_path / "a.safetensors").read_bytes() == (SHARDED / one).read_bytes()
    qzf.convert(sharded, tmp_path / "a.gguf", member=one)
    assert read(tmp_path / "a.gguf").keys() == load_file(SHARDED / one).keys()
    with pytest.raises(NotFoundError, match="there is no member 'x'"):
        qzf.convert(sharded, tmp_path / "b.gguf", member="x")


def packed_tree(folder: Path, names: list[str], extra: dict[str, str]) -> Path:
    """A container of a folder with files of one tensor each, of a name of its own."""
    tree = folder / "tree"
    for number, name in enumerate(names):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        save_file({f"t{number}": rows(2, number + 2)}, tree / name)
    for name, text in extra.items():
        (tree / name).write_text(text)
    qzf.pack(tree, folder / "m.qzf")
    return folder / "m.qzf"


INDEX = '{"weight_map": {"t0": "a.safetensors", "t1": "b.safetensors"}}'


@pytest.mark.parametrize(
    ("names", "extra"),
    [
        (["text/model.safetensors", "unet/model.safetensors"], {}),
        (["a.safetensors", "b.safetensors"], {}),
        (["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "n.safetensors"], {}),
        (["a.safetensors", "b.safetensors", "c.safetensors"], {"model.safetensors.index.json": INDEX}),
        (["x/a.safetensors", "x/b.safetensors"], {"model.safetensors.index.json": INDEX}),
    ],
)
def test_models_that_have_nothing_to_do_with_each_other(
    names: list[str], extra: dict[str, str], tmp_path: Path
) -> None:
    container = packed_tree(tmp_path, names, extra)
    with qzf.open(container) as opened:
        members = [member.name for member in opened.members if member.kind == "safetensors"]
    with pytest.raises(OptionError, match=f"it has {len(names)} members of that kind; name one"):
        qzf.convert(container, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()
    qzf.convert(container, tmp_path / "a.gguf", member=members[0])
    assert len(read(tmp_path / "a.gguf")) == 1


@pytest.mark.parametrize("folder", ["", "x/"])
def test_one_model_by_its_index(folder: str, tmp_path: Path) -> None:
    names = [f"{folder}a.safetensors", f"{folder}b.safetensors"]
    container = packed_tree(tmp_path, names, {f"{folder}model.safetensors.index.json": INDEX})
    qzf.convert(container, tmp_path / "a.gguf")
    assert read(tmp_path / "a.gguf").keys() == {"t0", "t1"}


def test_a_container_without_models(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    qzf.convert(tmp_path / "a.txt", tmp_path / "a.qzf")
    with pytest.raises(SourceError, match="no GGUF or safetensors member"):
        qzf.convert(tmp_path / "a.qzf", tmp_path / "a.gguf")
    qzf.convert(tmp_path / "a.qzf", tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == "text"


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "out", "options", "message"),
    [
        ("a.gguf", "b.gguf", {}, "it can be .gguf to .safetensors"),
        ("m.safetensors", "b.safetensors", {}, "it can be"),
        ("m.safetensors", "b", {}, "it can be"),
        ("m.safetensors", "b/", {}, "it can be"),
        ("a.txt", "b.gguf", {}, "it can be"),
        ("a.gguf", "b.safetensors.index.json", {}, "it can be"),
        ("a.qzf", "b.qzf", {}, "container cannot be converted to a container"),
        ("a.gguf", "a.gguf", {}, "source and output are the same"),
        ("m.safetensors", "", {}, "empty text"),
        ("a.gguf", "b.safetensors", {"dequantize": "f64"}, "dequantize is 'f64'; it can be f32, f16, bf16"),
        ("m.safetensors", "b.gguf", {"quantize": "q9"}, "quantize is 'q9'; it can be q4_0"),
        ("m.safetensors", "b.gguf", {"quantize": "iq2_xxs"}, "quantize is 'iq2_xxs'"),
        ("a.gguf", "b.safetensors", {"quantize": "q8_0"}, "quantize has no meaning"),
        ("a.gguf", "b.safetensors", {"arch": "x"}, "arch has no meaning"),
        ("a.gguf", "b.safetensors", {"member": "x"}, "member has no meaning"),
        ("m.safetensors", "b.gguf", {"dequantize": "f16"}, "dequantize has no meaning"),
        ("m.safetensors", "b.qzf", {"quantize": "q8_0"}, "quantize has no meaning"),
        ("a.qzf", "b.gguf", {"quantize": "q8_0"}, "quantize has no meaning"),
        ("m.safetensors", "b.gguf", {"threads": 0}, "number of threads"),
        ("m.safetensors", "b.gguf", {"arch": "\udcff"}, "control characters or what is no text"),
        ("m.safetensors", "b.gguf", {"arch": "a\nb"}, "control characters"),
        ("m.safetensors", "b.gguf", {"arch": "a\0"}, "control characters"),
        ("https://h/m.safetensors", "b.gguf", {}, "download the file first"),
        ("memory://a.qzf", "b.gguf", {}, "download the file first"),
        ("m.safetensors", "memory://b.gguf", {}, "a file, not a URL"),
    ],
)
def test_directions_and_options_that_make_no_sense(
    source: str, out: str, options: dict[str, Any], message: str, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mixed.parent)
    shutil.copy(SOURCES / "gguf" / "q4_0.gguf", "a.gguf")
    mixed.rename("m.safetensors")
    Path("a.txt").write_text("text")
    qzf.pack("a.gguf", "a.qzf")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    with pytest.raises(OptionError, match=message):
        qzf.convert(source, out, **options)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_outputs_that_are_there(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.gguf"
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        qzf.convert(mixed, out)
    assert out.read_text() == "mine"
    qzf.convert(mixed, out, force=True)
    assert out.read_bytes()[:4] == b"GGUF"
    (tmp_path / "shard.safetensors").write_bytes(mixed.read_bytes())
    index = tmp_path / "m.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "shard.safetensors"}}')
    (tmp_path / "link.gguf").symlink_to(tmp_path / "shard.safetensors")
    with pytest.raises(OptionError, match="the output is one of the sources"):
        qzf.convert(index, tmp_path / "link.gguf", force=True)


def test_progress_and_interruption(mixed: Path, tmp_path: Path) -> None:
    seen = []
    qzf.convert(mixed, tmp_path / "a.gguf", progress=lambda *counts: seen.append(counts))
    assert [each[0] for each in seen] == sorted(each[0] for each in seen)
    assert seen[-1][0] == seen[-1][1] == sum(array.nbytes for array in MIXED.values())
    assert seen[-1][2] <= (tmp_path / "a.gguf").stat().st_size

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qzf.convert(mixed, tmp_path / "b.gguf", progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Some Model.safetensors", "a.gguf"]


def test_a_source_that_changes(mixed: Path, tmp_path: Path) -> None:
    def grow(*_: int) -> None:
        with mixed.open("ab") as file:
            file.write(b"x")

    with pytest.raises(qzf.SourceChangedError):
        qzf.convert(mixed, tmp_path / "b.gguf", progress=grow)
    assert not (tmp_path / "b.gguf").exists()
