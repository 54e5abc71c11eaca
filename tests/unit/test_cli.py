"""The commands, run in this process: results, summaries, errors and exit codes."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest

import qzf
from qzf import errors, ops
from qzf.cli import exits
from qzf.cli.signals import Terminated
from tests.helpers import SOURCES, Run, flip

GGUF = SOURCES / "gguf" / "smollm2-slice.gguf"
SHARDED = SOURCES / "safetensors" / "sharded"
DIGEST = "0" * 64


# --- the group ------------------------------------------------------------------------------------


def test_help_documents_every_exit_code(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for code in exits.Exit:
        assert f"{code.value}" in result.stdout
    for name in ("pack", "unpack", "verify", "ls", "cat", "convert"):
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", ["pack", "unpack", "verify", "ls", "cat", "convert"])
def test_help_of_commands_fits_80_columns(run: Run, name: str) -> None:
    result = run(name, "-h")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: qzf {name} ")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"qzf {qzf.__version__}\n"


def test_without_a_command_shows_help_as_an_error(run: Run) -> None:
    result = run()
    assert result.exit_code == 2
    assert (result.stdout, result.stderr[:6]) == ("", "Usage:")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["nope"], "No such command 'nope'"),
        (["pack"], "Missing argument 'SRC...'"),
        (["pack", "--nope", "a"], "No such option"),
        (["pack", "--level", "turbo", "a"], "'turbo' is not one of"),
        (["pack", "--chunk-size", "many", "a"], "'many' is not a size"),
        (["pack", "-j", "0", "a"], "0 is not in the range"),
        (["pack", "-"], "cannot read from standard input"),
        (["unpack", "a", "-o", "-"], "cannot unpack to standard output"),
        (["verify", "a", "--digest", "abc"], "'abc' is not a digest"),
    ],
)
def test_usage_errors_take_one_line(run: Run, args: list[str], complaint: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("qzf: error: ")
    assert complaint in result.stderr
    assert "--help')\n" in result.stderr
    assert result.stderr.count("\n") == 1


# --- errors and exit codes ------------------------------------------------------------------------

ERRORS: list[tuple[BaseException, int, str]] = [
    (
        errors.ChecksumError("bad sum", file="a.qzf", offset=7, chunk=3),
        1,
        "error: a.qzf, offset 7, chunk 3: bad sum",
    ),
    (errors.ChunkError("bad chunk", tensor="t"), 1, "error: tensor 't': bad chunk"),
    (errors.OptionError("no such level"), 2, "error: no such level"),
    (errors.OutputExistsError("there", file="o"), 2, "error: o: there"),
    (errors.NotFoundError("no member 'x'"), 2, "error: no member 'x'"),
    (errors.MissingPackageError("needs a package"), 2, "error: needs a package"),
    (errors.StateDictError("no such key"), 2, "error: no such key"),
    (errors.GgufError("bad magic", file="a.gguf", offset=0), 3, "error: a.gguf, offset 0: bad magic"),
    (errors.SafetensorsError("overlap"), 3, "error: overlap"),
    (errors.FormatError("no container"), 3, "error: no container"),
    (errors.TruncatedError("too short"), 3, "error: too short"),
    (errors.UnsupportedError("version 9"), 3, "error: version 9"),
    (errors.SourceChangedError("changed", file="a"), 4, "error: a: changed"),
    (errors.RemoteError("no answer", file="s3://a/b"), 4, "error: s3://a/b: no answer"),
    (
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        4,
        "error: x: No such file or directory",
    ),
    (PermissionError(errno.EACCES, "Permission denied", b"x"), 4, "error: x: Permission denied"),
    (OSError(errno.ENOSPC, "No space left on device"), 4, "error: No space left on device"),
    (OSError("odd"), 4, "error: OSError: odd"),
    (MemoryError(), 4, "error: not enough memory"),
    (RuntimeError("oops"), 70, "internal error: RuntimeError: oops; please report this (QZF_TRACEBACK=1 "),
    (KeyError("k"), 70, "internal error: KeyError: 'k'"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (Terminated(15), 143, "terminated"),
    (Terminated(1), 129, "terminated"),
    (errors.FormatError("name '\x1b[31m\n'", file="a\tb"), 3, r"error: a\tb: name '\x1b[31m\n'"),
]


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(ops, "unpack", fail)


@pytest.mark.parametrize(("error", "code", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_every_error_has_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    _fail_with(monkeypatch, error)
    result = run("unpack", "-q", "a.qzf")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith(f"qzf: {text}")
    assert result.stderr.count("\n") == 1


def test_the_error_tree_is_covered() -> None:
    def leaves(kind: type[errors.QzfError]) -> set[type[errors.QzfError]]:
        found = {leaf for sub in kind.__subclasses__() for leaf in leaves(sub)}
        return found or {kind}

    assert leaves(errors.QzfError) <= {type(error) for error, _, _ in ERRORS}


@pytest.mark.parametrize(("error", "code", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_errors_as_json(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    _fail_with(monkeypatch, error)
    result = run("unpack", "a.qzf", "--json")
    assert result.exit_code == code
    record = json.loads(result.stdout)["error"]
    assert (record["type"], record["exit_code"]) == (type(error).__name__, code)
    assert result.stderr.startswith(f"qzf: {text}")


def test_json_errors_have_coordinates(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, errors.ChunkError("bad", file="f", offset=1, member="m", tensor="t", chunk=0))
    assert json.loads(run("unpack", "f", "--json").stdout) == {
        "error": {
            "type": "ChunkError",
            "message": "bad",
            "exit_code": 1,
            "file": "f",
            "offset": 1,
            "member": "m",
            "tensor": "t",
            "chunk": 0,
        }
    }
    _fail_with(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "out"))
    record = json.loads(run("unpack", "f", "--json").stdout)["error"]
    assert (record["errno"], record["file"]) == ("ENOSPC", "out")


def test_usage_errors_as_json(run: Run) -> None:
    record = json.loads(run("pack", "--json", "--level", "turbo", "a").stdout)["error"]
    assert (record["type"], record["exit_code"]) == ("BadParameter", 2)


def test_json_behind_two_dashes_is_a_name(run: Run) -> None:
    result = run("pack", "--", "--json")
    assert (result.exit_code, result.stdout) == (4, "")


def test_traceback_on_demand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, RuntimeError("oops"))
    monkeypatch.setenv("QZF_TRACEBACK", "1")
    result = run("unpack", "a.qzf")
    assert result.exit_code == 70
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("qzf: internal error")


# --- pack and unpack ------------------------------------------------------------------------------


def test_round_trip(run: Run) -> None:
    Path("model.gguf").write_bytes(GGUF.read_bytes())
    result = run("pack", "model.gguf")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith("model.gguf.qzf: 304.7 kB -> ")
    assert " % saved), 19 tensors, 32 chunks, " in first
    assert second == f"digest {_digest('model.gguf.qzf')}"
    assert result.stderr == ""

    Path("model.gguf").unlink()
    result = run("unpack", "model.gguf.qzf")
    assert result.exit_code == 0
    assert result.stdout.startswith("model.gguf: 304.7 kB, ")
    assert Path("model.gguf").read_bytes() == GGUF.read_bytes()


def _digest(container: str | Path) -> str:
    with qzf.open(container) as opened:
        return opened.digest


def test_pack_as_json_and_quiet(run: Run) -> None:
    result = run("pack", GGUF, "-o", "a.qzf", "--json", "-j", "1")
    record = json.loads(result.stdout)
    assert (record["out"], record["members"], record["tensors"]) == ("a.qzf", 1, 19)
    assert record["container_size"] == Path("a.qzf").stat().st_size
    result = run("pack", GGUF, "-o", "b.qzf", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert Path("a.qzf").read_bytes() == Path("b.qzf").read_bytes()


def test_pack_to_stdout(run: Run) -> None:
    run("pack", GGUF, "-o", "a.qzf")
    result = run("pack", GGUF, "-o", "-")
    assert result.exit_code == 0
    assert result.stdout_bytes == Path("a.qzf").read_bytes()
    assert result.stderr.startswith("stdout: 304.7 kB -> ")
    result = run("pack", GGUF, "-o", "-", "--json")
    assert result.stdout_bytes == Path("a.qzf").read_bytes()
    assert json.loads(result.stderr)["out"] is None


def test_pack_to_stdout_reports_errors_in_one_json_object(run: Run) -> None:
    Path("bad.gguf").write_bytes(b"GGUF")
    result = run("pack", "bad.gguf", "-o", "-", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert json.loads(result.stderr)["error"]["type"] == "GgufError"


def test_pack_options_reach_the_library(run: Run) -> None:
    assert run("pack", GGUF, "-o", "a.qzf", "--level", "fast", "--chunk-size", "8K").exit_code == 0
    record = json.loads(run("ls", "a.qzf", "--json").stdout)
    assert (record["level"], record["chunk_size"]) == ("fast", 8192)
    Path("bad.gguf").write_bytes(b"GGUF")
    assert run("pack", "bad.gguf").exit_code == 3
    assert run("pack", "bad.gguf", "--opaque").exit_code == 0
    assert run("pack", "bad.gguf", "--opaque").exit_code == 2
    assert run("pack", "bad.gguf", "--opaque", "--force").exit_code == 0
    result = run("pack", GGUF, "-o", "b.qzf", "--chunk-size", "1")
    assert (result.exit_code, result.stdout) == (2, "")


def test_pack_of_several_needs_an_output(run: Run) -> None:
    result = run("pack", GGUF, SOURCES / "gguf" / "f16.gguf")
    assert result.exit_code == 2
    assert "-o" in result.stderr
    result = run("pack", GGUF, SOURCES / "gguf" / "f16.gguf", "-o", "two.qzf")
    assert result.exit_code == 0
    assert " saved), 2 files, " in result.stdout


def test_pack_of_an_empty_file(run: Run) -> None:
    Path("empty").touch()
    result = run("pack", "empty")
    assert result.exit_code == 0
    assert result.stdout.startswith("empty.qzf: 0 B -> 784 B, 0 tensors, 0 chunks")


def test_pack_of_a_missing_file(run: Run) -> None:
    result = run("pack", "gone.gguf")
    assert result.exit_code == 4
    assert result.stderr == "qzf: error: gone.gguf: No such file or directory\n"
    assert list(Path().iterdir()) == []


def test_unpack_of_several_files(run: Run, sharded: Path) -> None:
    result = run("unpack", sharded, "-o", "out")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "out/config.json" in lines
    assert lines[-1].startswith("8 files, ")
    for original in SHARDED.iterdir():
        assert Path("out", original.name).read_bytes() == original.read_bytes()


def test_unpack_a_selection(run: Run, sharded: Path) -> None:
    result = run("unpack", sharded, "-o", "out/", "--member", "config.json", "--json")
    assert json.loads(result.stdout)["files"] == ["out/config.json"]
    result = run("unpack", sharded, "-o", "tensors/", "--tensor", "pooler.*", "-q")
    assert (result.exit_code, result.stdout) == (0, "")
    written = sorted(path.name for path in Path("tensors").iterdir())
    assert written == ["pooler.dense.bias.bin", "pooler.dense.weight.bin"]
    assert run("unpack", sharded, "-o", "out/", "--member", "nope").exit_code == 2
    assert run("unpack", sharded, "-o", "out/", "--tensor", "nope*").exit_code == 2


def test_unpack_keeps_what_is_there(run: Run, packed: Path) -> None:
    Path("model.gguf").write_text("mine")
    result = run("unpack", packed, "-o", "model.gguf")
    assert (result.exit_code, Path("model.gguf").read_text()) == (2, "mine")
    assert run("unpack", packed, "-o", "model.gguf", "--force").exit_code == 0
    assert Path("model.gguf").read_bytes() == GGUF.read_bytes()


def test_unpack_checks_the_digest(run: Run, packed: Path) -> None:
    assert run("unpack", packed, "-o", "a", "--digest", _digest(packed)).exit_code == 0
    result = run("unpack", packed, "-o", "b", "--digest", DIGEST)
    assert result.exit_code == 1
    assert "the container digest is" in result.stderr
    assert not Path("b").exists()


def test_unpack_of_a_damaged_container(run: Run, packed: Path) -> None:
    result = run("unpack", flip(packed, 60_000), "-o", "a")
    assert result.exit_code == 1
    assert result.stderr.startswith("qzf: error: damaged.qzf, offset ")
    assert list(Path().iterdir()) == [Path("damaged.qzf")]


def test_unpack_recovers_a_truncated_container(run: Run, packed: Path) -> None:
    with qzf.open(packed) as opened:
        end = opened.reader.index.end
    Path("cut.qzf").write_bytes(packed.read_bytes()[:end])
    assert run("unpack", "cut.qzf", "-o", "a").exit_code == 3
    assert run("unpack", "cut.qzf", "-o", "a", "--recover").exit_code == 0
    assert Path("a").read_bytes() == GGUF.read_bytes()


# --- verify ---------------------------------------------------------------------------------------


def test_verify_an_intact_container(run: Run, packed: Path) -> None:
    result = run("verify", packed)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{packed}: OK, 1 file, ")
    assert second == f"digest {_digest(packed)}"
    assert run("verify", packed, "--quick").exit_code == 0
    assert run("verify", packed, "-q").stdout == ""
    assert json.loads(run("verify", packed, "--json").stdout)["ok"] is True


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_verify_lists_all_damage(run: Run, packed: Path, quick: list[str]) -> None:
    with qzf.open(packed) as opened:
        chunks = opened.chunks
        wanted = [1, 5, 20]
        places = [int(chunks[chunk]["offset"]) + 64 for chunk in wanted]
    damaged = flip(packed, *places)
    result = run("verify", damaged, *quick)
    assert result.exit_code == 1
    header, *lines = result.stdout.splitlines()
    assert header == "damaged.qzf: DAMAGED, 3 problems"
    assert [line.split(",")[0] for line in lines] == [f"  chunk {chunk}" for chunk in wanted]
    assert all(re.search(r", tensor .+, bytes \d+-\d+ of smollm2-slice.gguf: ", line) for line in lines[1:])
    assert ", bytes " in lines[0]
    assert run("verify", damaged, "-q").stdout == run("verify", damaged).stdout
    record = json.loads(run("verify", damaged, "--json").stdout)
    assert [damage["chunk"] for damage in record["damage"]] == wanted
    assert record["ok"] is False


def test_verify_of_a_damaged_index_or_end(run: Run, packed: Path) -> None:
    size = packed.stat().st_size
    assert run("verify", flip(packed, size - 100)).exit_code in (1, 3)
    assert run("verify", flip(packed, size - 40)).exit_code == 1
    Path("cut.qzf").write_bytes(packed.read_bytes()[:-1])
    assert run("verify", "cut.qzf").exit_code == 3
    assert run("verify", GGUF).exit_code == 3


def test_verify_against_a_source(run: Run, packed: Path, sharded: Path) -> None:
    assert run("verify", packed, "--against", GGUF).exit_code == 0
    assert run("verify", sharded, "--against", SHARDED).exit_code == 0
    result = run("verify", packed, "--against", SOURCES / "gguf" / "f16.gguf")
    assert result.exit_code == 1
    assert "differs from" in result.stdout
    assert run("verify", packed, "--against", "gone").exit_code == 4


def test_verify_checks_the_digest(run: Run, packed: Path) -> None:
    assert run("verify", packed, "--digest", _digest(packed)).exit_code == 0
    assert run("verify", packed, "--digest", DIGEST).exit_code == 1
