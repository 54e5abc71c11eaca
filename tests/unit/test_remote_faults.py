"""Servers that fail, lie, or have another file by now: tried again where that helps, then a typed error."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import qzf
from qzf.cli.exits import Exit, exit_code
from qzf.container import reader
from qzf.errors import (
    ChecksumError,
    DamageError,
    FormatError,
    RemoteError,
    SourceChangedError,
    TruncatedError,
)
from qzf.format.ids import TRAILER_SIZE
from qzf.format.wire import Trailer
from qzf.remote import source as remote_source
from qzf.remote.streamed import Version, parse_content_range
from tests.range_server import RangeServer, serving

fsspec = pytest.importorskip("fsspec")
aiohttp = pytest.importorskip("aiohttp")

NAME = "blk.0.q8_0"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are not made."""
    made: list[float] = []
    monkeypatch.setattr(remote_source, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.fixture
def expected(modeled: Path) -> Any:
    with qzf.open(modeled) as container:
        return container.tensor(NAME)


# --- tried again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["drops", "refusals"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_passes_is_tried_again(
    what: str, times: int, server: RangeServer, expected: Any, pauses: list[float]
) -> None:
    server.part = 0.01  # before a record has come as a whole
    setattr(server, what, times)
    with qzf.open(server.url) as container:  # in opening
        assert server.count == 1 + times
        container.tensor("blk.0.q4_0")
        before = server.count
        setattr(server, what, times)
        assert np.array_equal(container.tensor(NAME), expected)  # and in reading
        assert server.count - before == 1 + times
    assert len(pauses) == 2 * times
    assert all(0.1 < pause < 0.4 for pause in pauses[::times])
    assert times == 1 or all(0.2 < pause < 0.8 for pause in pauses[1::2])


def test_a_dropped_connection_is_resumed_where_it_broke(server: RangeServer, expected: Any) -> None:
    with qzf.open(server.url) as container:
        container.tensor("blk.0.q4_0")
        before = server.count
        server.drops, server.rate = 1, 10_000_000
        assert np.array_equal(container.tensor(NAME), expected)
    first, second = (
        tuple(map(int, re.findall(r"\d+", asked.range or ""))) for asked in server.requests[before:]
    )
    assert second[1] == first[1]
    assert first[0] < second[0] < first[1]


def test_a_server_that_stops_answering(server: RangeServer, expected: Any) -> None:
    options = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_read=0.2)}}
    with qzf.open(server.url, storage_options=options) as container:
        server.stalls = 1
        assert np.array_equal(container.tensor(NAME), expected)
        server.stalls, server.part = 3, 0.01
        with pytest.raises(RemoteError, match=r"tried 3 times.*Timeout"):
            container.tensor("blk.1.q8_0")


@pytest.mark.parametrize(
    ("what", "status"), [("drops", 0), ("refusals", 500), ("refusals", 503), ("refusals", 429)]
)
def test_three_failures_are_an_error(
    what: str, status: int, server: RangeServer, pauses: list[float]
) -> None:
    server.status, server.part = status, 0.01
    with qzf.open(server.url) as container:
        container.tensor("blk.0.q4_0")
        before = server.count
        setattr(server, what, 3)
        with pytest.raises(RemoteError, match="tried 3 times") as caught:
            container.tensor(NAME)
        error = caught.value
        assert error.file == server.url and error.tensor == NAME and error.chunk is not None
        assert error.offset is not None and error.offset >= container.chunks["offset"][0]
        assert error.__cause__ is not None
        assert str(status) in str(error) or not status
        assert exit_code(error) == Exit.IO
        assert server.count == before + 3 and len(pauses) == 2
        assert np.array_equal(container.tensor(NAME), container.tensor(NAME))  # and then it is there again
    setattr(server, what, 3)
    with pytest.raises(RemoteError, match="tried 3 times"):
        qzf.open(server.url)
    with qzf.open(server.url) as container:
        setattr(server, what, 9)
        with pytest.raises(RemoteError, match="tried 3 times"):  # of the shared tables too
            container.tensor(NAME)


