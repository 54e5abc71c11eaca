"""The codec in memory, beside its peers: speed and size of every type, on real tensors.

    python tools/bench/codec.py [--types Q4_K F32] [--isa avx2] [--seconds 0.3] [--loads] [--json FILE]
                                [--write-docs docs/codec.md]

What is measured and how to read it: ``docs/codec.md``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a run as a file, without -m

import qzf
from qzf.transforms import fields
from tools import fetch_models
from tools.bench import codec_loads, codec_samples, flavours
from tools.bench.codec_bits import bits_of
from tools.bench.codec_report import Cell, Report, Size, as_text, fill
from tools.bench.codec_samples import SOURCES, Sample
from tools.bench.compare import ROOT, machine

WORKER: Final = "tools.bench.codec_worker"
PEERS: Final = ("zstd -1", "lmzip", "zipnn", "openzl", "memcpy")
WAYS: Final = ("decode", "encode")
THREADS: Final = (1, 2)
PARTS: Final = ("speed", "sizes", "bits", "loads")
_OTHERS: Final = 4
"""Rounds of all but the first engine are so many times shorter."""
_SLOW: Final = 6
"""What takes so many times longer than it should is not repeated."""
_UNUSUAL: Final = ("TQ2_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
"""Types that are measured when asked for: nobody quantizes a model like mpnet to them."""


class Worker:
    """An engine in a process of its own; for qzf one an instruction set."""

    def __init__(self, engine: str, isa: str | None) -> None:
        self.name = engine if isa is None else f"{engine} {isa}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, engine],
            cwd=ROOT,
            env=os.environ | ({} if isa is None else {"QZF_FORCE_ISA": isa}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._jobs: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout

    def ask(self, **job: object) -> dict[str, Any]:
        """The answer to a job; ``note`` in it says what went wrong."""
        try:
            self._jobs.write(json.dumps(job) + "\n")
            self._jobs.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"note": "failed: its process has ended"}
        return answer

    def close(self) -> None:
        self._jobs.close()
        self._process.wait()
        self._answers.close()


@contextmanager
def workers(isas: Sequence[str], peers: Sequence[str]) -> Iterator[list[Worker]]:
    """One for each instruction set, then one for each peer."""
    with ExitStack() as stack:
        made = [Worker("qzf", isa) for isa in isas] + [Worker(peer, None) for peer in peers]
        for worker in made:
            stack.callback(worker.close)
        yield made


def measure(
    sample: Sample, engines: Sequence[Worker], seconds: float, rounds: int, folder: Path
) -> list[Cell]:
    """All engines on one sample; they take turns in each round, so that noise hits all of them.

    Rounds of the first engine take ``seconds``, those of the others a quarter of it; what takes much longer
    than that for one pass is measured once.
    """
    path, cells = folder / "sample", []
    sample.save(path)
    for worker in engines:
        answer = worker.ask(do="load", sample=str(path))
        cell = Cell(sample.dtype, worker.name, sample.size, answer.get("packed"), answer.get("note", ""))
        if cell.packed is not None and worker.name.startswith("qzf"):
            cell.packed += sample.table_bytes
        cells.append(cell)
    path.unlink()
    slow: set[tuple[str, str]] = set()
    for _ in range(rounds):
        for place, (worker, cell) in enumerate(zip(engines, cells, strict=True)):
            for way, threads in [(way, threads) for way in WAYS for threads in THREADS]:
                key, wanted = f"{way} {threads}", seconds / (_OTHERS if place else 1)
                done = (cell.engine, key) in slow or (cell.engine, way) == ("memcpy", "encode")
                if cell.packed is None or done:
                    continue
                answer = worker.ask(do=way, threads=threads, seconds=wanted)
                if "speed" in answer:
                    cell.speeds.setdefault(key, []).append(answer["speed"])
                    if answer["spent"] > _SLOW * max(wanted, 0.01):
                        slow.add((cell.engine, key))
                else:
                    cell.packed, cell.note, cell.speeds = None, answer["note"], {}
    return cells


def measure_sizes(flavour: str, data: bytes, folder: Path) -> Size:
    """A whole safetensors file packed by each tool."""
    zstandard = import_module("zstandard")
    source, target = folder / "model.safetensors", folder / "model.packed"
    source.write_bytes(data)
    packed: dict[str, int | None] = {}
    for level in (1, 19):
        packed[f"zstd -{level}"] = len(zstandard.ZstdCompressor(level=level, threads=2).compress(data))
    packed["lmzip"] = None
    if find_spec("lmz") is not None:
        import_module("lmz").compress(str(source), str(target), workers=2)
        packed["lmzip"] = target.stat().st_size
        target.unlink()
    sink = io.BytesIO()
    qzf.pack(source, sink, threads=2)
    packed["qzf"] = len(sink.getbuffer())
    source.unlink()
    return Size(flavour, len(data), packed)


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What must be known to read the figures; no paths, since it is committed."""
    versions = {"Python": platform.python_version()}
    for package in ("qzf", "zstandard", "lmzip", "zipnn", "openzl"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_before": os.getloadavg()[0],
        "seconds": options.seconds,
        "rounds": options.rounds,
        "active_isa": options.isa[0],
        "versions": versions,
    }


