"""The tools that ``compare.py`` sets side by side: their command lines, versions, and what they can take."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

WORKER = "tools.bench.compare_worker"

#: (pack or unpack, source, target, threads) -> command line
Command = Callable[[str, Path, Path, int], list[str]]


@dataclass(frozen=True, slots=True)
class Tool:
    """A compressor with its settings.

    ``engine`` is its name for ``compare_worker``. ``slow`` tools run once, as a whole process only.
    ``module`` must be importable for the API, ``program`` or else ``module`` be there for the command line.
    """

    name: str
    engine: str
    settings: str
    command: Command
    module: str | None = None
    program: str | None = None
    package: str | None = None
    slow: bool = False
    suffixes: tuple[str, ...] = ()

    def missing(self, kind: str) -> str:
        """Why it cannot be measured as ``process`` or ``api``; empty if it can."""
        if kind == "process" and self.program is not None and _program(self.program) is not None:
            return ""
        if self.module is not None:
            return "" if find_spec(self.module) is not None else "not installed"
        return "not installed" if kind == "process" and self.program is not None else ""

    def refuses(self, source: Path) -> str:
        """Why it cannot pack ``source``; empty if it can."""
        if not self.suffixes or source.suffix in self.suffixes:
            return ""
        return (
            f"n/a: it packs tensors of floats, which a {source.suffix.lstrip('.').upper()} has hardly any of"
        )

    def versions(self) -> dict[str, str]:
        """The versions of what is installed of it: its ``package`` and, where it is another, its program."""
        found = {}
        if self.package is not None:
            try:
                found[self.package] = version(self.package)
            except PackageNotFoundError:
                found[self.package] = "not installed"
        if self.program == "zstd":
            found["zstd (command)"] = _zstd_version()
        return found


def _program(name: str) -> str | None:
    """The program beside this Python, or else on the PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def _zstd_version() -> str:
    program = _program("zstd")
    if program is None:
        return "not installed"
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v(\d[\w.]*)", shown)
    return found[1] if found else "unknown"


def _line(program: str, *rest: object) -> list[str]:
    return [_program(program) or program, *map(str, rest)]


def _worker(engine: str, do: str, source: Path, target: Path, threads: int) -> list[str]:
    return [sys.executable, "-m", WORKER, engine, str(threads), do, str(source), str(target)]


def _qzf(level: str) -> Command:
    def command(do: str, source: Path, target: Path, threads: int) -> list[str]:
        levels = ("--level", level) if do == "pack" else ()
        return _line("qzf", do, source, "-o", target, *levels, "-j", threads, "-q")

    return command


def _lmzip(do: str, source: Path, target: Path, threads: int) -> list[str]:
    return _line("lmz", "compress" if do == "pack" else "decompress", "-q", "-j", threads, source, target)


def _zstd(level: int) -> Command:
    def command(do: str, source: Path, target: Path, threads: int) -> list[str]:
        if _program("zstd") is None:
            return _worker(f"zstd:{level}", do, source, target, threads)
        doing = (f"-{level}", f"-T{threads}") if do == "pack" else ("-d",)
        return _line("zstd", "-q", *doing, source, "-o", target)

    return command


def _zipnn(do: str, source: Path, target: Path, threads: int) -> list[str]:
    return _worker("zipnn", do, source, target, threads)


def _copy(_do: str, source: Path, target: Path, _threads: int) -> list[str]:
    return _line("cp", source, target)


def _qzf_tool(level: str, *, slow: bool = False) -> Tool:
    return Tool(
        f"qzf {level}", f"qzf:{level}", f"--level {level} -j N", _qzf(level), "qzf", "qzf", "qzf", slow
    )


def _zstd_tool(level: int, *, slow: bool = False) -> Tool:
    settings = f"-{level} -TN, unpacking is single-threaded"
    return Tool(
        f"zstd -{level}", f"zstd:{level}", settings, _zstd(level), "zstandard", "zstd", "zstandard", slow
    )


TOOLS: dict[str, Tool] = {
    "qzf-fast": _qzf_tool("fast"),
    "qzf": _qzf_tool("default"),
    "qzf-max": _qzf_tool("max", slow=True),
    "lmzip": Tool("lmzip", "lmzip", "defaults, -j N", _lmzip, "lmz", "lmz", "lmzip"),
    "zipnn": Tool(
        "zipnn",
        "zipnn",
        "tensor by tensor as its safetensors script does: HUFFMAN, N threads",
        _zipnn,
        "zipnn",
        package="zipnn",
        suffixes=(".safetensors",),
    ),
    "zstd-1": _zstd_tool(1),
    "zstd-19": _zstd_tool(19, slow=True),
    "cp": Tool("cp", "copy", "a plain copy", _copy, program="cp"),
}
"""By the name that ``--skip`` and ``--only`` take, in the order of the table."""
