"""Work on threads: order, bounds, errors."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from qzf.errors import OptionError
from qzf.parallel import default_threads, ordered_map


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_keep_their_order(threads: int) -> None:
    draw = random.Random(threads)

    def work(item: int) -> int:
        time.sleep(draw.random() / 1000)
        return item

    assert list(ordered_map(work, range(300), threads)) == list(range(300))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_items_are_taken_and_results_got_by_the_calling_thread(threads: int) -> None:
    here, taken = threading.get_ident(), 0

    def items() -> Iterator[int]:
        nonlocal taken
        for taken in range(1, 101):
            assert threading.get_ident() == here
            yield taken

    for got, _ in enumerate(ordered_map(lambda item: item, items(), threads)):
        assert taken - got <= 2 * threads + 2


def test_all_threads_work_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=30)
    assert len(list(ordered_map(lambda _: barrier.wait(), range(3), 3))) == 3


@pytest.mark.parametrize(("items", "most"), [(0, 0), (1, 0), (2, 1), (4, 3), (100, 7)])
def test_no_more_threads_than_there_is_work_for(items: int, most: int) -> None:
    here = threading.get_ident()

    def work(_: int) -> int:
        time.sleep(0.002)
        return threading.get_ident()

    used = set(ordered_map(work, range(items), 8))
    assert len(used - {here}) <= most


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_error_is_raised_in_its_turn_and_ends_the_work(threads: int) -> None:
    begun = list[int]()

    def work(item: int) -> int:
        begun.append(item)
        if item in (20, 22):
            time.sleep(0.01 if item == 20 else 0)  # of two errors the second comes first
            raise ValueError(item)
        return item

    got = list[int]()
    with pytest.raises(ValueError, match=r"^20$"):
        got.extend(ordered_map(work, range(1000), threads))
    assert got == list(range(20)) and max(begun) < 20 + 2 * threads + 2


def test_nothing_is_begun_once_an_error_was_raised_or_the_iterator_closed() -> None:
    begun = list[int]()

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.005)

    results = ordered_map(work, range(1000), 4)
    next(results)
    results.close()
    count = len(begun)
    time.sleep(0.03)
    assert len(begun) == count < 15


def test_an_error_of_the_items_passes_through() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyError("items")

    with pytest.raises(KeyError, match="items"):
        list(ordered_map(lambda item: item, items(), 2))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["items", "results", "work"])
def test_an_interrupt_of_the_calling_thread_passes_through(where: str, threads: int) -> None:
    """Wherever that thread is; and though another has failed before."""
    here = threading.get_ident()

    def interrupt(place: str, item: int) -> int:
        if place == where and item >= 20 and threading.get_ident() == here:
            raise KeyboardInterrupt
        return item

    def work(item: int) -> int:
        time.sleep(0.001)
        if item > 100 and threading.get_ident() != here:
            raise ValueError
        return interrupt("work", item)

    def run() -> None:
        for result in ordered_map(work, (interrupt("items", item) for item in range(10_000)), threads):
            interrupt("results", result)

    with pytest.raises(KeyboardInterrupt):
        run()


def test_a_failure_keeps_nothing_alive() -> None:
    """An error's traceback has the frames of those that worked on the item, but nothing leads back to it."""

    class Item:
        pass

    item = Item()
    kept = weakref.ref(item)

    def work(item: Item) -> None:
        raise ValueError

    gc.disable()
    try:
        with suppress(ValueError):
            list(ordered_map(work, [item, Item()], 2))
        del item
        assert kept() is None
    finally:
        gc.enable()


_FORKED_CREW = """
import os, signal, warnings
from qzf.errors import OptionError
from qzf.parallel import Crew
warnings.simplefilter("ignore")
crew = Crew(lambda item: item, 2)
crew.add(0, 0)
crew.add(1, 1)
with crew._added:
    child = os.fork()
    if not child:
        signal.alarm(5)
        refused = 0
        for call in (lambda: crew.add(2, 2), lambda: crew.result(1)):
            try:
                call()
            except OptionError:
                refused += 1
        crew.dismiss()
        os._exit(5 + refused)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), crew.result(0), crew.result(1))
crew.dismiss()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_crew_is_left_alone_in_a_child_process() -> None:
    """Its lock may have been held by a thread that the child does not have."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKED_CREW], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["7", "0", "1"]


@pytest.mark.parametrize("given", [3, np.int64(3), np.uint8(3)])
def test_numbers_of_threads(given: int) -> None:
    assert default_threads(given) == 3
    assert type(default_threads(given)) is int


@pytest.mark.parametrize("wrong", [0, -1, 257, True, np.bool_(True), 2.0, "2", np.float64(2)])
def test_what_is_no_number_of_threads(wrong: int) -> None:
    with pytest.raises(OptionError, match="the number of threads must be from 1 to 256"):
        default_threads(wrong)
