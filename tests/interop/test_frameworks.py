"""``qzf.open(framework=...)``: the arrays of torch, jax and mlx hold what numpy's hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import qzf
from qzf.errors import MissingPackageError, OptionError
from tests.interop.beside import TENSORS, content, run_python

EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container with a tensor of each dtype that numpy and ml_dtypes have, stored in many chunks."""
    folder = tmp_path_factory.mktemp("frameworks")
    tensors = dict(TENSORS)
    codes = np.arange(256, dtype=np.uint8).reshape(8, 32)
    tensors |= {name: codes.view(getattr(ml_dtypes, name)) for name in EIGHT_BITS}
    for dtype in ("int8", "int16", "int32", "uint8", "float64"):
        tensors[dtype] = np.arange(-60, 60).astype(dtype).reshape(10, 12)
    save_file(tensors, folder / "every.safetensors")
    qzf.pack(folder / "every.safetensors", folder / "every.qzf", chunk_size=4096)
    return folder / "every.qzf"


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container with a tensor that is stored as it is, in one chunk."""
    folder = tmp_path_factory.mktemp("flat")
    noise = np.random.default_rng(1).integers(0, 256, 5000, np.uint8)
    save_file({"noise": noise}, folder / "flat.safetensors")
    qzf.pack(folder / "flat.safetensors", folder / "flat.qzf")
    return folder / "flat.qzf"


# --- torch ----------------------------------------------------------------------------------------


def test_torch_has_every_dtype(every: Path) -> None:
    torch = pytest.importorskip("torch")
    with qzf.open(every) as arrays, qzf.open(every, framework="pt") as tensors:
        loaded = tensors.load()
        for name in arrays:
            array, tensor = arrays.tensor(name), tensors.tensor(name)
            assert tensor.dtype == getattr(torch, array.dtype.name)
            assert tuple(tensor.shape) == array.shape and tensor.device.type == "cpu"
            assert not tensor.requires_grad and tensor.is_contiguous()
            assert content(tensor) == content(loaded[name]) == array.tobytes()


@pytest.mark.parametrize("name", ["brain", "wide", "float8_e5m2", "b.cube", "uint8"])
def test_torch_has_what_numpy_does_of_a_slice(every: Path, name: str) -> None:
    pytest.importorskip("torch")
    indices: list[Any] = [slice(None, None, -1), slice(None, None, 2), (..., 1), (0, slice(4, 1, -2)), -1]
    with qzf.open(every) as arrays, qzf.open(every, framework="torch") as tensors:
        for index in [*indices, (0,) * len(arrays.info(name).shape)]:
            array, tensor = np.asarray(arrays.get_slice(name)[index]), tensors.get_slice(name)[index]
            assert tuple(tensor.shape) == array.shape
            assert content(tensor) == array.tobytes()


def test_torch_shares_the_memory_decoded_to(every: Path) -> None:
    pytest.importorskip("torch")
    with qzf.open(every, framework="pt") as container:
        for name in ("wide", "brain", "float8_e4m3fn"):
            buffer = np.empty(container.info(name).extent.size, np.uint8)
            tensor = container.load([name], out={name: buffer})[name]
            assert tensor.data_ptr() == buffer.ctypes.data
            tensor.zero_()
            assert not buffer.any()


@pytest.mark.parametrize("framework", ["pt", "numpy"])
def test_tensors_of_torch_are_loaded_to(every: Path, framework: str) -> None:
    """Of any dtype, also those that numpy has not, and of no axes."""
    torch = pytest.importorskip("torch")
    with qzf.open(every, framework="pt") as container:
        due = container.load()
    rooms = {
        name: torch.nn.Parameter(torch.zeros_like(one), requires_grad=False) for name, one in due.items()
    }
    with qzf.open(every, framework=framework) as container:
        found = container.load(out=rooms)
        for name, one in due.items():
            assert content(rooms[name]) == content(one) == content(found[name])
            if framework == "pt" and one.numel():
                assert found[name].data_ptr() == rooms[name].data_ptr()


def test_tensors_of_torch_that_cannot_be_loaded_to(flat: Path) -> None:
    torch = pytest.importorskip("torch")
    with qzf.open(flat) as container:
        name = next(iter(container))
        size = container.info(name).extent.size
        conjugate = torch.zeros(size // 8, dtype=torch.complex64).conj()
        for wrong, fault in (
            (torch.zeros(size, dtype=torch.uint8, device="meta"), "not on meta"),
            (torch.zeros(2 * size, dtype=torch.uint8)[::2], "not contiguous"),
            (torch.zeros(size, dtype=torch.uint8).to_sparse(), "not contiguous"),
            (conjugate, "not contiguous"),
            (torch.zeros(size + 1, dtype=torch.uint8), f"{size} bytes; this has {size + 1} bytes"),
        ):
            with pytest.raises(OptionError, match=fault):
                container.load([name], out={name: wrong})


def test_torch_copies_a_view_of_the_file(flat: Path) -> None:
    pytest.importorskip("torch")
    with qzf.open(flat) as container:
        view = container.tensor("noise", copy=False)
        assert not view.flags.writeable  # so it is one, and torch would warn
    with qzf.open(flat, framework="pt") as container:
        tensor = container.tensor("noise", copy=False)
        assert content(tensor) == view.tobytes()
        tensor.zero_()
        assert content(container.tensor("noise")) == view.tobytes()


def test_torch_has_raw_blocks_of_gguf(smollm2: Path) -> None:
    torch = pytest.importorskip("torch")
    with qzf.open(smollm2) as arrays, qzf.open(smollm2, framework="pt") as tensors:
        name = next(name for name in arrays if arrays.info(name).dtype == "Q4_1")
        blocks, tensor = arrays.tensor(name), tensors.tensor(name)
        assert type(tensor) is torch.Tensor and tensor.dtype == torch.uint8
        assert tuple(tensor.shape) == blocks.shape and content(tensor) == blocks.tobytes()


def test_torch_streams_through_buffers_of_the_callers(every: Path) -> None:
    pytest.importorskip("torch")
    buffers = [bytearray(64 << 10), bytearray(64 << 10)]
    with qzf.open(every) as arrays, qzf.open(every, framework="pt") as tensors:
        seen: dict[str, bytes] = {}
        for part in tensors.stream(out=buffers):
            for name, tensor in part.tensors.items():
                seen[name] = seen.get(name, b"") + content(tensor)
        assert seen == {name: arrays.tensor(name).tobytes() for name in arrays}


def test_devices_of_torch(every: Path) -> None:
    torch = pytest.importorskip("torch")
    for device in (None, "cpu", "cpu:0", torch.device("cpu")):
        with qzf.open(every, framework="pt", device=device) as container:
            assert container.tensor("brain").device.type == "cpu"
    for device in ("abacus", "cuda:x", "meta", -1, 1.5, object()):
        with pytest.raises(OptionError, match=r"no device|no data"):
            qzf.open(every, framework="pt", device=device)


def test_a_dtype_that_an_older_torch_does_not_have(every: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.delattr(torch, "float8_e8m0fnu")
    with qzf.open(every, framework="pt") as container:
        with pytest.raises(OptionError, match="has no dtype float8_e8m0fnu"):
            container.tensor("float8_e8m0fnu")
        assert container.tensor("float8_e5m2").dtype == torch.float8_e5m2


def test_a_number_is_the_accelerator_of_that_number(every: Path) -> None:
    torch = pytest.importorskip("torch")
    with qzf.open(every, framework="pt", device=0) as container:
        if torch.accelerator.is_available():
            expected = torch.accelerator.current_accelerator().type
            assert container.tensor("brain").device.type == expected
        else:  # torch itself says that there is none
            with pytest.raises((RuntimeError, AssertionError)):
                container.tensor("brain")


# --- jax, in a process of its own: it warns of every fork in its ----------------------------------

_JAX = """
import sys
import jax, ml_dtypes, numpy as np
import qzf
wide = len(sys.argv) > 2
if wide:
    jax.config.update("jax_enable_x64", True)
