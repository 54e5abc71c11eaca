"""What a maker hands over, and where the real weights come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from tools.fetch_models import fetch

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

MPNET = "sentence-transformers/all-mpnet-base-v2"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Source:
    """One file to be: its path below ``fixtures/sources``, its bytes, the model it is cut from, and how."""

    path: str
    data: bytes
    origin: str
    recipe: str


class Weights:
    """The F32 tensors and the side files of one fetched safetensors model."""

    def __init__(self, name: str, cache: Path | None) -> None:
        self._file = fetch(name, cache)

    def rows(self, tensor: str, count: int | None = None) -> Floats:
        """Return the first `count` rows (all without it) of F32 `tensor`, as float32 in its own shape."""
        return np.ascontiguousarray(self.corner(tensor, count), np.float32)

    def integers(self, tensor: str) -> npt.NDArray[np.int64]:
        """Return a whole I64 `tensor`."""
        return np.ascontiguousarray(self.corner(tensor), np.int64)

    def corner(self, tensor: str, *sizes: int | None) -> npt.NDArray[Any]:
        """Return the leading ``sizes`` entries of each axis of `tensor` (None or no size: all of it)."""
        with safe_open(self._file, framework="numpy") as opened:
            view = opened.get_slice(tensor)
            array: npt.NDArray[Any] = view[tuple(slice(size) for size in sizes)] if sizes else view[:]
        return array

    def names(self) -> Iterator[str]:
        """Yield the tensor names, sorted."""
        with safe_open(self._file, framework="numpy") as opened:
            yield from sorted(opened.keys())

    def text(self, relative: str) -> str:
        """Return a side file's text (UTF-8)."""
        return (self._file.parent / relative).read_text(encoding="utf-8")

    def json(self, relative: str) -> Any:
        """Return a side file's parsed JSON."""
        return json.loads(self.text(relative))


def mean_square(rows: Floats) -> Floats:
    """Return the column means of the squares of float32 ``[rows, columns]``: a stand-in importance vector."""
    means: Floats = np.mean(np.square(rows.astype(np.float64)), axis=0).astype(np.float32)
    return means
