"""Streaming layers: order, memory, buffers, what goes wrong."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

import qzf
from qzf.access import Layer
from qzf.access.stream import Window
from qzf.errors import NotFoundError, OptionError
from qzf.storage import Span

KIB = 1024


def _arrays() -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(3)
    found: dict[str, npt.NDArray[Any]] = {"embed": random.integers(0, 5, (300, 256)).astype(np.uint8)}
    for layer in range(12):
        found[f"h.{layer}.up"] = random.standard_normal((16, 64)).astype(np.float32)
        found[f"h.{layer}.norm"] = random.standard_normal(16).astype(np.float16)
    found["z.empty"] = np.zeros((0, 4), np.float32)
    found["z.scalar"] = np.array(2.5, np.float32)
    return found


ARRAYS = _arrays()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container of ``ARRAYS``. Not to be changed."""
    folder = tmp_path_factory.mktemp("stream")
    save_file(ARRAYS, folder / "m.safetensors")
    qzf.pack(folder / "m.safetensors", folder / "m.qzf", chunk_size=4096)
    return folder / "m.qzf"


def _check(part: qzf.Part) -> int:
    """Hold the arrays of a part against what they should be; its bytes."""
    for name, array in part.tensors.items():
        rows = part.rows.get(name)
        due = ARRAYS[name] if rows is None else ARRAYS[name][rows.start : rows.stop]
        assert array.dtype == due.dtype and array.shape == due.shape
        assert np.array_equal(array, due)
    return sum(array.nbytes for array in part.tensors.values())


SAME = bytearray(20_000)
TOTAL = sum(array.nbytes for array in ARRAYS.values())


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("window", [1 << 20, 64 * KIB, 20 * KIB, 9 * KIB])
def test_everything_comes_once_and_in_order(path: Path, window: int, threads: int) -> None:
    with qzf.open(path, threads=threads) as container:
        parts = []
        for part in container.stream(window_bytes=window):
            assert _check(part) <= window // 3
            parts.append((part.layer, part.last, list(part.tensors)))
        assert list(dict.fromkeys(layer for layer, _, _ in parts)) == container.layers()
        assert sum(last for _, last, _ in parts) == len(container.layers())
        names = [name for _, _, found in parts for name in found]
        assert set(names) == set(ARRAYS)
        assert (len(names) > len(ARRAYS)) == (window < 150 * KIB)
        layers = [layer for layer, last, _ in parts if layer.family == "h"]
        assert layers == [layer for layer in container.layers("h") for _ in range(layers.count(layer))]


def test_what_a_caller_keeps_stays(path: Path) -> None:
    """Memory is used again only when nobody refers to it."""
    with qzf.open(path) as container:
        parts = list(container.stream(window_bytes=20 * KIB))
        assert sum(_check(part) for part in parts) == TOTAL
        kept = []
        for number, part in enumerate(container.stream(window_bytes=20 * KIB)):
            if number % 3 == 0:
                kept.append(
                    part._replace(tensors={n: a[:1] if a.ndim else a for n, a in part.tensors.items()})
                )
        gc.collect()
        for part in kept:
            for name, array in part.tensors.items():
                rows = part.rows.get(name, range(1))
                if array.size and array.ndim:
                    assert np.array_equal(array[0], ARRAYS[name][rows.start])


def test_an_order_of_ones_own(path: Path) -> None:
    with qzf.open(path) as container:
        order: list[Layer | int | str] = [3, "embed", container.layers("h")[0], 3]
        parts = list(container.stream(order))
        assert [part.layer.name for part in parts] == ["h.3", "embed", "h.0", "h.3"]
        assert all(part.last for part in parts) and not any(part.rows for part in parts)
        for part in parts:
            _check(part)
        assert list(container.stream([])) == []
        number: Any = np.int64(1 << 20)
        assert next(container.stream(["h.3"], window_bytes=number)).layer == parts[0].layer
        assert container.layer("h.3").keys() == parts[0].tensors.keys()


