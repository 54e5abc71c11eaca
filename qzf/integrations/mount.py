"""Containers as read-only file systems, by FUSE: what is in them appears as the files that were packed."""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any, Final

from qzf.errors import MissingPackageError, QzfError
from qzf.integrations.readahead import DEFAULT_CACHE, MemberReader, ReadAhead
from qzf.integrations.tree import File, Tree
from qzf.limits import MIB

try:
    import mfusepy
except ModuleNotFoundError as missing:
    raise MissingPackageError("mounting needs the package mfusepy: pip install 'qzf[mount]'") from missing
except OSError as missing:
    raise MissingPackageError("mounting needs libfuse: install the system's package fuse3") from missing

__all__ = ["LOGGERS", "serve"]

log: Final = logging.getLogger("qzf.mount")
#: What reports go to: damage that a read met, and failures that should not be.
LOGGERS: Final = (log, mfusepy.log)

#: Seconds that the kernel may keep names and attributes. Nothing here ever changes.
_FOREVER: Final = 86400
#: Most bytes that the kernel may ask for at once. It reads 128 KiB ahead, unless told more in /sys/class/bdi.
_MAX_READ: Final = MIB
_BLOCK: Final = 4096
#: Threads that libfuse keeps to answer the kernel, its own default; some versions warn if nobody says so.
_THREADS: Final = 10
#: Different reports that are made; a program that reads on over damage would make one after another.
_MAX_TOLD: Final = 1000


class _Operations(mfusepy.Operations):  # type: ignore[misc]
    """What the kernel asks for."""

    use_ns = True

    def __init__(self, tree: Tree, ahead: ReadAhead, ready: Callable[[], None]) -> None:
        self._tree, self._ahead, self._ready = tree, ahead, ready
        self._handles: dict[int, tuple[MemberReader, File]] = {}
        self._numbers = itertools.count(1)
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        self._newest = max((file.mtime_ns for file in tree.files.values()), default=0)
        self._told: set[str] = set()
        self.mounted = False

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        del config_3
        conn_info.max_readahead = _MAX_READ
        if mfusepy.fuse_version_major >= 3:
            conn_info.max_read = _MAX_READ  # else libfuse refuses the option of that name
        self.mounted = True
        self._ready()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        del fh
        file = self._tree.files.get(path)
        if file is not None:
            size, mode, links, mtime = file.size, stat.S_IFREG | 0o444, 1, file.mtime_ns
        elif path in self._tree.folders:
            size, mode, links, mtime = 0, stat.S_IFDIR | 0o555, 2, self._newest
        else:
            raise mfusepy.FuseOSError(errno.ENOENT)
        shape = {"st_size": size, "st_blocks": -(-size // 512), "st_blksize": _MAX_READ}
        times = {"st_mtime": mtime, "st_ctime": mtime, "st_atime": mtime}
        return {"st_mode": mode, "st_nlink": links, **shape, **times, **self._owner}

    def readdir(self, path: str, fh: int) -> Iterable[str]:
        del fh
        return [".", "..", *self._tree.folders[path]]

    def open(self, path: str, flags: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise mfusepy.FuseOSError(errno.EROFS)
        file = self._tree.files[path]
        handle = next(self._numbers)
        self._handles[handle] = self._ahead.open(file.reader, file.member), file
        return handle

    def release(self, path: str, fh: int) -> int:
        del path
        del self._handles[fh]
        if not self._handles:
            self._ahead.forget()  # the kernel has what was read
        return 0

    def read(self, handle: int, offset: int, room: memoryview) -> int:
        """Bytes of an open file, to the buffer that goes to the kernel; how many, or an error below zero."""
        reader, file = self._handles[handle]
        try:
            return reader.readinto(offset, room)
        except QzfError as error:
            self._tell(str(error))
        except OSError as error:
            self._tell(f"{file.reader.source.name}: {error.strerror}")
        return -errno.EIO

    def _tell(self, what: str) -> None:
        if what not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(what)
            log.error("%s", what)

    def statfs(self, path: str) -> dict[str, int]:
        del path
        blocks = sum(-(-file.size // _BLOCK) for file in self._tree.files.values())
        files = len(self._tree.files) + len(self._tree.folders)
        return {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_blocks": blocks, "f_files": files, "f_namemax": 255}


class _Fuse(mfusepy.FUSE):  # type: ignore[misc]
    """mfusepy's loop, but for reads: its own takes bytes, and copies them once more."""

    operations: _Operations

    def read(self, path: bytes, buf: Any, size: int, offset: int, fip: Any) -> int:
        """Called by libfuse: fill ``buf``."""
        del path
        address = ctypes.cast(buf, ctypes.c_void_p).value
        assert address is not None
        room = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        return self.operations.read(fip.contents.fh, offset, room)


def serve(
    tree: Tree,
    mountpoint: str,
    *,
    threads: int | None = None,
    cache_bytes: int = DEFAULT_CACHE,
    allow_other: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Mount ``tree`` at the folder ``mountpoint``, and answer the kernel until it is unmounted.

    Also ends, and unmounts, at SIGINT, SIGTERM and SIGHUP, where these have their default action; call it
    from the main thread. ``ready`` is called when the mount is there. ``threads`` decode ahead of readers,
    and ``cache_bytes`` of decoded chunks are kept while a file is open. With ``allow_other`` other users can
    read, too. A read that meets damage fails with EIO, and what it met is logged (`LOGGERS`).

    Raises ``OSError`` if mounting fails; why is then on standard error, by libfuse.
    """
    options: dict[str, Any] = {
        "attr_timeout": _FOREVER,
        "entry_timeout": _FOREVER,
        "negative_timeout": _FOREVER,
        "kernel_cache": True,  # a file is never read twice, as long as the kernel has memory for it
        "max_read": _MAX_READ,
        "default_permissions": True,
        "allow_other": allow_other,
        "fsname": "qzf-mount",
        "subtype": "qzf",
    }
    with ReadAhead(threads, cache_bytes, once=True) as ahead:
        if mfusepy.fuse_version_major >= 3:
            options["max_idle_threads"] = _THREADS
        operations = _Operations(tree, ahead, ready)
        try:
            _Fuse(operations, mountpoint, foreground=True, ro=True, **options)
        except RuntimeError as error:
            if not operations.mounted:
                raise OSError(errno.EIO, "cannot be mounted", mountpoint) from error
            # A signal has ended it, which libfuse reports as an error.
