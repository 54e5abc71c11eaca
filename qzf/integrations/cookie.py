"""A member as a C ``FILE*`` that can be read and sought in, for libraries that take one (glibc, musl)."""

from __future__ import annotations

import ctypes
import errno
import os
from types import TracebackType
from typing import Any, Final, Self

from qzf.errors import OptionError
from qzf.integrations.readahead import MemberReader
from qzf.limits import KIB

__all__ = ["CookieFile", "available"]

#: stdio calls us for as much at a time, and copies from there: few calls, and it stays in a core's cache.
_BUFFER: Final = 256 * KIB
_IOFBF: Final = 0

_Read = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Seek = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int)


class _Functions(ctypes.Structure):
    """``cookie_io_functions_t``."""

    _fields_ = (("read", _Read), ("write", ctypes.c_void_p), ("seek", _Seek), ("close", ctypes.c_void_p))


def available() -> bool:
    """Whether this system's C library has such files."""
    return os.name == "posix" and hasattr(ctypes.CDLL(None), "fopencookie")


class CookieFile:
    """A context manager; in it ``pointer`` is the ``FILE*``, which the C library closes at its end.

    To C a read that fails is an I/O error; ``error`` is what was raised.
    """

    def __init__(self, member: MemberReader) -> None:
        if not available():
            raise OptionError("this system's C library has no fopencookie")
        self._member, self._at = member, 0
        self.error: BaseException | None = None
        self._library = ctypes.CDLL(None, use_errno=True)
        # They must live as long as the file.
        self._functions = _Functions(_Read(self._read), None, _Seek(self._seek), None)
        opened = self._library.fopencookie
        opened.restype, opened.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, _Functions]
        pointer = opened(None, b"rb", self._functions)
        if not pointer:
            raise MemoryError("fopencookie failed")
        self.pointer: Final[int] = pointer
        self._buffer = ctypes.create_string_buffer(_BUFFER)
        self._library.setvbuf(ctypes.c_void_p(pointer), self._buffer, _IOFBF, ctypes.c_size_t(_BUFFER))

    def _read(self, _cookie: int | None, address: int, size: int) -> int:
        try:
            room: Any = (ctypes.c_char * size).from_address(address)
            done = self._member.readinto(self._at, memoryview(room).cast("B"))
        except BaseException as error:
            self.error = self.error or error
            return -1
        self._at += done
        return done

    def _seek(self, _cookie: int | None, place: Any, whence: int) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._member.size}.get(whence)
        if base is None or base + place[0] < 0:
            ctypes.set_errno(errno.EINVAL)
            return -1
        self._at = place[0] = base + place[0]
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.fclose(ctypes.c_void_p(self.pointer))
