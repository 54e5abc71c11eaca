"""All tensors of a packed model to memory that is there, in a warm process: what a loader does."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import qzf
from tools.bench.codec_report import Load

__all__ = ["measure"]

Job = tuple[Callable[[], object], int]
"""Does it once; bytes of tensors that it yields."""


def _median_of(load: Load, job: Job, rounds: int) -> Load:
    """``load`` with the speeds of ``rounds`` rounds after one to warm up."""
    work, size = job
    work()
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        load.speeds.append(size / (time.perf_counter() - start) / 1e6)
    return load


@contextmanager
def _loaded(packed: Path, source: Path, pool: ThreadPoolExecutor) -> Iterator[Job]:
    """``Container.load`` to buffers that are used again."""
    with qzf.open(packed, threads=pool._max_workers) as container, source.open("rb") as original:
        rooms = {name: np.empty(container.info(name).extent.size, np.uint8) for name in container}
        container.load(out=rooms)
        for name, room in rooms.items():
            original.seek(container.info(name).extent.offset)
            if room.tobytes() != original.read(room.size):
                raise ValueError(f"{name} is not what it was")
        yield lambda: container.load(out=rooms), sum(room.size for room in rooms.values())


@contextmanager
def _tensors(packed: Path, _source: Path, pool: ThreadPoolExecutor) -> Iterator[Job]:
    """``Container.tensor``, one tensor after the other; new memory for each."""
    with qzf.open(packed, threads=pool._max_workers) as container:
        size = sum(tensor.extent.size for tensor in container.tensors)
        yield lambda: [container.tensor(name) for name in container.keys()] and None, size  # noqa: SIM118


@contextmanager
def _lmzip(packed: Path, _source: Path, pool: ThreadPoolExecutor) -> Iterator[Job]:
    """``ArchiveIndex.decode``, all chunks on a pool, with its CRC-32 checked as by default."""
    index, descriptor = import_module("lmz").ArchiveIndex(str(packed)), os.open(packed, os.O_RDONLY)
    jobs = [(ref, np.zeros(ref.rlen, np.uint8)) for ref in index.chunks()]

    def decode(job: tuple[object, np.ndarray]) -> None:
        ref, room = job
        body = os.pread(descriptor, ref.clen, ref.off)  # type: ignore[attr-defined]  # codespell:ignore clen
        result = index.decode(ref, body, out=room.data)
        if not np.shares_memory(np.frombuffer(result, np.uint8), room):
            np.copyto(room, np.frombuffer(result, np.uint8))

    def work() -> None:
        for _ in pool.map(decode, jobs):
            pass

    try:
        yield work, sum(room.size for _, room in jobs)
    finally:
        os.close(descriptor)


@contextmanager
def _plain(_packed: Path, source: Path, pool: ThreadPoolExecutor) -> Iterator[Job]:
    """The original file read to buffers: the bound."""
    size, step = source.stat().st_size, 1 << 20
    with source.open("rb", buffering=0) as file:
        jobs = [(at, memoryview(bytearray(min(step, size - at)))) for at in range(0, size, step)]
        yield (
            lambda: list(pool.map(lambda job: os.preadv(file.fileno(), [job[1]], job[0]), jobs)) and None,
            size,
        )


def measure(source: Path, threads: int, rounds: int, work: Path) -> list[Load]:
    """Speeds of each way on the model at ``source``; packed files go to a new folder in ``work``."""
    loads = []
    with tempfile.TemporaryDirectory(prefix="qzf-loads-", dir=work) as name, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        ours, theirs = Path(name) / "model.qzf", Path(name) / "model.lmz"
        qzf.pack(source, ours, threads=threads)
        ways = [
            ("qzf, Container.load to buffers", ours, _loaded),
            ("qzf, Container.tensor one by one", ours, _tensors),
            ("lmzip, ArchiveIndex.decode to buffers", theirs, _lmzip),
            ("the file itself, read to buffers", ours, _plain),
        ]
        for words, packed, way in ways:
            load = Load(words)
            loads.append(load)
            if packed == theirs:
                if find_spec("lmz") is None:
                    load.note = "not installed"
                    continue
                import_module("lmz").compress(str(source), str(theirs), workers=threads)
            with way(packed, source, pool) as job:
                _median_of(load, job, rounds)
    return loads
