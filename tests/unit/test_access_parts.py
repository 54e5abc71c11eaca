"""Parts of tensors, layers, the cache, and what a container can be opened from."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import qzf
import qzf.numpy
from qzf.access import slices
from qzf.access.cache import ChunkCache
from qzf.access.layers import Named, families, layers_of, main_family
from qzf.errors import ChecksumError, NotFoundError, OptionError, SourceChangedError
from qzf.format.ids import RECORD_HEADER_SIZE
from qzf.limits import TAIL_READ
from qzf.parallel import ForkSafeLock
from tests.helpers import CountingSource, open_files

ARRAYS: dict[str, npt.NDArray[Any]] = {
    "four": np.random.default_rng(1).standard_normal((9, 7, 30, 5)).astype(np.float32),
    "wide": np.random.default_rng(2).integers(0, 9, (40, 4096)).astype(np.int16),
    "long": np.arange(70_000, dtype=np.uint8),
    "none": np.zeros((0, 3), np.float32),
    "scalar": np.array(0.5, np.float16),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container of ``ARRAYS``, in chunks of 4 KiB. Not to be changed."""
    folder = tmp_path_factory.mktemp("parts")
    save_file(ARRAYS, folder / "m.safetensors")
    qzf.pack(folder / "m.safetensors", folder / "m.qzf", chunk_size=4096)
    return folder / "m.qzf"


# --- slices ---------------------------------------------------------------------------------------


@st.composite
def _indices(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """An index that numpy takes too."""
    items: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        bound = st.none() | st.integers(-size - 2, size + 2)
        step = st.sampled_from([None, 1, 2, 3, 50, -1, -2, -7])
        kinds = [st.builds(slice, bound, bound, step), st.just(slice(None))]
        items.append(draw(st.one_of(*kinds, *([st.integers(-size, size - 1)] if size else []))))
    if draw(st.booleans()):
        items.append(...)
    return items[0] if len(items) == 1 and draw(st.booleans()) else tuple(items)


@pytest.mark.parametrize("gap", [0, 100, 65536])
@pytest.mark.parametrize("name", ARRAYS)
def test_a_part_is_what_numpy_takes_of_the_whole(path: Path, name: str, gap: int) -> None:
    whole = ARRAYS[name]

    @given(index=_indices(whole.shape))
    def check(index: Any) -> None:
        got, due = container.get_slice(name)[index], np.asarray(whole[index])
        assert got.dtype == due.dtype and got.shape == due.shape
        assert np.array_equal(got, due)

    with qzf.open(path) as container, pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "_GAP", gap)
        check()


@pytest.mark.parametrize(
    ("index", "error"),
    [
        *[(wrong, IndexError) for wrong in (9, -10, (0, 0, 0, 0, 0))],
        *[(wrong, OptionError) for wrong in ("a", (..., ...), None, True, [1], 1.5)],
        *[(wrong, OptionError) for wrong in (slice(None, None, 0), slice("a"))],
    ],
)
def test_what_is_no_index(path: Path, index: Any, error: type[Exception]) -> None:
    with qzf.open(path) as container, pytest.raises(error):
        container.get_slice("four")[index]


def test_what_a_slice_knows(path: Path) -> None:
    with qzf.open(path) as container:
        part = container.get_slice("four")
        assert part.get_shape() == [9, 7, 30, 5] and part.shape == (9, 7, 30, 5)
        assert part.get_dtype() == part.dtype == "F32" and len(part) == 9
        with pytest.raises(TypeError):
            len(container.get_slice("scalar"))
        with pytest.raises(NotFoundError):
            container.get_slice("five")


def _reads(container: qzf.Container, source: CountingSource, use: Callable[[], object]) -> list[int]:
    """The chunks whose records are read."""
    source.reads.clear()
    use()
    offsets = {int(chunk["offset"]): number for number, chunk in enumerate(container.chunks)}
    return [offsets[offset] for offset, _ in source.reads if offset in offsets]


