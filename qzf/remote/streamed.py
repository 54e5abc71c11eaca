"""Ranges whose bytes are used as they come, from asynchronous clients on fsspec's event loop."""

from __future__ import annotations

import asyncio
import os
import re
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Final, NamedTuple

from fsspec.asyn import get_loop, reset_lock, sync

from qzf.errors import QzfError, RemoteError
from qzf.remote.ranges import Ranges, Tail, TransientError, abandon, worded

__all__ = ["Answer", "Place", "StreamedRanges", "Version", "parse_content_range"]

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)


class Place(NamedTuple):
    """A range as an answer states it: its first byte, the byte behind its last, and the object's size."""

    start: int
    end: int
    total: int | None


def parse_content_range(text: str | None) -> Place | None:
    """A ``Content-Range`` header of bytes (RFC 9110, section 14.4); None for what is none."""
    match = _CONTENT_RANGE.fullmatch(text or "")
    if match is None:
        return None
    first, last, total = match.groups()
    return Place(int(first), int(last) + 1, None if total == "*" else int(total))


class Version(NamedTuple):
    """What changes with an object's content, as far as a server tells it."""

    etag: str | None = None
    modified: str | None = None

    def differs(self, other: Version) -> bool:
        """Whether they are of different contents; False where that cannot be said."""
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.modified and other.modified) and self.modified != other.modified


class Answer(NamedTuple):
    """What is known of an answer before its body is read.

    ``place`` is None where it is no range: then ``whole`` tells that it is the whole object, and not only
    its size. ``length`` is the body's, or that size. ``more`` reads some bytes, none at the end; ``close``
    drops the rest.
    """

    place: Place | None
    whole: bool
    length: int | None
    version: Version
    more: Callable[[], Awaitable[bytes]]
    close: Callable[[], None]


