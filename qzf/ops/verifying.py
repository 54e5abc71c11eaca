"""verify: find all damage in a container, or prove that there is none."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from qzf.container import verify as checks
from qzf.container.catalog import MemberEntry
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader, located
from qzf.container.verify import Damage
from qzf.errors import QzfError, UnsupportedError
from qzf.format.ids import RECORD_HEADER_SIZE
from qzf.ops.reports import VerifyReport
from qzf.ops.sources import find_sources
from qzf.parallel import Progress, default_threads, share_in_order
from qzf.scratch import Buffers, scratch
from qzf.storage import FileSource, StrPath

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
    chunks, total = _Chunks(reader, quick), reader.index.starts[-1]

    def report() -> None:
        if progress is not None:
            progress(chunks.done, total, chunks.done)

    share_in_order(chunks.check, chunks.add, range(len(reader.index.chunks)), workers, report)
    report()
    chunks.close_members()
    return chunks.damage


class _Checked(NamedTuple):
    """A chunk that was checked: what is wrong with it, or what it decodes to, in ``buffer``."""

    chunk: int
    damage: list[Damage]
    buffer: memoryview


class _Chunks:
    """The chunks of a container, each checked by itself; and the members that they make up."""

    def __init__(self, reader: ContainerReader, quick: bool) -> None:
        self._reader, self._quick = reader, quick
        self._buffers = Buffers()
        self._members = iter(reader.index.members)
        self._member: MemberEntry | None = None
        self._hasher, self._whole = hashlib.sha256(), False
        self.damage: list[Damage] = []
        #: Bytes of the members so far.
        self.done = 0

    def check(self, chunk: int) -> _Checked:
        """Check one chunk; by any thread."""
        reader = self._reader
        with scratch(reader.record_size(chunk)) as record:
            reader.read_record(chunk, record)
            found = checks.check_chunk(reader, chunk, record)
            if self._quick or found:
                return _Checked(chunk, found, memoryview(b""))
            size = reader.index.chunks[chunk].decoded_size
            buffer = self._buffers.take(size)
            try:
                reader.decode(chunk, record[RECORD_HEADER_SIZE:], buffer[:size])
            except UnsupportedError as error:
                with located(**reader.where(chunk)):
                    raise error  # not damage: a newer reader is needed
            except QzfError as error:
                found = [checks.damaged_chunk(reader, chunk, error.message)]
            return _Checked(chunk, found, buffer)

    def add(self, checked: _Checked) -> None:
        """Take the next chunk's result."""
        while self._member is None or checked.chunk >= self._member.first_chunk + self._member.chunk_count:
            self._next_member()
        size = self._reader.index.chunks[checked.chunk].decoded_size
        self.damage += checked.damage
        self._whole = self._whole and not checked.damage
        if self._whole:
            self._hasher.update(checked.buffer[:size])
        self._buffers.give(checked.buffer)
        self.done += size

    def close_members(self) -> None:
        """Look at the members that are left: the last one, and empty ones behind it."""
        while self._next_member():
            pass

    def _next_member(self) -> bool:
        """Close the open member, and open the next one, if there is one."""
        member = self._member
        if member is not None and self._whole and self._hasher.hexdigest() != member.sha256:
            self.damage.append(Damage("member", "the member does not match its SHA-256", member=member.name))
        self._member = next(self._members, None)
        self._hasher, self._whole = hashlib.sha256(), not self._quick
        return self._member is not None


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
