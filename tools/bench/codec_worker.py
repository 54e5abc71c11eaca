"""One compressor in one process, in memory: what ``codec.py`` measures.

    [QZF_FORCE_ISA=avx2] python -m tools.bench.codec_worker ENGINE      jobs as JSON lines on stdin

qzf and zstd code chunk by chunk, as a loader needs them; the others pieces of 8 MiB, lmzip's default.
None makes or checks checksums here.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from qzf import quant
from qzf.container import payload
from qzf.transforms.layouts import BY_NAME
from tools.bench.codec_samples import EFFORT, Sample

__all__ = ["ENGINES", "Bench", "Engine"]

_LARGE: Final = 8 << 20
_MAX_THREADS: Final = 2


class Coder(NamedTuple):
    """What one thread uses: number of a piece -> packed form; number, packed form, room -> the piece.

    ``decode`` may return its own buffer in place of writing to the room.
    """

    encode: Callable[[int], Any]
    decode: Callable[[int, Any, memoryview], Any]


class Engine:
    """A compressor on one sample; ``module`` is what it imports, ``threaded``: it has threads of its own."""

    module: ClassVar[str] = ""
    threaded: ClassVar[bool] = False

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.pieces = self.cut()

    @classmethod
    def refuses(cls, sample: Sample) -> str:
        """Why it cannot code this type; empty if it can."""
        return ""

    def cut(self) -> list[bytes]:
        """The sample in the pieces that are coded on their own."""
        return self.sample.pieces(_LARGE)

    def coder(self, threads: int) -> Coder:
        """A coder for one thread, or where it has threads of its own one that uses so many."""
        raise NotImplementedError

    def ready(self, packed: Any) -> Any:
        """What ``encode`` gave, as ``decode`` wants it; not timed."""
        return packed

    def stored(self, packed: Any) -> int:
        """Bytes of what ``ready`` gave."""
        return len(packed)


class _Qzf(Engine):
    """Payloads as they stand in a container; record headers are not counted."""

    module = "qzf"

    def cut(self) -> list[bytes]:
        return [chunk.data for chunk in self.sample.chunks]

    def coder(self, threads: int) -> Coder:
        models, tables = self.sample.models(), self.sample.shared()
        layouts = [None if chunk.layout is None else BY_NAME[chunk.layout] for chunk in self.sample.chunks]

        def encode(i: int) -> payload.Payload:
            return payload.encode(self.pieces[i], layouts[i], EFFORT, model=models[i])

        def decode(_i: int, packed: Any, out: memoryview) -> memoryview:
            transform, layout, body = packed
            return payload.decode(transform, layout, body, len(out), tables.__getitem__, out)

        return Coder(encode, decode)

    def ready(self, packed: Any) -> Any:
        return packed.transform, packed.layout, memoryview(b"".join(map(bytes, packed.parts)))

    def stored(self, packed: Any) -> int:
        return len(packed[2])


class _Zstd(Engine):
    module = "zstandard"

    def cut(self) -> list[bytes]:
        return [chunk.data for chunk in self.sample.chunks]

    def coder(self, threads: int) -> Coder:
        zstandard = import_module("zstandard")
        compressor = zstandard.ZstdCompressor(level=1, write_checksum=False)
        decompressor = zstandard.ZstdDecompressor()

        def decode(_i: int, packed: Any, out: memoryview) -> None:
            decompressor.stream_reader(packed).readinto(
                out
            )  # straight to the room, where that is large enough

        return Coder(lambda i: compressor.compress(self.pieces[i]), decode)


class _Lmzip(Engine):
    """Its chunk codec, told of the type what its own planner finds in a file; without its CRC-32."""

    module = "lmz"

    def coder(self, threads: int) -> Coder:
        codec = import_module("lmz.codec")
        width, options = self._kind()

        def encode(i: int) -> Any:
            parts, codec_id, flags, _ = codec.encode_chunk(self.pieces[i], width, 1, False, **options)
            return parts, codec_id, flags

        def decode(_i: int, packed: Any, out: memoryview) -> Any:
            body, codec_id, flags = packed
            return codec.decode_chunk(body, codec_id, width, flags, len(out), 0, False, out=out)

        return Coder(encode, decode)

    def _kind(self) -> tuple[int, dict[str, int]]:
        planner, dtype = import_module("lmz.planner"), self.sample.dtype
        if self.sample.kind != "gguf":
            kind = planner.KIND_BF16 if dtype == "BF16" else planner.KIND_BYTES
            return int(planner.ST_ESIZE.get(dtype, 1)), {"kind": kind}
        number = quant.BY_NAME[dtype].number
        if number in planner.BLOCK_LAYOUTS:
            return int(planner.BLOCK_LAYOUTS[number][0]), {"kind": planner.KIND_BLOCK, "btype": number}
        return int(planner.GGML_TYPES[number][3] if number in planner.GGML_TYPES else 1), {}

    def ready(self, packed: Any) -> Any:
        parts, *rest = packed
        parts = [parts] if isinstance(parts, bytes | bytearray | memoryview) else parts
        return b"".join(map(bytes, parts)), *rest

    def stored(self, packed: Any) -> int:
        return len(packed[0])


class _ZipNN(Engine):
    """It turns the bits of its input around in place, so each call gets a copy."""

    module = "zipnn"
    threaded = True
    _DTYPES: ClassVar = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F8_E4M3": "float8_e4m3fn"}

    @classmethod
    def refuses(cls, sample: Sample) -> str:
        return "" if sample.dtype in cls._DTYPES else "n/a"

    def coder(self, threads: int) -> Coder:
        warnings.simplefilter("ignore")
        coder = import_module("zipnn").ZipNN(
            input_format="byte",
            bytearray_dtype=self._DTYPES[self.sample.dtype],
            method="HUFFMAN",
            threads=threads,
        )
        return Coder(
            lambda i: coder.compress(bytearray(self.pieces[i])),
            lambda _i, packed, _out: coder.decompress(packed),
        )


class _OpenZL(Engine):
    """Its generic graph: on numbers for what is numbers, on bytes for blocks, which it does not know."""

    module = "openzl"
    _WIDTHS: ClassVar = {"F32": 4, "I32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I8": 1}

    def coder(self, threads: int) -> Coder:
        zl, graphs = import_module("openzl.ext"), import_module("openzl.ext").graphs
        compressor = zl.Compressor()
        compressor.select_starting_graph(graphs.Compress()(compressor))
        encoder, decoder = zl.CCtx(), zl.DCtx()
        encoder.ref_compressor(compressor)
        encoder.set_parameter(zl.CParam.StickyParameters, 1)  # else the graph is forgotten after one call
        encoder.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
        numbers = self.sample.kind != "gguf"
        width = self._WIDTHS[self.sample.dtype] if numbers else 1
        kind = zl.Type.Numeric if numbers else zl.Type.Serial

        def encode(i: int) -> Any:
            return encoder.compress([zl.Input(kind, np.frombuffer(self.pieces[i], f"<u{width}"))])

        def decode(_i: int, packed: Any, _out: memoryview) -> Any:
            return decoder.decompress(packed)[0].content.as_nparray()

        return Coder(encode, decode)


class _Memcpy(Engine):
    def cut(self) -> list[bytes]:
        return [chunk.data for chunk in self.sample.chunks]

    def coder(self, threads: int) -> Coder:
        rooms = [np.zeros(len(piece), np.uint8) for piece in self.pieces]
        sources = [np.frombuffer(piece, np.uint8) for piece in self.pieces]

        def encode(i: int) -> Any:
            np.copyto(rooms[i], sources[i])
            return rooms[i]

        def decode(_i: int, packed: Any, out: memoryview) -> None:
            np.copyto(np.frombuffer(out, np.uint8), packed)

        return Coder(encode, decode)


ENGINES: Final[dict[str, type[Engine]]] = {
    "qzf": _Qzf,
    "zstd -1": _Zstd,
    "lmzip": _Lmzip,
    "zipnn": _ZipNN,
    "openzl": _OpenZL,
    "memcpy": _Memcpy,
}


class Bench:
    """An engine loaded with a sample, on threads that stay, so that what they keep is warm."""

    def __init__(self, engine: type[Engine]) -> None:
        self._kind = engine
        self._pool = ThreadPoolExecutor(_MAX_THREADS)
        self._engine: Engine | None = None

    def load(self, sample: Sample) -> tuple[int | None, str]:
        """Code and decode all pieces, and compare. Returns bytes stored, or why there are none."""
        self._engine = None
        note = self._kind.refuses(sample)
        if not note and self._kind.module and find_spec(self._kind.module) is None:
            note = "not installed"
        if note:
            return None, note
        engine = self._kind(sample)
        self._rooms = [memoryview(bytearray(len(piece))) for piece in engine.pieces]
        self._coders = {
            n: [engine.coder(n) for _ in range(1 if engine.threaded else n)] for n in (1, _MAX_THREADS)
        }
        self._packed = [engine.ready(self._coders[1][0].encode(i)) for i in range(len(engine.pieces))]
        for i, piece in enumerate(engine.pieces):
            result = self._coders[1][0].decode(i, self._packed[i], self._rooms[i])
            if bytes(self._rooms[i] if result is None else result) != piece:
                return None, "failed: the output is not the input"
        self._engine = engine
        for way in ("encode", "decode"):
            self.speed(way, _MAX_THREADS, 0)
        return sum(map(engine.stored, self._packed)), ""

    def speed(self, way: str, threads: int, seconds: float) -> float:
        """MB/s over whole passes that take ``seconds`` or more."""
        assert self._engine is not None
        sizes, coders = [len(piece) for piece in self._engine.pieces], self._coders[threads]
        start = threading.Barrier(len(coders))

        def work(number: int) -> float:
            coder, ours = coders[number], range(number, len(sizes), len(coders))
            passes, step = 0, self._step(coder, way)
            start.wait()
            begun = time.perf_counter()
            while True:
                for i in ours:
                    step(i)
                passes += 1
                spent = time.perf_counter() - begun
                if spent >= seconds:
                    return passes * sum(sizes[i] for i in ours) / spent / 1e6

        return sum(self._pool.map(work, range(len(coders))))

    def _step(self, coder: Coder, way: str) -> Callable[[int], object]:
        if way == "encode":
            return coder.encode
        return lambda i: coder.decode(i, self._packed[i], self._rooms[i])


def _answer(bench: Bench, job: dict[str, Any]) -> dict[str, Any]:
    try:
        if job["do"] == "load":
            packed, note = bench.load(Sample.load(Path(job["sample"])))
            return {"packed": packed, "note": note}
        start = time.perf_counter()
        speed = bench.speed(job["do"], job["threads"], job["seconds"])
        return {"speed": speed, "spent": time.perf_counter() - start}
    except Exception as error:  # whatever a peer raises is one word of the report
        return {"packed": None, "note": f"failed: {type(error).__name__}: {error}"[:200]}


def main(arguments: list[str]) -> int:
    # Some peers print as they go: their lines must not mix with ours.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    bench = Bench(ENGINES[arguments[0]])
    for line in sys.stdin:
        print(json.dumps(_answer(bench, json.loads(line))), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
