"""Calls of safetensors and of qzf on the same tensors, side by side."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # with it numpy, and so safetensors, knows bfloat16
import numpy as np
import safetensors

import qzf
from qzf.errors import OptionError, QzfError

FRAMEWORKS = ("numpy", "pt")
RNG = np.random.default_rng(4)
TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "b.cube": RNG.standard_normal((3, 4, 5)).astype(np.float32),
    "wide": RNG.standard_normal((384, 128)).astype(np.float16),
    "long": RNG.integers(-(2**60), 2**60, (4000,)),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 4), np.float32),
    "hollow": np.zeros((3, 0, 2), np.int8),
    "brain": RNG.standard_normal((6, 7)).astype(ml_dtypes.bfloat16),
    "flags": RNG.integers(0, 2, (3, 5)).astype(np.bool_),
    "complex": RNG.standard_normal((2, 3)).astype(np.complex64),
    "u16": RNG.integers(0, 2**16, (3, 3)).astype(np.uint16),
    "U32": RNG.integers(0, 2**32, (3, 3)).astype(np.uint32),
    "ü64": RNG.integers(0, 2**63, (3, 3)).astype(np.uint64),
}
CUBE = "b.cube"
METADATA = {"format": "pt", "who": "Ünïcode"}


class Pair(NamedTuple):
    """A safetensors file and a container of it; chunks are small, so that tensors have several."""

    theirs: Path
    ours: Path


def packed(folder: Path, name: str, save: Callable[[Path], object]) -> Pair:
    pair = Pair(folder / f"{name}.safetensors", folder / f"{name}.qzf")
    save(pair.theirs)
    qzf.pack(pair.theirs, pair.ours, chunk_size=4096)
    return pair


class Outcome(NamedTuple):
    """What a call gave, or raised."""

    value: Any
    error: BaseException | None


def outcome(call: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(call(), None)
    except BaseException as error:  # a panic of Rust's is no Exception
        return Outcome(None, error)


def content(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    import torch

    flat = torch.empty(value.numel(), dtype=value.dtype).copy_(value.reshape(-1))
    return bytes(flat.view(torch.uint8).numpy().tobytes())


def same_tensor(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    assert tuple(ours.shape) == tuple(theirs.shape)
    assert content(ours) == content(theirs)
    if isinstance(ours, np.ndarray):
        assert ours.flags.writeable == theirs.flags.writeable
        assert ours.flags.c_contiguous == theirs.flags.c_contiguous
    else:
        assert not ours.requires_grad and ours.device == theirs.device


#: What safetensors raises where it runs into a fault of its own, for a slice whose end lies before its start.
FAULTS = ("SystemError", "PanicException")


def same(ours: Outcome, theirs: Outcome) -> None:
    """Both gave the same, or ours raised what code that expects theirs would catch."""
    if theirs.error is None:
        assert ours.error is None, ours.error
        if hasattr(theirs.value, "dtype"):
            same_tensor(ours.value, theirs.value)
        else:
            assert ours.value == theirs.value and type(ours.value) is type(theirs.value)
        return
    assert ours.error is not None, f"they raise {theirs.error!r}, we give {ours.value!r}"
    if type(theirs.error).__name__ in FAULTS:
        assert isinstance(ours.error, OptionError)
    elif isinstance(theirs.error, safetensors.SafetensorError):
        assert isinstance(ours.error, QzfError) and isinstance(ours.error, safetensors.SafetensorError)
    else:
        assert isinstance(ours.error, type(theirs.error))


def both(pair: Pair, framework: str, call: Callable[[Any], Any]) -> None:
    with safetensors.safe_open(pair.theirs, framework) as theirs, qzf.safe_open(pair.ours, framework) as ours:
        same(outcome(lambda: call(ours)), outcome(lambda: call(theirs)))


def run_python(code: str, *args: object) -> str:
    """What a program prints that runs in a process of its own, where warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