def test_no_server_at_all(server: RangeServer) -> None:
    with serving(b"") as other:
        url = other.url
    with pytest.raises(RemoteError, match="tried 3 times") as caught:
        qzf.open(url)
    assert isinstance(caught.value.__cause__, OSError)


# --- refused at once ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, FileNotFoundError),
        (410, FileNotFoundError),
        (401, PermissionError),
        (403, PermissionError),
        (400, RemoteError),
        (204, RemoteError),
        (304, RemoteError),
    ],
)
def test_refusals(status: int, kind: type[Exception], server: RangeServer) -> None:
    server.status, server.refusals = status, 1
    with pytest.raises(kind) as caught:
        qzf.open(server.url)
    assert server.count == 1
    assert str(status) in str(caught.value)
    assert exit_code(caught.value) == Exit.IO
    if isinstance(caught.value, OSError):
        assert caught.value.filename == server.url


def test_refusals_after_opening(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        container.tensor("blk.0.q4_0")
        for status, kind in ((404, SourceChangedError), (403, PermissionError), (400, RemoteError)):
            server.status, server.refusals = status, 1
            before = server.count
            with pytest.raises(kind):
                container.tensor(NAME)
            assert server.count == before + 1


# --- ranges that are none -------------------------------------------------------------------------


def test_a_server_that_ignores_ranges(server: RangeServer) -> None:
    server.ignores_ranges = True
    server.data = bytes(64 << 20)
    tracemalloc.start()
    with pytest.raises(RemoteError, match="does not serve ranges: download"):
        qzf.open(server.url)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert server.count == 2


def test_a_server_that_comes_to_ignore_ranges(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        server.ignores_ranges = True
        with pytest.raises(RemoteError, match="does not serve ranges"):
            container.tensor(NAME)


def test_a_server_that_cannot_count_from_the_end(server: RangeServer, expected: Any) -> None:
    server.ignores_suffixes = True
    with qzf.open(server.url) as container:
        assert server.count == 2
        assert np.array_equal(container.tensor(NAME), expected)


def test_bodies_without_a_length(server: RangeServer, expected: Any) -> None:
    server.chunked = True
    with qzf.open(server.url) as container:
        assert np.array_equal(container.tensor(NAME), expected)
        server.drops = 1
        assert np.array_equal(container.tensor(NAME), expected)
    server.ignores_ranges = True
    with pytest.raises(RemoteError, match="does not tell the size"):
        qzf.open(server.url)


def _hides_size(server: RangeServer) -> None:
    server.hides_size = True


def _shifts(server: RangeServer) -> None:
    server.shift = 64


def _claims_more(server: RangeServer) -> None:
    server.claim = len(server.data) + (1 << 40)


def _claims_beyond_all(server: RangeServer) -> None:
    server.claim = 10**18 * 99


def _claims_less(server: RangeServer) -> None:
    server.claim = len(server.data) - 1


def _compresses(server: RangeServer) -> None:
    server.headers = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    "lie", [_hides_size, _shifts, _claims_more, _claims_beyond_all, _claims_less, _compresses]
)
def test_lies_in_opening(lie: Callable[[RangeServer], None], server: RangeServer) -> None:
    lie(server)
    with pytest.raises(RemoteError):
        qzf.open(server.url)
    assert server.count == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_was_asked_for(chunked: bool, server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        server.chunked, server.excess = chunked, 4 << 20
        with pytest.raises(RemoteError, match=r"another range|more than"):
            container.tensor(NAME)
    if not chunked:
        with pytest.raises(RemoteError, match="another range"):
            qzf.open(server.url)


def test_another_range_than_was_asked_for(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        server.shift = 64
        with pytest.raises(RemoteError, match="another range") as caught:
            container.tensor(NAME)
        assert caught.value.offset is not None


def test_a_promise_of_much_takes_no_memory(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tail that announces an index of a gigabyte, of which little comes.
    index = 1 << 30
    server.claim = 64 + index + TRAILER_SIZE
    server.shift = server.claim - len(server.data)
    monkeypatch.setattr(reader, "parse_trailer", lambda _: Trailer(64, index, server.claim or 0, bytes(32)))
    server.promises = True
    tracemalloc.start()
    with pytest.raises(RemoteError, match="tried 3 times") as caught:
        qzf.open(server.url)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.offset is not None and caught.value.offset < 10_000
    assert server.count == 4
    assert peak < 32 << 20


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("bytes 0-9/10", (0, 10, 10)),
        ("bytes 5-9/*", (5, 10, None)),
        ("bytes */10", None),
        ("bytes 0-9", None),
        ("items 0-9/10", None),
        ("bytes 0-9/10, 20-29/30", None),
        ("bytes -1-9/10", None),
        (f"bytes 0-9/{'9' * 20}", None),
        ("bytes ٣-٩/٩", None),
        ("", None),
        (None, None),
    ],
)
def test_content_range(text: str | None, place: tuple[int, int, int | None] | None) -> None:
    assert parse_content_range(text) == place


# --- another object -------------------------------------------------------------------------------


def _damaged(data: bytes, container: qzf.Container) -> bytes:
    at = int(container.chunks["offset"][container.info(NAME).first_chunk]) + 300
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_other_bytes_are_damage(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        server.data = _damaged(server.data, container)
        with pytest.raises(DamageError, match="may have changed since it was opened") as caught:
            container.tensor(NAME)
        assert caught.value.tensor == NAME and caught.value.file == server.url


def test_a_bad_table_is_an_error_for_those_that_name_it(server: RangeServer, expected: Any) -> None:
    with qzf.open(server.url) as container:
        table = next(entry for entry in container.reader.index.sections if entry.kind == 2)
        at = table.offset + 70
        server.data = server.data[:at] + bytes([server.data[at] ^ 1]) + server.data[at + 1 :]
        failed = set()
        for name in container:
            try:
                container.tensor(name)
            except ChecksumError as error:
                assert error.tensor == name
                failed.add(name[6:])
        assert len(failed) == 1


@pytest.mark.parametrize("how", ["etag", "modified", "size"])
def test_an_object_that_was_replaced(how: str, server: RangeServer) -> None:
    if how == "modified":
        server.headers = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    with qzf.open(server.url) as container:
        container.tensor("blk.0.q4_0")
        if how == "size":
            server.data += bytes(64)
        elif how == "etag":
            server.headers = {"ETag": '"two"'}
        else:
            server.headers = {"Last-Modified": "Wed, 21 Oct 2015 07:28:01 GMT"}
        before = server.count
        with pytest.raises(SourceChangedError) as caught:
            container.tensor(NAME)
        assert server.count == before + 1
        assert exit_code(caught.value) == Exit.IO


def test_an_object_that_has_become_shorter(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        server.data = server.data[:1000]
        with pytest.raises(SourceChangedError):
            container.tensor(NAME)


def test_weak_tags_say_nothing(server: RangeServer, expected: Any) -> None:
    server.headers = {"ETag": 'W/"one"'}
    with qzf.open(server.url) as container:
        server.headers = {"ETag": 'W/"two"'}
        assert np.array_equal(container.tensor(NAME), expected)
        server.headers = {}
        assert np.array_equal(container.tensor(NAME), expected)


def test_versions() -> None:
    one = Version('"a"', "monday")
    assert not one.differs(Version('"a"', "tuesday"))
    assert one.differs(Version('"b"', "monday"))
    assert not one.differs(Version()) and not Version().differs(one)
    assert one.differs(Version(None, "tuesday")) and not one.differs(Version(None, "monday"))


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 1000, bytes(100_000)])
def test_what_is_no_container(data: bytes) -> None:
    with serving(data) as running, pytest.raises(FormatError):
        qzf.open(running.url)


@pytest.mark.parametrize("cut", [1, 64, 100_000])
def test_a_container_that_is_cut(cut: int, server: RangeServer) -> None:
    server.data = server.data[:-cut]
    with pytest.raises(TruncatedError):
        qzf.open(server.url)
