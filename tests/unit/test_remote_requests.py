"""How many requests reading from a URL takes, and for which bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qzf
from qzf.access import loading
from qzf.container import reader as reading
from qzf.container import spans
from qzf.container.spans import Record, extent, group, runs
from qzf.remote import source as remote_source
from tests.range_server import RangeServer, serving

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of 200,000 bytes, so that a small container takes several."""
    for module in (spans, loading):
        monkeypatch.setattr(module, "MIN_SPAN", 200_000)
        monkeypatch.setattr(module, "MAX_SPAN", 200_000)


def _same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)


def _ranges(server: RangeServer, since: int = 0) -> list[tuple[int, int]]:
    """First and last byte of each request, those for a container's end left out."""
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked.range or "") for asked in server.requests[since:]]
    return [(int(match[1]), int(match[2])) for match in found if match]


def test_opening_takes_one_request(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        assert [asked[:2] for asked in server.requests] == [("GET", "bytes=-65536")]
        assert container.reader.source.size == len(server.data)


def test_opening_takes_two_requests_for_a_large_index(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (reading, remote_source):
        monkeypatch.setattr(module, "TAIL_READ", 1000)
    with qzf.open(server.url) as container:
        index = container.reader.trailer.index_offset
    assert [asked.range for asked in server.requests] == [
        "bytes=-1000",
        f"bytes={index}-{len(server.data) - 1001}",
    ]


def test_a_small_container_comes_with_its_opening(smollm2: Path) -> None:
    data = qzf.pack(_small_gguf(smollm2.parent), smollm2.parent / "small.qzf", force=True)
    assert data.container_size < 65536
    with serving((smollm2.parent / "small.qzf").read_bytes()) as running:
        with qzf.open(running.url) as container:
            assert sum(array.nbytes for array in container.load().values()) > 0
        assert running.count == 1
        running.requests.clear()
        running.ignores_ranges = True  # it is what was asked for all the same
        with qzf.open(running.url) as container:
            container.load()
        assert running.count == 1


def test_a_tensor_takes_three_requests_at_most(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        opened = server.count
        container.tensor("blk.0.q6_k")
        assert server.count - opened == 2  # its chunks, and all the shared tables
        tables = min(_ranges(server, opened))
        assert tables[1] - tables[0] < 20_000
        for name in ("blk.0.q8_0", "blk.0.q4_0", "blk.0.q4_k"):
            before = server.count
            container.tensor(name)
            assert server.count - before == 1


def test_tables_are_asked_for_at_the_same_time(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        server.delay = 0.05
        container.tensor("blk.0.q6_k")
        assert server.most_busy == 2


@pytest.mark.usefixtures("small_spans")
def test_a_large_tensor_takes_two_requests_side_by_side(server: RangeServer, modeled: Path) -> None:
    server.delay = 0.05
    with qzf.open(server.url) as container, qzf.open(modeled) as local:
        opened = server.count
        assert _same(container.tensor("blk.0.q8_0"), local.tensor("blk.0.q8_0"))
        parts = sorted(_ranges(server, opened))[1:]
        assert server.count - opened == 3 and server.most_busy > 1
        sizes = [last + 1 - first for first, last in parts]
        assert parts[0][1] < parts[1][0] and max(sizes) < 0.75 * sum(sizes)
        opened = server.count
        container.load(["blk.0.q8_0"])
        assert server.count - opened == 2


@pytest.mark.usefixtures("small_spans")
def test_many_tensors_come_in_requests_of_bounded_size(server: RangeServer) -> None:
    server.delay = 0.02
    with qzf.open(server.url) as container:
        opened = server.count
        container.load()
        ranges = _ranges(server, opened)
        assert max(last + 1 - first for first, last in ranges) <= 200_000
        assert len(ranges) < 20
        assert 4 <= server.most_busy <= 8


def test_neighbours_come_in_one_request(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        opened = server.count
        container.load([name for name in container if name.endswith(("q4_k", "q6_k"))])
        # Those of the two layers lie too far apart to read what is between.
        assert server.count - opened == 3


def test_a_slice_takes_only_the_chunks_it_is_in(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        container.tensor("blk.0.q4_0")
        info, chunks = container.info("blk.1.q8_0"), container.chunks
        opened = server.count
        container.get_slice("blk.1.q8_0")[100:110]
        ((first, last),) = _ranges(server, opened)
        assert last + 1 - first < 140_000 < info.extent.size
        assert first in chunks["offset"]
        before = server.count
        container.get_slice("blk.1.q8_0")[::128]  # rows of many chunks
        assert server.count - before == 1
        before = server.count
        container.get_slice("blk.1.q8_0")[5:5]
        assert server.count == before


def test_bytes_come_in_few_requests(server: RangeServer) -> None:
    with qzf.open(server.url) as container:
        container.tensor("blk.0.q4_0")
        for read in (
            lambda: list(container.iter_bytes("blk.0.q8_0")),
            lambda: container.member_bytes("model.gguf", 1000, 500_000),
        ):
            before = server.count
            read()
            assert server.count - before == 1
        before = server.count
        container.member_bytes("model.gguf")
        assert server.count - before <= 2


def test_small_reads_of_a_member_read_ahead(server: RangeServer, modeled: Path) -> None:
    from qzf.container.member import MemberSource

    with qzf.open(server.url) as container:
        whole = container.member_bytes("model.gguf")
        before = server.count
        source = MemberSource(container.reader, "model.gguf")
        data = [source.read(at, min(10_000, source.size - at)) for at in range(0, source.size, 10_000)]
        assert b"".join(data) == whole
        assert server.count - before <= 8 < len(container.chunks)
        before = server.count
        assert source.read(1_500_000, 10) == whole[1_500_000:1_500_010]
        ((first, last),) = _ranges(server, before)
        assert last - first < 70_000  # one chunk, for a jump


def test_streaming_reads_layers_ahead(server: RangeServer) -> None:
    server.delay = 0.02
    with qzf.open(server.url) as container:
        before = server.count
        names = [list(part.tensors) for part in container.stream()]
        assert len(names) == 2 and len(names[0]) == 4
        assert server.count - before <= 4
        assert server.most_busy > 1


def test_cached_chunks_are_not_asked_for_again(server: RangeServer) -> None:
    with qzf.open(server.url, cache_bytes=8 << 20) as container:
        first = container.tensor("blk.0.q8_0")
        before = server.count
        assert _same(container.tensor("blk.0.q8_0"), first)
        assert _same(container.get_slice("blk.0.q8_0")[::50], first[::50])
        assert server.count == before
        container.load(["blk.0.q8_0", "blk.0.q4_0"])
        assert server.count - before == 1


def test_threads_that_are_given_count(server: RangeServer, small_spans: None) -> None:
    server.delay = 0.01
    with qzf.open(server.url, threads=1) as container:
        container.load()
    assert server.most_busy == 1


def test_groups() -> None:
    def grouped(*places: tuple[int, int], limit: int = 1000) -> list[list[int]]:
        records = [Record(offset, size, key) for key, (offset, size) in enumerate(places)]
        return [[record.key for record in some] for some in group(records, limit)]

    gap = spans.GAP
    assert grouped() == []
    assert grouped((0, 10), (10, 10), (20, 980)) == [[0, 1, 2]]
    assert grouped((0, 10), (10, 10), (20, 981)) == [[0, 1], [2]]
    assert grouped((50, 10), (0, 10)) == [[1, 0]]
    assert grouped((0, 5000), (5000, 10)) == [[0], [1]]
    assert grouped((0, 10), (10 + gap, 10), limit=gap * 9) == [[0, 1]]
    assert grouped((0, 10), (11 + gap, 10), limit=gap * 9) == [[0], [1]]
    assert extent([Record(5, 10, 0), Record(20, 10, 1)]) == (5, 25)


def _small_gguf(folder: Path) -> Path:
    from tests.helpers import small_gguf

    (folder / "small.gguf").write_bytes(small_gguf())
    return folder / "small.gguf"


def test_runs() -> None:
    def lists(*places: tuple[int, int, int] | None) -> list[list[int]]:
        records = [place and Record(place[0], place[1], 0, place[2]) for place in places]
        return list(runs(range(len(records)), records.__getitem__, 100))

    assert lists() == []
    assert lists((0, 10, 50), (10, 10, 50), (20, 10, 1)) == [[0, 1], [2]]
    assert lists((0, 10, 500), (10, 10, 1), None, None, (20, 10, 1)) == [[0], [1], [2], [3], [4]]
    assert lists((10, 10, 1), (0, 10, 1), (11 + spans.GAP, 1, 1)) == [[0], [1], [2]]
    assert lists((0, 10, 1), (10 + spans.GAP, 10, 1)) == [[0, 1]]