@pytest.mark.parametrize("kind", [bytearray, lambda size: np.empty(size, np.uint8)])
def test_buffers_of_the_caller(path: Path, kind: Any) -> None:
    buffers = [kind(30 * KIB), kind(20 * KIB), kind(25 * KIB)]
    with qzf.open(path) as container:
        total, turns = 0, []
        for part in container.stream(out=buffers):
            total += _check(part)
            array = next((array for array in part.tensors.values() if array.size), None)
            if array is not None:
                turns.append(
                    [np.shares_memory(array, np.frombuffer(b, np.uint8)) for b in buffers].index(True)
                )
        assert total == TOTAL
    assert {turns[k + 1] - turns[k] for k in range(len(turns) - 1)} <= {1, -2}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"out": [bytearray(99)]}, "two buffers"),
        ({"out": iter([])}, "two buffers"),
        ({"out": [SAME, SAME]}, "overlap"),
        ({"out": [np.frombuffer(SAME, np.uint8)[:9000], np.frombuffer(SAME, np.uint8)[8999:]]}, "overlap"),
        ({"out": [3, 4]}, "needs a writable"),
        ({"order": "h.0"}, "not one text"),
        ({"window_bytes": True}, "number of bytes"),
        ({"out": [bytes(20 * KIB), bytes(20 * KIB)]}, "writable"),
        ({"out": [bytearray(64), bytearray(99)]}, "a row of"),
        ({"window_bytes": 100}, "a row of"),
        ({"window_bytes": 0}, "number of bytes"),
        ({"window_bytes": 1.5}, "number of bytes"),
    ],
)
def test_what_will_not_do(path: Path, options: dict[str, Any], match: str) -> None:
    with qzf.open(path) as container, pytest.raises(OptionError, match=match):
        next(container.stream(**options))


def test_unknown_layers_and_names(path: Path) -> None:
    with qzf.open(path) as container:
        for wrong in (99, True, "none", Layer(None, None, ("none",), 5)):
            with pytest.raises(NotFoundError):
                container.stream([wrong])


def test_a_stream_that_is_left_ends_its_threads(path: Path) -> None:
    with qzf.open(path, threads=4) as container:
        for _ in range(3):
            for _part in container.stream(window_bytes=64 * KIB):
                break
        stream = container.stream(window_bytes=64 * KIB)
        next(stream)
        assert any(thread.name.startswith("qzf-") for thread in threading.enumerate())
        stream.close()
    gc.collect()
    assert not any(thread.name.startswith("qzf-") for thread in threading.enumerate())


def test_the_next_part_is_decoded_while_the_last_is_used(path: Path) -> None:
    """All parts fit the window, so all are decoded though only the first was asked for."""
    with qzf.open(path, threads=2) as container:
        ready = threading.Event()
        last = container.info(container.layers()[-2].names[-1])
        whole = container.reader.read_chunk

        def noted(chunk: int, out: memoryview | None = None, span: Span | None = None) -> memoryview:
            if chunk == last.first_chunk:
                ready.set()
            return whole(chunk, out, span)

        container.reader.read_chunk = noted  # type: ignore[method-assign]
        stream = container.stream(window_bytes=1 << 20)
        first = next(stream)
        assert last.name not in first.tensors
        assert ready.wait(30)
        assert _check(first) + sum(_check(part) for part in stream) == TOTAL


def _model(folder: Path, arrays: dict[str, npt.NDArray[Any]]) -> Path:
    save_file(arrays, folder / "m.safetensors")
    qzf.pack(folder / "m.safetensors", folder / "m.qzf", chunk_size=65536)
    return folder / "m.qzf"


def _begun(container: qzf.Container, **options: Any) -> list[int]:
    """How many chunks were begun by the time that the caller was through with each part."""
    done: list[int] = []
    whole = container.reader.read_chunk

    def noted(chunk: int, *rest: Any) -> memoryview:
        done.append(chunk)
        return whole(chunk, *rest)

    container.reader.read_chunk = noted  # type: ignore[method-assign,assignment]
    found = []
    for _ in container.stream(**options):
        time.sleep(0.1)
        found.append(len(done))
    return found


LAYER = np.random.default_rng(4).integers(0, 9, (1024, 1024)).astype(np.uint8)


def test_a_window_of_three_layers_always_has_one_on_its_way(tmp_path: Path) -> None:
    path = _model(tmp_path, {f"h.{i}.w": LAYER for i in range(8)})
    for options in ({"window_bytes": 3 * LAYER.nbytes}, {"out": [bytearray(LAYER.nbytes) for _ in range(2)]}):
        with qzf.open(path, threads=2) as container:
            begun = _begun(container, **options)
        assert [count >= 16 * min(number + 2, 8) for number, count in enumerate(begun)] == [True] * 8, begun


