"""unpack: a container back to the original files."""

from __future__ import annotations

import fnmatch
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from qzf.container.names import tensor_file
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader
from qzf.errors import DamageError, NotFoundError, OptionError, OutputExistsError
from qzf.ops.output import AtomicFile, check_free
from qzf.ops.reports import UnpackReport
from qzf.parallel import Progress, default_threads, share
from qzf.scratch import Buffers
from qzf.storage import FileSource, StrPath

__all__ = ["unpack"]

#: What the name of one file of a set has beyond the set's own.
_SET_NAME: Final = re.compile(r"(\.safetensors)?\.index\.json$|-\d+-of-\d+\.gguf$")


class _Target(NamedTuple):
    """A file to write: the chunks ``first`` to ``last`` - 1, one after another."""

    path: Path
    first: int
    last: int


def unpack(
    container: StrPath,
    out: StrPath | None = None,
    *,
    members: Sequence[str] = (),
    tensors: Sequence[str] = (),
    threads: int | None = None,
    force: bool = False,
    recover: bool = False,
    digest: str | None = None,
    progress: Progress | None = None,
) -> UnpackReport:
    """Write the members of a container back as the files they were.

    ``members`` and ``tensors`` select: member names, and glob patterns of tensor names, each matching tensor
    going to a file ``NAME.bin`` with its original bytes. ``out`` is a folder if it is one, ends in ``/``, or
    several files are to be written, else the file's name. By default a single file goes beside the
    container, several into a folder beside it that has the container's name without ``.qzf``.

    Each chunk is held against its XXH3; with ``digest`` (the container digest in hexadecimal) each record
    also against its SHA-256. ``recover`` does without the container's end and rebuilds the index by a scan;
    it goes on where something is damaged, and saves the whole tensors of members that are not
    (``NAME.recovered/TENSOR.bin``).
    Raises ``FormatError``, ``DamageError``, ``OutputExistsError``, ``NotFoundError``; ``OSError`` passes
    through.
    """
    started = time.perf_counter()
    workers = default_threads(threads)
    members = [members] if isinstance(members, str) else members
    tensors = [tensors] if isinstance(tensors, str) else tensors
    if out is not None and not os.fspath(out):
        raise OptionError("the output is an empty text")
    with FileSource(container) as source:
        reader = open_reader(source, digest, recover)
        targets = _targets(reader, Path(container), out, members, tensors)
        for target in targets:
            if target.path.exists() and target.path.samefile(container):
                raise OptionError("the output is the container itself", file=str(target.path))
            check_free(target.path, force)
        bad = _write(reader, targets, workers, force, progress)
    written = [target for target in targets if target.path not in bad]
    files = tuple(str(target.path) for target in written)
    size = sum(_size(reader, target) for target in written)
    lost = (*reader.lost, *bad.values())
    return UnpackReport(files, size, lost, time.perf_counter() - started)


def _size(reader: ContainerReader, target: _Target) -> int:
    starts = reader.index.starts
    return starts[target.last] - starts[target.first]


def _selected(
    reader: ContainerReader, members: Sequence[str], tensors: Sequence[str]
) -> list[tuple[str, int, int]]:
    """What to write: (relative name, first chunk, last chunk + 1)."""
    index = reader.index
    known = {member.name: member for member in index.members}
    for name in members:
        if name not in known:
            raise NotFoundError(f"there is no member {name!r}", file=reader.source.name)
    picked = [known[name] for name in dict.fromkeys(members)] if members else list(index.members)
    if not tensors:
        return [(m.name, m.first_chunk, m.first_chunk + m.chunk_count) for m in picked]
    inside = {member.name for member in picked}
    found: dict[str, tuple[str, int, int]] = {}
    for pattern in tensors:
        matches = [
            t
            for t in index.tensors
            if index.members[t.member].name in inside and fnmatch.fnmatchcase(t.name, pattern)
        ]
        if not matches:
            raise NotFoundError(f"no tensor matches {pattern!r}", file=reader.source.name)
        for tensor in matches:
            name = tensor_file(tensor.name)
            entry = (name, tensor.first_chunk, tensor.first_chunk + tensor.chunk_count)
            if found.setdefault(name, entry) != entry:
                raise OptionError(f"two tensors would be written to {name!r}; select one member")
    return list(found.values())


def _targets(
    reader: ContainerReader,
    container: Path,
    out: StrPath | None,
    members: Sequence[str],
    tensors: Sequence[str],
) -> list[_Target]:
    selected = _selected(reader, members, tensors)
    if len(selected) == 1 and not (out is not None and _is_folder(out)):
        name, first, last = selected[0]
        # The folder a member had when it was packed means nothing when it is taken out alone.
        path = container.with_name(name.rsplit("/", 1)[-1]) if out is None else Path(out)
        return [_Target(path, first, last)]
    folder = _default_folder(container) if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError("a folder is due here; name another with -o", file=str(folder))
    return [_Target(folder / name, first, last) for name, first, last in selected]


