"""Fixtures and Hypothesis profiles for all tests.

The profile is ``default``, or what ``HYPOTHESIS_PROFILE`` says: ``ci`` is the same on every run.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import qzf
from tests.helpers import SOURCES, GgufTensor, gguf_file, quantized
from tools.fetch_models import default_cache

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

GEMMA = "gemma-3-270m-q4_k_m.gguf"


@pytest.fixture
def gemma() -> Path:
    """The 253 MB model of the issue's bounds; skips where it has not been fetched."""
    path = default_cache() / GEMMA
    if not path.is_file():
        pytest.skip(f"{path} is not there: python tools/fetch_models.py")
    return path


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed slice of SmolLM2 in small chunks, so that its tensors have several."""
    path = tmp_path_factory.mktemp("smollm2") / "slice.gguf.qzf"
    qzf.pack(SOURCES / "gguf" / "smollm2-slice.gguf", path, chunk_size=4096)
    return path


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder with a sharded safetensors checkpoint."""
    path = tmp_path_factory.mktemp("sharded") / "model.qzf"
    qzf.pack(SOURCES / "safetensors" / "sharded", path, chunk_size=16384)
    return path


@pytest.fixture(scope="session")
def modeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed GGUF of tensors large enough for models, so that it has shared tables; 3 MB, 50 chunks."""
    numbers = {"Q4_K": 12, "Q6_K": 14, "Q8_0": 8, "Q4_0": 2}
    tensors = [
        GgufTensor(f"blk.{layer}.{dtype.lower()}", (1024, 512), number, quantized(dtype, 512, 1024, seed))
        for seed, (layer, (dtype, number)) in enumerate(product(range(2), numbers.items()))
    ]
    folder = tmp_path_factory.mktemp("modeled")
    (folder / "model.gguf").write_bytes(gguf_file([], tensors))
    qzf.pack(folder / "model.gguf", folder / "model.qzf", chunk_size=64 << 10)
    return folder / "model.qzf"
