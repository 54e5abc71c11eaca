"""The C++ kernel test program: each instruction set against scalar, on random layouts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYOUTS, SEED = "120", "1"
#: What 20 rounds of dequantization make, on every machine.
DEQUANTIZED = "types 26 digest 4de35aa8fa434446"


def run(*command: str | Path) -> str:
    """Standard output of a command; fails the test with all its output where it does not succeed."""
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=os.environ | {"PATH": tools}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def need(*programs: str) -> None:
    """Skips the test unless one of the programs is there."""
    beside = str(Path(sys.executable).parent)
    if not any(shutil.which(name) or shutil.which(name, path=beside) for name in programs):
        pytest.skip(f"none of these programs is installed: {', '.join(programs)}")


@pytest.fixture(autouse=True)
def _cmake() -> None:
    need("cmake")


def test_this_machine_with_sanitizers(tmp_path: Path) -> None:
    need("c++", "g++", "clang++")
    options = ("-DQZF_TESTS=ON", "-DQZF_WERROR=ON", "-DQZF_SANITIZE=address,undefined")
    run("cmake", "-S", ROOT / "qzf/_native", "-B", tmp_path, *options)
    run("cmake", "--build", tmp_path, "--parallel")
    assert run(tmp_path / "kernels_test", LAYOUTS, SEED).startswith("scalar ")
    for program in ("lanes_test", "rans_test", "encode_test", "chunks_test"):
        assert run(tmp_path / program, "3", SEED).startswith("scalar ")
    assert run(tmp_path / "strings_test", "3000", SEED).startswith("rounds ")
    assert run(tmp_path / "dequant_test", "20", SEED).strip() == DEQUANTIZED


def test_avx512_emulated(tmp_path: Path) -> None:
    need("c++", "g++", "clang++")
    simde = pytest.importorskip("simde_py", reason="the SIMDe headers are not installed (simde-py)")
    out = run(ROOT / "tools/test_avx512.sh", tmp_path, simde.get_include(), LAYOUTS, SEED)
    assert "avx512 layouts" in out
    assert DEQUANTIZED in out


def test_neon_emulated(tmp_path: Path) -> None:
    need("aarch64-linux-gnu-g++")
    need("qemu-aarch64-static", "qemu-aarch64")
    out = run(ROOT / "tools/test_neon.sh", tmp_path, LAYOUTS, SEED)
    assert "scalar neon layouts" in out
    assert DEQUANTIZED in out
