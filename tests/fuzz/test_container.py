"""Damaged and hostile containers: all damage is found, and nothing but typed errors ever comes out."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qzf
from qzf.errors import DamageError, FormatError, QzfError
from tests.fuzz.container_mutations import SEEDS, VECTORS, exercise, mutated
from tests.helpers import SOURCES
from tools.make_vectors import folders
from tools.vectors.parts import seal, take_apart

ROOT = Path(__file__).resolve().parents[2]
ERRORS = folders()["errors"]


def _load_reference() -> ModuleType:
    path = ROOT / "spec" / "reference_decoder.py"
    spec = importlib.util.spec_from_file_location("qzf_reference_decoder_for_fuzz", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


REFERENCE = _load_reference()
#: What is damaged: packed by qzf, large and small, and vectors with all kinds of records.
PACKED = {
    "gguf": SOURCES / "gguf" / "q6_k.gguf",
    "split": SOURCES / "gguf" / "split-00001-of-00003.gguf",
    "folder": SOURCES / "safetensors" / "sharded",
}
VECTOR_NAMES = [
    "tables",
    "tiny-chunks",
    "optional-sections",
    "verbatim",
    "mixed-tensor",
    "large-index",
    "quant-columns",
    "values-f32",
    "strings-tensor",
]
KINDS = [*PACKED, *VECTOR_NAMES]
#: For each of the kinds: over 1,000 flipped bits and over 200 truncations in all.
FLIPS, CUTS = 130, 25


@pytest.fixture(scope="module", params=KINDS)
def container(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A container that may be damaged, in a folder of its own in which nothing else is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{request.param}.qzf"
        if request.param in PACKED:
            qzf.pack(PACKED[request.param], path, chunk_size=8192)
        else:
            shutil.copy(VECTORS / path.name, path)
        yield path


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _is_found(path: Path) -> bool:
    try:
        return not qzf.verify(path, threads=1).ok
    except (FormatError, DamageError):
        return True


def _places(size: int, count: int, seed: int) -> list[int]:
    """Places at random, but a third of them at the start and at the end, where the structures are."""
    draw = random.Random(seed)
    third = count // 3
    near = [draw.randrange(min(size, 300)) for _ in range(third)]
    near += [size - 1 - draw.randrange(min(size, 5000)) for _ in range(third)]
    return near + [draw.randrange(size) for _ in range(count - len(near))]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_flipped_bit_is_found(container: Path, seed: int) -> None:
    size, draw = container.stat().st_size, random.Random(seed)
    with container.open("r+b", buffering=0) as file:
        for place in _places(size, FLIPS // 2, seed):
            byte = os.pread(file.fileno(), 1, place)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << draw.randrange(8)]), place)
            assert _is_found(container), place
            os.pwrite(file.fileno(), byte, place)
    assert qzf.verify(container).ok


def test_every_truncation_is_found(container: Path, tmp_path: Path) -> None:
    data = container.read_bytes()
    path = tmp_path / "cut.qzf"
    for size in [0, 1, 63, 64, len(data) - 80, len(data) - 1, *_places(len(data), CUTS, 3)]:
        path.write_bytes(data[:size])
        with pytest.raises((FormatError, DamageError)):
            qzf.verify(path, threads=1)
        with pytest.raises((FormatError, DamageError)):
            qzf.unpack(path, f"{tmp_path}/out/")
        assert not (tmp_path / "out").exists()


def test_damaged_containers_unpack_to_the_same_or_not_at_all(container: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    qzf.unpack(container, f"{good}/")
    expected, data, path = _files(good), container.read_bytes(), tmp_path / "damaged.qzf"
    for place in _places(len(data), 30, 4):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        out = tmp_path / f"{place}"
        try:
            qzf.unpack(path, f"{out}/", threads=2)
        except (FormatError, DamageError):
            assert _files(out).items() <= expected.items()
        else:
            assert _files(out) == expected
        shutil.rmtree(out, ignore_errors=True)


# --- mutations ------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A vector, and the same with bytes changed, put in, taken out, or moved."""
    data = draw(st.sampled_from(SEEDS))
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(changed) - 1, 0)))
        match draw(st.integers(0, 3)):
            case 0:
                changed[at : at + 1] = draw(st.binary(min_size=1, max_size=9))
            case 1:
                del changed[at : at + draw(st.sampled_from([1, 8, 64, 128, 1000]))]
            case 2:
                changed[at:at] = bytes(draw(st.sampled_from([1, 8, 64, 128])))
            case 3:
                other = draw(st.integers(0, max(len(changed) - 1, 0)))
                changed[at : at + 64] = changed[other : other + 64]
    return data, bytes(changed)


@given(damaged())
@settings(max_examples=300)
def test_mutated_bytes(case: tuple[bytes, bytes]) -> None:
    data, changed = case
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qzf"
        path.write_bytes(changed)
        assert exercise(path, Path(folder) / "out") == (changed == data)


@given(st.integers(0, 1 << 40))
@settings(max_examples=400)
def test_mutated_structures_with_all_checksums_right(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qzf"
        path.write_bytes(mutated(seed))
        exercise(path, Path(folder) / "out")


@given(st.integers(0, 1 << 40))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_decoders_agree_on_what_is_valid(capsys: pytest.CaptureFixture[str], seed: int) -> None:
    """qzf and the reference decoder, which was written from the text alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qzf"
        path.write_bytes(mutated(seed))
        assert (REFERENCE.main([str(path)]) == 0) == (not _is_found(path)), capsys.readouterr().err


@pytest.mark.parametrize("seed", range(2))
def test_hostile_structures_in_bounded_memory(seed: int) -> None:
    """In a process of its own, whose address space ends 1 GiB above what it has at the start."""
    command = [sys.executable, "-m", "tests.fuzz.run_bounded", str(seed * 10_000), "700"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_broken_containers_in_bounded_memory() -> None:
    command = [sys.executable, "-m", "tests.fuzz.run_bounded", *map(str, sorted(ERRORS.glob("*.qzf")))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(ERRORS.glob("*.qzf")), ids=lambda path: path.stem)
def test_broken_containers(path: Path, tmp_path: Path) -> None:
    assert not exercise(path, tmp_path / "out")


@pytest.mark.parametrize("data", SEEDS, ids=len)
def test_seeds_are_taken_apart_and_sealed_without_loss(data: bytes) -> None:
    assert seal(take_apart(data)) == data


def test_errors_can_always_be_printed(tmp_path: Path) -> None:
    """Names come from the file; what is printed must be text that UTF-8 can hold."""
    for seed in range(200):
        path = tmp_path / "a.qzf"
        path.write_bytes(mutated(seed))
        try:
            qzf.verify(path, threads=1)
        except QzfError as error:
            str(error).encode()
