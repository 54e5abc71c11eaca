"""Fixtures for the tests beside other packages."""

from __future__ import annotations

import pytest
from safetensors.numpy import save_file

from tests.interop.beside import FRAMEWORKS, METADATA, TENSORS, Pair, packed


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("safe")
    return packed(folder, "model", lambda path: save_file(TENSORS, path, metadata=METADATA))


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "pt":
        pytest.importorskip("torch")
    return name
