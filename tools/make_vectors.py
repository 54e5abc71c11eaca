"""Make ``fixtures/vectors/v1`` and ``fixtures/errors``: golden containers that are valid, and broken ones.

Usage: ``python tools/make_vectors.py`` writes those that are missing; ``--check`` makes all again and fails
on any difference, missing or extra file. Golden files are immutable: one that differs is an error, not a
reason to write it anew (``--replace NAME`` is for the time before the first release). ``--sizes`` writes
``fixtures/sizes.csv``, the packed sizes of ``fixtures/sources``, which change with the writer.

The bytes of zstd frames depend on the version of libzstd. With another than `ZSTD` only the SHA-256 of the
manifest are checked.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import zstandard

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # run as a script: make `tools` importable
    sys.path.insert(0, str(ROOT))

from qzf.ops import pack  # noqa: E402
from tools.vectors.bad_catalog import catalog_cases  # noqa: E402
from tools.vectors.bad_chunks import chunk_cases  # noqa: E402
from tools.vectors.bad_members import member_cases  # noqa: E402
from tools.vectors.bad_modeled import modeled_cases  # noqa: E402
from tools.vectors.bad_records import record_cases  # noqa: E402
from tools.vectors.bad_strings import strings_cases  # noqa: E402
from tools.vectors.good import vectors  # noqa: E402
from tools.vectors.parts import Parts, seal  # noqa: E402

__all__ = ["SIZES", "ZSTD", "check", "expected", "folders", "packed_sizes", "read_sizes"]

FIXTURES: Final = ROOT / "fixtures"
SOURCES: Final = FIXTURES / "sources"
SIZES: Final = FIXTURES / "sizes.csv"
MANIFEST: Final = "manifest.json"
#: The version of libzstd that the golden files were made with.
ZSTD: Final = (1, 5, 7)
LEVELS: Final = ("fast", "default", "max")
FILE_LIMIT, TOTAL_LIMIT = 100_000, 4_000_000

Files = dict[str, bytes]


def folders() -> dict[str, Path]:
    """Where the two sets of containers are."""
    return {"vectors": FIXTURES / "vectors" / "v1", "errors": FIXTURES / "errors"}


def expected() -> dict[str, Files]:
    """What the two folders must hold: names and contents, manifests included."""
    return {"vectors": _vectors(), "errors": _errors()}


def _vectors() -> Files:
    files, manifest = {}, []
    for vector in vectors():
        parts, name = vector.make(), f"{vector.name}.qzf"
        files[name] = data = seal(parts)
        manifest.append(
            {
                "file": name,
                "sha256": hashlib.sha256(data).hexdigest(),
                "digest": data[-48:-16].hex(),
                "members": _members(parts),
                "about": vector.about,
            }
        )
    return _with_manifest(files, manifest)


def _members(parts: Parts) -> list[dict[str, Any]]:
    keys = ("name", "size", "sha256")
    return [{key: member[key] for key in keys} for member in parts.catalog["members"]]


def _errors() -> Files:
    files, manifest = {}, []
    sections = (record_cases, catalog_cases, member_cases, chunk_cases, modeled_cases, strings_cases)
    for case in (case for cases in sections for case in cases()):
        name = f"{case.name}.qzf"
        assert name not in files, name
        files[name] = case.make()
        manifest.append({"file": name, "error": case.error, "reason": case.reason, "spec": case.spec})
    return _with_manifest(files, manifest)


def _with_manifest(files: Files, manifest: list[dict[str, Any]]) -> Files:
    assert all(len(data) <= FILE_LIMIT for data in files.values())
    assert sum(map(len, files.values())) <= TOTAL_LIMIT
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in manifest)
    return files | {MANIFEST: f"[\n{lines}\n]\n".encode()}


# --- checking and writing -------------------------------------------------------------------------


def check() -> list[str]:
    """All differences between what is there and what should be, one line each; none is good."""
    faults: list[str] = []
    for name, folder in folders().items():
        faults += _listed(folder)
        if zstandard.ZSTD_VERSION == ZSTD:
            files = _vectors() if name == "vectors" else _errors()
            faults += _differences(folder, files)
    return faults


def _listed(folder: Path) -> Iterator[str]:
    """Files that the manifest does not have, or has with another SHA-256."""
    path = folder / MANIFEST
    if not path.is_file():
        yield f"{path} is missing"
        return
    entries = {entry["file"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    for name in sorted(entries.keys() | {file.name for file in folder.glob("*.qzf")}):
        file = folder / name
        if name not in entries:
            yield f"{file} is not in the manifest"
        elif not file.is_file():
            yield f"{file} is missing"
        elif entries[name].get("sha256", digest := _sha256(file)) != digest:
            yield f"{file} has another SHA-256 than in the manifest"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _differences(folder: Path, files: Files) -> Iterator[str]:
    for name, data in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            yield f"{path} is not what this tool makes"


def _write(replace: Sequence[str]) -> list[str]:
    """Write what is missing; returns the names of golden files that differ."""
    if zstandard.ZSTD_VERSION != ZSTD:
        raise SystemExit(f"golden files are made with libzstd {ZSTD}, this is {zstandard.ZSTD_VERSION}")
    differing = []
    for name, files in expected().items():
        folder = folders()[name]
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            path = folder / file
            if path.is_file() and path.read_bytes() == data:
                continue
            if path.is_file() and file != MANIFEST and not {file, "all"} & set(replace):
                differing.append(str(path))
            else:
                path.write_bytes(data)
        if "all" in replace:
            for path in folder.glob("*.qzf"):
                if path.name not in files:
                    path.unlink()
    return differing


# --- sizes ----------------------------------------------------------------------------------------


def _size_sources() -> list[Path]:
    """The sources, sets of files by the one that brings the others."""
    files = [*SOURCES.glob("gguf/*.gguf"), *SOURCES.glob("safetensors/*.safetensors")]
    single = [path for path in files if not path.name.startswith("split-") or "-00001-of-" in path.name]
    return sorted([*single, SOURCES / "safetensors" / "sharded"])


def packed_sizes() -> list[tuple[str, str, int, int]]:
    """(file, level, original size, packed size) of all sources at all levels."""
    rows = []
    for path in _size_sources():
        for level in LEVELS:
            report = pack(path, io.BytesIO(), level=level)
            name = path.relative_to(SOURCES).as_posix()
            rows.append((name, level, report.original_size, report.container_size))
    return rows


def read_sizes() -> tuple[tuple[int, ...], list[tuple[str, str, int, int]]]:
    """The libzstd version and the rows of ``sizes.csv``."""
    first, *lines = SIZES.read_text(encoding="utf-8").splitlines()
    version = tuple(int(part) for part in first.removeprefix("# libzstd ").split("."))
    return version, [
        (row["file"], row["level"], int(row["original"]), int(row["packed"])) for row in csv.DictReader(lines)
    ]


def _write_sizes() -> None:
    with SIZES.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# libzstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "level", "original", "packed"))
        writer.writerows(packed_sizes())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make and check the golden containers.")
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    parser.add_argument("--sizes", action="store_true", help="write fixtures/sizes.csv instead")
    parser.add_argument("--replace", nargs="+", default=[], metavar="NAME", help="golden files to replace")
    options = parser.parse_args(arguments)
    if options.sizes:
        _write_sizes()
        return 0
    faults = check() if options.check else [f"{path} differs" for path in _write(options.replace)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
