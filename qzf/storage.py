"""Where bytes come from: a mapped file, memory, a file object; remote ranges are in `qzf.remote`.

A source has a fixed ``size``, taken when it was opened; every range that is asked for lies within it or is
an error. What ``read`` returns is the caller's own snapshot, so a check made on it stays true. Views are
for speed on data that is checked afterwards: a file that another process cuts short below a view ends this
process with SIGBUS, which is why everything that parses or packs a file reads instead.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import stat
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Protocol, Self

from qzf.errors import OptionError, SourceChangedError, SourceError
from qzf.parallel import ForkSafeLock

__all__ = [
    "ByteSource",
    "FileIdentity",
    "FileSource",
    "JoinedSource",
    "MemorySource",
    "ObjectSource",
    "SourceBase",
    "Span",
    "StrPath",
    "is_url",
    "open_source",
]

#: A path as callers give it.
StrPath = str | os.PathLike[str]

#: Bytes per system call: Linux moves at most 0x7ffff000 at once, so larger reads take several calls.
_MAX_CALL: Final = 1 << 30

#: Bytes per hint: of a longer range Linux fetches only as much as the device reads ahead, mostly 128 KiB.
_MAX_HINT: Final = 128 << 10

#: ``stat`` file kinds that hold no bytes of their own at offsets, and what to call them.
_NOT_FILES: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)

#: A scheme, or several for one file system on top of another (``simplecache::https://``).
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]+)*://", re.IGNORECASE)

#: (device, inode, size in bytes, modification time in ns) of a file.
FileIdentity = tuple[int, int, int, int]


class ByteSource(Protocol):
    """A readable sequence of ``size`` bytes, usable from several threads at once until it is closed."""

    @property
    def name(self) -> str:
        """What errors call it: the path as the caller gave it, or a label."""

    @property
    def size(self) -> int:
        """Bytes in all; fixed while the source is open."""

    def read(self, offset: int, size: int) -> bytes:
        """Return the ``size`` bytes from ``offset`` on as a snapshot that nobody else can change.

        Raises OptionError for a range that is not within the source, SourceChangedError where the
        source turns out to be shorter than ``size`` says.
        """

    def readinto(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill all of ``buffer`` (writable, contiguous) from ``offset`` on. Errors as for `read`."""

    def view(self, offset: int, size: int) -> memoryview:
        """Return a read-only view of bytes, without a copy where the source is mapped. Errors as `read`."""

    def scattered(self) -> None:
        """Note that what is read lies here and there, so that nothing is read ahead unasked."""

    def will_need(self, offset: int, size: int) -> None:
        """Have a range on its way to memory by the time that it is read, if that can be had."""

    @property
    def remote(self) -> bool:
        """Whether each read is a request over a network, so that few and large ones are due."""

    def span(self, offset: int, size: int) -> Span:
        """A range to be read piece by piece, with one request where the source is remote.

        Raises OptionError as `read`.
        """

    def check_unchanged(self) -> None:
        """Raise SourceChangedError where it is seen that the source is no longer what was opened."""

    def close(self) -> None:
        """Release everything; views that are still held stay valid. Closing twice is no error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class SourceBase(ABC):
    """What every source shares: the bounds check and reads in terms of ``_fill``.

    A source needs only ``_fill`` (and ``close``); its views are then copies.
    """

    #: See `ByteSource.remote`.
    remote = False

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size

    @property
    def name(self) -> str:
        return self._name

    @property
    def size(self) -> int:
        return self._size

    @abstractmethod
    def _fill(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (unsigned bytes, not empty) from ``offset`` on; the range is within the source."""

    @abstractmethod
    def close(self) -> None:
        """See `ByteSource.close`."""

    def read(self, offset: int, size: int) -> bytes:
        self._check(offset, size)
        buffer = bytearray(size)
        if size:
            self._fill(offset, memoryview(buffer))
        return bytes(buffer)

    def readinto(self, offset: int, buffer: bytearray | memoryview) -> None:
        view = memoryview(buffer)
        self._check(offset, view.nbytes)
        if view.nbytes:
            self._fill(offset, view.cast("B"))

    def view(self, offset: int, size: int) -> memoryview:
        return memoryview(self.read(offset, size))

    # Hints, which most sources have no use for.

    def scattered(self) -> None:  # noqa: B027
        """Note that what is read lies here and there, so that nothing is read ahead unasked."""

    def will_need(self, offset: int, size: int) -> None:  # noqa: B027
        """Have a range on its way to memory by the time that it is read, if that can be had."""

    def span(self, offset: int, size: int) -> Span:
        self._check(offset, size)
        return Span(self, offset, offset + size)

    def check_unchanged(self) -> None:  # noqa: B027
        """See `ByteSource.check_unchanged`; what is in memory does not change."""

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self._size:
            raise OptionError(
                f"{size} bytes from {offset} on are not within the {self._size} bytes of the source",
                file=self._name,
                offset=offset,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Span:
    """The bytes from ``start`` to ``end`` of a source, to be read in rising order; for one thread.

    Use it as a context manager.
    """

    def __init__(self, source: SourceBase, start: int, end: int) -> None:
        self._source, self._at, self._end = source, start, end

    def readinto(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill all of ``buffer`` from ``offset`` on, which lies behind all that was read before.

        Raises OptionError for what is not within the span, and as `ByteSource.readinto`.
        """
        view = memoryview(buffer).cast("B")
        if offset < self._at or offset + len(view) > self._end:
            raise OptionError(
                f"{len(view)} bytes from {offset} on are not ahead in the span",
                file=self._source.name,
                offset=offset,
            )
        if view:
            self._fill(offset, view)
            self._at = offset + len(view)

    def _fill(self, offset: int, buffer: memoryview) -> None:
        self._source.readinto(offset, buffer)

    def close(self) -> None:
        """Drop what was not read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileSource(SourceBase):
    """A regular file, read by ``pread`` and viewed through a read-only map.

    Raises SourceError for what is not a regular file, OptionError for what no path can be; OSError (not
    found, permission) passes through.
    Reads and views are safe from several threads; closing while another thread reads is not.
    """

    def __init__(self, path: StrPath) -> None:
        name = os.fspath(path)
        if not name or "\0" in name:
            raise OptionError("a path cannot be empty, nor have a zero character", file=name or None)
        _refuse_special(name, Path(name).stat())
        # A fifo that slips in after the check must not block the open.
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            _refuse_special(name, status)
        except BaseException:
            os.close(descriptor)
            raise
        super().__init__(name, status.st_size)
        self._descriptor = descriptor
        # A relative path must mean the same file after a change of directory.
        self._path = Path(name).absolute()
        self._map: mmap.mmap | None = None
        self._lock = ForkSafeLock()
        self.identity: Final = _identity(status)

    def read(self, offset: int, size: int) -> bytes:
        self._check(offset, size)
        if 0 < size <= _MAX_CALL:
            # The common case without a second copy: pread makes the bytes object itself.
            data = os.pread(self._open_descriptor(), size, offset)
            if len(data) == size:
                return data
        return super().read(offset, size)

    def view(self, offset: int, size: int) -> memoryview:
        self._check(offset, size)
        if size == 0:
            return memoryview(b"")
        return memoryview(self._mapped())[offset : offset + size]

    def scattered(self) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._open_descriptor(), 0, 0, os.POSIX_FADV_RANDOM)

    def will_need(self, offset: int, size: int) -> None:
        if hasattr(os, "posix_fadvise"):
            descriptor = self._open_descriptor()
            for at in range(offset, offset + size, _MAX_HINT):
                part = min(_MAX_HINT, offset + size - at)
                os.posix_fadvise(descriptor, at, part, os.POSIX_FADV_WILLNEED)

    def check_unchanged(self) -> None:
        """Raise SourceChangedError unless path and open file still are what was opened.

        That is: same device, inode, size and modification time, by path and by descriptor.
        """
        try:
            now = self._path.stat()
        except FileNotFoundError:
            raise SourceChangedError("the file has vanished while it was read", file=self.name) from None
        if _identity(now)[:2] != self.identity[:2]:
            raise SourceChangedError("the file has been replaced while it was read", file=self.name)
        if {_identity(now), _identity(os.fstat(self._open_descriptor()))} != {self.identity}:
            raise SourceChangedError("the file has changed while it was read", file=self.name)

    def close(self) -> None:
        with self._lock:
            mapped, self._map = self._map, None
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        if mapped is not None:
            # While views are held this is an error; the map then goes when the last of them does.
            with contextlib.suppress(BufferError):
                mapped.close()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        _fill_from(self, self._open_descriptor(), offset, buffer)

    def _open_descriptor(self) -> int:
        if self._descriptor < 0:
            raise OptionError("the source is closed", file=self.name)
        return self._descriptor

    def _mapped(self) -> mmap.mmap:
        with self._lock:
            if self._map is None:
                descriptor = self._open_descriptor()
                try:
                    self._map = mmap.mmap(descriptor, self.size, access=mmap.ACCESS_READ)
                except ValueError:
                    # mmap compares the length with the file's size of now.
                    raise SourceChangedError(
                        f"the file has become shorter than the {self.size} bytes it had when it was opened",
                        file=self.name,
                    ) from None
            return self._map


class MemorySource(SourceBase):
    """Bytes in memory, not copied; the caller must not change them while the source is in use."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "<memory>") -> None:
        self._data = memoryview(data).cast("B").toreadonly()
        super().__init__(name, len(self._data))

    def read(self, offset: int, size: int) -> bytes:
        self._check(offset, size)
        return bytes(self._data[offset : offset + size])

    def view(self, offset: int, size: int) -> memoryview:
        self._check(offset, size)
        return self._data[offset : offset + size]

    def close(self) -> None:
        """Nothing is held that would need releasing."""

    def _fill(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self._data[offset : offset + len(buffer)]


class JoinedSource(SourceBase):
    """Pieces of memory one after another, not copied; nobody may change them while the source is in use."""

    def __init__(self, pieces: Iterable[memoryview], name: str) -> None:
        self._pieces = [piece.cast("B") for piece in pieces if piece.nbytes]
        self._ends = list(accumulate(len(piece) for piece in self._pieces))
        super().__init__(name, self._ends[-1] if self._ends else 0)

    def _fill(self, offset: int, buffer: memoryview) -> None:
        at = bisect_right(self._ends, offset)
        done = 0
        while done < len(buffer):
            piece = self._pieces[at]
            skip = offset + done - (self._ends[at] - len(piece))
            part = piece[skip : skip + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done, at = done + len(part), at + 1

    def close(self) -> None:
        """Nothing is held that would need releasing."""


class ObjectSource(SourceBase):
    """A binary file object that can seek; its position is the source's from now on.

    What ``open(path, "rb")`` returns is read by its descriptor at offsets, from threads and processes at the
    same time. Reads of other objects take turns, and are an ``OptionError`` in another process than that
    which made the source: both would move the one position of the file. Closing the source leaves the object
    open. Raises ``OptionError`` for an object that does not read bytes or cannot seek.
    """

    def __init__(self, file: IO[bytes]) -> None:
        try:
            if isinstance(file.read(0), str):
                raise OptionError("a file object that reads bytes is due, not one that reads text")
            size = file.seek(0, os.SEEK_END)
        except (AttributeError, OSError, ValueError) as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(f"the file object cannot be read at offsets: {error}") from error
        name = getattr(file, "name", None)
        super().__init__(name if isinstance(name, str) else f"<{type(file).__name__}>", size)
        self._file, self._lock = file, ForkSafeLock()
        self._positional = _is_plain(file)
        #: Memory is the process's own after a fork.
        self._process = None if type(file) is io.BytesIO else os.getpid()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        if getattr(self._file, "closed", False):
            raise OptionError("the file object is closed", file=self.name)
        if self._positional:
            _fill_from(self, self._file.fileno(), offset, buffer)
            return
        if self._process not in (None, os.getpid()):
            raise OptionError(
                "the file object shares its position with another process: open it in each process",
                file=self.name,
            )
        with self._lock:
            self._file.seek(offset)
            done = 0
            while done < len(buffer):
                data = self._file.read(len(buffer) - done)
                if not data:
                    raise SourceChangedError(
                        f"the file has become shorter than the {self.size} bytes it had when it was opened",
                        file=self.name,
                        offset=offset + done,
                    )
                buffer[done : done + len(data)] = data
                done += len(data)

    def close(self) -> None:
        """The object is its owner's to close."""


def is_url(src: object) -> bool:
    """Whether ``src`` is a text that begins with ``scheme://``; a local file of such a name is a ``Path``."""
    return isinstance(src, str) and _URL.match(src) is not None


def open_source(src: StrPath, storage_options: dict[str, Any] | None = None) -> SourceBase:
    """The file that a path or a URL names; ``storage_options`` are for the file system of a URL.

    Raises as `FileSource` and `qzf.remote.open_url`; ``OptionError`` for options that have no URL.
    """
    if isinstance(src, str) and is_url(src):
        from qzf.remote import open_url  # what it needs is optional

        return open_url(src, storage_options or {})
    if storage_options:
        raise OptionError("storage_options are for URLs", file=os.fspath(src))
    return FileSource(src)


def _is_plain(file: object) -> bool:
    """Whether a file object is no more than a regular file that is open for reading."""
    raw = file.raw if type(file) is io.BufferedReader else file
    return type(raw) is io.FileIO and stat.S_ISREG(os.fstat(raw.fileno()).st_mode)


def _fill_from(source: SourceBase, descriptor: int, offset: int, buffer: memoryview) -> None:
    """Fill ``buffer`` from ``offset`` on of the file that ``source`` reads; its position stays."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done : done + _MAX_CALL]], offset + done)
        if count == 0:
            raise SourceChangedError(
                f"the file has become shorter than the {source.size} bytes it had when it was opened",
                file=source.name,
                offset=offset + done,
            )
        done += count


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _refuse_special(name: str, status: os.stat_result) -> None:
    for is_kind, what in _NOT_FILES:
        if is_kind(status.st_mode):
            raise SourceError(f"is {what}, not a regular file", file=name)
