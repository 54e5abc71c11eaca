"""From what the user names to the files that become members."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from qzf.adapters import read_shard_index, split_gguf_parts
from qzf.container.names import name_fault
from qzf.errors import OptionError, SourceError
from qzf.format.ids import FILE_MAGIC
from qzf.storage import SourceBase, StrPath

__all__ = ["SourceFile", "Sources", "find_sources"]

#: Folders that tools keep beside a model, and that are no part of it.
_SKIPPED_FOLDERS: Final = frozenset({".git", ".cache"})
#: Temporary files of ours (``AtomicFile``), which a killed process leaves behind.
_LEFT_OVER: Final = re.compile(r"^\..*\.[0-9a-f]{12}\.tmp$")
_FIRST_PART: Final = re.compile(r"-0*1-of-\d+\.gguf$")


class SourceFile(NamedTuple):
    """A file to pack: where it is, and the member name it gets. ``given`` has its bytes if it is no file."""

    path: Path
    name: str
    given: SourceBase | None = None


class Sources(NamedTuple):
    """The files to pack, and the paths below folders that were passed over."""

    files: tuple[SourceFile, ...]
    skipped: tuple[str, ...]


def find_sources(
    sources: Sequence[StrPath | SourceBase], *, opaque: bool = False, output: Path | None = None
) -> Sources:
    """The files that ``sources`` stand for, in the order they are packed.

    A file is itself, and so is a byte source; the first part of a split GGUF brings the others, an
    ``*.index.json`` its shards; a folder is all files below it, in the order of their names, but for
    ``.git``, ``.cache``, temporary files of ours and ``output`` where that is a container, which is about to
    be replaced. Raises ``OptionError`` for two files with one name or where ``output`` itself is a source,
    ``SourceError`` for what cannot be packed; ``OSError`` passes through.
    """
    found: dict[str, SourceFile] = {}
    skipped: list[str] = []
    several = len(sources) > 1
    for source in sources:
        if isinstance(source, SourceBase):
            expanded: Iterable[SourceFile] = [SourceFile(Path(source.name), source.name, source)]
        elif not os.fspath(source):
            raise OptionError("a source is an empty text")
        else:
            expanded = _expand(Path(source), several, opaque, output, skipped)
        for file in expanded:
            if file.given is None and _is(file.path, output):
                raise OptionError("the output is one of the sources", file=str(output))
            fault = name_fault(file.name)
            if fault:
                raise SourceError(f"the file name {file.name!r} {fault}", file=str(file.path))
            known = found.setdefault(file.name, file)
            if known is not file and (file.given or known.given or not known.path.samefile(file.path)):
                raise OptionError(f"{known.path} and {file.path} would both become member {file.name!r}")
    if not found:
        raise SourceError("there is no file to pack", file=str(sources[0]) if sources else None)
    return Sources(tuple(found.values()), tuple(skipped))


def _expand(
    path: Path, several: bool, opaque: bool, output: Path | None, skipped: list[str]
) -> Iterator[SourceFile]:
    if path.is_dir():
        prefix = f"{path.resolve().name}/" if several else ""
        for file in _walk(path, output, skipped):
            yield SourceFile(file, prefix + file.relative_to(path).as_posix())
        return
    if not opaque and path.name.endswith(".index.json"):
        yield SourceFile(path, path.name)
        for name in read_shard_index(path):
            yield SourceFile(path.parent / name, name)
    elif not opaque and _FIRST_PART.search(path.name):
        for part in split_gguf_parts(path):
            yield SourceFile(part, part.name)
    else:
        yield SourceFile(path, path.name)


def _is(path: Path, output: Path | None) -> bool:
    return output is not None and output.exists() and path.exists() and path.samefile(output)


def _is_container(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(FILE_MAGIC)) == FILE_MAGIC


def _walk(folder: Path, output: Path | None, skipped: list[str]) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        skipped += [str(Path(root, name)) for name in sorted(folders) if name in _SKIPPED_FOLDERS]
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS)
        for name in folders:
            if Path(root, name).is_symlink():
                raise SourceError("is a link to a folder, which is not followed", file=str(Path(root, name)))
        for name in sorted(files):
            path = Path(root, name)
            if _LEFT_OVER.search(name) or (_is(path, output) and _is_container(path)):
                skipped.append(str(path))
            else:
                yield path
