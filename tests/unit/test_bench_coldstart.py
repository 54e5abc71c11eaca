"""``tools/bench/coldstart.py``: tables, the bandwidth up to which it pays, limits, jobs on a small file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import qzf
from tests.helpers import SOURCES
from tools.bench import cgroups, coldstart, coldstart_report
from tools.bench.coldstart_report import Cell, Report

ROOT = SOURCES.parents[1]
LIMITED = pytest.mark.skipif(bool(cgroups.missing()), reason=cgroups.missing())


@pytest.fixture
def report() -> Report:
    facts = {
        "date": "2026-01-02",
        "machine": "a machine",
        "runs": 3,
        "file_system": "ext4",
        "model": "m",
        "origin": "a model",
        "sizes": {"plain": 100_000_000, "qzf": 80_000_000, "lmzip": None},
        "memory_share": 0.75,
    }
    seconds = {"plain-mmap": {100: 1.0, 500: 0.2, None: 0.1}, "qzf": {100: 0.8, 500: 0.2, None: 0.2}}
    cells = [
        Cell("load", m, width, [s, s, 9.0]) for m, found in seconds.items() for width, s in found.items()
    ]
    return Report(facts, cells)


def test_a_table_has_medians_and_ratios(report: Report) -> None:
    assert coldstart_report.table(report, "load") == [
        ["", "100 MB/s", "500 MB/s", "no limit", ""],
        ["plain file, mmap", "1.00 s", "0.20 s", "0.10 s", ""],
        ["qzf", "0.80 s (1.25x)", "0.20 s (1.00x)", "0.20 s (0.50x)", ""],
    ]


def test_where_it_stops_to_pay(report: Report) -> None:
    """Between 500 MB/s at 1.00 and 1000 MB/s at 0.50, on a straight line: at 500."""
    assert coldstart_report.crossing(report, "load", "qzf") == pytest.approx(500)
    for cell in report.cells[3:]:
        cell.seconds = [0.01]
    assert coldstart_report.crossing(report, "load", "qzf") is None
    for cell in report.cells[3:]:
        cell.seconds = [3.0]
    assert coldstart_report.crossing(report, "load", "qzf") == pytest.approx(100)


def test_documents_are_filled(report: Report, tmp_path: Path) -> None:
    text = "a\n<!-- coldstart:begin summary -->\nbefore\n<!-- coldstart:end -->\nb\n"
    filled = coldstart_report.fill(text, report)
    assert filled.startswith("a\n") and filled.endswith("\nb\n") and "before" not in filled
    assert "| qzf | 0.80 s (1.25x) |" in filled and "up to where that comes at 500 MB/s" in filled
    assert coldstart_report.fill(filled, report) == filled
    with pytest.raises(ValueError, match="coldstart:begin"):
        coldstart_report.fill("no markers", report)
    assert Report.from_json(report.to_json()) == report
    assert "1.25x" in coldstart_report.as_text(report)
    (tmp_path / "r.json").write_text(report.to_json())
    document = tmp_path / "d.md"
    document.write_text(text)
    arguments = ["--from-json", str(tmp_path / "r.json"), "--write-docs", str(document)]
    assert coldstart.main(arguments) == 0 and document.read_text() == filled


def test_it_says_where_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert coldstart.main([]) == 0
    assert capsys.readouterr().out == "skipped: only root may limit reads\n"


@pytest.mark.parametrize("job", ["load", "pass"])
def test_workers_get_the_same_bytes(job: str, tmp_path: Path) -> None:
    source = SOURCES / "gguf" / "smollm2-slice.gguf"
    qzf.pack(source, tmp_path / "m.qzf")
    with qzf.open(tmp_path / "m.qzf") as container:
        names = [name for layer in container.layers() for name in layer.names]
        (tmp_path / "plan").write_text(json.dumps([container.info(name).extent for name in names]))
    digests = set()
    for method in ("plain-mmap", "plain-read", "qzf") if job == "load" else ("plain-mmap", "qzf"):
        path = tmp_path / "m.qzf" if method == "qzf" else source
        command = [sys.executable, "tools/bench/coldstart_worker.py", job, method, path, tmp_path / "plan"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        assert answer["seconds"] > 0
        digests.add(answer["digest"])
    assert len(digests) == 1


@LIMITED
def test_reads_are_limited_by_the_kernel(tmp_path: Path) -> None:
    """10 MB at 20 MB/s take about half a second, however fast the disk is."""
    file = tmp_path / "file"
    file.write_bytes(bytes(10_000_000))
    try:
        device = cgroups.device_of(tmp_path)
    except OSError:
        pytest.skip("the folder for temporary files is on no disk")
    with cgroups.limits(device, 20_000_000, 500_000_000) as prefix:
        assert len([part for part in prefix if part.startswith("/sys/fs/cgroup")]) == 2
        cgroups.drop(file)
        start = time.perf_counter()
        subprocess.run([*prefix, "cat", file], stdout=subprocess.DEVNULL, check=True)
        assert time.perf_counter() - start > 0.25
    assert not [part for part in prefix if part.startswith("/sys/fs/cgroup") and Path(part).exists()]
    with cgroups.limits(device, None) as prefix:
        assert prefix == []
