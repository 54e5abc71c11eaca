"""What ``coldstart.py`` measured, as tables, JSON and a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from tools.bench.compare_report import aligned, markdown

__all__ = ["Cell", "Report", "as_markdown", "as_text", "crossing", "fill", "plot"]

MARKERS: Final = re.compile(r"(<!-- coldstart:begin( summary)? -->\n).*?(<!-- coldstart:end -->)", re.DOTALL)
TITLES: Final = {
    "load": "All tensors to memory, in a process that has imported what it needs",
    "token": "First token of llama.cpp, whole processes",
    "pass": "One pass over all layers in order, with less memory than the model has bytes",
}
#: What a job's other methods are held against.
BASE: Final = {"load": "plain-mmap", "token": "plain", "pass": "plain-mmap"}
WORDS: Final = {
    "plain-mmap": "plain file, mmap",
    "plain-read": "plain file, read",
    "plain": "plain file",
    "qzf": "qzf",
    "qzf load": "qzf.llama_cpp.load",
    "qzf exec": "qzf exec",
    "qzf mount": "qzf mount",
    "lmzip": "lmzip",
    "lmzip to tmpfs": "lmzip, unpacked to memory first",
}
#: The same colour for the same tool in each field of the picture.
COLOURS: Final = {
    "plain-mmap": "tab:blue",
    "plain-read": "tab:cyan",
    "plain": "tab:blue",
    "qzf": "tab:green",
    "qzf load": "tab:green",
    "qzf exec": "tab:olive",
    "qzf mount": "tab:purple",
    "lmzip": "tab:red",
    "lmzip to tmpfs": "tab:red",
}


@dataclass
class Cell:
    """One method at one bandwidth (MB/s, None: as fast as the disk is): seconds of each run."""

    job: str
    method: str
    bandwidth: int | None
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass
class Report:
    """All cells, and what must be known to read them."""

    conditions: dict[str, Any]
    cells: list[Cell]

    def to_json(self) -> str:
        return json.dumps(
            {"conditions": self.conditions, "cells": [asdict(cell) for cell in self.cells]}, indent=1
        )

    @classmethod
    def from_json(cls, text: str) -> Report:
        data = json.loads(text)
        return cls(data["conditions"], [Cell(**cell) for cell in data["cells"]])

    def jobs(self) -> list[str]:
        return list(dict.fromkeys(cell.job for cell in self.cells))

    def of(self, job: str) -> dict[str, dict[int | None, Cell]]:
        """The cells of a job, by method and bandwidth."""
        found: dict[str, dict[int | None, Cell]] = {}
        for cell in self.cells:
            if cell.job == job:
                found.setdefault(cell.method, {})[cell.bandwidth] = cell
        return found


def _label(bandwidth: int | None) -> str:
    return "no limit" if bandwidth is None else f"{bandwidth} MB/s"


def table(report: Report, job: str) -> list[list[str]]:
    """Seconds, and how many times faster than the plain file, by method and bandwidth."""
    methods = report.of(job)
    base = methods.get(BASE[job], {})
    bandwidths = list(dict.fromkeys(width for cells in methods.values() for width in cells))
    lines = [["", *map(_label, bandwidths), ""]]
    for method, cells in methods.items():
        line = [WORDS[method]]
        for width in bandwidths:
            seconds = cells[width].median
            ratio = f" ({base[width].median / seconds:.2f}x)" if width in base and method != BASE[job] else ""
            line.append(f"{seconds:.2f} s{ratio}")
        lines.append([*line, ""])
    return lines


def crossing(report: Report, job: str, method: str) -> float | None:
    """The plain file's own rate (MB/s) up to which a method is faster than it; None where it always is.

    Between two bandwidths that were measured, on a straight line through the two ratios.
    """
    methods = report.of(job)
    size = float(report.conditions["sizes"]["plain"]) / 1e6
    before: tuple[float, float] | None = None
    for width, cell in methods[method].items():
        plain = methods[BASE[job]][width].median
        rate, ratio = size / plain, plain / cell.median
        if ratio < 1:
            if before is None or before[1] <= ratio:
                return rate
            return before[0] + (rate - before[0]) * (before[1] - 1) / (before[1] - ratio)
        before = (rate, ratio)
    return None


def _pays(report: Report, job: str) -> str:
    """Where qzf's methods are faster than the plain file, in words."""
    methods, said = report.of(job), []
    for method in (method for method in methods if method.startswith("qzf")):
        if job == "token":  # much of it is not loading, so its time tells nothing of the storage
            base = methods[BASE[job]]
            faster = [_label(w) for w, cell in methods[method].items() if cell.median < base[w].median]
            bound = f"at {', '.join(faster)}" if faster else "nowhere"
        else:
            rate = crossing(report, job, method)
            bound = "at all bandwidths" if rate is None else f"up to where that comes at {rate:.0f} MB/s"
        said.append(f"{WORDS[method]} {bound}")
    return f"Faster than the plain file: {'; '.join(said)}." if said else ""