def test_a_part_decodes_only_its_chunks(path: Path) -> None:
    source = CountingSource(path.read_bytes())
    with qzf.open(source, threads=1) as container:
        entry, part = container.info("wide"), container.get_slice("wide")
        assert entry.chunk_count == 80  # half a row each
        first = entry.first_chunk
        assert _reads(container, source, lambda: part[3:5]) == [first + chunk for chunk in range(6, 10)]
        assert _reads(container, source, lambda: part[7, 0:9]) == [first + 14, first + 15]
        assert not _reads(container, source, lambda: part[5:5])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(slices, "_GAP", 0)
            rows = _reads(container, source, lambda: part[::20])
            assert rows == [first, first + 1, first + 40, first + 41]
            cell = _reads(container, source, lambda: part[39, 4000])
            assert cell == [first + 79]


def test_a_part_of_little_does_not_hold_on_to_much(path: Path) -> None:
    with qzf.open(path) as container:
        part = container.get_slice("wide")[:, 5:6]
        assert part.base is None or part.base.nbytes <= 2 * part.nbytes


# --- layers ---------------------------------------------------------------------------------------


def _named(*names: str) -> list[Named]:
    return [Named(name, len(name), name, "m") for name in names]


def test_layers_of_ggml_names() -> None:
    found = layers_of(
        _named("token_embd.weight", "blk.1.a", "blk.0.a", "blk.10.a", "blk.2.a", "blk.0.b", "output.weight")
    )
    assert [layer.name for layer in found] == [
        "token_embd.weight", "blk.0", "blk.1", "blk.2", "blk.10", "output.weight",
    ]  # fmt: skip
    assert found[1] == ("blk", 0, ("blk.0.a", "blk.0.b"), 14)
    assert found[0].family is None and found[0].number is None


@pytest.mark.parametrize(
    ("name", "family", "number"),
    [
        ("model.layers.3.mlp.experts.17.w", "model.layers", 3),
        ("encoder.layer.11.attention.self.query.weight", "encoder.layer", 11),
        ("h.3.ln.weight", "h", 3),
        ("0.auto_model.encoder.layer.5.w", "0.auto_model.encoder.layer", 5),
        ("model.embed_tokens.weight", None, None),
        ("conv1.weight", None, None),
        ("blk.99999999999999.w", None, None),
    ],
)
def test_names_with_numbers(name: str, family: str | None, number: int | None) -> None:
    (layer,) = layers_of(_named(name))
    assert (layer.family, layer.number) == (family, number)


def test_the_main_family_has_the_most_bytes() -> None:
    sizes = {"enc.0.w": 10, "enc.1.w": 10, "dec.0.w": 15, "norm": 99}
    both = layers_of([Named(name, size, name, "m") for name, size in sizes.items()])
    assert main_family(both) == "enc"
    assert main_family(layers_of(_named("a", "b"))) is None


def test_members_of_the_same_names_have_their_own_layers() -> None:
    """A family of which names are shared is each member's own, as a whole; others go through members."""
    own = [
        *[("a", name) for name in ("blk.0.w", "blk.1.w", "enc.0.w", "only")],
        *[("b", name) for name in ("blk.0.w", "blk.2.w", "enc.0.v", "enc.1.w")],
    ]
    count = [name for _, name in own]
    found = layers_of(
        Named(f"{member}:{name}" if count.count(name) > 1 else name, 1, name, member) for member, name in own
    )
    assert [(layer.name, layer.names) for layer in found] == [
        ("a:blk.0", ("a:blk.0.w",)),
        ("a:blk.1", ("blk.1.w",)),
        ("enc.0", ("enc.0.w", "enc.0.v")),
        ("enc.1", ("enc.1.w",)),
        ("b:blk.0", ("b:blk.0.w",)),
        ("b:blk.2", ("blk.2.w",)),
        ("only", ("only",)),
    ]
    assert families(found) == "'a:blk' has 2, 0 to 1, 'enc' has 2, 0 to 1, 'b:blk' has 2, 0 to 2"


