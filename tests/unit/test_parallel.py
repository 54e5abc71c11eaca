"""Work on threads: order, bounds, errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from qzf.parallel import ordered_map, share


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_keep_their_order(threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item

    assert list(ordered_map(work, range(40), threads)) == list(range(40))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_item_is_shared_out_once(threads: int) -> None:
    done, calls, here = list[int](), list[bool](), threading.get_ident()

    def after() -> None:
        calls.append(threading.get_ident() == here)

    share(done.append, range(500), threads, after)
    assert sorted(done) == list(range(500))
    assert all(calls) and (threads > 1 or len(calls) == 500)


def test_all_threads_work_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=30)
    share(lambda _: barrier.wait(), range(3), 3)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_first_of_several_errors_is_raised(threads: int) -> None:
    begun = list[int]()
    together = threading.Barrier(threads, timeout=30)

    def work(item: int) -> None:
        begun.append(item)
        if item >= 10 - threads:
            together.wait()  # the first error is not the first to be raised
            time.sleep(0.02 * (10 - item))
            raise ValueError(item)

    with pytest.raises(ValueError, match=f"^{10 - threads}$"):
        share(work, range(100), threads)
    assert sorted(begun) == list(range(10))


def test_an_error_of_the_items_is_raised_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyError("items")

    done = list[int]()
    with pytest.raises(KeyError, match="items"):
        share(done.append, items(), 2)
    assert sorted(done) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_after_an_item_ends_all_threads(error: type[BaseException]) -> None:
    def after() -> None:
        raise error

    threads, done = threading.active_count(), list[int]()

    def work(item: int) -> None:
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(error):
        share(work, range(100_000), 3, after)
    assert threading.active_count() == threads and len(done) < 1000
