"""llama.cpp on containers: the same tokens as from the plain file, in whatever way it is loaded."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qzf
from qzf.container.opening import open_reader
from qzf.errors import DamageError, NotFoundError, OptionError
from qzf.storage import FileSource
from tests.helpers import flip
from tests.interop.test_adapters_agree import model_path
from tests.interop.test_cli_process import command
from tests.interop.test_exec import open_files
from tests.interop.tiny_llama import write_tiny_llama

llama_cpp = pytest.importorskip("llama_cpp")

from qzf import llama_cpp as ours  # noqa: E402

OPTIONS: dict[str, Any] = {"n_ctx": 64, "n_threads": 2, "verbose": False, "seed": 1}

#: A program that knows only GGUF: its arguments are a path and whether to map it.
PROGRAM = f"""
import itertools, sys
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], use_mmap=sys.argv[2] == "map", **{OPTIONS})
print(*itertools.islice(model.generate(model.tokenize(b"once upon a time"), temp=0), 16))
"""


def tokens(model: Any) -> list[int]:
    """What the model says, with nothing left to chance; closes it."""
    try:
        return list(itertools.islice(model.generate(model.tokenize(b"once upon a time"), temp=0), 16))
    finally:
        model.close()


def text(model: Any) -> str:
    """What the model says, with chance that is the same each time."""
    said: str = model("Once upon a time", max_tokens=16, temperature=0.9, seed=3)["choices"][0]["text"]
    return said


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")[0]


@pytest.fixture(scope="module")
def expected(plain: Path) -> list[int]:
    said = tokens(llama_cpp.Llama(str(plain), **OPTIONS))
    assert len(set(said)) > 8
    return said


@pytest.fixture(scope="module")
def packed(plain: Path) -> Path:
    out = plain.with_suffix(".qzf")
    qzf.pack(plain, out, chunk_size=4096)
    return out


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container of a model in three parts, and of another file."""
    folder = tmp_path_factory.mktemp("split")
    parts = write_tiny_llama(folder / "tiny.gguf", parts=3)
    (folder / "notes").write_text("x")
    qzf.pack([*parts, folder / "notes"], folder / "split.qzf", chunk_size=4096)
    return folder / "split.qzf"


def test_load(packed: Path, expected: list[int]) -> None:
    threads, files = threading.active_count(), open_files()
    model = ours.load(packed, **OPTIONS)
    assert isinstance(model, llama_cpp.Llama)
    assert model.model_path == str(packed)
    assert not model.model_params.load_mode
    assert (threading.active_count(), open_files()) == (threads, files)
    assert tokens(model) == expected


def test_load_with_a_map(packed: Path, expected: list[int]) -> None:
    files = open_files()
    model = ours.load(str(packed), use_mmap=True, **OPTIONS)
    assert open_files() == files
    assert tokens(model) == expected


def test_without_fopencookie(packed: Path, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "available", lambda: False)
    assert tokens(ours.load(packed, **OPTIONS)) == expected


def test_split(split: Path, expected: list[int]) -> None:
    assert tokens(ours.load(split, **OPTIONS)) == expected
    assert tokens(ours.load(split, "tiny-00002-of-00003.gguf", **OPTIONS)) == expected


def test_options_pass_through(packed: Path) -> None:
    model = ours.load(packed, n_ctx=32, vocab_only=True, verbose=False, seed=5)
    assert model.context_params.n_ctx == 32
    assert model.model_params.vocab_only
    model.close()
    with pytest.raises(TypeError):
        ours.load(packed, model_path=str(packed))


def test_digest(packed: Path, expected: list[int]) -> None:
    with qzf.open(packed) as container:
        digest = container.digest
    assert tokens(ours.load(packed, digest=digest, threads=1, **OPTIONS)) == expected
    with pytest.raises(DamageError):
        ours.load(packed, digest="0" * 64, **OPTIONS)


@pytest.mark.parametrize("use_mmap", [False, True])
def test_pickle(packed: Path, expected: list[int], use_mmap: bool) -> None:
    model = ours.load(packed, packed.stem + ".gguf", use_mmap=use_mmap, **OPTIONS)
    copy = pickle.loads(pickle.dumps(model))
    assert type(copy) is ours.Llama
    assert tokens(copy) == tokens(model) == expected


