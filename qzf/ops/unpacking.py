"""unpack: a container back to the original files."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from qzf.container.names import tensor_file
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader
from qzf.container.spans import MIN_SPAN, Record, runs
from qzf.errors import DamageError, NotFoundError, OptionError, OutputExistsError
from qzf.ops.output import AtomicFile, check_free
from qzf.ops.reports import UnpackReport
from qzf.parallel import Progress, default_threads, ordered_map
from qzf.scratch import Buffers
from qzf.storage import Span, StrPath, open_source

__all__ = ["unpack"]

#: What the name of one file of a set has beyond the set's own.
_SET_NAME: Final = re.compile(r"(\.safetensors)?\.index\.json$|-\d+-of-\d+\.gguf$")
#: Requests at a time to a remote container, unless threads are given, and what each decodes to at most.
_REMOTE_THREADS: Final = 4
_REMOTE_PART: Final = 2 * MIN_SPAN


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
    storage_options: dict[str, Any] | None = None,
) -> UnpackReport:
    """Write the members of a container, at a path or a URL, back as the files they were.

    ``members`` and ``tensors`` select: member names, and glob patterns of tensor names, each matching tensor
    going to a file ``NAME.bin`` with its original bytes. ``out`` is a folder if it is one, ends in ``/``, or
    several files are to be written, else the file's name. By default a single file goes beside the
    container, several into a folder beside it that has the container's name without ``.qzf``; in place of
    beside a remote container that is in the current folder. ``storage_options`` are as for ``open``.

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
    with open_source(container, storage_options) as source:
        if source.remote and threads is None:
            workers = max(workers, _REMOTE_THREADS)
        reader = open_reader(source, digest, recover)
        place = Path(source.name.rsplit("/", 1)[-1] if source.remote else source.name)
        targets = _targets(reader, place, out, members, tensors)
        for target in targets:
            if not source.remote and target.path.exists() and target.path.samefile(place):
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


class _Job(NamedTuple):
    """A chunk to write to ``file`` at ``offset``; an empty file has one job, without ``chunk``."""

    file: AtomicFile
    chunk: int | None
    offset: int
    last: bool


class _Decoded(NamedTuple):
    """A job that is done: ``size`` bytes in ``buffer``, or why there are none."""

    job: _Job
    buffer: memoryview
    size: int
    fault: str


def _decode(reader: ContainerReader, job: _Job, buffers: Buffers, span: Span | None = None) -> _Decoded:
    if job.chunk is None:
        return _Decoded(job, memoryview(b""), 0, "")
    size, fault = reader.index.chunks[job.chunk].decoded_size, ""
    buffer = buffers.take(size)
    try:
        reader.read_chunk(job.chunk, buffer[:size], span)
    except DamageError as error:
        if not reader.recovered:
            raise
        fault = str(error)
    return _Decoded(job, buffer, size, fault)


def _fetch(reader: ContainerReader, jobs: Sequence[_Job], buffers: Buffers) -> list[_Decoded]:
    """Do jobs with one request, if they have chunks."""
    chunks = [job.chunk for job in jobs if job.chunk is not None]
    if not chunks:
        return [_decode(reader, job, buffers) for job in jobs]
    with reader.span(chunks) as span:
        return [_decode(reader, job, buffers, span) for job in jobs]


def _decoded(
    reader: ContainerReader, jobs: Iterable[_Job], buffers: Buffers, workers: int
) -> Generator[_Decoded]:
    """Do all jobs, in their order."""
    if not reader.source.remote:
        yield from ordered_map(lambda job: _decode(reader, job, buffers), jobs, workers)
        return

    def record(job: _Job) -> Record | None:
        return None if job.chunk is None else reader.chunk_record(job.chunk)

    parts = runs(jobs, record, _REMOTE_PART)
    with closing(ordered_map(lambda part: _fetch(reader, part, buffers), parts, workers)) as results:
        for some in results:
            yield from some


def _write(
    reader: ContainerReader,
    targets: Sequence[_Target],
    workers: int,
    force: bool,
    progress: Progress | None,
) -> dict[Path, str]:
    """Write all targets. Returns the files that a recovery gave up, and why."""
    starts, buffers = reader.index.starts, Buffers()
    total, done = sum(_size(reader, target) for target in targets), 0
    unfinished: set[AtomicFile] = set()
    bad: dict[Path, str] = {}

    def jobs() -> Iterator[_Job]:
        for target in targets:
            target.path.parent.mkdir(parents=True, exist_ok=True)
            file = AtomicFile(target.path, force=force)
            unfinished.add(file)
            for chunk in range(target.first, target.last):
                yield _Job(file, chunk, starts[chunk] - starts[target.first], last=chunk + 1 == target.last)
            if target.first == target.last:
                yield _Job(file, None, 0, last=True)

    results = _decoded(reader, jobs(), buffers, workers)
    try:
        for job, buffer, size, fault in results:
            if fault:
                bad.setdefault(job.file.path, fault)
            else:
                job.file.pwrite(buffer[:size], job.offset)
            buffers.give(buffer)
            done += size
            if progress is not None:
                progress(done, total, done)
            if job.last and job.file.path not in bad:  # once a report has raised, nothing appears
                job.file.commit()
                unfinished.discard(job.file)
    finally:
        results.close()
        for file in unfinished:
            file.discard()
    return bad