def run(options: argparse.Namespace) -> Report:
    """Measure what the options ask for."""
    report = Report(conditions(options))
    if report.conditions["load_before"] > 0.3:
        _say(f"warning: the machine is busy (load average {report.conditions['load_before']:.2f})")
    if "loads" in options.parts:
        _say("loads: gemma")
        # From the page cache of a file system: tmpfs has small pages, and is a quarter slower to read.
        folder = Path(tempfile.gettempdir())
        report.loads = codec_loads.measure(fetch_models.fetch("gemma"), 2, options.rounds, folder)
    with tempfile.TemporaryDirectory(prefix="qzf-codec-", dir=options.work) as name:
        folder = Path(name)
        if "speed" in options.parts or "bits" in options.parts:
            with workers(options.isa, options.peers if "speed" in options.parts else ()) as engines:
                for sample in codec_samples.all_samples(options.types):
                    _say(f"{sample.dtype}: {sample.size / 1e6:.1f} MB of {sample.origin}")
                    report.origins[sample.dtype] = sample.origin
                    if "speed" in options.parts:
                        report.cells += measure(sample, engines, options.seconds, options.rounds, folder)
                    if "bits" in options.parts:
                        report.bits += bits_of(sample)
        if "sizes" in options.parts:
            tensors = codec_samples.tensors(fetch_models.fetch("minilm"))
            for flavour in flavours.FLAVOURS:
                _say(f"sizes: {flavour}")
                report.sizes.append(measure_sizes(flavour, flavours.make(flavour, tensors), folder))
    return report


_started: Final = time.perf_counter()


def _say(message: str) -> None:
    print(f"[{time.perf_counter() - _started:4.0f} s] {message}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    shared = Path("/dev/shm")
    work = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    usual = [dtype for dtype in SOURCES if dtype not in _UNUSUAL]
    isas = fields.isas()[::-1]
    parser = argparse.ArgumentParser(description="The codec in memory, beside its peers.")
    parser.add_argument(
        "--types", nargs="+", choices=SOURCES, default=usual, metavar="TYPE", help="some types only"
    )
    parser.add_argument(
        "--isa", nargs="+", choices=isas, default=isas, help="the first gets the longest rounds"
    )
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=PEERS, metavar="PEER", help=", ".join(PEERS)
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=("speed", "sizes", "bits"), help="what to measure"
    )
    parser.add_argument("--loads", action="store_true", help="all tensors of gemma to memory, too")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a round at least (default: 0.3)")
    parser.add_argument("--rounds", type=int, default=5, help="of each figure (default: 5)")
    parser.add_argument("--work", type=Path, default=work, help="folder for files on the way")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, show an earlier run")
    parser.add_argument(
        "--write-docs", type=Path, nargs="+", default=[], metavar="FILE", help="fill these files' markers"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 if an engine failed or did not give its input back."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds < 0:
        parser.error("at least one round is needed, of no less than 0 s")
    if options.loads:
        options.parts = (*options.parts, "loads")
    if options.from_json is not None:
        report = Report.from_json(json.loads(options.from_json.read_text()))
    else:
        report = run(options)
    print(as_text(report), end="")
    if options.json is not None:
        options.json.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    for document in options.write_docs:
        document.write_text(fill(document.read_text(), report))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
