"""``tools/bench/compare.py``: medians, ratios, tables and the text between markers, with figures made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.bench import codecs_peers, compare, compare_report
from tools.bench.compare_report import Cell, Report


def cell(tool: str, pack: list[float], unpack: list[float], kind: str = "process", **more: int) -> Cell:
    sizes = {"original": 100_000_000, "packed": 90_000_000, **more}
    return Cell("m", tool, kind, sizes["original"], sizes["packed"], pack, unpack, 60_000_000, 50_000_000)


@pytest.fixture
def report() -> Report:
    facts = {
        "date": "2026-01-02",
        "machine": "a machine, 2 cores",
        "threads": 2,
        "runs": 3,
        "file_system": "tmpfs",
        "load_before": 0.0,
        "versions": {"qzf": "0.1.0", "lmzip": "1.3.0"},
        "models": {"m": "a model"},
        "rss_floor": 20_000_000,
    }
    cells = [
        cell("qzf default", [0.4, 0.2, 0.25], [0.1, 0.1, 0.11]),
        cell("lmzip", [1.0, 1.0, 1.0], [0.4, 0.4, 0.4], packed=88_000_000),
        cell("zstd -1", [0.125], [0.2], packed=95_000_000),
        Cell("m", "zipnn", "process", 100_000_000, note="n/a: no floats in it"),
        cell("qzf default", [0.2], [0.1], kind="api"),
    ]
    return Report(facts, cells)


def test_a_cell_gives_medians_of_original_bytes() -> None:
    one = cell("qzf", [0.4, 0.2, 0.25], [0.1, 0.3, 0.1, 0.2])
    assert one.saved == pytest.approx(10.0)
    assert one.pack_speed == pytest.approx(400.0)  # of 0.25 s, the middle one, not of the mean
    assert one.unpack_speed == pytest.approx(100 / 0.15)
    assert one.spread == pytest.approx(100 * 0.2 / 0.15)


def test_a_cell_without_runs_has_no_figures() -> None:
    none = Cell("m", "zipnn", "api", 1000, note="not installed")
    assert (none.saved, none.pack_speed, none.unpack_speed, none.spread) == (None, None, None, 0.0)


def test_ratios_are_of_the_same_model_and_kind(report: Report) -> None:
    ours, lmzip, _, zipnn, api = report.cells
    assert compare_report.ratios(report.cells, ours, "lmzip") == pytest.approx((4.0, 4.0))
    assert compare_report.ratios(report.cells, ours, "zstd -1") == pytest.approx((0.5, 2.0))
    assert compare_report.ratios(report.cells, lmzip, "lmzip") == (1.0, 1.0)
    assert compare_report.ratios(report.cells, zipnn, "lmzip") == (None, None)
    assert compare_report.ratios(report.cells, api, "lmzip") == (None, None)  # only measured as a process


def test_rows(report: Report) -> None:
    head, ours, *_, zipnn = compare_report.rows(report, "m", "process")
    assert head[:4] == ["tool", "saved %", "pack MB/s", "unpack MB/s"]
    assert ours[:6] == ["qzf default", "10.00", "400", "1000", "60", "50"]
    assert ours[6:] == ["4.00", "4.00", "0.50", "2.00", "runs spread over 80 %"]
    assert zipnn == ["zipnn", *["-"] * 9, "n/a: no floats in it"]
    assert compare_report.rows(report, "other", "process") == []


def test_a_resident_set_no_larger_than_the_launcher_is_a_bound(report: Report) -> None:
    report.cells[0].pack_rss = 20_500_000
    assert compare_report.rows(report, "m", "process")[1][4] == "< 20"
    report.cells[-1].pack_rss = 20_500_000
    assert compare_report.rows(report, "m", "api")[1][4] == "20"  # its process measures itself


def test_aligned_columns() -> None:
    text = compare_report.aligned([["tool", "MB/s", "note"], ["a", "7", ""], ["longer", "12345", "slow"]])
    assert text.splitlines() == [
        "tool     MB/s  note",
        "------  -----  ----",
        "a           7",
        "longer  12345  slow",
    ]


def test_markdown_leaves_out_an_empty_last_column() -> None:
    assert compare_report.markdown([["tool", "x", "note"], ["a", "1", ""]]).splitlines() == [
        "| tool | x |",
        "| --- | ---: |",
        "| a | 1 |",
    ]
    assert compare_report.markdown([["tool", "x", "note"], ["a", "1", "b"]]).splitlines()[1:] == [
        "| --- | ---: | --- |",
        "| a | 1 | b |",
    ]


def test_json_comes_back_as_it_was(report: Report) -> None:
    value = json.loads(json.dumps(report.to_json()))
    assert value["results"][0]["pack_mb_per_s"] == pytest.approx(400.0)
    assert value["results"][0]["ratios"]["zstd -1"] == pytest.approx([0.5, 2.0])
    assert Report.from_json(value) == report


def test_fill_replaces_what_stands_between_the_markers(report: Report) -> None:
    before = "# T\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nkept\n"
    filled = compare_report.fill(before, report)
    assert filled.startswith(
        "# T\n<!-- bench:begin -->\n\nMeasured 2026-01-02 on a machine, 2 cores; 2 threads."
    )
    assert filled.endswith("\n<!-- bench:end -->\nkept\n")
    assert "old" not in filled
    assert "| qzf default | 10.00 | 400 | 1000 |" in filled
    assert compare_report.fill(filled, report) == filled
    with pytest.raises(ValueError, match="bench:begin"):
        compare_report.fill("no markers", report)


def test_fill_writes_a_summary_where_the_marker_says_so(report: Report) -> None:
    filled = compare_report.fill("<!-- bench:begin summary -->\n<!-- bench:end -->", report)
    assert "| qzf default | 10.0, 400, 1000 |" in filled
    assert "| zipnn | n/a |" in filled
    assert "RSS" not in filled


def test_an_earlier_run_is_shown_and_written_to_documents(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier, document = tmp_path / "run.json", tmp_path / "doc.md"
    earlier.write_text(json.dumps(report.to_json()))
    document.write_text("<!-- bench:begin -->\n<!-- bench:end -->\n")
    assert compare.main(["--from-json", str(earlier), "--write-docs", str(document)]) == 0
    assert "m (a model, 100.0 MB): whole process" in capsys.readouterr().out
    assert "| lmzip | 12.00 | 100 | 250 |" in document.read_text()
    report.cells[0].note = "failed: the output is not the input"
    earlier.write_text(json.dumps(report.to_json()))
    assert compare.main(["--from-json", str(earlier)]) == 1


def test_a_plain_copy_is_measured_both_ways(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 400)
    tool = codecs_peers.TOOLS["cp"]
    process, api = (compare.Bench(tool, kind, 1, tmp_path) for kind in ("process", "api"))
    assert api.worker is not None
    with api.worker:
        cells = compare.measure("m", source, [process, api], runs=2)
    assert [(c.kind, c.saved, c.note) for c in cells] == [("process", 0.0, ""), ("api", 0.0, "")]
    assert all(len(c.pack_seconds) == len(c.unpack_seconds) == 2 and c.pack_rss > 0 for c in cells)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_tool_that_fails_is_noted_and_left_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    broken = codecs_peers.Tool("broken", "copy", "", lambda *_: ["sh", "-c", "echo no >&2; exit 3"])
    emptying = codecs_peers.Tool("emptying", "copy", "", lambda _do, _source, to, _n: ["touch", str(to)])
    benches = [compare.Bench(tool, "process", 1, tmp_path) for tool in (broken, emptying)]
    notes = [c.note for c in compare.measure("m", source, benches, runs=1)]
    assert notes == ["failed with code 3: no", "failed: the output is not the input"]


def test_what_is_missing_or_unfit_is_said() -> None:
    absent = codecs_peers.Tool("absent", "x", "", lambda *_: [], "no_such_module", "no-such-program")
    assert (absent.missing("process"), absent.missing("api")) == ("not installed", "not installed")
    zipnn = codecs_peers.TOOLS["zipnn"]
    assert zipnn.refuses(Path("a.safetensors")) == ""
    assert zipnn.refuses(Path("a.gguf")).startswith("n/a: ")
