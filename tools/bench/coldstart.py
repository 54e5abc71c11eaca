"""Cold start behind slow storage: a plain file, its QZF container, and lmzip's archive.

    python tools/bench/coldstart.py [--model gemma] [--runs 5] [--json FILE] [--plot FILE]
                                    [--write-docs docs/coldstart.md README.md]

The model file is out of the page cache at the start of each run, and the kernel limits what the processes
read (control groups, version 1; root only; elsewhere it says so and stops). Jobs: all tensors to memory; the
first token of llama.cpp, whole process; one pass over all layers in order with less memory than the model has
bytes.
What is measured and how to read it: ``docs/coldstart.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a run as a file, without -m

import qzf
from tools import fetch_models
from tools.bench import cgroups
from tools.bench.coldstart_report import Cell, Report, as_text, fill, plot
from tools.bench.compare import file_system, machine

ROOT: Final = Path(__file__).resolve().parents[2]
MB: Final = 1_000_000
BANDWIDTHS: Final = (50, 100, 250, 500, None)
JOBS: Final = ("load", "token", "pass")
#: Of the model's bytes, what memory a pass over all layers may use: it then does not fit.
MEMORY_SHARE: Final = 0.75
METHODS: Final = {
    "load": ("plain-mmap", "plain-read", "qzf", "lmzip"),
    "token": ("plain", "qzf load", "qzf exec", "qzf mount", "lmzip to tmpfs"),
    "pass": ("plain-mmap", "qzf", "lmzip"),
}


class JobError(Exception):
    """A job failed, or what it gave is not what it should be."""


@dataclass(frozen=True)
class Setup:
    """The files of a run, all on the disk whose reads are limited."""

    plain: Path
    packed: Path
    archive: Path
    plan: Path
    device: str
    digests: dict[str, str]

    def file_of(self, method: str) -> Path:
        if method.startswith("plain"):
            return self.plain
        return self.archive if method.startswith("lmzip") else self.packed


def prepare(model: str, folder: Path) -> Setup:
    """Pack the model, and note where its tensors are, in the order of its layers."""
    source = fetch_models.fetch(model)
    setup = Setup(
        folder / source.name, folder / "model.qzf", folder / "model.lmz", folder / "plan.json",
        cgroups.device_of(folder), {},
    )  # fmt: skip
    setup.plain.write_bytes(source.read_bytes())
    qzf.pack(setup.plain, setup.packed)
    if find_spec("lmz") is not None:
        import_module("lmz").compress(str(setup.plain), str(setup.archive))
    with qzf.open(setup.packed) as container:
        names = [name for layer in container.layers() for name in layer.names]
        setup.plan.write_text(json.dumps([container.info(name).extent for name in names]))
    os.sync()
    return setup


def _run(command: Sequence[str], **options: Any) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise JobError(f"{command[-4:]} failed with code {done.returncode}: {said[-1] if said else ''}")
    return str(done.stdout)


def run_worker(setup: Setup, job: str, method: str, prefix: list[str]) -> tuple[float, str]:
    """Seconds and result of a load or a pass."""
    path = setup.file_of(method)
    cgroups.drop(path)
    command = [
        *prefix,
        sys.executable,
        "tools/bench/coldstart_worker.py",
        job,
        method,
        str(path),
        str(setup.plan),
    ]
    answer = json.loads(_run(command))
    return float(answer["seconds"]), ("lmzip " if method == "lmzip" else "") + answer["digest"]


def run_token(setup: Setup, _job: str, method: str, prefix: list[str]) -> tuple[float, str]:
    """Seconds of whole processes until llama.cpp has its first token, and that token."""
    script = [sys.executable, "tools/bench/first_token.py"]
    path = setup.file_of(method)
    with contextlib.ExitStack() as stack:
        if method == "qzf mount":
            path = stack.enter_context(_mounted(setup, prefix))
        cgroups.drop(setup.file_of(method))
        start = time.perf_counter()
        if method == "qzf exec":
            command = [sys.executable, "-m", "qzf.cli", "exec", str(path), "--", *script, "{}"]
        elif method == "lmzip to tmpfs":
            target = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))) / "model.gguf"
            code = "import lmz, sys; lmz.decompress(*sys.argv[1:])"
            _run([*prefix, sys.executable, "-c", code, str(path), str(target)])
            command = [*script, str(target)]
        else:
            command = [*script, str(path)]
        token = _run([*prefix, *command])
        return time.perf_counter() - start, token.strip()


@contextlib.contextmanager
def _mounted(setup: Setup, prefix: list[str]) -> Iterator[Path]:
    """The model in a mount whose process is below the limits."""
    with tempfile.TemporaryDirectory() as point:
        command = [
            *prefix,
            sys.executable,
            "-m",
            "qzf.cli",
            "mount",
            "--foreground",
            str(setup.packed),
            point,
        ]
        daemon = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            for _ in range(200):
                if os.path.ismount(point):
                    break
                time.sleep(0.05)
            else:
                raise JobError("the mount did not come up")
            yield Path(point) / setup.plain.name
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


RUNNERS: Final[dict[str, Callable[[Setup, str, str, list[str]], tuple[float, str]]]] = {
    "load": run_worker,
    "token": run_token,
    "pass": run_worker,
}


def unavailable(method: str, job: str) -> str:
    """Why a method cannot be measured here, in words; empty where it can."""
    needs = {"lmzip": "lmz", "token": "llama_cpp", "mount": "mfusepy"}
    for word, package in needs.items():
        if (word in method or word == job) and find_spec(package) is None:
            return f"{package} is not installed"
    return ""


def measure(setup: Setup, options: argparse.Namespace) -> list[Cell]:
    """All cells, runs of methods in turn so that what disturbs the machine disturbs all of them."""
    cells: list[Cell] = []
    memory = int(setup.plain.stat().st_size * MEMORY_SHARE)
    for job in options.job or JOBS:
        methods = [method for method in METHODS[job] if not unavailable(method, job)]
        for bandwidth in options.bandwidth or BANDWIDTHS:
            found = {method: Cell(job, method, bandwidth) for method in methods}
            cells += found.values()
            with cgroups.limits(
                setup.device, bandwidth and bandwidth * MB, memory if job == "pass" else None
            ) as prefix:
                for _ in range(options.runs):
                    for method, cell in found.items():
                        seconds, result = RUNNERS[job](setup, job, method, prefix)
                        kind = "lmzip" if method == "lmzip" else "tensors"
                        if setup.digests.setdefault(job if job == "token" else kind, result) != result:
                            raise JobError(f"{job} by {method} gave {result}, which is not the model")
                        cell.seconds.append(seconds)
            for cell in found.values():
                print(
                    f"{job:6} {bandwidth or 'all':>5} {cell.method:16} {cell.median:.3f} s", file=sys.stderr
                )
    return cells


def conditions(setup: Setup, options: argparse.Namespace) -> dict[str, Any]:
    """What must be known to read the figures; no paths, since it is committed."""
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "runs": options.runs,
        "file_system": file_system(setup.plain.parent),
        "model": options.model,
        "origin": fetch_models.MODELS[options.model].origin,
        "sizes": {
            "plain": setup.plain.stat().st_size,
            "qzf": setup.packed.stat().st_size,
            "lmzip": setup.archive.stat().st_size if setup.archive.exists() else None,
        },
        "memory_share": MEMORY_SHARE,
    }


def _bandwidth(text: str) -> int | None:
    return None if text == "none" else int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gemma", choices=[*fetch_models.MODELS], help="default: gemma")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--job", action="append", choices=JOBS, help="only this one; repeatable")
    parser.add_argument(
        "--bandwidth", action="append", type=_bandwidth, help="MB/s, or none for no limit; repeatable"
    )
    parser.add_argument(
        "--work", type=Path, help="folder on the disk that is limited; default: the checkout's"
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--from-json", type=Path, help="measure nothing, report what is there")
    parser.add_argument("--plot", type=Path, help="write a picture (SVG) there")
    parser.add_argument("--write-docs", type=Path, nargs="+", default=[], metavar="FILE")
    return parser


def run(options: argparse.Namespace) -> Report:
    """Measure, and return the report."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="qzf-coldstart-", dir=options.work or ROOT / "build") as name:
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(name) / "bytecode")
        setup = prepare(options.model, Path(name))
        for job in options.job or JOBS:  # warms up imports, and tells early what does not work
            for method in METHODS[job]:
                if not unavailable(method, job):
                    RUNNERS[job](setup, job, method, [])
        return Report(conditions(setup, options), measure(setup, options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 also where it cannot be run."""
    options = _parser().parse_args(arguments)
    if options.from_json:
        report = Report.from_json(options.from_json.read_text())
    elif why := cgroups.missing():
        print(f"skipped: {why}")
        return 0
    else:
        report = run(options)
    print(as_text(report))
    if options.json:
        options.json.write_text(report.to_json())
    if options.plot:
        plot(report, options.plot)
    for document in options.write_docs:
        document.write_text(fill(document.read_text(), report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
