"""A remote object as a byte source: what fails is tried again, and what is read is read in few requests."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from qzf.errors import MissingPackageError, OptionError, QzfError, RemoteError
from qzf.limits import TAIL_READ
from qzf.remote.ranges import Body, Ranges, TransientError, abandon, worded
from qzf.storage import FileSource, SourceBase, Span

__all__ = ["RemoteSource", "open_url"]

#: How often a request is made before its failure is an error, and the seconds before the second time; twice
#: as long before each further one, and each up to half as long more or less, lest all that failed together
#: come again together.
_TRIES: Final = 3
_PAUSE: Final = 0.25
#: Bytes between two pieces that are read and dropped at a time.
_DROP: Final = 1 << 16
#: Bytes of a read that are asked of the allocator at once.
_GROW: Final = 1 << 22

#: Which of our extras brings the file system of a scheme.
_EXTRAS: Final = {"http": "remote", "https": "remote", "s3": "s3", "s3a": "s3", "hf": "hub"}
#: What is secret in a URL, or may be: user and password, and what follows the path.
_SECRETS: Final = re.compile(r"(?<=://)[^/@]*@|[?#].*")

_T = TypeVar("_T")


def open_url(url: str, storage_options: dict[str, Any]) -> SourceBase:
    """The object at a URL; ``storage_options`` are those of its file system in fsspec.

    Raises ``FileNotFoundError`` and ``PermissionError`` as for local files, ``RemoteError`` for a server that
    does not answer or serves no ranges, ``OptionError`` where the scheme is unknown or the options do not fit
    it, and ``MissingPackageError`` where its package is not installed.
    """
    scheme = url.partition("://")[0].lower()
    try:
        import fsspec
    except ImportError as error:
        raise _missing(scheme, error) from error
    try:
        if scheme in ("file", "local"):
            return FileSource(fsspec.get_filesystem_class("file")._strip_protocol(url))
        return RemoteSource(_ranges(scheme, url, storage_options))
    except ImportError as error:
        raise _missing(scheme, error) from error


def _missing(scheme: str, error: ImportError) -> MissingPackageError:
    extra = _EXTRAS.get(scheme)
    how = f"pip install 'qzf[{extra}]'" if extra else worded(error)
    return MissingPackageError(f"{scheme}:// URLs need packages that are not installed: {how}")


def _ranges(scheme: str, url: str, options: dict[str, Any]) -> Ranges:
    name = _SECRETS.sub("", url)
    if scheme in ("http", "https"):
        from qzf.remote.http import HttpRanges

        return HttpRanges(url, name, options)
    if scheme in ("s3", "s3a"):
        from qzf.remote.s3 import S3Ranges

        return S3Ranges(url, name, options)
    from qzf.remote.generic import FileSystemRanges

    return FileSystemRanges(url, name, options)


class RemoteSource(SourceBase):
    """An object that is read by ranges, safe to use from many threads and after a fork.

    Opening reads its last 64 KiB, in one request where the server can tell the size with them. Requests
    that fail are made three times. Raises ``RemoteError`` then, and ``SourceChangedError`` where it is seen
    that the object has been replaced.
    """

    remote = True

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        try:
            ranges.file_system  # noqa: B018
        except (ImportError, OSError, QzfError):
            raise
        except Exception as error:  # mostly by options that it does not know
            raise OptionError(f"no file system: {worded(error)}", file=ranges.name) from error
        try:
            size, self._tail = _tried(lambda: ranges.tail(TAIL_READ), ranges.name, None)
        except BaseException:
            ranges.close()
            raise
        super().__init__(ranges.name, size)

    def span(self, offset: int, size: int) -> Span:
        self._check(offset, size)
        self._ranges.file_system  # noqa: B018  # an error once it is closed
        return _RemoteSpan(self, self._ranges, self._tail, offset, offset + size)

    def read(self, offset: int, size: int) -> bytes:
        if size <= _GROW:
            return super().read(offset, size)
        # Memory for what has come, not for what a server has promised.
        data = bytearray()
        with self.span(offset, size) as span:
            while len(data) < size:
                part = bytearray(min(_GROW, size - len(data)))
                span.readinto(offset + len(data), part)
                data += part
        return bytes(data)

    def check_unchanged(self) -> None:
        self._ranges.check_unchanged()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        with self.span(offset, len(buffer)) as span:
            span.readinto(offset, buffer)

    def close(self) -> None:
        """Close all connections; what other threads are reading fails."""
        self._ranges.close()


class _RemoteSpan(Span):
    """A span of which the bytes come in one answer, and in a further one where a connection breaks.

    What is in ``tail``, the source's last bytes, is not asked for.
    """

    def __init__(self, source: SourceBase, ranges: Ranges, tail: bytes, start: int, end: int) -> None:
        super().__init__(source, start, end)
        self._ranges, self._tail, self._tail_at = ranges, memoryview(tail), source.size - len(tail)
        self._body: Body | None = None
        self._reached = start
        self._process = os.getpid()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        if self._reached < offset and self._body is not None:
            gap = memoryview(bytearray(min(offset - self._reached, _DROP)))
            while self._reached < offset:
                self._read(gap[: offset - self._reached])
        self._reached = offset
        self._read(buffer)

    def _read(self, buffer: memoryview) -> None:
        begin = self._reached

        def step() -> None:
            while (done := self._reached - begin) < len(buffer):
                self._reached += self._some(buffer[done:])

        _tried(step, self._ranges.name, begin)

    def _some(self, buffer: memoryview) -> int:
        if self._reached >= self._tail_at:
            at = self._reached - self._tail_at
            buffer[:] = self._tail[at : at + len(buffer)]
            return len(buffer)
        end = min(self._end, self._tail_at)
        buffer = buffer[: end - self._reached]
        if self._process != os.getpid():
            abandon(self._body)
            self._body, self._process = None, os.getpid()
        try:
            if self._body is None:
                self._body = self._ranges.open(self._reached, end)
            count = self._body.readinto(buffer)
            if not count:
                raise TransientError(f"the connection ends {end - self._reached} bytes early")
        except TransientError:
            self._drop()
            raise
        return count

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is None:
            return
        if self._process != os.getpid():
            abandon(body)
        else:
            body.close()

    def close(self) -> None:
        self._drop()


def _tried(work: Callable[[], _T], name: str, offset: int | None) -> _T:
    """The result of ``work``, begun again where it fails in a way that may pass. Raises ``RemoteError``."""
    for attempt in range(_TRIES):
        try:
            return work()
        except TransientError as error:
            if attempt + 1 == _TRIES:
                message = f"the server does not answer as it should, tried {_TRIES} times: {error}"
                raise RemoteError(message, file=name, offset=offset) from error.__cause__ or error
        except QzfError as error:
            error.offset = offset if error.offset is None else error.offset
            raise
        time.sleep(_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")
