"""Running chunk work on threads: results in order with a bounded number in flight, or no results at all."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from qzf.errors import OptionError

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Progress", "default_threads", "ordered_map", "share", "share_in_order"]

#: Called from the calling thread with (input bytes done, input bytes in all, output bytes so far).
Progress = Callable[[int, int, int], None]

_T = TypeVar("_T")
_R = TypeVar("_R")

#: More threads than this only add memory, and open files when many small ones are packed.
_MAX_THREADS: Final = 256


def default_threads(threads: int | None) -> int:
    """``threads``, or the number of processors this process may use; raises ``OptionError`` out of range."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(threads, int) or not 1 <= threads <= _MAX_THREADS:
        raise OptionError(f"the number of threads must be from 1 to {_MAX_THREADS}, not {threads!r}")
    return threads


def ordered_map(work: Callable[[_T], _R], items: Iterable[_T], threads: int) -> Generator[_R]:
    """``map(work, items)`` on ``threads`` threads, in order.

    At most 2 x ``threads`` + 2 items are taken ahead of the one that is yielded, which bounds memory. An
    error in ``work`` is raised in its turn; what has not begun by then, or when the iterator is closed, is
    dropped.
    """
    from concurrent.futures import ThreadPoolExecutor

    window = 2 * threads + 2
    with ThreadPoolExecutor(threads, thread_name_prefix="qzf") as pool:
        pending: deque[Future[_R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def share(
    work: Callable[[_T], object],
    items: Iterable[_T],
    threads: int,
    after: Callable[[], object] = lambda: None,
) -> None:
    """``work`` on each of ``items``, by ``threads`` threads of which the calling one is one.

    Each thread takes the next item when it is through with its last; ``items`` is never asked by two of them
    at once. The calling thread calls ``after`` after each item of its own. Once something raises, no item is
    begun any more; of several errors that of the first item is raised.
    """
    _Crew(work, iter(items)).share(threads, after, lambda: None)


def share_in_order(
    work: Callable[[_T], _R],
    finish: Callable[[_R], object],
    items: Iterable[_T],
    threads: int,
    after: Callable[[], object] = lambda: None,
) -> None:
    """As ``share``; results go to ``finish`` in the order of ``items``, one at a time, by any of the threads.

    At most 2 x ``threads`` + 2 items are begun and not finished, which bounds memory.
    """
    order = _Order(work, finish, 2 * threads + 2)
    _Crew(order.run, order.numbered(items)).share(threads, after, order.give_up)


class _Crew(Generic[_T]):
    """Threads that share the items of one iterator."""

    def __init__(self, work: Callable[[_T], object], items: Iterator[_T]) -> None:
        self._work, self._items = work, items
        self._taken = 0
        self._lock = threading.Lock()
        self.stop = False
        #: Ordinals of items, and what they raised.
        self.errors: list[tuple[int, BaseException]] = []

    def share(self, threads: int, after: Callable[[], object], wake: Callable[[], object]) -> None:
        """As the function ``share``. At the end ``wake`` ends what threads may be waiting for."""
        helpers = [threading.Thread(target=self.run, name=f"qzf-{i}", daemon=True) for i in range(1, threads)]
        try:
            for helper in helpers:
                helper.start()
            self.run(after)
        finally:
            self.stop = True
            wake()
            for helper in helpers:
                if helper.ident is not None:
                    helper.join()
        if self.errors:
            raise min(self.errors, key=lambda entry: entry[0])[1]

    def run(self, after: Callable[[], object] = lambda: None) -> None:
        """Work until there is nothing left, or something was raised."""
        while not self.stop:
            with self._lock:
                ordinal, self._taken = self._taken, self._taken + 1
                try:
                    item = next(self._items)
                except StopIteration:
                    return
                except BaseException as error:
                    self._fail(ordinal, error)
                    return
            try:
                self._work(item)
            except BaseException as error:
                self._fail(ordinal, error)
                return
            after()

    def _fail(self, ordinal: int, error: BaseException) -> None:
        self.errors.append((ordinal, error))
        self.stop = True


class _Order(Generic[_T, _R]):
    """Results on their way to ``finish``.

    Whoever has the next result, and finds nobody at it, finishes that and all that is ready behind it.
    """

    def __init__(self, work: Callable[[_T], _R], finish: Callable[[_R], object], window: int) -> None:
        self._work, self._finish, self._window = work, finish, window
        self._ready: dict[int, _R] = {}
        self._next = 0
        self._turn = threading.Lock()
        self._moved = threading.Condition()
        self._over = False

    def numbered(self, items: Iterable[_T]) -> Iterator[tuple[int, _T]]:
        """The items, each as soon as it is near enough to the one that is finished next."""
        for ordinal, item in enumerate(items):
            with self._moved:
                while not self._over and ordinal - self._next >= self._window:
                    self._moved.wait()
            yield ordinal, item

    def run(self, numbered: tuple[int, _T]) -> None:
        """Do one item, and finish what can be finished."""
        ordinal, item = numbered
        try:
            self._ready[ordinal] = self._work(item)
            while self._next in self._ready and self._turn.acquire(blocking=False):
                try:
                    self._drain()
                finally:
                    self._turn.release()
        except BaseException:
            self.give_up()
            raise

    def _drain(self) -> None:
        while self._next in self._ready:
            self._finish(self._ready.pop(self._next))
            with self._moved:
                self._next += 1
                self._moved.notify_all()

    def give_up(self) -> None:
        """Let nobody wait any more."""
        with self._moved:
            self._over = True
            self._moved.notify_all()
