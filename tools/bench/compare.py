"""Size, speed and memory of qzf beside its peers, on the same real models in one run.

    python tools/bench/compare.py [MODEL ...] [--runs 5] [--max] [--skip zstd-19] [--json FILE]
                                  [--write-docs docs/benchmarks.md README.md]

Models are those of ``tools/fetch_models.py``. What is measured and how to read it: ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a run as a file, without -m

from tools import fetch_models
from tools.bench.codecs_peers import TOOLS, WORKER, Tool
from tools.bench.compare_report import Cell, Report, as_text, fill

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_MODELS = ("smollm2", "gemma", "minilm")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class ToolError(Exception):
    """A tool failed, or its output is not its input."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall-clock seconds and peak resident set in bytes of one job."""

    seconds: float
    rss: int


class Worker:
    """A tool's Python API in a process of its own that stays warm."""

    def __init__(self, engine: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, engine, str(threads)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._jobs: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        self.version = str(self._answer().get("version", ""))

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise ToolError(f"failed: its process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ToolError(f"failed: {answer['error']}")
        return answer

    def run(self, do: str, source: Path, target: Path) -> Timing:
        job = {"do": do, "source": str(source), "target": str(target)}
        self._jobs.write(json.dumps(job) + "\n")
        self._jobs.flush()
        answer = self._answer()
        return Timing(answer["seconds"], answer["rss"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._jobs.close()
        self._process.wait()
        self._answers.close()


def run_process(command: Sequence[str]) -> Timing:
    """Run a command to its end, from the start of the process on."""
    with tempfile.TemporaryFile("w+") as complaints:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            complaints.seek(0)
            said = complaints.read().strip().splitlines()
            raise ToolError(f"failed with code {process.returncode}: {said[-1] if said else 'no message'}")
    return Timing(seconds, usage.ru_maxrss * _RSS_UNIT)


@dataclass(slots=True)
class Bench:
    """One tool in one kind of measurement, over all models."""

    tool: Tool
    kind: str
    threads: int
    folder: Path
    worker: Worker | None = None
    note: str = field(init=False)

    def __post_init__(self) -> None:
        self.note = self.tool.missing(self.kind)
        if not self.note and self.kind == "api" and self.tool.slow:
            self.note = "not run in this way: too slow"
        if not self.note and self.kind == "api":
            try:
                self.worker = Worker(self.tool.engine, self.threads)
            except ToolError as error:
                self.note = str(error)

    def job(self, do: str, source: Path, target: Path) -> Timing:
        target.unlink(missing_ok=True)
        if self.worker is not None:
            return self.worker.run(do, source, target)
        return run_process(self.tool.command(do, source, target, self.threads))

    def round(self, cell: Cell, source: Path, *, timed: bool, check: bool) -> None:
        """Pack and unpack once; what goes wrong is noted in the cell, which is then left alone."""
        if cell.note:
            return
        packed, back = self.folder / f"{source.name}.packed", self.folder / f"{source.name}.back"
        try:
            pack, unpack = self.job("pack", source, packed), self.job("unpack", packed, back)
            size = packed.stat().st_size
            if cell.packed not in (None, size):
                raise ToolError(f"failed: packed to {cell.packed} and then to {size} bytes")
            if check and not filecmp.cmp(source, back, shallow=False):
                raise ToolError("failed: the output is not the input")
        except ToolError as error:
            cell.note, cell.packed = str(error), None
            cell.pack_seconds, cell.unpack_seconds = [], []
            return
        finally:
            packed.unlink(missing_ok=True)
            back.unlink(missing_ok=True)
        cell.packed = size
        if timed:
            cell.pack_seconds.append(pack.seconds)
            cell.unpack_seconds.append(unpack.seconds)
            cell.pack_rss = max(cell.pack_rss, pack.rss)
            cell.unpack_rss = max(cell.unpack_rss, unpack.rss)


def measure(model: str, source: Path, benches: Sequence[Bench], runs: int) -> list[Cell]:
    """All tools on one model. The first round warms up and checks, the others are timed.

    The tools take turns within each round, so that noise on the machine hits all of them. A slow tool
    takes part in the first round only, which then counts.
    """
    with source.open("rb") as file:
        while file.read(1 << 18):
            pass  # into the page cache
    size = source.stat().st_size
    cells = [Cell(model, b.tool.name, b.kind, size, note=b.note or b.tool.refuses(source)) for b in benches]
    for number in range(runs + 1):
        for bench, cell in zip(benches, cells, strict=True):
            slow = bench.tool.slow
            if number and slow:
                continue
            _say(f"{model}: round {number} of {runs}, {bench.tool.name} ({bench.kind})")
            bench.round(cell, source, timed=bool(number) or slow, check=number == 0)
    return cells


def file_system(folder: Path) -> str:
    """The kind of file system that ``folder`` is on, in a word."""
    best, kind = "", "an unknown file system"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            point, name = line.split()[1:3]
            if folder.resolve().is_relative_to(point) and len(point) >= len(best):
                best, kind = point, name
    return kind


def machine() -> str:
    """The machine in words."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        family = f" (family {info['cpu family']}, model {info['model']})" if "cpu family" in info else ""
        cpu = info.get("model name", cpu) + family
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, {system}"


def conditions(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What must be known to read the figures; no paths, since it is committed."""
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "threads": options.threads,
        "runs": options.runs,
        "file_system": file_system(folder),
        "models": {name: fetch_models.MODELS[name].origin for name in options.models},
        "settings": {tool.name: tool.settings for tool in TOOLS.values()},
        "versions": {"Python": platform.python_version()},
    }


@contextlib.contextmanager
def _benches(tools: Sequence[Tool], options: argparse.Namespace, folder: Path) -> Iterator[list[Bench]]:
    kinds = options.kind or ("process", "api")
    benches = [Bench(tool, kind, options.threads, folder) for kind in kinds for tool in tools]
    with contextlib.ExitStack() as stack:
        for bench in benches:
            if bench.worker is not None:
                stack.enter_context(bench.worker)
        yield benches


def _cache_bytecode(folder: Path) -> None:
    """Let the processes to come keep compiled modules in ``folder``, where the warm-up puts them.

    An installed package has its bytecode, a checkout may not, and would compile itself at each start.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")


def run(options: argparse.Namespace) -> Report:
    """Measure what the options ask for."""
    names = [name for name in options.only or TOOLS if name not in options.skip]
    if not (options.max or options.only):
        names = [name for name in names if name != "qzf-max"]
    tools = [TOOLS[name] for name in names]
    sources = {name: fetch_models.fetch(name) for name in options.models}
    with tempfile.TemporaryDirectory(prefix="qzf-bench-", dir=options.work) as name:
        _cache_bytecode(Path(name))
        facts = conditions(options, Path(name))
        for tool in tools:
            facts["versions"].update(tool.versions())
        if facts["load_before"] > 0.3:
            _say(f"warning: the machine is busy (load average {facts['load_before']:.2f})")
        cells: list[Cell] = []
        with _benches(tools, options, Path(name)) as benches:
            facts["api_versions"] = {b.tool.name: b.worker.version for b in benches if b.worker}
            for model, source in sources.items():
                cells += measure(model, source, benches, options.runs)
        facts["rss_floor"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    return Report(facts, cells)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _default_work() -> Path:
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare qzf with its peers on real models.")
    known = ", ".join(fetch_models.MODELS)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {known} (default: the first three)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="for every tool that has them (default: 2)")
    parser.add_argument("--kind", action="append", choices=("process", "api"), help="one kind of figure only")
    parser.add_argument("--only", nargs="+", choices=TOOLS, metavar="TOOL", help=f"of {', '.join(TOOLS)}")
    parser.add_argument(
        "--skip", nargs="+", choices=TOOLS, default=[], metavar="TOOL", help="leave these out"
    )
    parser.add_argument("--max", action="store_true", help="qzf --level max too, which is slow to pack")
    parser.add_argument("--work", type=Path, default=_default_work(), help="folder for outputs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, show an earlier run")
    parser.add_argument(
        "--write-docs", type=Path, nargs="+", default=[], metavar="FILE", help="fill these files' markers"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 if a tool failed or did not give its input back."""
    parser = _parser()
    options = parser.parse_args(arguments)
    options.models = options.models or DEFAULT_MODELS
    if unknown := [name for name in options.models if name not in fetch_models.MODELS]:
        parser.error(f"unknown model {unknown[0]!r}")
    if options.runs < 1 or options.threads < 1:
        parser.error("at least one run and one thread are needed")
    if options.from_json is not None:
        report = Report.from_json(json.loads(options.from_json.read_text()))
    else:
        report = run(options)
    print(as_text(report), end="")
    if options.json is not None:
        options.json.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    for document in options.write_docs:
        document.write_text(fill(document.read_text(), report))
    return 1 if any(cell.note.startswith("failed") for cell in report.cells) else 0


if __name__ == "__main__":
    sys.exit(main())
