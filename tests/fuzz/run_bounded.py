"""Run mutated containers in bounded memory: ``python -m tests.fuzz.run_bounded FIRST COUNT``, or file names.

A ``MemoryError``, as any error that is not typed, ends the process and names the seed or the file.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.container_mutations import SEEDS, exercise, mutated

ROOM = 1 << 30


def _bound() -> None:
    """Limit the address space to what is mapped now and `ROOM` more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _cases(arguments: list[str]) -> Iterator[tuple[str, bytes]]:
    if arguments[0].isdecimal():
        first, count = int(arguments[0]), int(arguments[1])
        for seed in range(first, first + count):
            yield f"seed {seed}", mutated(seed)
    else:
        for name in arguments:
            yield name, Path(name).read_bytes()


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qzf"
        path.write_bytes(SEEDS[0])
        exercise(path, Path(folder) / "warm")  # load all that is loaded late
        _bound()
        for name, data in _cases(arguments):
            path.write_bytes(data)
            try:
                exercise(path, Path(folder) / "out")
            except BaseException:
                print(f"failed: {name}")
                raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
