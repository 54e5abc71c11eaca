"""pack: files to one container."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from zstandard import ZSTD_VERSION

from qzf._version import __version__
from qzf.adapters import SAFETENSORS, describe
from qzf.container.payload import Effort
from qzf.container.writer import ContainerWriter, EncodedChunk, Sink, encode_chunk
from qzf.errors import OptionError, SourceChangedError
from qzf.limits import DEFAULT_CHUNK, MAX_TABLES
from qzf.model import MemberSpec
from qzf.ops.modeling import build_models
from qzf.ops.output import AtomicFile, check_free
from qzf.ops.recipe import Cut, check_chunk_size, cuts, effort
from qzf.ops.reports import PackReport
from qzf.ops.sampling import Models
from qzf.ops.sources import SourceFile, find_sources
from qzf.parallel import Progress, default_threads, ordered_map
from qzf.scratch import Buffers
from qzf.storage import ByteSource, FileIdentity, FileSource, SourceBase, StrPath

__all__ = ["default_output", "pack"]


class _Member(NamedTuple):
    """A file to pack as it was when it was looked at first; only files on disk have an identity."""

    file: SourceFile
    spec: MemberSpec
    identity: FileIdentity | None
    ordinal: int
    first_tensor: int


class _Job(NamedTuple):
    """A chunk to encode; ``last`` marks its member's last. An empty member has one job, without ``cut``."""

    member: _Member
    source: ByteSource
    cut: Cut | None
    last: bool
    models: Models


def default_output(sources: Sequence[StrPath | SourceBase]) -> Path:
    """Where ``pack`` writes when it is not told: the one source's path with ``.qzf`` appended.

    Raises ``OptionError`` for several sources, and for what is no path.
    """
    if len(sources) != 1:
        raise OptionError("several sources need an output (-o)" if sources else "there is nothing to pack")
    if not isinstance(sources[0], str | os.PathLike):
        raise OptionError("a source that is no path needs an output")
    source = Path(sources[0])
    source = source.resolve() if source.name in ("", "..") else source
    return source.with_name(source.name + ".qzf")


def pack(
    sources: StrPath | SourceBase | Sequence[StrPath | SourceBase],
    out: StrPath | BinaryIO | None = None,
    *,
    level: str = "default",
    chunk_size: int = DEFAULT_CHUNK,
    threads: int | None = None,
    force: bool = False,
    opaque: bool = False,
    progress: Progress | None = None,
) -> PackReport:
    """Pack files into one container.

    ``sources``: GGUF and safetensors files, ``*.index.json``, folders, any other file; or byte sources, whose
    ``name`` becomes the member's, and which are left open. ``out``: a path
    (written under a temporary name and renamed when it is whole), or a binary file object that is written
    to in one forward pass; by default, and in a folder, the one source's name with ``.qzf`` appended.
    ``level``: ``fast``, ``default`` or ``max``. ``chunk_size`` in bytes. ``opaque`` packs every file as
    plain bytes, malformed ones too.

    The result depends on the sources, on the ``config.json`` beside a safetensors file where its shapes leave
    a quantization scheme open, on ``level``, ``chunk_size``, ``opaque`` and the versions of qzf and zstd, not
    on ``threads`` or the machine. Raises ``SourceError`` for input that breaks its format,
    ``SourceChangedError``, ``OptionError``; ``OSError`` passes through.
    """
    started = time.perf_counter()
    listed = [sources] if isinstance(sources, str | os.PathLike | SourceBase) else list(sources)
    target = default_output(listed) if out is None else out
    path = _output_path(target, listed) if isinstance(target, str | os.PathLike) else None
    trying = effort(level)
    check_chunk_size(chunk_size)
    workers = default_threads(threads)
    if path is not None:
        check_free(path, force)
    sources_found = find_sources(listed, opaque=opaque, output=path)
    members = _look(sources_found.files, opaque)
    with ExitStack() as stack:
        file = None if path is None else stack.enter_context(AtomicFile(path, force=force))
        writer = ContainerWriter(
            cast(Sink, target if file is None else file),
            [member.spec for member in members],
            generator=f"qzf {__version__}, zstd {'.'.join(map(str, ZSTD_VERSION))}",
            chunk_size=chunk_size,
            level=level,
        )
        _write(writer, members, trying, chunk_size, workers, progress)
        digest = writer.close()
    return PackReport(
        out=None if path is None else str(path),
        members=len(members),
        tensors=sum(len(member.spec.tensors) for member in members),
        chunks=writer.chunk_count,
        original_size=sum(member.spec.size for member in members),
        container_size=writer.position,
        digest=digest.hex(),
        skipped=sources_found.skipped,
        seconds=time.perf_counter() - started,
    )


