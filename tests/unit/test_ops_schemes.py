"""Schemes on their way from files to catalog and listing, and the configuration beside the files."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import qzf
from qzf import limits
from qzf.adapters.safetensors import DTYPE_BITS
from qzf.adapters.schemes import QuantConfig, read_quant_config, recognise
from qzf.adapters.schemes.config import parse_quant_config
from qzf.model import Extent, TensorSpec
from qzf.storage import MemorySource
from tests.helpers import SOURCES, Run, safetensors_file

SAFETENSORS = SOURCES / "safetensors"
NONE = QuantConfig()
#: Name -> dtype and shape.
Stored = dict[str, tuple[str, tuple[int, ...]]]
GROUPS = {"group_0": {"weights": {"num_bits": 4, "group_size": 128, "strategy": "group"}}}
COMPRESSED = {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": GROUPS}}
PACKED: Stored = {
    "a.weight_packed": ("I32", (8, 32)),
    "a.weight_scale": ("BF16", (8, 2)),
    "a.weight_shape": ("I64", (2,)),
}


def _write(path: Path, stored: Stored) -> Path:
    header, at = {}, 0
    for name, (dtype, shape) in stored.items():
        end = at + math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    path.write_bytes(safetensors_file(header, bytes(index % 251 for index in range(at))))
    return path


def _schemes(tmp_path: Path, *sources: Path, **options: Any) -> dict[str, str | None]:
    out = tmp_path / "out" / "packed.qzf"
    out.parent.mkdir(exist_ok=True)
    qzf.pack(list(sources), out, force=True, **options)
    assert qzf.verify(out, against=list(sources)).ok
    with qzf.open(out) as opened:
        return {name: opened.info(name).scheme for name in opened}


@pytest.mark.parametrize(
    ("file", "scheme"),
    [
        ("gptq-int4", "gptq-int4-g128"),
        ("nf4", "bnb-nf4"),
        ("int8-per-row", "int8-row"),
        ("i8", "int8-tensor"),
        ("u8", "mxfp4"),
        ("f8_e4m3", "fp8-e4m3-row"),
        ("f8_e5m2fnuz", "fp8-e5m2fnuz-row"),
        ("f8_e8m0", "mxfp8-e4m3"),
        ("f6_e2m3", "mxfp6-e2m3"),
        ("f4", "nvfp4"),
        ("bf16", None),
        ("i16", None),
        ("u16", None),
        ("u32", None),
        ("u64", None),
        ("bool", None),
    ],
)
def test_fixtures(tmp_path: Path, file: str, scheme: str | None) -> None:
    found = _schemes(tmp_path, SAFETENSORS / f"{file}.safetensors")
    plain = {"encoder.layer.0.intermediate.dense.bias", "encoder.layer.0.output.LayerNorm.weight"}
    assert {found[name] for name in found.keys() - plain} == {scheme}
    assert {found[name] for name in plain} == {None}


def test_ls_names_schemes(run: Run) -> None:
    assert run("pack", SAFETENSORS / "gptq-int4.safetensors", "-o", "a.qzf").exit_code == 0
    header, *lines = run("ls", "a.qzf", "--tensors").stdout.splitlines()
    assert header.split()[-2:] == ["pipeline", "scheme"]
    shown = {line.split()[0]: line.split()[-1] for line in lines}
    assert shown["encoder.layer.0.output.dense.qweight"] == "gptq-int4-g128"
    assert shown["encoder.layer.0.output.LayerNorm.weight"] == "-"
    records = json.loads(run("ls", "a.qzf", "--json").stdout)["tensors"]
    assert {record["name"]: record["scheme"] or "-" for record in records} == shown


def test_recovery_keeps_schemes(tmp_path: Path) -> None:
    out = tmp_path / "a.qzf"
    qzf.pack(SAFETENSORS / "nf4.safetensors", out)
    with qzf.open(out) as opened:
        whole = {name: opened.info(name).scheme for name in opened}
    out.write_bytes(out.read_bytes()[:-100])
    with qzf.open(out, recover=True) as opened:
        assert {name: opened.info(name).scheme for name in opened} == whole


def test_parts_of_a_weight_in_two_shards(tmp_path: Path) -> None:
    weight: Stored = {"a.weight": ("I8", (4, 8))}
    scale: Stored = {"a.weight_scale": ("F32", (4, 1))}
    one = _write(tmp_path / "model-00001-of-00002.safetensors", weight)
    two = _write(tmp_path / "model-00002-of-00002.safetensors", scale)
    assert _schemes(tmp_path, one, two) == {"a.weight": "int8-row", "a.weight_scale": "int8-row"}
    assert set(_schemes(tmp_path, one).values()) == {None}
    other = _write(tmp_path / "other-00002-of-00002.safetensors", scale)
    assert set(_schemes(tmp_path, one, other).values()) == {None}


def test_a_name_in_two_shards_is_nobodys_partner(tmp_path: Path) -> None:
    scale: Stored = {"a.weight_scale": ("F32", (4, 1))}
    one = _write(tmp_path / "m-00001-of-00002.safetensors", {"a.weight": ("I8", (4, 8)), **scale})
    two = _write(tmp_path / "m-00002-of-00002.safetensors", scale)
    assert set(_schemes(tmp_path, one, two).values()) == {None}


def test_the_configuration_beside_the_file_counts(tmp_path: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    one = _write(tmp_path / "with" / "a.safetensors", PACKED)
    two = _write(tmp_path / "without" / "b.safetensors", PACKED)
    one.with_name("config.json").write_text(json.dumps(COMPRESSED))
    found = _schemes(tmp_path, one, two)
    assert {scheme for name, scheme in found.items() if name.startswith("a.safetensors:")} == {
        "compressed-tensors-int4-g128"
    }
    assert {scheme for name, scheme in found.items() if name.startswith("b.safetensors:")} == {
        "compressed-tensors-packed"
    }
    assert set(_schemes(tmp_path, one, opaque=True)) == set()


def test_beside_what_is_no_file_there_is_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is that of the folder which happens to be the current one."""
    monkeypatch.chdir(tmp_path)
    file = _write(tmp_path / "a.safetensors", PACKED)
    (tmp_path / "config.json").write_text(json.dumps(COMPRESSED))
    source = MemorySource(file.read_bytes(), "b.safetensors")
    qzf.pack([source, file], "out.qzf")
    with qzf.open("out.qzf") as container:
        found = {(container.members[t.member].name, t.scheme) for t in container.tensors if t.scheme}
    assert found == {
        ("a.safetensors", "compressed-tensors-int4-g128"),
        ("b.safetensors", "compressed-tensors-packed"),
    }


