"""One job of ``coldstart.py`` in a process of its own: ``coldstart_worker.py JOB PATH [EXTRA]``.

Prints one line of JSON: the seconds it took, without what importing takes, and the XXH3 of the bytes that it
got. Jobs that load end with all tensors in memory; jobs that pass over the model look at each byte once.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

THREADS: Final = len(os.sched_getaffinity(0))
#: What ``Container.stream`` may take.
WINDOW: Final = 64 << 20
Bytes = npt.NDArray[np.uint8]
Plan = list[tuple[int, int]]


def _digest(parts: Iterable[Bytes]) -> str:
    hashed = xxhash.xxh3_64()
    for part in parts:
        hashed.update(part.data)
    return hashed.hexdigest()


def load_plain_mmap(path: str, plan: Plan) -> list[Bytes]:
    """Each tensor copied out of a map of the file, as safetensors and numpy do."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        view = np.frombuffer(whole, np.uint8)
        parts: list[Bytes] = [view[at : at + size].copy() for at, size in plan]
        del view
        return parts


def load_plain_read(path: str, plan: Plan) -> list[Bytes]:
    """Each tensor read to memory of its own."""
    parts: list[Bytes] = []
    with Path(path).open("rb", buffering=0) as file:
        for at, size in plan:
            room = np.empty(size, np.uint8)
            file.seek(at)
            done = 0
            while done < size:
                done += file.readinto(room[done:].data)
            parts.append(room)
    return parts


def load_qzf(path: str, _plan: Plan) -> list[Bytes]:
    """All tensors by ``Container.load``."""
    import qzf

    with qzf.open(path, framework="raw") as container:
        return list(container.load(_order(container)).values())


def _order(container: Any) -> list[str]:
    return [name for layer in container.layers() for name in layer.names]


def load_lmzip(path: str, _plan: Plan) -> list[Bytes]:
    """All chunks by ``ArchiveIndex.decode`` on a pool; lmzip knows no tensors."""
    return list(_lmzip_chunks(path))


def _lmzip_chunks(path: str, ahead: int = 1 << 30) -> Iterator[Bytes]:
    """Decoded chunks in order, at most ``ahead`` of them at a time."""
    index, descriptor = import_module("lmz").ArchiveIndex(path), os.open(path, os.O_RDONLY)

    def decode(ref: Any) -> Bytes:
        body = os.pread(descriptor, ref.clen, ref.off)  # codespell:ignore clen
        return np.frombuffer(index.decode(ref, body), np.uint8)

    with ThreadPoolExecutor(THREADS) as pool:
        coming: deque[Any] = deque()
        for ref in index.chunks():
            if len(coming) >= ahead:
                yield coming.popleft().result()
            coming.append(pool.submit(decode, ref))
        while coming:
            yield coming.popleft().result()
    os.close(descriptor)


def pass_plain_mmap(path: str, plan: Plan) -> Iterator[Bytes]:
    """The tensors where they are in a map of the file, as llama.cpp has them."""
    with Path(path).open("rb") as file:
        whole = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        for at, size in plan:
            yield whole[at : at + size]


def pass_qzf(path: str, _plan: Plan) -> Iterator[Bytes]:
    """``Container.stream`` with a window of 64 MiB."""
    import qzf

    with qzf.open(path, framework="raw") as container:
        for part in container.stream(window_bytes=WINDOW):
            yield from part.tensors.values()


def pass_lmzip(path: str, _plan: Plan) -> Iterator[Bytes]:
    """The file from its begin to its end, as lmzip knows no tensors; some chunks ahead."""
    largest = max(ref.rlen for ref in import_module("lmz").ArchiveIndex(path).chunks())
    yield from _lmzip_chunks(path, max(WINDOW // largest - THREADS, 1))


LOADS: Final[dict[str, Callable[[str, Plan], list[Bytes]]]] = {
    "plain-mmap": load_plain_mmap,
    "plain-read": load_plain_read,
    "qzf": load_qzf,
    "lmzip": load_lmzip,
}
PASSES: Final[dict[str, Callable[[str, Plan], Iterator[Bytes]]]] = {
    "plain-mmap": pass_plain_mmap,
    "qzf": pass_qzf,
    "lmzip": pass_lmzip,
}


def main(arguments: list[str]) -> int:
    """Do one job."""
    job, method, path, plan_file = arguments
    plan: Plan = [tuple(item) for item in json.loads(Path(plan_file).read_text())]
    for module in ("qzf.access", "lmz"):  # what importing takes is nobody's cold start
        if method == module.split(".")[0] or (method, module) == ("lmzip", "lmz"):
            import_module(module)
    start = time.perf_counter()
    if job == "load":
        parts = LOADS[method](path, plan)
        seconds = time.perf_counter() - start
        digest = _digest(parts)
    else:
        digest = _digest(PASSES[method](path, plan))
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "digest": digest}))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main(sys.argv[1:]))
