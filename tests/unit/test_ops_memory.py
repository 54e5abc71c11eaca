"""Memory is bounded by threads and chunk size, not by the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 400_000_000
#: Not ru_maxrss, which a process inherits from the one that started it.
_MEASURED = """
import re, sys, qzf
getattr(qzf, sys.argv[1])(*sys.argv[2:])
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")


def _peak(use: str, *arguments: Path) -> int:
    """Peak resident bytes of a process that does nothing else."""
    command = [sys.executable, "-c", _MEASURED, use, *map(str, arguments)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.realmodel
def test_gemma_in_400_mb(gemma: Path, tmp_path: Path) -> None:
    container, again = tmp_path / "gemma.qzf", tmp_path / "gemma.gguf"
    peaks = {
        "pack": _peak("pack", gemma, container),
        "unpack": _peak("unpack", container, again),
        "verify": _peak("verify", container),
    }
    assert max(peaks.values()) < LIMIT, peaks
    assert again.stat().st_size == gemma.stat().st_size
    with gemma.open("rb") as one, again.open("rb") as other:
        while block := one.read(1 << 20):
            assert other.read(1 << 20) == block


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A sparse file of 600 MB; what it takes is what a file of 40 MB takes."""
    peaks = {}
    for size in (40_000_000, 600_000_000):
        source, container = tmp_path / f"{size}.bin", tmp_path / f"{size}.qzf"
        with source.open("wb") as file:
            file.truncate(size)
        peaks[size] = _peak("pack", source, container), _peak("verify", container)
    small, large = peaks.values()
    assert all(b < a + 40_000_000 for a, b in zip(small, large, strict=True)), peaks