def test_links_into_a_cache_are_looked_beside_of(tmp_path: Path) -> None:
    """A snapshot in the cache of huggingface_hub is a folder of links to blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    _write(blobs / "0123", PACKED)
    (blobs / "4567").write_text(json.dumps(COMPRESSED))
    (snapshot / "model.safetensors").symlink_to(blobs / "0123")
    (snapshot / "config.json").symlink_to(blobs / "4567")
    found = _schemes(tmp_path, snapshot / "model.safetensors")
    assert set(found.values()) == {"compressed-tensors-int4-g128"}


def test_a_large_checkpoint_takes_seconds_at_most() -> None:
    parts = [("qweight", "I32", (512, 64)), ("qzeros", "I32", (32, 8)), ("scales", "F16", (32, 64))]
    tensors = {
        f"{layer}.{part}": TensorSpec(f"{layer}.{part}", dtype, shape, Extent(0, 1), 1)
        for layer in range(30_000)
        for part, dtype, shape in parts
    }
    started = time.perf_counter()
    assert len(recognise(tensors)) == 90_000
    assert time.perf_counter() - started < 10


# --- reading a configuration ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "config"),
    [
        ("config.json", COMPRESSED, QuantConfig("compressed-tensors", ((4, 128),))),
        ("config.json", {"compression_config": {"config_groups": GROUPS}}, QuantConfig(None, ((4, 128),))),
        ("config.json", {"text_config": COMPRESSED}, QuantConfig("compressed-tensors", ((4, 128),))),
        (
            "config.json",
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            QuantConfig("fp8", (), (128, 128)),
        ),
        ("quantize_config.json", {"bits": 4, "group_size": -1}, QuantConfig(None, ((4, None),))),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 128}, QuantConfig(None, ((4, 128),))),
        ("other.json", COMPRESSED, NONE),
        ("config.json", {"hidden_size": 4096}, NONE),
    ],
)
def test_configurations(tmp_path: Path, file: str, content: object, config: QuantConfig) -> None:
    (tmp_path / file).write_text(json.dumps(content))
    assert read_quant_config(tmp_path) == config


def test_the_first_file_that_speaks_of_quantization_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "quantization_config": null}')
    (tmp_path / "quantize_config.json").write_text('{"bits": 8, "group_size": 32}')
    assert read_quant_config(tmp_path) == QuantConfig(None, ((8, 32),))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff{}",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"bits":' + b"9" * 5000 + b"}",
        b'{"bits":4,"x":[' + b"{}," * limits.MAX_QUANT_CONFIG_VALUES + b"1]}",
        b'{"bits":4,"x":"' + b"x" * limits.MAX_QUANT_CONFIG + b'"}',
        json.dumps({"quantization_config": [], "text_config": [], "llm_config": 1}).encode(),
    ],
    ids=lambda content: repr(content)[:20],
)
def test_hostile_configurations_are_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert read_quant_config(tmp_path) == NONE


def test_configurations_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    os.mkfifo(tmp_path / "quantize_config.json")
    (tmp_path / "quant_config.json").symlink_to("quant_config.json")
    assert read_quant_config(tmp_path) == NONE
    shutil.rmtree(tmp_path / "config.json")
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(1 << 40)
    assert read_quant_config(tmp_path) == NONE


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": 4, "bits": "4", "group_size": "128", "weight_block_size": "128"},
        {"bits": True, "weight_block_size": [128]},
        {"bits": 4.0, "weight_block_size": [128, 128.0]},
        {"bits": 0, "weight_block_size": [0, 128]},
        {"bits": 1 << 80, "weight_block_size": [128, -1]},
        {"bits": None, "config_groups": {"a": None, "b": {"weights": None}, "c": {"weights": {}}}},
        {"config_groups": [1]},
    ],
)
def test_values_of_other_types_count_as_absent(config: dict[str, Any]) -> None:
    assert parse_quant_config(config) == NONE


def test_few_groups_are_kept() -> None:
    groups = {str(i): {"weights": {"num_bits": 4, "group_size": i + 1}} for i in range(1000)}
    assert len(parse_quant_config({"config_groups": groups}).weights) == limits.MAX_QUANT_CONFIG_GROUPS