def _conditions(report: Report) -> str:
    facts = report.conditions
    sizes = facts["sizes"]
    gain = sizes["plain"] / sizes["qzf"]
    lmzip = f", lmzip's {sizes['lmzip'] / 1e6:.0f}" if sizes["lmzip"] else ""
    return (
        f"{facts['origin']}: {sizes['plain'] / 1e6:.0f} MB, its container "
        f"{sizes['qzf'] / 1e6:.0f} MB{lmzip}; so storage alone would make it {gain:.2f}x faster. "
        f"Medians of {facts['runs']} runs, {facts['machine']}, {facts['file_system']}, {facts['date']}."
    )


def as_text(report: Report) -> str:
    """The report for a terminal."""
    parts = [_conditions(report)]
    for job in report.jobs():
        parts += ["", TITLES[job], aligned(table(report, job)), _pays(report, job)]
    return "\n".join(parts)


def as_markdown(report: Report, jobs: Sequence[str] = ()) -> str:
    """The report for a document, of all jobs or of some."""
    parts = [_conditions(report)]
    for job in [job for job in report.jobs() if not jobs or job in jobs]:
        parts += [
            f"**{TITLES[job]}** (times faster than the plain file)",
            markdown(table(report, job)),
            _pays(report, job),
        ]
    return "\n\n".join(part for part in parts if part)


def fill(document: str, report: Report) -> str:
    """``document`` with the text between its markers replaced. Raises ``ValueError`` where it has none."""

    def text(found: re.Match[str]) -> str:
        body = as_markdown(report, ["load", "pass"] if found[2] else ())
        return f"{found[1]}\n{body}\n\n{found[3]}"

    filled, count = MARKERS.subn(text, document)
    if not count:
        raise ValueError("there are no <!-- coldstart:begin --> and <!-- coldstart:end --> lines")
    return filled


def plot(report: Report, path: Path) -> None:
    """Time against bandwidth, a line a method, a field a job; both axes logarithmic."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "qzf"  # the same figures give the same file
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for axes, job in zip(
        figure.subplots(1, len(report.jobs()), squeeze=False)[0], report.jobs(), strict=True
    ):
        methods = report.of(job)
        known = [width for width in next(iter(methods.values())) if width is not None]
        ticks = [*known, max(known) * 2] if None in next(iter(methods.values())) else known
        for method, cells in methods.items():
            plain = method.startswith("plain")
            heights = [cell.median for cell in cells.values()]
            style = {"label": WORDS[method], "color": COLOURS[method], "linewidth": 1.6, "markersize": 4}
            axes.plot(ticks, heights, "o--" if plain else "o-", **style)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(ticks, [str(width) for width in known] + ["no limit"] * (len(ticks) - len(known)))
        axes.minorticks_off()
        heights = [cell.median for cells in methods.values() for cell in cells.values()]
        marks = [
            mark
            for mark in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
            if min(heights) / 1.5 < mark < max(heights) * 1.5
        ]
        axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
        axes.set_xlabel("storage, MB/s")
        axes.set_ylabel("seconds")
        axes.set_title({"load": "load all", "token": "first token", "pass": "pass over layers"}[job])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
