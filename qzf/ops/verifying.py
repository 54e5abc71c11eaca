"""verify: find all damage in a container, or prove that there is none."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from qzf.container import verify as checks
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader, located
from qzf.container.verify import Damage
from qzf.errors import OptionError, QzfError, UnsupportedError
from qzf.format.ids import RECORD_HEADER_SIZE
from qzf.ops.reports import VerifyReport
from qzf.ops.sources import find_sources
from qzf.parallel import Progress, default_threads, ordered_map
from qzf.scratch import Buffers, scratch
from qzf.storage import FileSource, StrPath, is_url

__all__ = ["verify"]

#: Bytes read at a time from a file that a member is compared with.
_STEP = 1 << 20


def verify(
    container: StrPath,
    *,
    quick: bool = False,
    against: StrPath | Sequence[StrPath] | None = None,
    digest: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a container and report all damage.

    Every stored checksum and digest is checked, every chunk decoded and held against its XXH3, every member
    against its SHA-256; ``quick`` checks stored bytes only and decodes no chunk. ``against`` names the
    original files (as for ``pack``): sizes and SHA-256 must be those of the members. ``digest`` is the
    container digest that is expected, in hexadecimal.

    Raises ``FormatError`` or ``DamageError`` where trailer or index cannot be used at all, ``OptionError``;
    ``OSError`` passes through. Everything else is in the report's ``damage``.
    """
    started = time.perf_counter()
    workers = default_threads(threads)
    if is_url(container):
        raise OptionError("verifying reads all of it: download the file first", file=os.fspath(container))
    with FileSource(container) as source:
        reader = open_reader(source, digest)
        damage = checks.check_header(reader) + checks.check_padding(reader)
        for position in range(len(reader.index.sections)):
            damage += checks.check_section(reader, position)
        damage += _check_chunks(reader, quick, workers, progress)
        if against is not None:
            listed = [against] if isinstance(against, str | os.PathLike) else list(against)
            damage += _compare(reader, listed)
    index = reader.index
    return VerifyReport(
        file=source.name,
        ok=not damage,
        quick=quick,
        digest=reader.digest.hex(),
        original_size=sum(member.size for member in index.members),
        container_size=source.size,
        members=tuple(member.name for member in index.members),
        tensors=len(index.tensors),
        chunks=len(index.chunks),
        damage=tuple(damage),
        seconds=time.perf_counter() - started,
    )


def _check_chunks(
    reader: ContainerReader, quick: bool, workers: int, progress: Progress | None
) -> list[Damage]:
    index, buffers = reader.index, Buffers()
    total, done = index.starts[-1], 0
    damage: list[Damage] = []
    chunks = range(len(index.chunks))
    with closing(ordered_map(lambda c: _check_chunk(reader, c, quick, buffers), chunks, workers)) as results:
        for member in index.members:
            hasher, whole = hashlib.sha256(), not quick
            for chunk in range(member.first_chunk, member.first_chunk + member.chunk_count):
                found, buffer = next(results)
                damage += found
                size = index.chunks[chunk].decoded_size
                whole = whole and not found
                if whole:
                    hasher.update(buffer[:size])
                buffers.give(buffer)
                done += size
                if progress is not None:
                    progress(done, total, done)
            if whole and hasher.hexdigest() != member.sha256:
                damage.append(Damage("member", "the member does not match its SHA-256", member=member.name))
    return damage


def _check_chunk(
    reader: ContainerReader, chunk: int, quick: bool, buffers: Buffers
) -> tuple[list[Damage], memoryview]:
    """What is wrong with a chunk, and a buffer with what it decodes to."""
    with scratch(reader.record_size(chunk)) as record:
        reader.read_record(chunk, record)
        found = checks.check_chunk(reader, chunk, record)
        if quick or found:
            return found, memoryview(b"")
        size = reader.index.chunks[chunk].decoded_size
        buffer = buffers.take(size)
        try:
            reader.decode(chunk, record[RECORD_HEADER_SIZE:], buffer[:size])
        except UnsupportedError as error:
            with located(**reader.where(chunk)):
                raise error  # not damage: a newer reader is needed
        except QzfError as error:
            found = [checks.damaged_chunk(reader, chunk, error.message)]
        return found, buffer


def _compare(reader: ContainerReader, against: Sequence[StrPath]) -> Iterator[Damage]:
    """The differences between the members and the original files, by name, size and SHA-256."""
    members = {member.name: member for member in reader.index.members}
    container = Path(reader.source.name)
    # Taken as they are if that fits (as with --opaque), else with the other parts of split files.
    for opaque in (True, False):
        files = {
            file.name: file.path for file in find_sources(against, opaque=opaque, output=container).files
        }
        if files.keys() == members.keys():
            break
    if len(files) == len(members) == 1:
        files = {next(iter(members)): next(iter(files.values()))}  # one file each: names do not matter
    for name in sorted(files.keys() | members.keys()):
        if name not in members:
            yield Damage("member", f"the container does not hold {files[name]}", member=name)
        elif name not in files:
            yield Damage("member", "there is no original file to compare with", member=name)
        elif _sha256(files[name]) != (members[name].size, members[name].sha256):
            yield Damage("member", f"differs from {files[name]} in size or SHA-256", member=name)


def _sha256(path: Path) -> tuple[int, str]:
    hasher = hashlib.sha256()
    with FileSource(path) as source:
        for at in range(0, source.size, _STEP):
            hasher.update(source.read(at, min(_STEP, source.size - at)))
        source.check_unchanged()
        return source.size, hasher.hexdigest()
