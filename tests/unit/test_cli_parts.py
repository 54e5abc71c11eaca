"""The parts of the command line that need no container: numbers, names, options, tables, the meter."""

from __future__ import annotations

import io
import sys

import click
import pytest

from qzf.cli import human, params, progress, tables
from qzf.cli.screen import Screen


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345, "12.3 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (253_112_000, "253.1 MB"),
        (4 * 10**12, "4.0 TB"),
        (2**63, "9.2 EB"),
        (10**22, "10000.0 EB"),
    ],
)
def test_size(nbytes: int, text: str) -> None:
    assert human.size(nbytes) == text


@pytest.mark.parametrize(
    ("nbytes", "seconds", "text"),
    [
        (412_000_000, 1.0, "412 MB/s"),
        (2_800_000_000, 2.0, "1.4 GB/s"),
        (10, 0.0, "-"),
        (0, 1.0, "0 B/s"),
        (999_600_000, 1.0, "1 GB/s"),
    ],
)
def test_rate(nbytes: int, seconds: float, text: str) -> None:
    assert human.rate(nbytes, seconds) == text


def test_saved() -> None:
    assert human.saved(1000, 917) == "8.3 %"
    assert human.saved(1000, 1010) == "-1.0 %"
    assert human.saved(0, 0) == "-"


def test_duration() -> None:
    assert [human.duration(seconds) for seconds in (0, 7.4, 725, 3723)] == [
        "0:00",
        "0:07",
        "12:05",
        "1:02:03",
    ]


def test_count() -> None:
    assert [human.count(number, "chunk") for number in (0, 1, 1236)] == [
        "0 chunks",
        "1 chunk",
        "1,236 chunks",
    ]


def test_shorten_keeps_both_ends() -> None:
    assert human.shorten("model.gguf", 10) == "model.gguf"
    assert human.shorten("model-00001-of-00002.safetensors", 15) == "model-...ensors"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nOK", r"a\nOK"),
        ("a\rOK\t\x07\x7f", r"a\rOK\t\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),  # the one-byte CSI
        ("‮fdp.fugg", r"\u202efdp.fugg"),  # right-to-left override
        ("\udcff", r"\udcff"),  # an undecodable byte of a file name
        ("größe-模型 [bold]", "größe-模型 [bold]"),
    ],
)
def test_printable(hostile: str, shown: str) -> None:
    assert human.printable(hostile) == shown


def _context() -> click.Context:
    return click.Context(click.Command("test"))


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("262144", 262_144),
        ("256K", 262_144),
        ("256k", 262_144),
        ("512KiB", 524_288),
        ("1M", 1 << 20),
        ("1.5 MiB", 3 << 19),
        ("1G", 1 << 30),
        ("250kB", 250_000),
        ("1MB", 1_000_000),
        ("64B", 64),
    ],
)
def test_read_size(text: str, nbytes: int) -> None:
    assert params.read_size(_context(), click.Option(["--chunk-size"]), text) == nbytes


@pytest.mark.parametrize("text", ["", "K", "1Q", "-1", "1e6", "0x10", "1 2"])
def test_read_size_rejects(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size"):
        params.read_size(_context(), click.Option(["--chunk-size"]), text)


def test_read_digest() -> None:
    option = click.Option(["--digest"])
    assert params.read_digest(_context(), option, "AB" * 32) == "ab" * 32
    assert params.read_digest(_context(), option, "sha256:" + "ab" * 32) == "ab" * 32
    for text in ("", "ab", "zz" * 32, "ab" * 33):
        with pytest.raises(click.BadParameter, match="not a digest"):
            params.read_digest(_context(), option, text)


def test_plain_table_is_aligned_and_never_cut() -> None:
    columns = [tables.Column("name"), tables.Column("size", number=True)]
    name = "n" * 300
    lines = list(tables.plain_lines(columns, [[name, "1"], ["b", "1,000"]]))
    assert lines == ["name" + " " * 296 + "   size", name + "      1", "b" + " " * 299 + "  1,000"]


def test_plain_table_without_rows() -> None:
    assert list(tables.plain_lines([tables.Column("a"), tables.Column("b")], [])) == ["a  b"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rich_table_takes_cells_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    tables.show(
        Screen(), [tables.Column("[b]name[/b]")], [["[red]a[/red]"], ["\x1b]0;title\x07"], [":smile:"]]
    )
    text = screen.getvalue()
    assert "[red]a[/red]" in text
    assert ":smile:" in text
    assert r"\x1b]0;title\x07" in text
    assert "\x1b]" not in text


def test_meter() -> None:
    meter = progress.Meter()
    meter.update(0, 1_000_000_000, 0, 100.0)
    assert (meter.speed(100.0), meter.saved(), meter.left(100.0)) == ("-", "- saved", "-:--")
    for tick in range(1, 51):
        meter.update(tick * 10_000_000, 1_000_000_000, tick * 9_000_000, 100 + tick * 0.1)
    assert meter.speed(105.0) == "100 MB/s"
    assert meter.saved() == "10.0 % saved"
    assert meter.left(105.0) == "0:05"


def test_meter_starts_with_the_first_report() -> None:
    meter = progress.Meter()
    meter.update(500, 2000, 500, 50.0)
    meter.update(1000, 2000, 1000, 51.0)
    assert (meter.speed(51.0), meter.left(51.0)) == ("500 B/s", "0:02")


def test_meter_looks_back_a_few_seconds_only() -> None:
    meter = progress.Meter()
    for tick in range(101):  # 10 s at 10 MB/s, then 10 s at 100 MB/s
        meter.update(tick * 1_000_000, 10**10, 0, tick * 0.1)
    for tick in range(1, 101):
        meter.update(100_000_000 + tick * 10_000_000, 10**10, 0, 10 + tick * 0.1)
    assert meter.speed(20.0) == "100 MB/s"


def test_bar_does_not_draw_short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.Bar("packing", "a.gguf") as bar:
        bar(1, 2, 1)
        bar(2, 2, 1)
    assert screen.getvalue() == ""


def test_bar_draws_and_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(KeyboardInterrupt), progress.Bar("packing", "[red]\x1b[5m.gguf", saving=True) as bar:
        bar(1_000_000, 4_000_000, 900_000)
        raise KeyboardInterrupt
    text = screen.getvalue()
    assert r"packing [red]\x1b[5m.gguf" in text
    assert "25%" in text
    assert "10.0 % saved" in text
    assert "\x1b[5m" not in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is back


@pytest.mark.parametrize(
    ("term", "quiet", "wanted"), [("xterm", False, True), ("xterm", True, False), ("dumb", False, False)]
)
def test_watched(monkeypatch: pytest.MonkeyPatch, term: str, quiet: bool, wanted: bool) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.setenv("TERM", term)
    assert progress.watched(quiet=quiet) is wanted
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.watched(quiet=quiet)
