"""Commands on containers at URLs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import qzf
from qzf.ops import unpacking
from tests.helpers import Run
from tests.range_server import RangeServer

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


def test_ls_and_cat(run: Run, server: RangeServer, modeled: Path) -> None:
    listed = run("ls", server.url)
    assert listed.exit_code == 0 and "model.gguf" in listed.stdout
    assert server.count == 1
    assert json.loads(run("ls", "--json", server.url).stdout)["file"] == server.url
    with qzf.open(modeled) as local:
        expected = local.tensor("blk.0.q8_0").tobytes()
    before = server.count
    shown = run("cat", server.url, "blk.0.q8_0")
    assert shown.exit_code == 0 and shown.stdout_bytes == expected
    assert server.count - before <= 4
    server.status, server.refusals = 404, 1
    lost = run("ls", server.url)
    assert lost.exit_code == 4
    assert lost.stderr == f"qzf: error: {server.url}: the server answers 404 Not Found\n"


def test_unpack(run: Run, server: RangeServer, modeled: Path, sharded: Path) -> None:
    original = (modeled.parent / "model.gguf").read_bytes()
    done = run("unpack", server.url)
    assert done.exit_code == 0 and Path("model.gguf").read_bytes() == original
    assert server.count <= 3
    assert run("unpack", server.url).exit_code == 2  # it is there already
    assert run("unpack", server.url, "--tensor", "blk.0.q4*", "-o", "some/").exit_code == 0
    with qzf.open(modeled) as local:
        assert Path("some/blk.0.q4_k.bin").read_bytes() == local.tensor("blk.0.q4_k").tobytes()
    server.data = sharded.read_bytes()
    assert run("unpack", server.url).exit_code == 0
    qzf.unpack(sharded, "expected/")
    for path in Path("expected").iterdir():
        assert Path("model", path.name).read_bytes() == path.read_bytes()
    server.status, server.refusals = 503, 99
    failed = run("unpack", server.url, "-f")
    assert failed.exit_code == 4 and "tried 3 times" in failed.stderr


def test_unpack_in_parts(
    run: Run, server: RangeServer, modeled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_REMOTE_PART", 300_000)
    server.delay = 0.02
    assert run("unpack", server.url, "-o", "all.gguf").exit_code == 0
    assert Path("all.gguf").read_bytes() == (modeled.parent / "model.gguf").read_bytes()
    assert 10 <= server.count <= 20 and server.most_busy == 4


def test_commands_that_need_a_file(run: Run, server: RangeServer) -> None:
    for args in (["verify", server.url], ["unpack", "--recover", server.url]):
        refused = run(*args)
        assert refused.exit_code == 2 and "download the file first" in refused.stderr
