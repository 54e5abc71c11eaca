"""Files that appear whole or not at all: written beside their place under another name, synced, renamed."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from qzf.errors import OutputExistsError

__all__ = ["AtomicFile", "check_free"]


def check_free(path: Path, force: bool) -> None:
    """Raise ``OutputExistsError`` if something stands at ``path`` that is not to be replaced.

    With ``force`` files and links are replaced, but never a folder, a device or a pipe.
    """
    if not os.path.lexists(path):
        return
    kind = path.lstat().st_mode
    if stat.S_ISDIR(kind):
        hint = "it is a folder"
    elif not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        hint = "it is a device or a pipe; pack writes to one through standard output (-o -)"
    elif not force:
        hint = "use --force to replace it"
    else:
        return
    raise OutputExistsError(f"the output is there already; {hint}", file=str(path))


class AtomicFile:
    """A file being written. As a context manager: at the end of the block the file is synced and takes its
    name; on any error it vanishes, and what had the name before stays as it was.

    Without ``force`` a file that has appeared under the name in the meantime is kept, and
    ``OutputExistsError`` raised. ``OSError`` passes through.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        check_free(path, force)
        self._path, self._force = path, force
        # Names have at most 255 bytes, of which a character may take 4.
        self._temporary = path.with_name(f".{path.name[:50]}.{os.urandom(6).hex()}.tmp")
        # Before the file is there: an interrupt may come up between any two steps.
        self._cleanup = weakref.finalize(self, _unlink, self._temporary, os.getpid())
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with self._named():
            self.fileno = os.open(self._temporary, flags, 0o666)

    @property
    def path(self) -> Path:
        """The name it will have."""
        return self._path

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let an ``OSError`` name the file that the user asked for."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Write all of ``data`` at the current position."""
        view = memoryview(data)
        with self._named():
            while view:
                view = view[os.write(self.fileno, view) :]

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``; safe from several threads."""
        view = memoryview(data)
        with self._named():
            while view:
                written = os.pwrite(self.fileno, view, offset)
                view, offset = view[written:], offset + written

    def commit(self) -> None:
        """Sync the file and give it its name."""
        with self._named():
            os.fsync(self.fileno)
            self._close()
            self._rename()
            _sync_folder(self._path.parent)
        self._cleanup.detach()

    def _close(self) -> None:
        descriptor, self.fileno = self.fileno, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _rename(self) -> None:
        if self._force:
            self._temporary.replace(self._path)
            return
        try:
            # A hard link refuses to replace what has appeared since the first look; rename would not.
            os.link(self._temporary, self._path)
        except FileExistsError:
            check_free(self._path, force=False)
            raise
        except OSError:
            check_free(self._path, force=False)
            self._temporary.rename(self._path)  # a file system without hard links
        else:
            self._temporary.unlink()

    def discard(self) -> None:
        """Remove what was written so far, unless it has its name already."""
        self._cleanup()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()


def _unlink(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        with suppress(OSError):  # it may never have been there, nor could be
            path.unlink()


def _sync_folder(folder: Path) -> None:
    # The file has its name by now: a folder that cannot be opened or synced is no failure.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
