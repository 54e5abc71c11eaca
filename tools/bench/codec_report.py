"""What ``codec.py`` has measured, and how it is written down: aligned text, Markdown, JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any, Final, Self

from tools.bench.codec_bits import Bits
from tools.bench.compare_report import aligned, markdown

__all__ = ["Cell", "Load", "Report", "Size", "as_text", "fill"]

MARKERS: Final = re.compile(r"(<!-- codec:begin (\w+) -->\n).*?(<!-- codec:end -->)", re.DOTALL)

#: Columns of the table of bits, by the field that stands there.
_COLUMNS: Final = {
    "scale d": "d",
    "minimum m": "m, dmin",
    "scale of minima dmin": "m, dmin",
    "integer scale": "scale",
    "integer scale and minimum": "scale",
    "integer minimum": "minimum",
    "code": "code, key",
    "byte": "code, key",
    "exponent and top": "code, key",
    "code: places of extrema": "of it places",
    "code: low bits": "of it low bits",
    "raw bits and sign": "raw bits",
    "overhead: states, headers, tables": "overhead",
    "all, for a weight": "all",
}

Table = list[list[str]]


@dataclass(slots=True)
class Cell:
    """One engine on one type: bytes, and MB/s (10**6 original bytes a second) of each round.

    ``speeds`` has rounds by way and threads, as ``decode 1``; ``note`` says why figures are missing.
    """

    dtype: str
    engine: str
    original: int
    packed: float | None = None
    note: str = ""
    speeds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def saved(self) -> float | None:
        """Per cent of the original that is saved."""
        return None if self.packed is None else 100 * (1 - self.packed / self.original)

    def speed(self, key: str) -> float | None:
        """The median round."""
        rounds = self.speeds.get(key)
        return median(rounds) if rounds else None


@dataclass(slots=True)
class Size:
    """A whole file: its flavour, bytes, and bytes packed (None: the tool is missing) by tool."""

    flavour: str
    original: int
    packed: dict[str, int | None]


@dataclass(slots=True)
class Load:
    """A way to load all tensors: MB/s of each round; ``note`` says why there are none."""

    way: str
    speeds: list[float] = field(default_factory=list)
    note: str = ""


@dataclass(slots=True)
class Report:
    """A whole run; parts that were not asked for are empty."""

    conditions: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    bits: list[Bits] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        parts: dict[str, type] = {"cells": Cell, "sizes": Size, "bits": Bits, "loads": Load}
        made = {name: [kind(**each) for each in value[name]] for name, kind in parts.items()}
        return cls(value["conditions"], value["origins"], **made)

    @property
    def failed(self) -> list[str]:
        """What went wrong, in words."""
        return [f"{each.dtype}, {each.engine}: {each.note}" for each in self.cells if "failed" in each.note]


def _matrix(report: Report, head: str, value: Callable[[Cell], float | None], form: str) -> Table:
    """Types in rows, engines in columns."""
    shown = [cell for cell in report.cells if cell.note or value(cell) is not None]
    engines = list(dict.fromkeys(cell.engine for cell in shown))
    cells = {(cell.dtype, cell.engine): cell for cell in report.cells}
    table = [[head, *engines, ""]]
    for dtype in dict.fromkeys(cell.dtype for cell in report.cells):
        line = [dtype]
        for engine in engines:
            cell = cells.get((dtype, engine))
            found = None if cell is None else value(cell)
            line.append(_missing(cell) if found is None else _number(found, form))
        table.append([*line, ""])
    return table


def _number(value: float, form: str) -> str:
    text = format(value, form)
    return text.lstrip("-") if float(text) == 0 else text


def _missing(cell: Cell | None) -> str:
    return "-" if cell is None or not cell.note else cell.note.split(":")[0]


def _saved_table(report: Report) -> Table:
    """Saved, of which all ISAs have the same: qzf stands once, under its plain name."""
    table = _matrix(report, "type", lambda cell: cell.saved, ".2f")
    head = table[0]
    ours = [i for i, name in enumerate(head) if name.startswith("qzf")]
    drop = {*ours[1:], *(i for i, name in enumerate(head) if name == "memcpy")}
    found = [[text for i, text in enumerate(line) if i not in drop] for line in table]
    if ours:
        found[0][ours[0]] = "qzf"
    for line in found[1:]:
        line[-1] = report.origins.get(line[0], "")
    found[0][-1] = "from"
    return found


def _speed_sections(report: Report) -> list[tuple[str, Table]]:
    sections = [("Saved, per cent", _saved_table(report))]
    for way in ("decode", "encode"):
        for threads in (1, 2):
            key, words = f"{way} {threads}", "one thread" if threads == 1 else f"{threads} threads"
            if any(key in cell.speeds for cell in report.cells):
                table = _matrix(report, "type", partial(Cell.speed, key=key), ".0f")
                sections.append((f"{way.capitalize()}, {words}, MB/s", table))
    return sections


def _size_table(report: Report) -> Table:
    tools = list(dict.fromkeys(tool for size in report.sizes for tool in size.packed))
    table = [["flavour", "MB", *tools, ""]]
    for size in report.sizes:
        saved = [size.packed.get(tool) for tool in tools]
        texts = ["-" if packed is None else f"{100 * (1 - packed / size.original):.2f}" for packed in saved]
        table.append([size.flavour, f"{size.original / 1e6:.1f}", *texts, ""])
    return table


def _bits_table(report: Report) -> Table:
    """Types in rows, fields in columns; fields that play the same part share one."""
    columns = list(dict.fromkeys(_COLUMNS.values()))
    rows: dict[str, dict[str, str]] = {}
    for row in report.bits:
        after = f"{row.after:.3f}"
        column = _COLUMNS.get(row.field, "")
        rows.setdefault(row.dtype, {})[column] = (
            after if row.before is None else f"{row.before:.4g} → {after}"
        )
    used = [column for column in columns if any(column in texts for texts in rows.values())]
    table = [["type", *used, ""]]
    for dtype, texts in rows.items():
        table.append([dtype, *(texts.get(column, "") for column in used), ""])
    return table


def _loads_table(report: Report) -> Table:
    table = [["way", "MB/s", "note"]]
    for load in report.loads:
        table.append([load.way, f"{median(load.speeds):.0f}" if load.speeds else "-", load.note])
    return table


def _sections(report: Report) -> dict[str, list[tuple[str, Table]]]:
    """Title and table of all that was measured, by the name of the marker."""
    found: dict[str, list[tuple[str, Table]]] = {}
    if report.cells:
        found["speed"] = _speed_sections(report)
    if report.sizes:
        found["sizes"] = [("Saved on whole files, per cent", _size_table(report))]
    if report.bits:
        found["bits"] = [
            ("Bits of one field, before → after; overhead and all are for a weight", _bits_table(report))
        ]
    if report.loads:
        found["loads"] = [("All tensors to memory", _loads_table(report))]
    return found


def condition_lines(report: Report) -> list[str]:
    """What must be known to read the figures, a sentence each."""
    facts = report.conditions
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return [
        f"Measured {facts['date']} on {facts['machine']}.",
        f"Load average before the run: {facts['load_before']:.2f}.",
        f"Versions: {versions}.",
        f"Speeds are the median of {facts['rounds']} rounds of at least {facts['seconds']} s (a quarter of "
        f"that for all but qzf {facts['active_isa']}), the engines in turn; MB = 10^6 original bytes.",
    ]


def as_text(report: Report) -> str:
    """The report for a terminal."""
    parts = condition_lines(report)
    for sections in _sections(report).values():
        for title, table in sections:
            parts += ["", title, aligned(table)]
    return "\n".join([*parts, *report.failed]) + "\n"


def fill(document: str, report: Report) -> str:
    """``document`` with the text between its markers replaced, of those parts that were measured.

    Raises ``ValueError`` for a document without markers.
    """
    sections = _sections(report)

    def text(found: re.Match[str]) -> str:
        name = found[2]
        if name not in sections:
            return found[0]
        parts = [" ".join(condition_lines(report))] if name == "speed" else []
        for title, table in sections[name]:
            parts += [f"{title}:", markdown(table)]
        return f"{found[1]}\n" + "\n\n".join(parts) + f"\n\n{found[3]}"

    filled, count = MARKERS.subn(text, document)
    if not count:
        raise ValueError("there are no <!-- codec:begin NAME --> and <!-- codec:end --> lines")
    return filled