def _is_folder(out: StrPath) -> bool:
    return os.fspath(out).endswith(("/", os.sep)) or Path(out).is_dir()


def _default_folder(container: Path) -> Path:
    """Beside the container, with its name less what names the kind of file that was packed."""
    stem = container.name.removesuffix(".qzf")
    short = _SET_NAME.sub("", stem) or "members"
    return container.with_name(short if short != container.name else short + ".d")


def _write(
    reader: ContainerReader,
    targets: Sequence[_Target],
    workers: int,
    force: bool,
    progress: Progress | None,
) -> dict[Path, str]:
    """Write all targets. Returns the files that a recovery gave up, and why."""
    output = _Output(reader, targets, force, most=workers)

    def report() -> None:
        if progress is not None:
            progress(output.done, output.total, output.done)
        output.commit()  # in this thread, so that nothing appears once a report has raised

    try:
        share(output.write, output.jobs(), workers, report)
        output.flush(wait=True)
        report()
    finally:
        output.discard()
    return output.bad


class _File:
    """A file being written, and how many of its chunks are still to come."""

    def __init__(self, target: _Target, force: bool) -> None:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        self.atomic = AtomicFile(target.path, force=force)
        self.waiting = target.last - target.first


class _Piece(NamedTuple):
    """Decoded bytes on their way to a file, in a buffer that is used again, or why there are none."""

    file: _File
    offset: int
    size: int
    buffer: memoryview
    fault: str


class _Output:
    """The files of all targets. ``write`` may be called by several threads.

    The kernel lets one thread write a file at a time, and others that try spin. So whoever finds somebody
    writing leaves its piece for them, and decodes the next chunk.
    """

    def __init__(self, reader: ContainerReader, targets: Sequence[_Target], force: bool, most: int) -> None:
        self._reader, self._targets, self._force = reader, targets, force
        self._most = most
        self._writing = threading.Lock()
        self._waiting: deque[_Piece] = deque()
        self._buffers = Buffers()
        self._unfinished: set[_File] = set()
        self._whole: deque[_File] = deque()
        #: Bytes written, and bytes in all.
        self.done = 0
        self.total = sum(_size(reader, target) for target in targets)
        #: The files that were given up, and why.
        self.bad: dict[Path, str] = {}

    def jobs(self) -> Iterator[tuple[_File, int, int]]:
        """For each chunk its file, its number and its offset in the file; files are opened on the way."""
        starts = self._reader.index.starts
        for target in self._targets:
            file = _File(target, self._force)
            self._unfinished.add(file)
            for chunk in range(target.first, target.last):
                yield file, chunk, starts[chunk] - starts[target.first]
            if target.first == target.last:
                self._whole.append(file)

    def write(self, job: tuple[_File, int, int]) -> None:
        """Decode a chunk and see to it that it gets to its place."""
        file, chunk, offset = job
        size, fault = self._reader.index.chunks[chunk].decoded_size, ""
        buffer = self._buffers.take(size)
        try:
            self._reader.read_chunk(chunk, buffer[:size])
        except DamageError as error:
            if not self._reader.recovered:
                raise
            fault = str(error)
        self._waiting.append(_Piece(file, offset, size, buffer, fault))
        self.flush(wait=len(self._waiting) > self._most)

    def flush(self, *, wait: bool) -> None:
        """Write the pieces that are waiting; without ``wait`` only if nobody does so already."""
        while self._waiting and self._writing.acquire(blocking=wait):
            try:
                while self._waiting:
                    self._put(self._waiting.popleft())
            finally:
                self._writing.release()

    def _put(self, piece: _Piece) -> None:
        file = piece.file
        if piece.fault:
            self.bad.setdefault(file.atomic.path, piece.fault)
        else:
            file.atomic.pwrite(piece.buffer[: piece.size], piece.offset)
        self._buffers.give(piece.buffer)
        self.done += piece.size
        file.waiting -= 1
        if not file.waiting and file.atomic.path not in self.bad:
            self._whole.append(file)

    def commit(self) -> None:
        """Give the files their names that have become whole."""
        while self._whole:
            file = self._whole.popleft()
            file.atomic.commit()
            self._unfinished.discard(file)

    def discard(self) -> None:
        """Remove what is not whole."""
        for file in self._unfinished:
            file.atomic.discard()
