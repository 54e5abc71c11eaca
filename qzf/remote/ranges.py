"""How an object of a remote file system is asked for ranges: what all kinds of them share.

Each kind makes an instance of its file system for itself, in each process, so that closing it disturbs
nobody else, and none is used after a fork, which connections and event loops do not survive.
"""

from __future__ import annotations

import os
import re
import weakref
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from qzf.errors import OptionError, RemoteError, SourceChangedError
from qzf.limits import MAX_MEMBER
from qzf.parallel import ForkSafeLock

__all__ = ["BUSY", "DENIED", "MISSING", "Body", "Ranges", "Tail", "TransientError", "abandon", "worded"]

#: HTTP status codes (RFC 9110, section 15): what may be otherwise in a moment, as 500 and above may; what is
#: not there; what is not for us.
BUSY: Final = frozenset({408, 425, 429})
MISSING: Final = frozenset({404, 410})
DENIED: Final = frozenset({401, 403, 407})

#: Characters of a foreign error's text that are passed on: it may quote what a server has sent.
_MAX_TEXT: Final = 200

#: What is secret in a URL that such a text quotes, or may be: user and password, and what follows the path.
_QUOTED: Final = re.compile(r"""(?<=//)[^\s/@'"<>]*@|(?<=[^\s'"])\?[^\s'"<>]+|(?<=[^\s'"(])\#[^\s'"<>]+""")

#: What a child process has of its parent's connections. It is kept until the end: to close it here would
#: take the parent's sockets out of the event loop that both see.
_abandoned: Final[list[object]] = []


def abandon(what: object) -> None:
    """Never touch this again, not even to free it."""
    if what is not None:
        _abandoned.append(what)


def worded(error: BaseException) -> str:
    """An error of a library below, in words, without what may be secret in the URLs that it quotes."""
    text = _QUOTED.sub("", str(error))
    text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class TransientError(Exception):
    """A request has failed in a way that may pass: it is tried again."""


class Tail(NamedTuple):
    """The size of an object, and its last bytes."""

    size: int
    data: bytes


class Body(Protocol):
    """The bytes of one answer, read one after another."""

    def readinto(self, buffer: memoryview) -> int:
        """Read some bytes to ``buffer``, at least one; 0 where none is left. Raises ``TransientError``."""

    def close(self) -> None:
        """Drop what was not read."""


class Ranges(ABC):
    """An object that is read by ranges. ``name`` is what errors call it."""

    _all: ClassVar[weakref.WeakSet[Ranges]] = weakref.WeakSet()

    def __init__(self, url: str, name: str, options: dict[str, Any]) -> None:
        self.url, self.name, self._options = url, name, options
        self._lock = ForkSafeLock()
        self._made: Any = None
        self._closed = False
        self._all.add(self)

    # --- what a kind implements -------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> Any:
        """A new instance of the file system."""

    @abstractmethod
    def _disconnect(self, made: Any) -> None:
        """Close what an instance holds."""

    @abstractmethod
    def tail(self, size: int) -> Tail:
        """The object's size and its last ``size`` bytes, or all where it has less.

        Raises ``FileNotFoundError``, ``PermissionError``, ``RemoteError``, ``TransientError``.
        """

    @abstractmethod
    def open(self, start: int, end: int) -> Body:
        """Ask for the bytes from ``start`` to ``end``, which are within the object.

        Raises ``SourceChangedError`` where it is no longer what `tail` saw, and as `tail`.
        """

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise ``SourceChangedError`` where the object is seen to be another than `tail` saw."""

    # --- what they share --------------------------------------------------------------------------

    @property
    def file_system(self) -> Any:
        """This process's instance of the file system."""
        with self._lock:
            if self._closed:
                raise OptionError("the source is closed", file=self.name)
            if self._made is None:
                self._made = self._connect()
            return self._made

    def close(self) -> None:
        """Close all connections. Closing twice is no error."""
        with self._lock:
            made, self._made, self._closed = self._made, None, True
        if made is not None:
            self._disconnect(made)

    def known_size(self, size: object) -> int:
        """``size`` if it is one."""
        if not isinstance(size, int):
            raise RemoteError("the server does not tell the size of the object", file=self.name)
        if not 0 <= size <= MAX_MEMBER:
            raise RemoteError(f"the server tells a size of {size} bytes", file=self.name)
        return size

    def changed(self, how: str = "is another one") -> SourceChangedError:
        """The error for an object that is no longer the one that was opened."""
        return SourceChangedError(f"the remote object {how} than when it was opened", file=self.name)

    @classmethod
    def leave(cls) -> None:
        """Part from the parent process; called in a child process."""
        for one in cls._all:
            abandon(one._made)
            one._made = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Ranges.leave)