def test_layers_of_two_models(tmp_path: Path) -> None:
    for number, member in enumerate(("a", "b")):
        tensors = {f"blk.{layer}.w": np.full(4 + number, number) for layer in range(2)}
        (tmp_path / "in" / member).mkdir(parents=True)
        save_file(tensors, tmp_path / "in" / member / "m.safetensors")
    qzf.pack(tmp_path / "in", tmp_path / "m.qzf")
    with qzf.open(tmp_path / "m.qzf") as container:
        (layer,) = container.layer(0).items()
        assert layer[0] == "b/m.safetensors:blk.0.w" and layer[1].tolist() == [1] * 5  # it has more bytes
        ((_, other),) = container.layer(1, "a/m.safetensors:blk").items()
        assert other.tolist() == [0] * 4
        with pytest.raises(NotFoundError, match=r"'a/m\.safetensors:blk' has 2, 0 to 1"):
            container.layer(0, "blk")


def test_layers_of_a_container(smollm2: Path) -> None:
    with qzf.open(smollm2) as container:
        groups = container.layers()
        names = [name for group in groups for name in group.names]
        assert sorted(names) == sorted(container)
        assert sum(group.size for group in groups) == sum(t.extent.size for t in container.tensors)
        assert {group.family for group in container.layers("blk")} == {"blk"}
        layer = container.layer(0)
        assert layer and all(name.startswith("blk.0.") for name in layer)
        for name, array in layer.items():
            assert np.array_equal(array, container.tensor(name))
        for wrong in ((99, None), (0, "model.layers")):
            with pytest.raises(NotFoundError, match="no layer"):
                container.layer(*wrong)


# --- the cache ------------------------------------------------------------------------------------


def test_the_cache_serves_what_was_read_before(path: Path) -> None:
    source = CountingSource(path.read_bytes())
    with qzf.open(source, threads=1, cache_bytes=1 << 20) as container:
        part = container.get_slice("wide")
        assert len(_reads(container, source, lambda: part[3:5])) == 4
        assert not _reads(container, source, lambda: part[4])
        assert np.array_equal(part[3:5], ARRAYS["wide"][3:5])
        part[3:5][:] = 99  # the caller's own copy
        assert np.array_equal(part[3:5], ARRAYS["wide"][3:5])
        assert np.array_equal(container.tensor("wide"), ARRAYS["wide"])


def test_the_cache_is_off_by_default(path: Path) -> None:
    source = CountingSource(path.read_bytes())
    with qzf.open(source, threads=1) as container:
        for _ in range(2):
            assert len(_reads(container, source, lambda: container.get_slice("wide")[3:5])) == 4


def test_the_cache_keeps_to_its_limit() -> None:
    cache = ChunkCache(100)
    for chunk in range(5):
        cache.put(chunk, memoryview(bytes(30)))
    assert [chunk for chunk in range(5) if cache.get(chunk) is not None] == [2, 3, 4]
    assert cache.get(2) is not None
    cache.put(5, memoryview(bytes(30)))  # 3 was used longest ago
    assert [chunk for chunk in range(6) if cache.get(chunk) is not None] == [2, 4, 5]
    cache.put(5, memoryview(bytes(40)))
    assert cache.get(5) is not None and len(cache.get(5) or b"") == 40
    cache.put(6, memoryview(bytes(101)))
    assert cache.get(6) is None
    cache.clear()
    assert all(cache.get(chunk) is None for chunk in range(7))


@pytest.mark.parametrize("wrong", [-1, 1.5, "1"])
def test_a_cache_of_no_size(path: Path, wrong: Any) -> None:
    with pytest.raises(OptionError):
        qzf.open(path, cache_bytes=wrong)


# --- what a container can be opened from ----------------------------------------------------------


