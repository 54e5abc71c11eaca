"""unpack: a container back to the original files."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qzf.container.reader import ContainerReader, parse_digest
from qzf.container.recover import recover_index
from qzf.errors import NotFoundError, OptionError
from qzf.ops.output import AtomicFile, check_free
from qzf.ops.reports import UnpackReport
from qzf.parallel import Progress, default_threads, ordered_map
from qzf.scratch import scratch
from qzf.storage import FileSource

__all__ = ["open_container", "unpack"]

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class _Target:
    """A file to write: the chunks ``first`` to ``last`` - 1, one after another."""

    path: Path
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Job:
    file: AtomicFile
    chunk: int | None
    offset: int
    last: bool


def open_container(source: FileSource, digest: str | None, recover: bool = False) -> ContainerReader:
    """A reader of ``source``; with ``recover`` over an index rebuilt by a scan."""
    if recover:
        if digest is not None:
            raise OptionError("a recovered container has no digest to compare")
        return ContainerReader.from_index(source, recover_index(source))
    return ContainerReader(source, parse_digest(digest))


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
    also against its SHA-256. ``recover`` does without the container's end and rebuilds the index by a scan.
    Raises ``FormatError``, ``DamageError``, ``OutputExistsError``, ``NotFoundError``; ``OSError`` passes
    through.
    """
    started = time.perf_counter()
    workers = default_threads(threads)
    with FileSource(container) as source:
        reader = open_container(source, digest, recover)
        targets = _targets(reader, Path(container), out, members, tensors)
        for target in targets:
            check_free(target.path, force)
        written = _write(reader, targets, workers, force, progress)
    files = tuple(str(target.path) for target in targets)
    return UnpackReport(files, written, time.perf_counter() - started)


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
            name = tensor.name.replace("/", "_").replace("\\", "_").replace("\0", "_") + ".bin"
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
    single = len(selected) == 1
    if out is None:
        stem = container.name.removesuffix(".qzf") or "members"
        folder = (
            container.parent
            if single
            else container.with_name(stem if stem != container.name else stem + ".d")
        )
    elif single and not os.fspath(out).endswith(("/", os.sep)) and not Path(out).is_dir():
        return [_Target(Path(out), *selected[0][1:])]
    else:
        folder = Path(out)
    if single and out is None:
        # The folder a member had when it was packed means nothing when it is taken out alone.
        name, first, last = selected[0]
        return [_Target(folder / name.rsplit("/", 1)[-1], first, last)]
    return [_Target(folder / name, first, last) for name, first, last in selected]


def _write(
    reader: ContainerReader,
    targets: Sequence[_Target],
    workers: int,
    force: bool,
    progress: Progress | None,
) -> int:
    starts = reader.index.starts
    total = sum(int(starts[target.last]) - int(starts[target.first]) for target in targets)
    unfinished: set[AtomicFile] = set()

    def jobs() -> Iterator[_Job]:
        for target in targets:
            target.path.parent.mkdir(parents=True, exist_ok=True)
            file = AtomicFile(target.path, force=force)
            unfinished.add(file)
            base = int(starts[target.first])
            for chunk in range(target.first, target.last):
                yield _Job(file, chunk, int(starts[chunk]) - base, last=chunk + 1 == target.last)
            if target.first == target.last:
                yield _Job(file, None, 0, last=True)

    def work(job: _Job) -> tuple[_Job, int]:
        if job.chunk is None:
            return job, 0
        size = reader.index.chunk(job.chunk).decoded_size
        with scratch(size) as data:
            reader.read_chunk(job.chunk, data)
            job.file.pwrite(data, job.offset)
        return job, size

    done = 0
    results = ordered_map(work, jobs(), workers)
    try:
        for job, size in results:
            done += size
            if job.last:
                job.file.commit()
                unfinished.discard(job.file)
            if progress is not None:
                progress(done, total, done)
    finally:
        results.close()
        for file in unfinished:
            file.discard()
    return done
