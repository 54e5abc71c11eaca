"""Which file of which container appears where in a mount. It is made once: nothing is watched for changes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from qzf.container.catalog import MemberEntry
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader
from qzf.errors import NotFoundError, QzfError
from qzf.storage import FileSource

__all__ = ["File", "Tree"]

_SUFFIX = ".qzf"


class File(NamedTuple):
    """A member as a file of ``size`` bytes; ``mtime_ns`` is its container's."""

    reader: ContainerReader
    member: str
    size: int
    mtime_ns: int


class Tree:
    """Files and folders by path. Paths begin with ``/``; the root is ``/`` itself.

    Of one container the members appear under their names. Of a folder all ``*.qzf`` files below it appear,
    each where it lies: one with a single member as that member (by the last part of its name), one with
    several as a folder that is called after the container, without ``.qzf``. Where two would have one name,
    all of these are folders; and where that is a folder's name already, ``.qzf`` stays.

    ``skipped`` is told of containers in a folder that cannot be read; a single one that cannot is an error.
    Raises ``NotFoundError`` for a folder without any, ``FormatError``, ``ChecksumError``; ``OSError`` passes
    through.
    """

    def __init__(
        self,
        source: str,
        *,
        digest: str | None = None,
        skipped: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.files: dict[str, File] = {}
        self.folders: dict[str, list[str]] = {"/": []}
        self._sources: list[FileSource] = []
        try:
            if Path(source).is_dir():
                self._add_folder(Path(source), skipped)
            else:
                reader, mtime_ns = self._open(source, digest)
                for member in reader.index.members:
                    self._add("/" + member.name, reader, member, mtime_ns)
        except BaseException:
            self.close()
            raise
        for names in self.folders.values():
            names.sort()

    def close(self) -> None:
        """Close all containers."""
        for source in self._sources:
            source.close()

    def _open(self, path: str, digest: str | None) -> tuple[ContainerReader, int]:
        source = FileSource(path)
        try:
            reader = open_reader(source, digest)
        except BaseException:
            source.close()
            raise
        self._sources.append(source)
        return reader, source.identity[3]

    def _add(self, path: str, reader: ContainerReader, member: MemberEntry, mtime_ns: int) -> None:
        self.files[path] = File(reader, member.name, member.size, mtime_ns)
        self._link(path)

    def _link(self, path: str) -> None:
        """Enter ``path`` in its folder, and that in its own, as far as they are not there."""
        while path != "/":
            folder, _, name = path.rpartition("/")
            folder = folder or "/"
            known = folder in self.folders
            self.folders.setdefault(folder, []).append(name)
            if known:
                return
            path = folder

    # --- folders of containers --------------------------------------------------------------------

    def _add_folder(self, root: Path, skipped: Callable[[str], None]) -> None:
        for folder, paths in _walk(root, skipped):
            opened: list[tuple[Path, ContainerReader, int]] = []
            for path in paths:
                try:
                    opened.append((path, *self._open(str(path), None)))
                except QzfError as error:
                    skipped(str(error))
            self._add_containers("/" + folder if folder else "", opened)
        if not self.files:
            raise NotFoundError("there is no container that could be read", file=str(root))

    def _add_containers(self, parent: str, opened: list[tuple[Path, ContainerReader, int]]) -> None:
        """Containers that lie in one folder; the folders below it have been entered before."""
        stems = [path.name.removesuffix(_SUFFIX) for path, _, _ in opened]
        alone = [
            reader.index.members[0].name.rpartition("/")[2] if len(reader.index.members) == 1 else None
            for _, reader, _ in opened
        ]
        # Names that folders would have: those there are, and those of containers with several members.
        taken = Counter(self.folders.get(parent or "/", ()))
        taken.update(stem for stem, name in zip(stems, alone, strict=True) if name is None)
        taken.update(name for name in alone if name is not None)
        for (path, reader, mtime_ns), stem, name in zip(opened, stems, alone, strict=True):
            if name is not None and taken[name] == 1:
                self._add(f"{parent}/{name}", reader, reader.index.members[0], mtime_ns)
                continue
            own = self._free(parent, stem, path.name, taken, mine=name is None)
            for member in reader.index.members:
                self._add(f"{parent}/{own}/{member.name}", reader, member, mtime_ns)

    @staticmethod
    def _free(parent: str, stem: str, full: str, taken: Counter[str], *, mine: bool) -> str:
        """A name for a container's folder that nothing else in ``parent`` has."""
        if stem and taken[stem] == mine:
            taken[stem] = 2
            return stem
        while taken[full]:
            full += "_"
        taken[full] = 2
        return full


def _walk(root: Path, skipped: Callable[[str], None]) -> Iterator[tuple[str, list[Path]]]:
    """Folders below ``root`` with their containers, inner ones first; links to folders are not followed."""

    def failed(error: OSError) -> None:
        skipped(f"{error.filename}: {error.strerror}")

    for folder, _, names in os.walk(root, topdown=False, onerror=failed):
        found = [Path(folder, name) for name in _containers(names)]
        if found:
            relative = os.path.relpath(folder, root)
            yield ("" if relative == "." else relative), [path for path in found if path.is_file()]


def _containers(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(_SUFFIX) and name != _SUFFIX)