class StreamedRanges(Ranges):
    """An object that is asked for with a ``Range`` header and answered by a stream of bytes."""

    #: What the client raises that may pass, beside ``OSError``.
    transient: ClassVar[tuple[type[Exception], ...]]

    _version = Version()
    _size = -1
    _last_resort: weakref.finalize[..., Any] | None = None

    # --- what a client implements -----------------------------------------------------------------

    @abstractmethod
    def _client(self) -> Any:
        """A new instance of the file system, with ``asynchronous``: closing it is then left to us."""

    @abstractmethod
    async def _request(self, client: Any, wanted: str) -> Answer:
        """Ask for a range (``bytes=...``). Raises as `tail` and `open`, and what the client does."""

    @staticmethod
    @abstractmethod
    async def _shut(client: Any) -> None:
        """Close all connections."""

    # --- what follows from that -------------------------------------------------------------------

    def _connect(self) -> Any:
        client = self._client()
        self._last_resort = weakref.finalize(self, _shut_later, self._shut, client, os.getpid())
        self._last_resort.atexit = False  # the loop's thread has ended by then
        return client

    def _disconnect(self, made: Any) -> None:
        if self._last_resort is not None:
            self._last_resort.detach()
        if _on_loop():
            _shut_later(self._shut, made, os.getpid())
        else:
            sync(get_loop(), _shutting, self._shut, made)

    def tail(self, size: int) -> Tail:
        answer = self._answer(f"bytes=-{size}")
        try:
            place = answer.place or self._place_of_all(answer, size)
            if place is not None:
                return self._tail_of(answer, place, size)
        except BaseException:
            self._drop(answer)
            raise
        # The server cannot count from the end, but we can now.
        self._drop(answer)
        total = self.known_size(answer.length)
        self._size, start = total, max(total - size, 0)
        return Tail(total, self.open(start, total).whole() if total else b"")

    def _place_of_all(self, answer: Answer, size: int) -> Place | None:
        """The place of an answer that is the whole object, if that is not more than was asked for."""
        total = self.known_size(answer.length)
        return Place(0, total, total) if answer.whole and total <= size else None

    def _tail_of(self, answer: Answer, place: Place, size: int) -> Tail:
        total = self.known_size(place.total)
        start = max(total - size, 0)
        if place[:2] != (start, total) or answer.length not in (None, total - start):
            raise self._other_range(place.start)
        self._version, self._size = answer.version, total
        return Tail(total, StreamedBody(self, answer, total - start).whole())

    def open(self, start: int, end: int) -> StreamedBody:
        answer = self._answer(f"bytes={start}-{end - 1}")
        try:
            self._check(answer, start, end)
        except BaseException:
            self._drop(answer)
            raise
        return StreamedBody(self, answer, end - start)

    def check_unchanged(self) -> None:
        """Each answer has been compared already."""

    def _check(self, answer: Answer, start: int, end: int) -> None:
        place = answer.place
        if place is None:
            raise RemoteError("the server does not serve ranges: download the file first", file=self.name)
        if place.total not in (None, self._size):
            raise self.changed("has another size")
        if self._version.differs(answer.version):
            raise self.changed()
        if place[:2] != (start, end) or answer.length not in (None, end - start):
            raise self._other_range(start)

    def _other_range(self, start: int) -> RemoteError:
        return RemoteError(
            "the server answers with another range than was asked for", file=self.name, offset=start
        )

    def _answer(self, wanted: str) -> Answer:
        answer: Answer = self.wait(self._request, self.file_system, wanted)
        return answer

    def _drop(self, answer: Answer) -> None:
        self.wait(_closing, answer.close)

    def wait(self, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Run a coroutine on the event loop. Raises ``TransientError`` and ``RemoteError`` for its errors."""
        try:
            return sync(get_loop(), call, *args)
        except (QzfError, TransientError, FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # whatever the libraries below raise
            if isinstance(error, (OSError, *self.transient)):
                raise TransientError(worded(error)) from error
            raise RemoteError(worded(error), file=self.name) from error


class StreamedBody:
    """The body of an answer, of ``size`` bytes and not one more."""

    def __init__(self, ranges: StreamedRanges, answer: Answer, size: int) -> None:
        self._ranges, self._answer = ranges, answer
        self._left = size
        self._parts: deque[memoryview] = deque()
        self._broken: Exception | None = None

    def readinto(self, buffer: memoryview) -> int:
        if not self._parts:
            self._parts.extend(self._ranges.wait(self._collect, min(len(buffer), self._left)))
        done = 0
        while self._parts and done < len(buffer):
            part = self._parts.popleft()
            count = min(len(part), len(buffer) - done)
            buffer[done : done + count] = part[:count]
            if count < len(part):
                self._parts.appendleft(part[count:])
            done += count
        return done

    async def _collect(self, size: int) -> list[memoryview]:
        """Parts of ``size`` bytes or more; less at the end, or where the connection breaks."""
        parts: list[memoryview] = []
        while size > 0:
            try:
                part = b"" if self._broken else await self._answer.more()
            except Exception as error:  # clients have many words for a connection that is gone
                self._broken = error
            if self._broken and not parts:
                raise TransientError(worded(self._broken)) from self._broken
            if self._broken or not part:
                break
            if len(part) > self._left:
                raise RemoteError("the server sends more than it was asked for", file=self._ranges.name)
            parts.append(memoryview(part))
            size -= len(part)
            self._left -= len(part)
        return parts

    def whole(self) -> bytes:
        """All of the body, which must be little. Raises ``TransientError`` where it ends early."""
        data = bytearray(self._left)
        done = 0
        try:
            while done < len(data):
                count = self.readinto(memoryview(data)[done:])
                if not count:
                    raise TransientError(f"{done} bytes came in place of {len(data)}")
                done += count
        finally:
            self.close()
        return bytes(data)

    def close(self) -> None:
        self._parts.clear()
        if _on_loop():
            self._answer.close()
        else:
            self._ranges.wait(_closing, self._answer.close)


def _on_loop() -> bool:
    """Whether this is the event loop's own thread, which cannot wait for itself: it may collect garbage."""
    try:
        return asyncio.get_running_loop() is get_loop()
    except RuntimeError:
        return False


async def _closing(close: Callable[[], None]) -> None:
    close()


async def _shutting(shut: Callable[[Any], Coroutine[Any, Any, None]], client: Any) -> None:
    await shut(client)
    await asyncio.sleep(0)  # sockets are closed in the loop's next turn


def _shut_later(shut: Callable[[Any], Coroutine[Any, Any, None]], client: Any, process: int) -> None:
    """Close what nobody has closed, without waiting: this may be run by the event loop itself."""
    if process != os.getpid():
        abandon(client)
        return
    asyncio.run_coroutine_threadsafe(shut(client), get_loop())


if hasattr(os, "register_at_fork"):
    # A child process begins without the event loop, whose thread it does not have; older versions of fsspec
    # do not see to that.
    os.register_at_fork(after_in_child=reset_lock)
