"""What ``compare.py`` has measured, and how it is written down: aligned text, Markdown, JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

KINDS = {"process": "whole process (command line)", "api": "in a warm process (Python API)"}
REFERENCES = ("lmzip", "zstd -1")
MARKERS = re.compile(r"(<!-- bench:begin( summary)? -->\n).*?(<!-- bench:end -->)", re.DOTALL)


@dataclass(slots=True)
class Cell:
    """One tool on one model in one kind of measurement.

    Sizes and resident sets in bytes; seconds of each timed run; ``note`` says why figures are missing.
    """

    model: str
    tool: str
    kind: str
    original: int
    packed: int | None = None
    pack_seconds: list[float] = field(default_factory=list)
    unpack_seconds: list[float] = field(default_factory=list)
    pack_rss: int = 0
    unpack_rss: int = 0
    note: str = ""

    @property
    def saved(self) -> float | None:
        """Per cent of the original that the packed file is smaller."""
        return None if self.packed is None else 100 * (1 - self.packed / self.original)

    @property
    def pack_speed(self) -> float | None:
        """Median MB/s (10**6 bytes of original data a second)."""
        return self.original / median(self.pack_seconds) / 1e6 if self.pack_seconds else None

    @property
    def unpack_speed(self) -> float | None:
        """Median MB/s (10**6 bytes of original data a second)."""
        return self.original / median(self.unpack_seconds) / 1e6 if self.unpack_seconds else None

    @property
    def spread(self) -> float:
        """How far slowest and fastest run lie apart, in per cent of the median; the worse of both ways."""
        both = [s for s in (self.pack_seconds, self.unpack_seconds) if s]
        return max((100 * (max(s) - min(s)) / median(s) for s in both), default=0.0)


@dataclass(slots=True)
class Report:
    """A whole run: ``conditions`` are date, machine, versions, settings in words."""

    conditions: dict[str, Any]
    cells: list[Cell]

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``; figures derived from the raw ones stand beside them."""
        return {"conditions": self.conditions, "results": [self._derived(cell) for cell in self.cells]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of ``to_json``; derived figures are derived anew."""
        keys = Cell.__dataclass_fields__
        cells = [Cell(**{k: v for k, v in row.items() if k in keys}) for row in value["results"]]
        return cls(value["conditions"], cells)

    def _derived(self, cell: Cell) -> dict[str, Any]:
        return {
            **asdict(cell),
            "saved_percent": cell.saved,
            "pack_mb_per_s": cell.pack_speed,
            "unpack_mb_per_s": cell.unpack_speed,
            "spread_percent": cell.spread,
            "ratios": {name: ratios(self.cells, cell, name) for name in REFERENCES},
        }


def ratios(cells: Iterable[Cell], cell: Cell, reference: str) -> tuple[float | None, float | None]:
    """How many times as fast as ``reference`` the tool packs and unpacks the same model."""
    for other in cells:
        if (other.model, other.kind, other.tool) == (cell.model, cell.kind, reference):
            return _over(cell.pack_speed, other.pack_speed), _over(cell.unpack_speed, other.unpack_speed)
    return None, None


def _over(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def rows(report: Report, model: str, kind: str) -> list[list[str]]:
    """The lines of one table as text, its head first; empty without a cell for it."""
    cells = [cell for cell in report.cells if (cell.model, cell.kind) == (model, kind)]
    if not cells:
        return []
    head = ["tool", "saved %", "pack MB/s", "unpack MB/s", "pack RSS MB", "unpack RSS MB"]
    head += [f"{way} / {name}" for name in REFERENCES for way in ("pack", "unpack")]
    floor = float(report.conditions.get("rss_floor", 0)) if kind == "process" else 0.0
    table = [[*head, "note"]]
    for cell in cells:
        speeds = [_number(cell.pack_speed, ".0f"), _number(cell.unpack_speed, ".0f")]
        sets = [_rss(cell.pack_rss, floor), _rss(cell.unpack_rss, floor)]
        times = [_number(r, ".2f") for name in REFERENCES for r in ratios(report.cells, cell, name)]
        table.append([cell.tool, _number(cell.saved, ".2f"), *speeds, *sets, *times, _note(cell)])
    return table


def _rss(size: int, floor: float) -> str:
    if not size:
        return "-"
    # Linux counts what the launcher was at the fork to the child, so smaller sets cannot be seen.
    return f"< {size / 1e6:.0f}" if size <= 1.05 * floor else f"{size / 1e6:.0f}"


def _note(cell: Cell) -> str:
    if cell.note or cell.spread <= 25:
        return cell.note
    return f"runs spread over {cell.spread:.0f} %"


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Columns in line: the first and the last to the left, the others to the right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    last = len(widths) - 1
    lines = [
        "  ".join(
            c.ljust(w) if i in (0, last) else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table; an empty last column is left out."""
    keep = len(table[0]) - (not any(line[-1] for line in table[1:]))
    lines = ["| " + " | ".join(line[:keep]) + " |" for line in table]
    marks = ["---" if i == 0 or i == len(table[0]) - 1 else "---:" for i in range(keep)]
    lines.insert(1, "| " + " | ".join(marks) + " |")
    return "\n".join(lines)


def _models(report: Report) -> list[str]:
    return list(dict.fromkeys(cell.model for cell in report.cells))


def _title(report: Report, model: str) -> str:
    size = next(cell.original for cell in report.cells if cell.model == model)
    words = report.conditions.get("models", {}).get(model, "")
    return f"{model} ({words}, {size / 1e6:.1f} MB)" if words else f"{model} ({size / 1e6:.1f} MB)"


def condition_lines(report: Report) -> list[str]:
    """Date, machine, versions and what must be known to read the figures, a sentence each."""
    facts = report.conditions
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return [
        f"Measured {facts['date']} on {facts['machine']}; {facts['threads']} threads.",
        f"Load average before the run: {facts['load_before']:.2f}.",
        f"Versions: {versions}.",
        f"Median of {facts['runs']} runs, one tool after the other in turn; slow tools (qzf max, zstd -19) "
        "ran once, as whole processes.",
        f"From page cache to {facts['file_system']}; qzf syncs its output (fsync), the others do not.",
        "MB = 10^6 bytes of the original. Every output was compared with its original, byte for byte.",
    ]


def as_text(report: Report) -> str:
    """The report for a terminal."""
    parts = condition_lines(report)
    for model in _models(report):
        for kind, words in KINDS.items():
            if table := rows(report, model, kind):
                parts += ["", f"{_title(report, model)}: {words}", aligned(table)]
    return "\n".join(parts) + "\n"


def as_markdown(report: Report) -> str:
    """The report in full, for ``docs/``."""
    parts = [" ".join(condition_lines(report))]
    for model in _models(report):
        parts.append(f"### {_title(report, model)}")
        for kind, words in KINDS.items():
            if table := rows(report, model, kind):
                parts += [f"{words[0].upper()}{words[1:]}:", markdown(table)]
    return "\n\n".join(parts) + "\n"


def summary(report: Report) -> str:
    """One table: a line per tool; per model what it saves and its speeds as a whole process."""
    models = _models(report)
    table = [["tool", *(f"{model}: saved %, pack, unpack MB/s" for model in models), ""]]
    cells = {(cell.tool, cell.model): cell for cell in report.cells if cell.kind == "process"}
    for tool in dict.fromkeys(cell.tool for cell in report.cells):
        line = [tool]
        for model in models:
            cell = cells.get((tool, model))
            if cell is None or cell.packed is None:
                line.append("-" if cell is None else cell.note.split(":")[0])
                continue
            figures = (_number(cell.saved, ".1f"), _number(cell.pack_speed, ".0f"))
            line.append(", ".join((*figures, _number(cell.unpack_speed, ".0f"))))
        table.append([*line, ""])
    facts = report.conditions
    where = f"Whole processes, {facts['threads']} threads, {facts['machine']}, {facts['date']}."
    return f"{markdown(table)}\n\n{where}\n"


def fill(document: str, report: Report) -> str:
    """``document`` with the text between its markers replaced: in full, or the summary where they say so.

    Raises ``ValueError`` for a document without the markers.
    """

    def text(found: re.Match[str]) -> str:
        body = summary(report) if found[2] else as_markdown(report)
        return f"{found[1]}\n{body}\n{found[3]}"

    filled, count = MARKERS.subn(text, document)
    if not count:
        raise ValueError("there are no <!-- bench:begin --> and <!-- bench:end --> lines")
    return filled
