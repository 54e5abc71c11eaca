"""Running chunk work on threads: results in order, a bounded number of chunks in flight."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from qzf.errors import OptionError

__all__ = ["Progress", "default_threads", "ordered_map"]

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
