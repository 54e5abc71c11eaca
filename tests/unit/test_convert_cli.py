"""``qzf convert`` on the command line, and the memory that conversions take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import qzf
from tests.helpers import Q4_0, SOURCES, GgufTensor, Run, entry, gguf_file, safetensors_file

SMOLLM2 = SOURCES / "gguf" / "smollm2-slice.gguf"
BF16 = SOURCES / "safetensors" / "bf16.safetensors"
#: What a conversion may take above what the imports do: threads, times pieces of 1 MiB in and out.
ROOM = 40_000_000


def test_there_and_back(run: Run) -> None:
    result = run("convert", SMOLLM2, "raw.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"raw\.safetensors: .* -> .*, \d+ tensors, .*/s\n", result.stdout)
    assert run("convert", "raw.safetensors", "again.gguf", "-q").stdout == ""
    assert Path("again.gguf").read_bytes() == SMOLLM2.read_bytes()


def test_losses_are_said_on_stderr(run: Run) -> None:
    result = run("convert", SMOLLM2, "f.safetensors", "--dequantize", "bf16")
    assert result.exit_code == 0
    assert result.stderr.startswith("lost: block formats; Q4_1, Q8_0 become BF16")
    assert "of them changed" in result.stdout
    assert run("convert", SMOLLM2, "g.safetensors", "--dequantize", "bf16", "--quiet").stderr == ""


def test_json(run: Run) -> None:
    result = run("convert", BF16, "a.gguf", "--arch", "test", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["files"] == ["a.gguf"]
    assert report["output_size"] == Path("a.gguf").stat().st_size
    assert report["notices"][0].startswith("llama.cpp cannot run the result")
    assert set(report) == set(qzf.ConvertReport._fields)


def test_to_and_from_a_container(run: Run) -> None:
    assert run("convert", SMOLLM2, "m.qzf").exit_code == 0
    assert run("convert", "m.qzf", "m.gguf").exit_code == 0
    assert Path("m.gguf").read_bytes() == SMOLLM2.read_bytes()
    assert run("convert", "m.qzf", "m.safetensors", "--dequantize", "f16").exit_code == 0
    Path("folder").mkdir()
    assert run("convert", "m.qzf", "folder").exit_code == 0
    assert Path("folder/smollm2-slice.gguf").read_bytes() == SMOLLM2.read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "complaint"),
    [
        ([], 2, "Missing argument 'IN'"),
        ([SMOLLM2], 2, "Missing argument 'OUT'"),
        ([SMOLLM2, "-"], 2, "cannot convert from or to a pipe"),
        ([SMOLLM2, "a.gguf"], 2, "it can be .gguf to .safetensors"),
        ([SMOLLM2, "there.safetensors"], 2, "use --force to replace it"),
        ([SMOLLM2, "a.safetensors", "--dequantize", "q4_0"], 2, "it can be f32, f16, bf16"),
        ([BF16, "a.gguf", "--quantize", "f9"], 2, "quantize is 'f9'; it can be q4_0"),
        ([BF16, "a.gguf", "--threads", "0"], 2, "0 is not in the range"),
        (["missing.gguf", "a.safetensors"], 4, "No such file or directory"),
        (["there.safetensors", "a.gguf"], 3, "the file has 0 bytes"),
        ([SOURCES / "safetensors" / "f8_e4m3.safetensors", "a.gguf"], 3, "GGUF has no type for F8_E4M3"),
        (
            [SOURCES / "gguf" / "q8_k.gguf", "a.safetensors", "--dequantize", "f32"],
            3,
            "cannot be dequantized",
        ),
    ],
)
def test_errors(run: Run, args: list[Any], code: int, complaint: str) -> None:
    Path("there.safetensors").touch()
    result = run("convert", *args)
    assert result.exit_code == code, result.stderr
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["there.safetensors"]


# --- memory ---------------------------------------------------------------------------------------

_MEASURED = """
import json, re, sys, qzf
qzf.convert(*sys.argv[1:3], threads=2, **json.loads(sys.argv[3]))
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024)
"""


def _peak(source: Path, out: Path, **options: str) -> int:
    """Peak resident bytes of a process that converts ``source``, and nothing else."""
    command = [sys.executable, "-c", _MEASURED, str(source), str(out), json.dumps(options)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    out.unlink()
    return peak


def _sparse(path: Path, head: bytes, size: int) -> Path:
    """A file of zeros behind its head."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("many", [False, True], ids=["one row", "many rows"])
def test_memory_does_not_grow_with_the_tensor(many: bool, tmp_path: Path) -> None:
    peaks: dict[int, list[int]] = {}
    for weights in (1 << 20, 60 << 20):
        shape = (weights // 4096, 4096) if many else (1, weights)
        size = weights // 32 * 18
        head = gguf_file([], [GgufTensor("w", shape[::-1], Q4_0, data=b"")])
        blocks = _sparse(tmp_path / "a.gguf", head, len(head) + size)
        head = safetensors_file({"w": entry("F32", shape, 0, 4 * weights)})
        floats = _sparse(tmp_path / "a.safetensors", head, len(head) + 4 * weights)
        qzf.pack(blocks, tmp_path / "a.qzf", level="fast", force=True)
        peaks[weights] = [
            _peak(blocks, tmp_path / "b.safetensors"),
            _peak(blocks, tmp_path / "b.safetensors", dequantize="f32"),
            _peak(tmp_path / "a.qzf", tmp_path / "b.safetensors", dequantize="f32"),
            _peak(floats, tmp_path / "b.gguf"),
            _peak(floats, tmp_path / "b.gguf", quantize="q8_0"),
        ]
    small, large = peaks.values()
    assert all(b < a + ROOM for a, b in zip(small, large, strict=True)), peaks
