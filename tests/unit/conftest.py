"""Fixtures of the tests that run commands in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest

from qzf import ops
from qzf.cli.root import cli
from tests.helpers import SOURCES, Run
from tests.range_server import RangeServer, serving


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line in an empty folder; arguments may be paths."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QZF_TRACEBACK", raising=False)

    def run(*args: str | Path) -> click.testing.Result:
        return click.testing.CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="qzf")

    return run


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container of one GGUF file, with many chunks. Not to be changed."""
    out = tmp_path_factory.mktemp("packed") / "model.gguf.qzf"
    ops.pack(SOURCES / "gguf" / "smollm2-slice.gguf", out, chunk_size=4096)
    return out


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container of a model folder. Not to be changed."""
    out = tmp_path_factory.mktemp("sharded") / "model.qzf"
    ops.pack(SOURCES / "safetensors" / "sharded", out)
    return out


@pytest.fixture
def server(modeled: Path) -> Iterator[RangeServer]:
    """A server of a container that has several tensors of several chunks, and shared tables."""
    with serving(modeled.read_bytes()) as running:
        yield running
