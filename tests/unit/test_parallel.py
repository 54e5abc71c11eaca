"""Work on threads: order, bounds, errors."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from qzf.parallel import ordered_map, share, share_in_order


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


# --- in order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_finished_in_order_and_one_at_a_time(threads: int) -> None:
    draw, finished, at = random.Random(threads), list[int](), threading.Lock()
    begun = 0

    def items() -> Iterator[int]:
        nonlocal begun
        for begun in range(300):
            assert begun - len(finished) <= 2 * threads + 2
            yield begun

    def work(item: int) -> int:
        time.sleep(draw.random() / 1000)
        return item

    def finish(item: int) -> None:
        assert at.acquire(blocking=False)
        time.sleep(draw.random() / 2000)
        finished.append(item)
        at.release()

    share_in_order(work, finish, items(), threads)
    assert finished == list(range(300))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("where", ["work", "finish", "items", "after"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_anywhere_ends_all_threads(error: type[BaseException], where: str, threads: int) -> None:
    here, finished = threading.active_count(), list[int]()

    def fail(place: str, item: int) -> int:
        if place == where and item >= 20:
            raise error
        time.sleep(0.0003)
        return item

    def finish(item: int) -> None:
        fail("finish", item)
        finished.append(item)

    with pytest.raises(error):
        share_in_order(
            lambda item: fail("work", item),
            finish,
            (fail("items", item) for item in range(100_000)),
            threads,
            lambda: fail("after", len(finished)) and None,
        )
    assert threading.active_count() == here
    assert finished == list(range(len(finished))) and len(finished) < 1000


def test_threads_wait_for_a_slow_item_and_end_with_it() -> None:
    """The others fill the window and wait; an interrupt of the calling thread wakes them."""
    slow = threading.Event()

    def work(item: int) -> None:
        if item == 0:
            slow.wait(30)

    def after() -> None:
        raise KeyboardInterrupt

    threading.Timer(0.2, slow.set).start()
    with pytest.raises(KeyboardInterrupt):
        share_in_order(work, lambda _: time.sleep(0.001), range(1000), 3, after)
