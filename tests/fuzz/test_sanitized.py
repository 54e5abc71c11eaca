"""All vectors with random damage, decoded by the whole core under ASan and UBSan."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qzf.transforms.fields import isas

ROOT = Path(__file__).resolve().parents[2]
#: Damaged copies of each vector, for each instruction set.
ROUNDS = 25


def _runtime(name: str) -> str:
    """The sanitizer's library, which has to be there before Python starts."""
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"the compiler has no {name}")
    return path


def _core(build: Path) -> Path:
    """The core, built with sanitizers."""
    if not shutil.which("g++") or not shutil.which("cmake") or not importlib.util.find_spec("nanobind"):
        pytest.skip("needs g++, cmake and nanobind")
    import nanobind

    options = [
        "-DSKBUILD=2",
        "-DQZF_SANITIZE=address,undefined",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dnanobind_DIR={nanobind.cmake_dir()}",
    ]
    for command in (
        ["cmake", "-S", ROOT / "qzf/_native", "-B", build, *options],
        ["cmake", "--build", build, "--parallel"],
    ):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (found,) = build.glob("_core*.so")
    return found


def test_damaged_vectors(tmp_path: Path) -> None:
    """One test for all instruction sets, as building the core takes longest."""
    core = _core(tmp_path)
    environment = os.environ | {
        "LD_PRELOAD": f"{_runtime('libasan.so')} {_runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "PYTHONMALLOC": "malloc",  # each object in memory of its own
    }
    command = [sys.executable, "-m", "tests.fuzz.run_sanitized", str(core), str(ROUNDS)]
    for isa in isas():
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment | {"QZF_FORCE_ISA": isa},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr[-5000:]
        assert done.stdout.startswith(f"{isa}: ")
