"""Members unpacked to anonymous memory (memfd, Linux only).

They are files with a path, and vanish when the last program that has them open ends.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from qzf.container.catalog import MemberEntry
from qzf.container.reader import ContainerReader
from qzf.errors import NotFoundError, OptionError
from qzf.format.ids import RECORD_HEADER_SIZE
from qzf.parallel import Progress, default_threads, ordered_map
from qzf.scratch import scratch

__all__ = ["first_of_split", "link_folder", "path_of", "select", "unpack_to_memory"]

#: The kernel takes 249 bytes, and shows them in /proc only.
_MAX_NAME: Final = 200
_SPLIT: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
#: Removes the folder that is its first argument once nobody has the other end of its standard input open. In
#: the background, so that it is nobody's child and no program waits for it.
_CLEANER: Final = 'exec 3<&0; { read -r _ <&3; rm -rf -- "$0"; } >/dev/null 2>&1 &'


def select(reader: ContainerReader, names: Sequence[str]) -> list[MemberEntry]:
    """The members of these names, or all if there are none. Raises ``NotFoundError``."""
    known = {member.name: member for member in reader.index.members}
    for name in names:
        if name not in known:
            raise NotFoundError(f"there is no member {name!r}", file=reader.source.name)
    return [known[name] for name in dict.fromkeys(names)] if names else list(reader.index.members)


def first_of_split(names: Iterable[str]) -> str | None:
    """The first part of a split GGUF, if ``names`` are the parts of one, and all of them."""
    parts = [_SPLIT.fullmatch(name) for name in names]
    if not parts or any(part is None for part in parts):
        return None
    found = sorted((part[1], part[3], int(part[2]), part[0]) for part in parts if part is not None)
    prefix, count = found[0][:2]
    whole = [(prefix, count, number) for number in range(1, int(count) + 1)]
    return found[0][3] if [part[:3] for part in found] == whole else None


def unpack_to_memory(
    reader: ContainerReader,
    members: Sequence[MemberEntry],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Unpack members, on all threads, to memory that nobody can change any more.

    Returns a file descriptor for each, by name; no program that is started inherits it, and it is the
    caller's to close. Each chunk is held against its XXH3. Raises ``DamageError``, ``OptionError`` where the
    system has no such memory; ``OSError`` passes through, ENOMEM where there is not enough.
    """
    if not hasattr(os, "memfd_create"):
        raise OptionError("unpacking to memory needs memfd_create, which only Linux has")
    workers = default_threads(threads)
    total, done = sum(member.size for member in members), 0
    _check_memory(total)
    starts, files = reader.index.starts, dict[str, int]()

    def jobs() -> Iterator[tuple[int, int, int]]:
        for member in members:
            first = member.first_chunk
            for chunk in range(first, first + member.chunk_count):
                entry = reader.index.chunks[chunk]
                reader.source.will_need(entry.offset, RECORD_HEADER_SIZE + entry.stored_size)
                yield files[member.name], chunk, starts[chunk] - starts[first]

    def work(job: tuple[int, int, int]) -> int:
        file, chunk, offset = job
        with scratch(starts[chunk + 1] - starts[chunk]) as data:
            reader.read_chunk(chunk, data)
            # Writing beats decoding to a map of the file: no page is cleared first, and none faults.
            written = 0
            while written < len(data):
                written += os.pwrite(file, data[written:], offset + written)
            return written

    try:
        for member in members:
            name = member.name.rpartition("/")[2].encode()[-_MAX_NAME:].decode(errors="ignore")
            file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            files[member.name] = file
            os.ftruncate(file, member.size)
        for size in ordered_map(work, jobs(), workers):
            done += size
            if progress is not None:
                progress(done, total, done)
        for file in files.values():
            _seal(file)
    except BaseException:
        for file in files.values():
            os.close(file)
        raise
    return files


def _seal(file: int) -> None:
    import fcntl

    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)


def _check_memory(size: int) -> None:
    """Raise ``OSError`` where the system would have to end programs to find ``size`` bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
        free = (fields["MemAvailable"] + fields["SwapFree"]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return
    if size > free:
        raise OSError(errno.ENOMEM, f"{size} bytes of memory are due, and {free} are free")


def path_of(file: int) -> str:
    """A path of an open file of this process.

    It names the process and not ``self``, so that also programs that this one starts can use it, whether they
    inherit the file or not.
    """
    return f"/proc/{os.getpid()}/fd/{file}"


def link_folder(files: Mapping[str, int]) -> Path:
    """A folder, in memory where there is one, with a link for each of ``files`` under its name.

    It is removed when this process has ended, or the program that it becomes; and so have the programs that
    inherited descriptors from it.
    """
    import subprocess
    import tempfile

    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK | os.X_OK)
    folder = Path(tempfile.mkdtemp(prefix="qzf-", dir=memory if usable else None))
    hear, tell = os.pipe()
    cleaner = ["/bin/sh", "-c", _CLEANER, str(folder)]
    try:
        subprocess.run(cleaner, stdin=hear, start_new_session=True, check=True)
        os.set_inheritable(tell, True)
    except BaseException:
        folder.rmdir()
        os.close(tell)
        raise
    finally:
        os.close(hear)
    for name, file in files.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path_of(file))
    return folder
