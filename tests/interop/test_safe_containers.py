"""``qzf.safe_open`` of what containers hold: metadata, several members, raw blocks; damage and errors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

import qzf
from qzf.errors import DamageError, NotFoundError, OptionError
from tests.helpers import SOURCES
from tests.interop.beside import Pair, both, content, packed, run_python, same_tensor

# --- metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"a": ""},
        {"long": "x" * 10_000},
        {"long": "x" * 10_000, "short": "y"},
        {"quote": '"\\\n\x01'},
    ],
    ids=["none", "empty", "empty value", "long", "long and short", "escapes"],
)
def test_metadata(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    pair = packed(tmp_path, "m", lambda path: save_file({"t": np.zeros(3, np.int8)}, path, metadata=metadata))
    both(pair, "numpy", lambda file: file.metadata())


def test_metadata_of_gguf(smollm2: Path) -> None:
    with qzf.safe_open(smollm2, "numpy") as file:
        metadata = file.metadata()
        assert metadata is not None
        assert metadata["general.architecture"] == "llama"
        assert json.loads(metadata["llama.block_count"]) == qzf.open(smollm2).metadata["llama.block_count"]
        assert all(isinstance(value, str) for value in metadata.values())


# --- what containers have that safetensors files do not -------------------------------------------


def test_quantized_gguf_tensors_are_raw_blocks(smollm2: Path, framework: str) -> None:
    with qzf.open(smollm2) as container, qzf.safe_open(smollm2, framework) as file:
        assert file.keys() == sorted(container) and file.offset_keys() == list(container)
        name = next(name for name in container if container.info(name).dtype == "Q4_1")
        blocks = container.tensor(name)
        piece = file.get_slice(name)
        assert piece.get_dtype() == "Q4_1" and piece.get_shape() == list(blocks.shape)
        assert content(file.get_tensor(name)) == blocks.tobytes()
        assert content(piece[1:3, 20:]) == blocks[1:3, 20:].tobytes()


def test_a_sharded_checkpoint(sharded: Path, framework: str) -> None:
    folder = SOURCES / "safetensors" / "sharded"
    theirs: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(path, framework) as shard:
            theirs |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - no mapping
            metadata |= shard.metadata() or {}
    with qzf.safe_open(sharded, framework) as file:
        assert file.keys() == sorted(theirs) and (file.metadata() or {}) == metadata
        for name, tensor in file.get_tensors().items():
            same_tensor(tensor, theirs[name])
            same_tensor(file.get_tensor(name), theirs[name])


def test_a_name_that_two_members_have(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"t": np.full(3, ord(name))}, tmp_path / f"{name}.safetensors")
    qzf.pack([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "both.qzf")
    with qzf.safe_open(tmp_path / "both.qzf", "numpy") as file:
        assert file.keys() == ["a.safetensors:t", "b.safetensors:t"]
        assert file.get_tensor("b.safetensors:t").tolist() == [ord("b")] * 3


EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


def test_floats_of_eight_bits_and_less(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    codes = torch.arange(96, dtype=torch.uint8).reshape(6, 16)
    tensors = {name: codes.view(getattr(torch, name)).clone() for name in EIGHT_BITS}
    tensors["float4_e2m1fn_x2"] = codes.view(torch.float4_e2m1fn_x2).clone()
    pair = packed(tmp_path, "eight", lambda path: save_torch(tensors, path))
    for name in tensors:
        both(pair, "pt", lambda file, name=name: file.get_tensor(name))  # type: ignore[misc]
    for name in EIGHT_BITS:
        both(pair, "pt", lambda file, name=name: file.get_slice(name)[2:5, ::3])  # type: ignore[misc]
        with qzf.safe_open(pair.ours, "numpy") as file:  # which numpy alone cannot
            assert file.get_tensor(name).dtype.name == name
            assert file.get_slice(name)[1].tobytes() == codes[1].numpy().tobytes()
    with qzf.safe_open(pair.ours, "pt") as file:
        four = file.get_slice("float4_e2m1fn_x2")
        assert four.get_shape() == [6, 32] and four.get_dtype() == "F4"
        assert torch.equal(four[1].view(torch.uint8), codes[1])
    with qzf.safe_open(pair.ours, "numpy") as file:
        for call in (file.get_tensors, lambda: file.get_tensor("float4_e2m1fn_x2")):
            with pytest.raises(OptionError, match="cannot hold F4"):
                call()


def test_only_the_chunks_of_the_rows_asked_for_are_decoded(pair: Pair, framework: str) -> None:
    with qzf.open(pair.ours) as container:
        entry = container.info("wide")
        assert entry.chunk_count >= 3
        last = container.chunks[entry.first_chunk + entry.chunk_count - 1]
        damaged = bytearray(pair.ours.read_bytes())
        middle = int(last["offset"]) + int(last["stored_size"]) // 2
        damaged[middle] ^= 0x55
    path = pair.ours.with_name(f"damaged-{framework}.qzf")
    path.write_bytes(damaged)
    with qzf.safe_open(path, framework) as file, safetensors.safe_open(pair.theirs, framework) as theirs:
        ours, real = file.get_slice("wide"), theirs.get_slice("wide")
        same_tensor(ours[:9, 3:5], real[:9, 3:5])
        if framework == "pt":
            same_tensor(ours[2, [3, 1]], real[2, [3, 1]])
            same_tensor(ours[4:8, None], real[4:8, None])
        for call in (lambda: ours[380:], lambda: file.get_tensor("wide"), file.get_tensors):
            with pytest.raises(DamageError) as caught:
                call()
            assert isinstance(caught.value, safetensors.SafetensorError)
            assert caught.value.tensor == "wide" and caught.value.file == str(path)


# --- errors, and packages that are not wanted -----------------------------------------------------


def test_errors_are_of_both_trees_and_can_be_pickled(pair: Pair) -> None:
    file = qzf.safe_open(pair.ours, "numpy")
    with pytest.raises(safetensors.SafetensorError) as caught:
        file.get_tensor("nobody")
    assert isinstance(caught.value, NotFoundError) and str(pair.ours) in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is NotFoundError and str(again) == str(caught.value)


_ALONE = """
import sys
import qzf
assert not {"numpy", "qzf.access"} & set(sys.modules), "import qzf is lazy"
optional = {"torch", "jax", "mlx", "safetensors", "transformers", "ml_dtypes"}
with qzf.safe_open(sys.argv[1], "numpy") as file:
    file.get_tensor("wide"), file.get_slice("long")[3:9], file.metadata()
    try:
        file.get_tensor("nobody")
    except qzf.NotFoundError as error:
        assert type(error) is qzf.NotFoundError
assert not optional & set(sys.modules), optional & set(sys.modules)
"""


def test_no_optional_package_is_imported(pair: Pair) -> None:
    run_python(_ALONE, pair.ours)
