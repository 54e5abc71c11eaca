"""ls and cat, run in this process: what they show of good, damaged and hostile containers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import qzf
from tests.helpers import SOURCES, Run, flip

GGUF = SOURCES / "gguf" / "smollm2-slice.gguf"
SHARDED = SOURCES / "safetensors" / "sharded"
DIGEST = "0" * 64


def _digest(container: Path) -> str:
    with qzf.open(container) as opened:
        return opened.digest


def safetensors(path: Path, *names: str) -> Path:
    """A safetensors file whose tensors have these names."""
    header = {
        name: {"dtype": "U8", "shape": [4], "data_offsets": [4 * place, 4 * place + 4]}
        for place, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4 * len(names)))
    return path


# --- ls -------------------------------------------------------------------------------------------


def test_ls_summary(run: Run, packed: Path) -> None:
    result = run("ls", packed)
    assert result.exit_code == 0
    assert f"digest     {_digest(packed)}\n" in result.stdout
    assert "1 file, 19 tensors, " in result.stdout
    assert "chunks of 4,096 bytes" in result.stdout
    assert "smollm2-slice.gguf  gguf  304.7 kB" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_ls_members_can_be_checked_with_sha256sum(run: Run, sharded: Path) -> None:
    lines = run("ls", sharded, "--members").stdout.split("\n\n")[1].splitlines()
    assert len(lines) == 8
    assert lines[0] == f"{_sha256(SHARDED / 'config.json')}  config.json"


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_ls_tensors_and_chunks(run: Run, packed: Path, sharded: Path) -> None:
    header, *lines = run("ls", packed, "--tensors").stdout.splitlines()
    assert header.split() == ["tensor", "dtype", "shape", "original", "stored", "saved", "pipeline"]
    assert len(lines) == 19
    assert lines[0].split()[:3] == ["token_embd.weight", "Q8_0", "96x576"]
    header, *lines = run("ls", packed, "--chunks").stdout.splitlines()
    assert header.split() == ["chunk", "offset", "original", "stored", "saved", "coding", "tensor"]
    with qzf.open(packed) as opened:
        assert len(lines) == len(opened.chunks)
    assert run("ls", sharded, "--tensors").stdout.splitlines()[0].endswith("  pipeline     file")


def test_ls_as_json(run: Run, packed: Path) -> None:
    record = json.loads(run("ls", packed, "--json").stdout)
    with qzf.open(packed) as opened:
        assert len(record["chunks"]) == len(opened.chunks)
        assert [tensor["key"] for tensor in record["tensors"]] == opened.keys()
        assert record["members"][0]["metadata"] == dict(opened.metadata)
    assert record["format_version"] == "1.0"
    assert sum(chunk["original_size"] for chunk in record["chunks"]) == record["original_size"]
    assert sum(chunk["stored_size"] for chunk in record["chunks"]) == record["members"][0]["stored_size"]
    for view in ("members", "tensors", "chunks"):
        record = json.loads(run("ls", packed, "--json", f"--{view}").stdout)
        assert {"members", "tensors", "chunks"} & record.keys() == {view}


def test_ls_of_an_empty_member(run: Run) -> None:
    Path("empty").touch()
    run("pack", "empty")
    assert "saved      -\n" in run("ls", "empty.qzf").stdout
    assert run("ls", "empty.qzf", "--chunks").stdout.count("\n") == 1


def test_hostile_names_are_escaped_everywhere(run: Run) -> None:
    names = ["\x1b[31mred", "a\nOK", "[bold]b[/bold]", "\u202egnp.exe"]
    safetensors(Path("e\u202evil.safetensors"), *names)
    assert run("pack", "e\u202evil.safetensors", "-o", "a.qzf").exit_code == 0
    for view in ([], ["--members"], ["--tensors"], ["--chunks"], ["--json"]):
        result = run("ls", "a.qzf", *view)
        assert result.exit_code == 0
        assert not {"\x1b", "\u202e"} & set(result.stdout)
    tensors = run("ls", "a.qzf", "--tensors").stdout
    assert r"\x1b[31mred" in tensors
    assert r"a\nOK" in tensors
    assert "[bold]b[/bold]" in tensors
    with qzf.open("a.qzf") as opened:
        at = int(opened.chunks[opened.info("\x1b[31mred").first_chunk]["offset"])
    result = run("verify", flip(Path("a.qzf"), at + 64))
    assert result.exit_code == 1
    assert r"tensor \x1b[31mred" in result.stdout
    assert not {"\x1b", "\u202e"} & set(result.stdout)
    assert "\x1b" not in run("cat", "a.qzf", "\x1b[0m").stderr


# --- cat ------------------------------------------------------------------------------------------


def test_cat_raw(run: Run, packed: Path) -> None:
    for args in ([], ["--raw"], ["--digest", _digest(packed)]):
        result = run("cat", packed, "blk.0.attn_k.weight", *args)
        assert result.exit_code == 0
        with qzf.open(packed) as opened:
            assert result.stdout_bytes == opened.tensor("blk.0.attn_k.weight").tobytes()
    assert run("cat", packed, "blk.0.attn_k.weight", "--digest", DIGEST).exit_code == 1


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "f8_e4m3", "f4", "bool", "c64", "i64", "u16"])
def test_cat_npy_of_safetensors(run: Run, name: str) -> None:
    _check_npy(run, SOURCES / "safetensors" / f"{name}.safetensors")


@pytest.mark.parametrize("name", ["q4_k", "f32", "bf16", "i8"])
def test_cat_npy_of_gguf(run: Run, name: str) -> None:
    _check_npy(run, SOURCES / "gguf" / f"{name}.gguf")


def _check_npy(run: Run, source: Path) -> None:
    assert run("pack", source, "-o", "a.qzf").exit_code == 0
    with qzf.open("a.qzf") as opened:
        for key in opened:
            result = run("cat", "a.qzf", key, "--npy")
            assert result.exit_code == 0
            Path("a.npy").write_bytes(result.stdout_bytes)
            found, wanted = np.load("a.npy"), opened.tensor(key)
            assert found.shape == wanted.shape
            assert found.dtype.itemsize == wanted.dtype.itemsize
            assert found.tobytes() == wanted.tobytes()
            if wanted.dtype.isbuiltin == 1:
                assert found.dtype == wanted.dtype


def test_cat_of_an_unknown_name(run: Run, packed: Path) -> None:
    result = run("cat", packed, "blk.0.attn_q.weigh")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no tensor 'blk.0.attn_q.weigh'; did you mean 'blk.0.attn_q.weight'" in result.stderr


def test_cat_of_an_ambiguous_name(run: Run) -> None:
    safetensors(Path("a.safetensors"), "t")
    safetensors(Path("b.safetensors"), "t")
    run("pack", "a.safetensors", "b.safetensors", "-o", "two.qzf")
    result = run("cat", "two.qzf", "t")
    assert result.exit_code == 2
    assert "did you mean 'a.safetensors:t' or 'b.safetensors:t'?" in result.stderr
    assert run("cat", "two.qzf", "b.safetensors:t").stdout_bytes == bytes(4)


def test_cat_reads_only_the_tensors_chunks(run: Run, packed: Path) -> None:
    """All other chunks may be damaged: cat does not notice."""
    with qzf.open(packed) as opened:
        info = opened.info("blk.0.attn_k.weight")
        ours = range(info.first_chunk, info.first_chunk + info.chunk_count)
        others = [int(c["offset"]) + 64 for i, c in enumerate(opened.chunks) if i not in ours]
        wanted = opened.tensor("blk.0.attn_k.weight").tobytes()
    damaged = flip(packed, *others)
    assert run("cat", damaged, "blk.0.attn_k.weight").stdout_bytes == wanted
    assert run("cat", damaged, "blk.0.attn_q.weight").exit_code == 1