narrower = {"int64": "int32", "uint64": "uint32", "float64": "float32"}
with qzf.open(sys.argv[1]) as arrays, qzf.open(sys.argv[1], framework="jax") as container:
    loaded = container.load()
    for name in arrays:
        array, made = arrays.tensor(name), container.tensor(name)
        dtype = array.dtype.name if wide else narrower.get(array.dtype.name, array.dtype.name)
        assert isinstance(made, jax.Array) and made.dtype == np.dtype(dtype), (name, made.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            same = array.astype(dtype)
        assert made.shape == array.shape
        assert np.asarray(made).tobytes() == np.asarray(loaded[name]).tobytes() == same.tobytes(), name
    assert np.array_equal(container.get_slice("wide")[::-3, 5], arrays.get_slice("wide")[::-3, 5])
    assert container.get_slice("b.cube")[0, 1, 2].shape == ()
    buffer = bytearray(container.info("wide").extent.size)
    made = container.load(["wide"], out={"wide": buffer})["wide"]
    buffer[:] = bytes(len(buffer))
    assert np.array_equal(made, arrays.tensor("wide"))  # jax's arrays never change
    for part in container.stream(out=[bytearray(1 << 20), bytearray(1 << 20)]):
        pass
    last = dict(part.tensors)
for device in ("cpu", "cpu:0", jax.devices("cpu")[0]):
    with qzf.open(sys.argv[1], framework="flax", device=device) as container:
        assert container.tensor("wide").devices() == {jax.devices("cpu")[0]}
for device in ("abacus", "cpu:99", "cpu:x", 1.5):
    try:
        qzf.open(sys.argv[1], framework="jax", device=device)
    except qzf.OptionError:
        continue
    raise AssertionError(device)
with qzf.safe_open(sys.argv[1], "flax") as file:
    assert np.array_equal(file.get_tensor("brain"), file.get_slice("brain")[:])
    assert file.get_slice("b.cube")[1, ..., 2].shape == (4,)
    for call in (lambda: file.get_slice("wide")[-2:], lambda: file.get_slice("wide")[400]):
        try:
            call()
        except (OverflowError, qzf.OptionError):
            continue
        raise AssertionError
try:
    qzf.safe_open(sys.argv[1], "jax", device="cuda:0")
except qzf.OptionError as error:
    print("right:", error)
"""


@pytest.mark.parametrize("mode", [[], ["64 bits"]], ids=["32 bits", "64 bits"])
def test_jax(every: Path, mode: list[str]) -> None:
    from importlib.util import find_spec

    if find_spec("jax") is None:
        pytest.skip("jax is not installed")
    assert run_python(_JAX, every, *mode).startswith("right:")


# --- mlx ------------------------------------------------------------------------------------------


def test_mlx(every: Path) -> None:
    mlx = pytest.importorskip("mlx.core")
    with qzf.open(every) as arrays, qzf.open(every, framework="mlx") as container:
        loaded = container.load()
        for name in arrays:
            array, made = arrays.tensor(name), container.tensor(name)
            assert isinstance(made, mlx.array) and made.shape == array.shape
            if array.dtype.name in EIGHT_BITS:
                array = array.view(np.uint8)  # which mlx does not have
            if array.dtype == np.float64:
                array = array.astype(np.float32)
            assert str(made.dtype) == f"mlx.core.{array.dtype.name}"
            if array.dtype.name == "bfloat16":
                array, made = array.view(np.uint16), made.view(mlx.uint16)
                loaded[name] = loaded[name].view(mlx.uint16)
            assert np.array(made).tobytes() == np.array(loaded[name]).tobytes() == array.tobytes()
        for index in (slice(None, None, -3), (slice(2, 9, 2), 5), (0, 0)):
            assert np.array_equal(container.get_slice("wide")[index], arrays.get_slice("wide")[index])
        buffer = bytearray(container.info("wide").extent.size)
        made = container.load(["wide"], out={"wide": buffer})["wide"]
        buffer[:] = bytes(len(buffer))
        assert np.array_equal(made, arrays.tensor("wide"))
    with qzf.safe_open(every, "mlx") as file:
        assert file.get_slice("b.cube")[1, ..., 2].shape == (4,)
    with pytest.raises(OptionError, match="no device"):
        qzf.open(every, framework="mlx", device="gpu:1")


# --- names and packages ---------------------------------------------------------------------------


def test_names(every: Path) -> None:
    for name in ("abacus", "PT", "", None, 3):
        with pytest.raises(OptionError, match="there is no framework"):
            qzf.open(every, framework=name)  # type: ignore[arg-type]
    for name in ("numpy", "np", "raw"):
        with qzf.open(every, framework=name, device="cpu") as container:
            assert type(container.tensor("wide")) is np.ndarray
        with pytest.raises(OptionError, match="no device"):
            qzf.open(every, framework=name, device="cuda")


_MISSING = """
import sys
import qzf
sys.modules[sys.argv[2]] = None  # as if it were not installed
for open_ in (qzf.open, qzf.safe_open):
    try:
        open_(sys.argv[1], framework=sys.argv[3])
    except ImportError as error:
        assert isinstance(error, qzf.MissingPackageError) and isinstance(error, qzf.OptionError)
        print(error)
"""


@pytest.mark.parametrize(("package", "name"), [("torch", "pt"), ("jax", "flax"), ("mlx", "mlx")])
def test_a_missing_package(every: Path, package: str, name: str) -> None:
    said = run_python(_MISSING, every, package, name).splitlines()
    assert len(said) == 2 and all(f"pip install 'qzf[{package}]'" in line for line in said)


def test_a_package_that_lacks_another(every: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "core.py").write_text("import a_package_that_nobody_has\n")
    code = """
import sys
import qzf
sys.path.insert(0, sys.argv[2])
try:
    qzf.open(sys.argv[1], framework="mlx")
except ModuleNotFoundError as error:
    print(type(error).__name__, error.name)
"""
    assert run_python(code, every, tmp_path).split() == ["ModuleNotFoundError", "a_package_that_nobody_has"]
    assert issubclass(MissingPackageError, ModuleNotFoundError)


_LAZY = """
import sys
import qzf
optional = {"torch", "jax", "mlx", "mlx.core", "safetensors", "transformers"}
with qzf.open(sys.argv[1]) as container:
    container.load(), container.get_slice("wide")[1:2]
assert not optional & set(sys.modules), optional & set(sys.modules)
"""


def test_numpy_needs_no_other_package(every: Path) -> None:
    run_python(_LAZY, every)


# --- numbers instead of blocks --------------------------------------------------------------------


def test_weights_of_gguf_in_torch(smollm2: Path) -> None:
    torch = pytest.importorskip("torch")
    with qzf.open(smollm2) as arrays, qzf.open(smollm2, framework="pt") as tensors:
        name = next(name for name in arrays if arrays.info(name).dtype == "Q4_1")
        for dtype in ("float32", "float16", "bfloat16"):
            array = arrays.tensor(name, dequantize=dtype)
            tensor = tensors.tensor(name, dequantize=dtype)
            assert tensor.dtype == getattr(torch, dtype) and tuple(tensor.shape) == array.shape
            assert content(tensor) == array.tobytes()
            part = tensors.get_slice(name, dequantize=dtype)[1:3, ::2]
            assert content(part) == arrays.get_slice(name, dequantize=dtype)[1:3, ::2].tobytes()
