"""``tools/bench/remote.py``: what it counts is what was asked, and a line is as slow as it is told to be."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import pytest

from tests.helpers import SOURCES

pytest.importorskip("aiohttp")
remote = pytest.importorskip("tools.bench.remote")


def test_a_line_has_its_delay_and_rate(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    with remote.line(tmp_path, delay_ms=100, rate_mb=5) as base:
        begin = time.perf_counter()
        with urllib.request.urlopen(f"{base}/a") as answer:
            assert len(answer.read()) == 1_000_000
        assert time.perf_counter() - begin > 0.28
        assert remote.counts(base) == {"requests": 1, "bytes": 1_000_000}
        assert remote.counts(base) == {"requests": 0, "bytes": 0}


def test_all_jobs_on_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    model = SOURCES / "gguf" / "smollm2-slice.gguf"
    assert remote.main([str(model), "--delay", "0", "--rate", "0", "--runs", "1", "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert {(cell["job"], cell["method"]) for cell in found["cells"]} == {job[:2] for job in remote.JOBS}
    cells = {(cell["job"], cell["method"]): cell for cell in found["cells"]}
    assert cells["tensor", "qzf"]["requests"] == 2
    assert cells["model", "qzf"]["bytes"] <= found["sizes"]["smollm2-slice"]["qzf"]
    assert cells["model", "plain whole"]["bytes"] == model.stat().st_size
    assert capsys.readouterr().out.startswith("smollm2-slice, 0 ms, no limit\n")
