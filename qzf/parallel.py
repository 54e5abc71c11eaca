"""Running chunk work on threads: results in order, a bounded number of chunks in flight."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import ClassVar, Final, Generic, NamedTuple, TypeVar

from qzf.errors import OptionError

__all__ = ["Crew", "ForkSafeLock", "Progress", "default_threads", "ordered_map", "whole_number"]

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
    count = whole_number(threads)
    if count is None or not 1 <= count <= _MAX_THREADS:
        raise OptionError(f"the number of threads must be from 1 to {_MAX_THREADS}, not {threads!r}")
    return count


def whole_number(value: object) -> int | None:
    """``value`` as an int, if it is an integer of any kind (numpy's are, a bool is none)."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is what is tried
    except TypeError:
        return None


def ordered_map(work: Callable[[_T], _R], items: Iterable[_T], threads: int) -> Generator[_R]:
    """``map(work, items)`` on ``threads`` threads, in order; the calling thread is one of them.

    It alone takes ``items`` and gets the results, and works itself while the next one is not there: a
    further thread that only waits would make all of them wait for the interpreter. At most 2 x ``threads``
    + 2 items are taken ahead of the one that is yielded, which bounds memory. An error in ``work`` is raised
    in its turn; what has not begun by then, or when the iterator is closed, is dropped. Raises
    ``OptionError`` in a child process, which has none of the threads.
    """
    window, waiting = 2 * threads + 2, iter(items)
    crew = Crew(work, threads)
    taken = yielded = 0
    more = True
    try:
        while True:
            while more and taken - yielded < window:
                try:
                    item = next(waiting)
                except StopIteration:
                    more = False
                    break
                crew.add(taken, item)
                taken += 1
            if yielded == taken:
                return
            yield crew.result(yielded)
            yielded += 1
    finally:
        crew.dismiss()


class _Outcome(NamedTuple, Generic[_R]):
    """What became of an item: a result, or an error."""

    value: _R | None
    error: BaseException | None


class Crew(Generic[_T, _R]):
    """Threads that work on what the calling thread adds; it may lend a hand."""

    def __init__(self, work: Callable[[_T], _R], threads: int) -> None:
        self._work, self._most = work, threads - 1
        self._helpers: list[threading.Thread] = []
        self._tasks: deque[tuple[int, _T]] = deque()
        self._outcomes: dict[int, _Outcome[_R]] = {}
        self._over = False
        self._process = os.getpid()
        lock = threading.Lock()
        self._added, self._done = threading.Condition(lock), threading.Condition(lock)

    def add(self, ordinal: int, item: _T) -> None:
        """Have an item worked on. The first is left to the calling thread, if no other comes."""
        self._stay()
        with self._added:
            self._tasks.append((ordinal, item))
            self._added.notify()
        if ordinal and len(self._helpers) < self._most:
            helper = threading.Thread(target=self._help, name=f"qzf-{len(self._helpers)}", daemon=True)
            self._helpers.append(helper)
            helper.start()

    def result(self, ordinal: int) -> _R:
        """The result of an item that was added; the calling thread works on others until it is there."""
        self._stay()
        while ordinal not in self._outcomes:
            with self._done:
                task = self._tasks.popleft() if self._tasks else None
                if task is None and ordinal not in self._outcomes:
                    self._done.wait()
            if task is not None:
                self._do(*task, Exception)
        value, error = self._outcomes.pop(ordinal)
        try:
            if error is not None:
                raise error
            return value  # type: ignore[return-value]  # there is one of the two
        finally:
            error = None  # its traceback has this frame

    def _stay(self) -> None:
        """Raises ``OptionError`` in a child process: its helpers are gone, and the lock may never be free."""
        if self._process != os.getpid():
            raise OptionError("what was begun before a fork cannot go on in the child: begin it there")

    def _help(self) -> None:
        while True:
            with self._added:
                while not self._tasks and not self._over:
                    self._added.wait()
                if self._over:
                    return
                task = self._tasks.popleft()
            self._do(*task, BaseException)
            del task

    def _do(self, ordinal: int, item: _T, caught: type[BaseException]) -> None:
        """Work on an item. What interrupts the calling thread is nobody's outcome, and passes through."""
        try:
            self._keep(ordinal, _Outcome(self._work(item), None))
        except caught as error:
            self._keep(ordinal, _Outcome(None, error))

    def _keep(self, ordinal: int, outcome: _Outcome[_R]) -> None:
        with self._done:
            self._outcomes[ordinal] = outcome
            self._done.notify()

    def dismiss(self) -> None:
        """Begin nothing more, and wait for what has begun.

        In a child process there are no helpers, and one may have held the lock when it was forked.
        """
        self._over = True
        if self._process != os.getpid():
            return
        with self._added:
            self._tasks.clear()
            self._added.notify_all()
        for helper in self._helpers:
            if helper.ident is not None:
                helper.join()
        self._outcomes.clear()


class ForkSafeLock:
    """A lock that is free in a child process, whoever held it when the process forked.

    Only for state that is whole at each moment that another thread may fork, or is lost with the thread.
    """

    _all: ClassVar[weakref.WeakSet[ForkSafeLock]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @classmethod
    def renew(cls) -> None:
        """Free all of them; called in a child process."""
        for one in cls._all:
            one._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ForkSafeLock.renew)