def test_bytes_and_file_objects(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    path = tmp_path / "m.qzf"
    path.write_bytes(data)
    with path.open("rb") as file:
        for src in (data, bytearray(data), memoryview(data), io.BytesIO(data), file):
            with qzf.open(src) as container:
                assert np.array_equal(container.tensor("wide"), ARRAYS["wide"])
        assert not file.closed
        with qzf.open(file) as container:
            os.truncate(path, 64)
            with pytest.raises(SourceChangedError, match="shorter"):
                container.tensor("wide")
    memory = io.BytesIO(data)
    with qzf.open(memory) as container:
        memory.truncate(64)
        with pytest.raises(SourceChangedError, match="shorter"):
            container.tensor("wide")
        memory.close()
        with pytest.raises(OptionError, match="the file object is closed"):
            container.tensor("wide")


def test_file_objects_that_will_not_do(path: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe, os.fdopen(write, "wb"), pytest.raises(OptionError):
        qzf.open(pipe)
    with path.open("r", encoding="latin-1") as text, pytest.raises(OptionError, match="bytes"):
        qzf.open(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", "a\0b"])
def test_what_is_no_path(wrong: str) -> None:
    with pytest.raises(OptionError, match="a path cannot be empty, nor have a zero character"):
        qzf.open(wrong)


@pytest.mark.parametrize("wrong", [bytes(32), b"0" * 64, 7])
def test_a_digest_that_is_no_text(wrong: Any, path: Path) -> None:
    with pytest.raises(OptionError, match="a text in hexadecimal, not"):
        qzf.open(path, digest=wrong)


def test_numbers_of_numpy_are_numbers(path: Path) -> None:
    number: Any = np.int64(2)
    with qzf.open(path, threads=number, cache_bytes=number) as container:
        assert np.array_equal(container.tensor("wide"), ARRAYS["wide"])
    wrongs: tuple[Any, ...] = (True, np.bool_(True), np.float64(2))
    for wrong in wrongs:
        with pytest.raises(OptionError, match="threads"):
            qzf.open(path, threads=wrong)
        with pytest.raises(OptionError, match="cache_bytes"):
            qzf.open(path, cache_bytes=wrong)


def test_masks_cannot_be_saved(tmp_path: Path) -> None:
    masked = np.ma.masked_equal(np.arange(3), 1)
    with pytest.raises(OptionError, match="safetensors has no masks") as caught:
        qzf.numpy.save_file({"a": masked}, tmp_path / "a.qzf")
    assert caught.value.tensor == "a" and not (tmp_path / "a.qzf").exists()


def test_a_file_object_is_read_by_many_threads(path: Path) -> None:
    with path.open("rb") as file, qzf.open(file, threads=8) as container:
        for _ in range(5):
            assert np.array_equal(container.tensor("wide"), ARRAYS["wide"])


def test_an_unknown_framework(path: Path) -> None:
    with pytest.raises(OptionError):
        qzf.open(path, framework="fortran")
    with pytest.raises(OptionError):
        qzf.open(path, device="cuda")
    with qzf.open(path, framework="raw") as container:
        assert container.tensor("four").tobytes() == ARRAYS["four"].tobytes()
        assert container.tensor("four").shape == (ARRAYS["four"].nbytes,)


# --- threads, processes, descriptors --------------------------------------------------------------


def test_many_threads_share_a_container(path: Path) -> None:
    faults: list[str] = []

    def use(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(40):
            name = str(random.choice(["four", "wide", "long"]))
            row = int(random.integers(len(ARRAYS[name])))
            if not np.array_equal(container.get_slice(name)[row], ARRAYS[name][row]):
                faults.append(name)

    for cache in (0, 50_000):
        with qzf.open(path, cache_bytes=cache) as container:
            threads = [threading.Thread(target=use, args=(seed,)) for seed in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert not faults


_FORKS = """
import os, sys, threading, warnings
import numpy as np, qzf
warnings.simplefilter("ignore")
container = qzf.open(sys.argv[1], cache_bytes=1 << 20)
whole = container.tensor("wide")
stop = threading.Event()
def busy():
    while not stop.is_set():
        container.get_slice("wide")[3:9]
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads: thread.start()
codes = []
for _ in range(30):
    child = os.fork()
    if not child:
        good = np.array_equal(container.tensor("wide"), whole) and len(container.layers()) == 1
        os._exit(0 if good else 1)
    codes.append(os.waitpid(child, 0)[1])
stop.set()
for thread in threads: thread.join()
print(sum(codes))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_container_is_usable_in_a_child_process(path: Path) -> None:
    """The parent's threads hold locks at any time: a child that waited for one would wait for ever."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKS, path], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_locks_are_free_in_a_child_process() -> None:
    lock = ForkSafeLock()
    code = (
        "import os, threading, time, warnings\nfrom qzf.parallel import ForkSafeLock\n"
        "warnings.simplefilter('ignore')\nlock = ForkSafeLock()\n"
        "def hold():\n    with lock: time.sleep(5)\n"
        "threading.Thread(target=hold, daemon=True).start(); time.sleep(0.2)\n"
        "child = os.fork()\n"
        "if not child:\n    with lock: os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True); os._exit(0)\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "7" and time.monotonic() - started < 5
    with lock:
        pass


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_descriptor_is_left_open(path: Path, tmp_path: Path) -> None:
    before = open_files()
    with qzf.open(path) as container:
        container.tensor("wide")
        container.tensor("wide", copy=False)
        stream = container.stream(window_bytes=1 << 20)
        next(stream)
        stream.close()
    (tmp_path / "bad.qzf").write_bytes(path.read_bytes()[:-1])
    with pytest.raises(qzf.QzfError):
        qzf.open(tmp_path / "bad.qzf")
    assert open_files() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("qzf-")]


# --- as little as can be --------------------------------------------------------------------------


@pytest.mark.realmodel
def test_a_real_model_is_opened_by_its_end(gemma: Path, tmp_path: Path) -> None:
    """No more bytes are read than trailer, index, and the tensor's chunks with the tables they name."""
    qzf.pack(gemma, tmp_path / "g.qzf")
    source = CountingSource((tmp_path / "g.qzf").read_bytes())
    with qzf.open(source) as container:
        index = container.reader.trailer.index_size
        assert len(source.reads) <= 2
        assert sum(size for _, size in source.reads) <= max(TAIL_READ, index + 2048)
        for name in ("blk.0.attn_k_norm.weight", "blk.0.ffn_down.weight"):
            source.reads.clear()
            container.tensor(name)
            entry = container.info(name)
            chunks = container.chunks[entry.first_chunk : entry.first_chunk + entry.chunk_count]
            tables = sum(
                RECORD_HEADER_SIZE + section.stored_size
                for section in container.reader.index.sections
                if section.offset in {offset for offset, _ in source.reads}
            )
            due = int(sum(chunks["stored_size"])) + RECORD_HEADER_SIZE * len(chunks) + tables
            assert sum(size for _, size in source.reads) == due
            assert tables < 100_000


def test_a_damaged_chunk_is_an_error_of_its_part(path: Path, tmp_path: Path) -> None:
    data = bytearray(path.read_bytes())
    with qzf.open(path) as container:
        chunk = container.chunks[container.info("wide").first_chunk + 8]
    data[int(chunk["offset"]) + RECORD_HEADER_SIZE + 9] ^= 1
    with qzf.open(bytes(data)) as container:
        assert np.array_equal(container.get_slice("wide")[5:], ARRAYS["wide"][5:])
        for read in (lambda: container.get_slice("wide")[3:5], lambda: list(container.stream())):
            with pytest.raises(qzf.DamageError) as caught:
                read()
            assert caught.value.tensor == "wide"
            assert isinstance(caught.value, ChecksumError | qzf.ChunkError)


def test_jobs_are_announced_to_the_storage(path: Path) -> None:
    """Every record that is read was announced before, and nothing else was."""

    class Noted(CountingSource):
        announced: list[tuple[int, int]]

        def will_need(self, offset: int, size: int) -> None:
            self.announced.append((offset, size))

    source = Noted(path.read_bytes())
    source.announced = []
    with qzf.open(source, threads=2) as container:
        source.reads.clear()
        container.load(["wide", "four"])
    announced = {byte for offset, size in source.announced for byte in range(offset, offset + size)}
    read = {byte for offset, size in source.reads for byte in range(offset, offset + size)}
    assert read <= announced
    assert len(announced) <= len(read) + 64 * len(source.reads)