@pytest.mark.parametrize("use_mmap", [False, True])
def test_damage(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_mmap: bool) -> None:
    """In the header, among the tensors, in the last chunk: an error of ours, and nothing stays open."""
    monkeypatch.chdir(tmp_path)
    with FileSource(packed) as source:
        places = [chunk.offset for chunk in open_reader(source).index.chunks]
    files, threads = open_files(), threading.active_count()
    for chunk in (0, len(places) // 2, len(places) - 1):
        with pytest.raises(DamageError) as caught:
            ours.load(flip(packed, places[chunk] + 70), use_mmap=use_mmap, **OPTIONS)
        assert caught.value.chunk == chunk
    assert (open_files(), threading.active_count()) == (files, threads)


def test_what_cannot_be_loaded(packed: Path, split: Path, smollm2: Path, sharded: Path) -> None:
    with pytest.raises(NotFoundError):
        ours.load(packed, "nope", **OPTIONS)
    with pytest.raises(NotFoundError):
        ours.load(split, "notes", **OPTIONS)
    with pytest.raises(OptionError, match="no GGUF"):
        ours.load(sharded, **OPTIONS)
    with pytest.raises(ValueError, match="Failed to load model"):
        ours.load(smollm2, **OPTIONS)  # a slice: llama.cpp misses layers
    with pytest.raises(FileNotFoundError):
        ours.load(packed.with_name("nope"), **OPTIONS)


def test_one_of_several(plain: Path, tmp_path: Path, expected: list[int]) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(plain.read_bytes())
    qzf.pack([tmp_path / "a.gguf", tmp_path / "b.gguf"], tmp_path / "both.qzf")
    with pytest.raises(OptionError, match=r"'a\.gguf', 'b\.gguf'"):
        ours.load(tmp_path / "both.qzf", **OPTIONS)
    assert tokens(ours.load(tmp_path / "both.qzf", "b.gguf", **OPTIONS)) == expected


def test_other_threads_load_as_always(plain: Path, packed: Path, expected: list[int]) -> None:
    function = llama_cpp.llama_cpp.llama_model_load_from_file
    wrong: list[str] = []

    def work(load: Callable[..., Any], path: Path) -> None:
        for _ in range(8):
            if tokens(load(str(path), **OPTIONS)) != expected:
                wrong.append(str(path))

    cases: list[tuple[Callable[..., Any], Path]] = [(ours.load, packed), (llama_cpp.Llama, plain)]
    crowd = [threading.Thread(target=work, args=case) for case in cases * 2]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert not wrong
    assert llama_cpp.llama_cpp.llama_model_load_from_file is function


def test_the_package_may_be_missing() -> None:
    script = """
import sys
sys.modules["llama_cpp"] = None
try:
    import qzf.llama_cpp
except ImportError as error:
    print(type(error).__name__, error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, encoding="utf-8")
    assert result.stdout.startswith("MissingPackageError ")
    assert "pip install 'qzf[llama]'" in result.stdout


@pytest.mark.parametrize("how", ["map", "read"])
def test_exec(packed: Path, split: Path, expected: list[int], how: str) -> None:
    """Programs get it from ``qzf exec``, split or not."""
    for args in ([packed], [packed, "--named"], [split, *_members(split)]):
        line = command("exec", *args, "--", sys.executable, "-c", PROGRAM, "{}", how)
        result = subprocess.run(line, capture_output=True, check=True, encoding="utf-8")
        assert [int(token) for token in result.stdout.split()] == expected


def _members(container: Path) -> list[str]:
    with qzf.open(container) as opened:
        return [f"--member={member.name}" for member in opened.members if member.kind == "gguf"]


@pytest.mark.realmodel
@pytest.mark.parametrize("name", ["smollm2", "gemma"])
def test_real_models(name: str, tmp_path: Path) -> None:
    path = model_path(name)
    qzf.pack(path, tmp_path / "model.qzf", level="fast")
    model = llama_cpp.Llama(str(path), **OPTIONS)
    expected = text(model), tokens(model)
    for use_mmap in (False, True):
        model = ours.load(tmp_path / "model.qzf", use_mmap=use_mmap, **OPTIONS)
        assert (text(model), tokens(model)) == expected
    line = command("exec", tmp_path / "model.qzf", "--", sys.executable, "-c", PROGRAM, "{}", "map")
    result = subprocess.run(line, capture_output=True, check=True, encoding="utf-8")
    assert [int(token) for token in result.stdout.split()] == expected[1]
