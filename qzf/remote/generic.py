"""Ranges through what every fsspec file system has: ``info`` and ``cat_file``."""

from __future__ import annotations

import errno
from typing import Any, Final

import fsspec
from fsspec.spec import AbstractFileSystem

from qzf.errors import RemoteError, SourceError
from qzf.remote.ranges import BUSY, DENIED, MISSING, Ranges, Tail, TransientError, worded

__all__ = ["FileSystemRanges"]

#: What tells versions of an object apart, as the file systems call it.
_VERSION: Final = ("size", "ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")


class FileSystemRanges(Ranges):
    """An object of any file system. A range is in memory as a whole before its first byte is used.

    Instances of file systems are fsspec's own and shared, so that nothing is closed here.
    """

    def _connect(self) -> tuple[Any, str]:
        file_system, path = fsspec.core.url_to_fs(self.url, **self._options)
        return file_system, path

    def _disconnect(self, made: Any) -> None:
        """Others may use the same instance."""

    def tail(self, size: int) -> Tail:
        found = self._info()
        self._version = _version(found)
        if found.get("type") == "directory":
            raise SourceError("is a directory, not a regular file", file=self.name)
        total = self.known_size(found.get("size"))
        start = max(total - size, 0)
        return Tail(total, self._cat(start, total) if total else b"")

    def open(self, start: int, end: int) -> _Whole:
        try:
            return _Whole(self._cat(start, end))
        except FileNotFoundError:
            raise self.changed("is no longer there, other") from None

    def check_unchanged(self) -> None:
        self.file_system[0].invalidate_cache()
        try:
            if _version(self._info()) != self._version:
                raise self.changed()
        except FileNotFoundError:
            raise self.changed("is no longer there, other") from None
        except (TransientError, RemoteError, PermissionError):
            return  # nothing is seen

    def _info(self) -> dict[str, Any]:
        file_system, path = self.file_system
        found = self._ask(file_system.info, path)
        return found if isinstance(found, dict) else {}

    def _cat(self, start: int, end: int) -> bytes:
        file_system, path = self.file_system
        # Where the file system has no own way, it opens a file, which would read ahead.
        plain = type(file_system).cat_file is AbstractFileSystem.cat_file
        options = {"cache_type": "none"} if plain else {}
        data = self._ask(file_system.cat_file, path, start, end, **options)
        if not isinstance(data, bytes) or len(data) > end - start:
            raise RemoteError("the file system returns more than it was asked for", file=self.name)
        if len(data) < end - start:
            raise TransientError(f"{len(data)} bytes came in place of {end - start}")
        return data

    def _ask(self, call: Any, *args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except Exception as error:  # whatever the libraries below raise
            raise self._reworded(error) from error

    def _reworded(self, error: Exception) -> Exception:
        """Our error for that of a file system, by its type or by the HTTP status that it carries."""
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if isinstance(error, FileNotFoundError) or status in MISSING:
            return FileNotFoundError(errno.ENOENT, worded(error), self.name)
        if isinstance(error, PermissionError) or status in DENIED:
            return PermissionError(errno.EACCES, worded(error), self.name)
        if isinstance(error, OSError) and (not 400 <= status < 500 or status in BUSY):
            return TransientError(worded(error))
        return RemoteError(worded(error), file=self.name)


class _Whole:
    """A body that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def readinto(self, buffer: memoryview) -> int:
        part, self._data = self._data[: len(buffer)], self._data[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._data = self._data[:0]


def _version(found: dict[str, Any]) -> list[object]:
    return [found.get(key) for key in _VERSION]
