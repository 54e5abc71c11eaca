"""Sources at URLs are closed, go on in child processes, and are read in spans."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qzf
from qzf.errors import OptionError
from tests.range_server import RangeServer

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


def _same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)


def _ranges(server: RangeServer, since: int = 0) -> list[tuple[int, int]]:
    """First and last byte of each request, those for a container's end left out."""
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked.range or "") for asked in server.requests[since:]]
    return [(int(match[1]), int(match[2])) for match in found if match]


def _sockets() -> int:
    folder = Path("/proc/self/fd")
    links = []
    for entry in folder.iterdir():
        try:
            links.append(os.readlink(entry))  # noqa: PTH115  # the target is no path
        except FileNotFoundError:
            continue
    return sum(link.startswith("socket:") for link in links)


def _settled(sockets: int) -> bool:
    """Whether no more sockets are open than that; the server's threads take a moment."""
    for _ in range(200):
        if _sockets() <= sockets:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_closing_leaves_nothing_open(server: RangeServer) -> None:
    with qzf.open(server.url) as container:  # fsspec's event loop stays from now on
        container.load()
    assert _settled(1_000_000)
    time.sleep(0.05)
    before, threads = _sockets(), threading.active_count()
    for _ in range(3):
        with qzf.open(server.url) as container:
            container.load()
            next(iter(container.iter_bytes("blk.0.q8_0")))
            next(iter(container.stream()))
        with pytest.raises(OptionError, match="closed"):
            container.tensor("blk.0.q8_0")
        container.close()
    with pytest.raises(qzf.QzfError):
        qzf.open(server.url, digest="0" * 64)
    gc.collect()
    assert _settled(before)
    assert threading.active_count() <= threads + 8  # the server's own, one for each connection


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_what_is_not_closed_is_closed_when_it_goes(server: RangeServer) -> None:
    with qzf.open(server.url):
        pass
    time.sleep(0.05)
    before = _sockets()
    container = qzf.open(server.url)
    container.tensor("blk.0.q8_0")
    assert _sockets() > before
    del container
    gc.collect()
    assert _settled(before)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_the_event_loop_itself_may_close(server: RangeServer) -> None:
    """As where garbage happens to be collected in its thread."""
    from fsspec.asyn import get_loop, sync

    with qzf.open(server.url):
        pass
    time.sleep(0.05)
    before = _sockets()
    container = qzf.open(server.url)
    span = container.reader.source.span(1000, 2_000_000)
    span.readinto(1000, bytearray(10))

    async def close() -> None:
        span.close()
        container.close()

    sync(get_loop(), close, timeout=10)
    assert _settled(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_children_make_connections_of_their_own(server: RangeServer, modeled: Path) -> None:
    context = multiprocessing.get_context("fork")
    with qzf.open(server.url) as container, qzf.open(modeled) as local:
        begun = container.iter_bytes("blk.0.q8_0")
        head = bytes(next(iter(begun)))
        queue = context.SimpleQueue()

        def child() -> None:
            try:
                good = _same(container.tensor("blk.1.q6_k"), local.tensor("blk.1.q6_k"))
                container.close()
                queue.put(good)
            except BaseException as error:
                queue.put(repr(error))

        children = [context.Process(target=child) for _ in range(3)]
        for one in children:
            one.start()
        for one in children:
            one.join(30)
        assert [queue.get() for _ in children] == [True] * 3
        # And the parent's still work.
        assert head + b"".join(begun) == local.tensor("blk.0.q8_0").tobytes()
        assert _same(container.tensor("blk.1.q4_0"), local.tensor("blk.1.q4_0"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_span_goes_on_in_a_child(server: RangeServer, modeled: Path) -> None:
    data, context = modeled.read_bytes(), multiprocessing.get_context("fork")
    with qzf.open(server.url) as container:
        span = container.reader.source.span(1000, 2_000_000)
        first = bytearray(1000)
        span.readinto(1000, first)
        queue = context.SimpleQueue()

        def child() -> None:
            more = bytearray(500_000)
            span.readinto(1_000_000, more)
            span.close()
            queue.put(more == data[1_000_000:1_500_000])

        one = context.Process(target=child)
        one.start()
        one.join(30)
        assert queue.get() is True
        rest = bytearray(1_999_000)
        span.readinto(2000, rest)
        span.close()
        assert first + rest == data[1000:2_001_000]


def test_a_span_is_read_in_rising_order(server: RangeServer, modeled: Path) -> None:
    data = modeled.read_bytes()
    with qzf.open(server.url) as container:
        source = container.reader.source
        for size in (2_000_000, len(data) - 1000):  # also into what came with the opening
            before = server.count
            with source.span(1000, size) as span:
                for at, count in (
                    (1000, 10),
                    (1010, 0),
                    (5000, 100_000),
                    (1_500_000, 50),
                    (1000 + size - 9, 9),
                ):
                    room = bytearray(count)
                    span.readinto(at, room)
                    assert room == data[at : at + count]
                for at in (0, 1000, 5000, 1000 + size):
                    with pytest.raises(OptionError, match="not ahead"):
                        span.readinto(at, bytearray(1))
            assert server.count - before == 1
            assert _ranges(server)[-1] == (1000, min(1000 + size, len(data) - 65536) - 1)
        with pytest.raises(OptionError, match="not within"):
            source.span(1000, len(data))
        with source.span(len(data) - 100, 100) as span:
            room = bytearray(100)
            span.readinto(len(data) - 100, room)
            assert room == data[-100:]