def test_small_layers_after_a_large_tensor_are_decoded_ahead(tmp_path: Path) -> None:
    """The large tensor's memory is not given to small layers, of which the window then held two."""
    arrays = {"embed": np.concatenate([LAYER] * 8)} | {f"h.{i}.w": LAYER[:128] for i in range(16)}
    with qzf.open(_model(tmp_path, arrays), threads=2) as container:
        done: set[int] = set()
        whole = container.reader.read_chunk

        def noted(chunk: int, *rest: Any) -> memoryview:
            done.add(chunk)
            return whole(chunk, *rest)

        container.reader.read_chunk = noted  # type: ignore[method-assign,assignment]
        chunks = [container.info(f"h.{i}.w").first_chunk for i in range(16)]
        ahead = []
        for part in container.stream(["embed", *range(16)], window_bytes=3 * LAYER.nbytes):
            time.sleep(0.05)
            if part.layer.family == "h":
                ahead.append(len(done & set(chunks)))
        assert ahead[8] == 16, ahead  # by the middle of the layers all were begun


def test_many_tiny_layers_take_little_memory(tmp_path: Path) -> None:
    path = _model(tmp_path, {f"h.{i}.w": LAYER[0, :16] for i in range(3000)})
    with qzf.open(path) as container:
        held = 0
        for part in container.stream():
            held += len(part.tensors)
        assert held == 3000
        window = Window(10 * 4096)
        assert len([1 for _ in range(100) if window.take(16) is not None]) == 10


@pytest.mark.parametrize("window", [64 * KIB, 1 << 20])
@pytest.mark.parametrize("dtype", [True, "float16", "bfloat16"])
def test_streams_of_numbers(smollm2: Path, dtype: bool | str, window: int) -> None:
    with qzf.open(smollm2, threads=3) as container:
        due = container.load(dequantize=dtype)
        rows = dict.fromkeys(due, 0)
        for part in container.stream(window_bytes=window, dequantize=dtype):
            assert sum(array.nbytes for array in part.tensors.values()) <= window // 3
            for name, array in part.tensors.items():
                some = part.rows.get(name, range(len(due[name])))
                assert array.dtype == due[name].dtype and len(array) == len(some)
                assert array.tobytes() == due[name][some.start : some.stop].tobytes()
                rows[name] += len(some)
        assert rows == {name: len(array) for name, array in due.items()}
        with pytest.raises(OptionError, match="dequantize"):
            container.stream(dequantize="int4")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_stream_does_not_go_on_in_a_child_process(path: Path) -> None:
    code = (
        "import os, sys, warnings\nimport qzf\nwarnings.simplefilter('ignore')\n"
        "stream = qzf.open(sys.argv[1]).stream(window_bytes=20480)\nnext(stream)\nchild = os.fork()\n"
        "if not child:\n"
        "    try: next(stream)\n"
        "    except qzf.OptionError: os._exit(5)\n"
        "    os._exit(6)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\nprint(sum(1 for _ in stream) > 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["5", "True"]


_MEASURED = """
import re, sys, qzf
from qzf import open
import qzf._core, ml_dtypes
def memory(what):
    return int(re.search(what + r":\\s+(\\d+)", __builtins__.open("/proc/self/status").read())[1]) * 1024
import subprocess
bare = int(subprocess.run([sys.executable, "-c",
    "import re; print(re.search(r'VmHWM:\\\\s+(\\\\d+)', open('/proc/self/status').read())[1])"],
    capture_output=True, text=True, check=True).stdout) * 1024
total = 0
with open(sys.argv[1]) as container:
    for part in container.stream(window_bytes=64 << 20):
        total += sum(array.nbytes for array in part.tensors.values())
    assert total == sum(tensor.extent.size for tensor in container.tensors)
print(memory("VmHWM") - bare)
"""


@pytest.mark.realmodel
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_of_a_real_model(gemma: Path, tmp_path: Path) -> None:
    """A window of 64 MB and 60 MB beside it, counted above what the bare interpreter has."""
    qzf.pack(gemma, tmp_path / "g.qzf")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, tmp_path / "g.qzf"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\d+\n", done.stdout)
    assert int(done.stdout) < (64 + 60) * 10**6