def _output_path(out: StrPath, sources: Sequence[StrPath | SourceBase]) -> Path:
    """``out`` itself, or where it is a folder the default name in it."""
    text = os.fspath(out)
    if not text:
        raise OptionError("the output is an empty text")
    if text.endswith(("/", os.sep)) or Path(text).is_dir():
        return Path(text) / default_output(sources).name
    return Path(text)


def _look(files: Sequence[SourceFile], opaque: bool) -> list[_Member]:
    """Describe all sources before anything is written, so that bad input costs nothing."""
    specs: list[MemberSpec] = []
    identities: list[FileIdentity | None] = []
    for file in files:
        if file.given is not None:
            specs.append(describe(file.given, file.name, opaque=opaque))
            identities.append(None)
            continue
        with FileSource(file.path) as source:
            specs.append(describe(source, file.name, opaque=opaque))
            identities.append(source.identity)
    if any(spec.kind == SAFETENSORS for spec in specs):
        from qzf.ops.schemes import name_schemes

        specs = name_schemes(files, specs)
    members, tensors = [], 0
    for ordinal, spec in enumerate(specs):
        members.append(_Member(files[ordinal], spec, identities[ordinal], ordinal, tensors))
        tensors += len(spec.tensors)
    return members


def _jobs(
    members: Sequence[_Member], chunk_size: int, trying: Effort, workers: int, opened: ExitStack
) -> Iterator[_Job]:
    tables, room = 0, MAX_TABLES
    for member in members:
        source = member.file.given or _reopened(member, opened)
        models, pieces = Models(), list(cuts(member.spec, chunk_size))
        if trying.models:
            models = build_models(member.spec, pieces, source, trying, workers, first_id=tables, room=room)
        tables, room = tables + len(models.tables), room - models.size
        for number, cut in enumerate(pieces, 1):
            yield _Job(member, source, cut, number == len(pieces), models)
        if not pieces:
            yield _Job(member, source, None, True, models)


def _reopened(member: _Member, opened: ExitStack) -> FileSource:
    try:
        source = FileSource(member.file.path)
    except FileNotFoundError:
        raise SourceChangedError("the file has vanished", file=str(member.file.path)) from None
    opened.callback(source.close)
    if source.identity != member.identity:
        raise SourceChangedError("the file has changed since it was looked at", file=source.name)
    return source


class _Coded(NamedTuple):
    """A job that is done: the bytes of its cut in ``buffer``, and the chunk, which may refer to them."""

    job: _Job
    buffer: memoryview
    size: int
    chunk: EncodedChunk | None


def _encode(job: _Job, effort: Effort, salt: int, buffers: Buffers) -> _Coded:
    cut = job.cut
    if cut is None:
        return _Coded(job, memoryview(b""), 0, None)
    buffer = buffers.take(cut.size)
    data = buffer[: cut.size]
    job.source.readinto(cut.offset, data)
    tensor = None if cut.tensor is None else job.member.first_tensor + cut.tensor
    chunk = encode_chunk(
        data,
        salt=salt,
        member=job.member.ordinal,
        tensor=tensor,
        offset=cut.offset,
        layout=cut.layout,
        effort=effort,
        model=None if cut.tensor is None else job.models.by_tensor.get(cut.tensor),
        strings=cut.strings,
    )
    return _Coded(job, buffer, cut.size, chunk)


def _write(
    writer: ContainerWriter,
    members: Sequence[_Member],
    trying: Effort,
    chunk_size: int,
    workers: int,
    progress: Progress | None,
) -> None:
    total, done = sum(member.spec.size for member in members), 0
    hasher, buffers = None, Buffers()
    with (
        ExitStack() as opened,  # closes the sources after the threads have ended
        closing(
            ordered_map(
                lambda job: _encode(job, trying, writer.salt, buffers),
                _jobs(members, chunk_size, trying, workers, opened),
                workers,
            )
        ) as results,
    ):
        for job, buffer, size, chunk in results:
            if hasher is None:
                writer.begin_member()
                for table in job.models.tables:
                    writer.add_table(table)
                hasher = hashlib.sha256()
            if chunk is not None:
                hasher.update(buffer[:size])
                writer.write_chunk(chunk)
                buffers.give(buffer)
            if job.last:
                if isinstance(job.source, FileSource) and job.member.file.given is None:
                    job.source.check_unchanged()
                    job.source.close()
                writer.end_member(hasher.hexdigest())
                hasher = None
            done += size
            if progress is not None:
                progress(done, total, writer.position)
