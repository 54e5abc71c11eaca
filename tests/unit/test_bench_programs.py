"""``tools/bench/programs.py`` on a tiny model; no speed is asserted."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.interop.tiny_llama import write_tiny_llama
from tools.bench import programs

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")


def rows(out: str) -> list[str]:
    """Names of what was measured."""
    lines = out.splitlines()[2:]
    assert all(re.fullmatch(r"\| .+ \| \d+\.\d{3} \| \d+ \| \d+\.\d{3} \|", line) for line in lines)
    return [line.split(" | ")[0].removeprefix("| ") for line in lines]


def test_what_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny_llama(tmp_path / "tiny.gguf")[0]
    assert programs.main([str(model), "--runs", "2"]) == 0
    found = rows(capsys.readouterr().out)
    assert ("`qzf.llama_cpp.load(FILE)`" in found) == (find_spec("llama_cpp") is not None)
    fuse = find_spec("mfusepy") is not None and os.access("/dev/fuse", os.R_OK | os.W_OK)
    assert ("mount: first `dd bs=1M`" in found) == fuse


def test_what_is_missing_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_llama(tmp_path / "tiny.gguf")[0]
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    assert programs.main([str(model), "--runs", "1"]) == 0
    assert rows(capsys.readouterr().out) == ["`qzf exec FILE -- true {}`", "plain file: `cp` to memory"]
