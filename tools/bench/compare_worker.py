"""One compressor in one process: what ``compare.py`` measures from within.

    python -m tools.bench.compare_worker ENGINE THREADS                    warm: jobs as JSON lines on stdin
    python -m tools.bench.compare_worker ENGINE THREADS pack|unpack SRC DST  one job, then the end

Every engine goes from file to file, as its documentation says it is meant to be used.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

Work = Callable[[str, str], object]


@dataclass(frozen=True, slots=True)
class Engine:
    """A compressor ready to work; ``pack`` and ``unpack`` take (source, target)."""

    version: str
    pack: Work
    unpack: Work


def _qzf(threads: int, level: str) -> Engine:
    qzf = import_module("qzf")
    return Engine(
        qzf.__version__,
        lambda source, target: qzf.pack(source, target, level=level, threads=threads),
        lambda source, target: qzf.unpack(source, target, threads=threads),
    )


def _lmzip(threads: int, _option: str) -> Engine:
    lmz = import_module("lmz")
    return Engine(
        lmz.__version__,
        lambda source, target: lmz.compress(source, target, workers=threads),
        lambda source, target: lmz.decompress(source, target, workers=threads),
    )


def _zstd(threads: int, level: str) -> Engine:
    zstandard = import_module("zstandard")

    def pack(source: str, target: str) -> None:
        coder = zstandard.ZstdCompressor(level=int(level), threads=threads, write_checksum=True)
        with Path(source).open("rb") as inside, Path(target).open("wb") as outside:
            coder.copy_stream(inside, outside, size=Path(source).stat().st_size, **buffers)

    def unpack(source: str, target: str) -> None:
        with Path(source).open("rb") as inside, Path(target).open("wb") as outside:
            zstandard.ZstdDecompressor().copy_stream(inside, outside, **buffers)

    buffers = {"read_size": 1 << 20, "write_size": 1 << 20}
    library = ".".join(map(str, zstandard.ZSTD_VERSION))
    return Engine(f"{library} (zstandard {zstandard.__version__})", pack, unpack)


class _ZipNN:
    """Tensor by tensor, as zipnn's own ``scripts/zipnn_compress_safetensors.py`` does.

    Its README recommends that way for safetensors; the scripts are in its repository, not in its wheel.
    """

    def __init__(self, threads: int) -> None:
        warnings.simplefilter("ignore")
        self._zipnn, self._tables = import_module("zipnn"), import_module("zipnn.util_safetensors")
        self._torch, self._safetensors = import_module("torch"), import_module("safetensors")
        self._save = import_module("safetensors.torch").save_file
        self._threads = threads

    def _coder(self, dtype: Any) -> Any:
        return self._zipnn.ZipNN(
            input_format="torch",
            bytearray_dtype=dtype,
            method=self._tables.COMPRESSION_METHOD,
            threads=self._threads,
        )

    def pack(self, source: str, target: str) -> None:
        tensors, packed = {}, {}
        with self._safetensors.safe_open(source, "pt", "cpu") as file:
            metadata = file.metadata()
            for name in file.keys():  # noqa: SIM118, it is no dict
                tensor = file.get_tensor(name)
                tensors[name] = tensor
                if not tensor.is_floating_point():
                    continue
                info, size = self._tables.build_compressed_tensor_info(tensor), tensor.nbytes
                # It turns the bits of its input around in place: one that did not shrink is read again.
                coded = self._coder(tensor.dtype).compress(tensor)
                if len(coded) < size:
                    tensors[name] = self._torch.frombuffer(coded, dtype=self._tables.COMPRESSED_DTYPE)
                    packed[name] = info
                else:
                    tensors[name] = file.get_tensor(name)
        if not metadata:
            raise RuntimeError("its safetensors form needs a file with metadata")
        self._tables.set_compressed_tensors_metadata(packed, metadata)
        self._save(tensors, target, metadata)

    def unpack(self, source: str, target: str) -> None:
        tensors = {}
        with self._safetensors.safe_open(source, "pt", "cpu") as file:
            metadata = file.metadata()
            packed = self._tables.get_compressed_tensors_metadata(metadata)
            coder = self._coder(self._tables.COMPRESSED_DTYPE)
            for name in file.keys():  # noqa: SIM118, it is no dict
                tensor = file.get_tensor(name)
                tensors[name] = coder.decompress(tensor.numpy()) if name in packed else tensor
        metadata.pop(self._tables.METADATA_KEY, None)
        self._save(tensors, target, metadata)


def _zipnn_engine(threads: int, _option: str) -> Engine:
    work = _ZipNN(threads)
    return Engine(import_module("importlib.metadata").version("zipnn"), work.pack, work.unpack)


def _copy(_threads: int, _option: str) -> Engine:
    return Engine("", shutil.copyfile, shutil.copyfile)


_ENGINES: dict[str, Callable[[int, str], Engine]] = {
    "qzf": _qzf,
    "lmzip": _lmzip,
    "zstd": _zstd,
    "zipnn": _zipnn_engine,
    "copy": _copy,
}


def load(name: str, threads: int) -> Engine:
    """The engine ``name``, which may end in ``:option`` (a level); imports what it needs."""
    base, _, option = name.partition(":")
    return _ENGINES[base](threads, option)


def _reset_peak() -> None:
    """Let the kernel forget the peak so far; where it cannot, peaks only grow."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Bytes of the largest resident set since ``_reset_peak``."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run(engine: Engine, job: dict[str, str]) -> dict[str, Any]:
    """Do one job; returns its wall-clock ``seconds`` and ``rss`` in bytes, or an ``error`` in words."""
    work = engine.pack if job["do"] == "pack" else engine.unpack
    _reset_peak()
    start = time.perf_counter()
    try:
        work(job["source"], job["target"])
    except Exception as error:  # whatever a peer raises is one line of the report
        return {"error": f"{type(error).__name__}: {error}"}
    return {"seconds": time.perf_counter() - start, "rss": _peak()}


def main(arguments: list[str]) -> int:
    name, threads, *once = arguments
    # Some peers print as they go: their lines must not mix with ours.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = load(name, int(threads))
    if once:
        result = run(engine, dict(zip(("do", "source", "target"), once, strict=True)))
        print(result.get("error", ""), file=sys.stderr)
        return 1 if "error" in result else 0
    print(json.dumps({"version": engine.version}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(engine, json.loads(line))), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
