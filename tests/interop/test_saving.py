"""``qzf.torch`` and ``qzf.numpy`` beside ``safetensors.torch`` and ``safetensors.numpy``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import qzf
import qzf.numpy
from qzf.errors import OptionError, StateDictError
from tests.interop.beside import METADATA, TENSORS, Pair, run_python, same_tensor

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402 - it needs torch

import qzf.torch  # noqa: E402

FACES = {"numpy": (safetensors.numpy, qzf.numpy), "torch": (safetensors.torch, qzf.torch)}


@pytest.fixture(params=FACES)
def faces(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return FACES[request.param]


def _tensors(face: Any) -> dict[str, Any]:
    """Tensors of many dtypes, for safetensors' numpy or torch module."""
    if face is safetensors.numpy:
        return dict(TENSORS)
    found = {}
    for name, array in TENSORS.items():
        bits = array.view(np.int16) if array.dtype.name == "bfloat16" else array
        tensor = torch.from_numpy(bits.copy())
        found[name] = tensor.view(torch.bfloat16) if array.dtype.name == "bfloat16" else tensor
    codes = torch.arange(64, dtype=torch.uint8).reshape(4, 16)
    dtypes = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
    found |= {name: codes.clone().view(getattr(torch, name)) for name in (*dtypes, "float4_e2m1fn_x2")}
    return found


def _unpacked(container: Path) -> tuple[str, bytes]:
    """Name and bytes of the one member that a container has."""
    with qzf.open(container) as opened:
        (member,) = opened.members
        return member.name, opened.member_bytes(member.name)


# --- saving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {'ü"\\\n\x01': "\x7f\t/"}], ids=repr)
def test_the_file_that_safetensors_writes(
    faces: tuple[Any, Any], metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    theirs, ours = faces
    tensors = _tensors(theirs)
    theirs.save_file(tensors, tmp_path / "theirs.safetensors", metadata)
    ours.save_file(tensors, tmp_path / "ours.qzf", metadata)
    name, data = _unpacked(tmp_path / "ours.qzf")
    assert name == "ours.safetensors"
    assert data == (tmp_path / "theirs.safetensors").read_bytes()
    qzf.unpack(tmp_path / "ours.qzf", tmp_path / "unpacked")
    assert (tmp_path / "unpacked").read_bytes() == data
    (tmp_path / "copy.qzf").write_bytes(ours.save(tensors, metadata))
    assert _unpacked(tmp_path / "copy.qzf") == ("model.safetensors", data)


def test_a_container_is_the_one_that_pack_makes(tmp_path: Path) -> None:
    tensors = {"w": np.random.default_rng(1).standard_normal((300, 700)).astype(np.float32)}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    for level in ("fast", "default"):
        qzf.pack(tmp_path / "model.safetensors", tmp_path / "packed.qzf", level=level, force=True)
        qzf.numpy.save_file(tensors, tmp_path / "model.qzf", level=level, threads=2)
        assert (tmp_path / "model.qzf").read_bytes() == (tmp_path / "packed.qzf").read_bytes()


def test_what_was_there_is_replaced_or_stays_as_it_was(faces: tuple[Any, Any], tmp_path: Path) -> None:
    theirs, ours = faces
    path = tmp_path / "model.qzf"
    ours.save_file({}, path)
    assert ours.load_file(path) == {}
    ours.save_file(_tensors(theirs), str(path))
    assert list(ours.load_file(str(path))) == list(qzf.open(path))
    before = path.read_bytes()
    with pytest.raises(OptionError):
        ours.save_file({"bad": object()}, path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["model.qzf"]


def test_several_keys_of_metadata_in_their_order(faces: tuple[Any, Any], tmp_path: Path) -> None:
    """safetensors writes them in another order on each run, so these bytes cannot be compared."""
    theirs, ours = faces
    metadata = {key: key.upper() for key in ("z", "format", "a", "m")}
    ours.save_file(_tensors(theirs), tmp_path / "a.qzf", metadata)
    data = _unpacked(tmp_path / "a.qzf")[1]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"].items()) == list(metadata.items())
    (tmp_path / "a.safetensors").write_bytes(data)
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata() == metadata


@pytest.mark.parametrize(
    ("filename", "member"),
    [
        ("model.qzf", "model.safetensors"),
        ("model.safetensors.qzf", "model.safetensors"),
        ("model.safetensors", "model.safetensors"),
        ("model", "model.safetensors"),
        ("a.b.qzf", "a.b.safetensors"),
        ("a:b.qzf", "model.safetensors"),
        (".qzf", "model.safetensors"),
    ],
)
def test_the_name_of_the_member(filename: str, member: str, tmp_path: Path) -> None:
    qzf.numpy.save_file({"t": np.zeros(3)}, tmp_path / filename)
    assert _unpacked(tmp_path / filename)[0] == member


_DTYPES = st.sampled_from(
    ["?", "i1", "u1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<c8", "<f8", "<i8", "<u8"]
)
_ARRAYS = hnp.arrays(_DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@given(tensors=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _ARRAYS, max_size=6))
def test_any_arrays(
    tensors: dict[str, np.ndarray[Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tensors.pop("__metadata__", None)
    arrays = {name: np.require(array, requirements=["C"]) for name, array in tensors.items()}
    folder = tmp_path_factory.mktemp("any")
    path = folder / "a.qzf"
    qzf.numpy.save_file(arrays, path)
    assert _unpacked(path)[1] == safetensors.numpy.save(arrays)
    loaded = qzf.numpy.load(path.read_bytes())
    for name, array in arrays.items():
        same_tensor(loaded[name], array.copy())


def test_arrays_of_any_order_and_ends(tmp_path: Path) -> None:
    plain = np.arange(24, dtype=np.int32).reshape(4, 6)
    tensors = {"turned": plain.T, "stepped": plain[::-1, ::2], "big": plain.astype(">i4"), "read only": plain}
    plain.flags.writeable = False
    qzf.numpy.save_file(tensors, tmp_path / "a.qzf")
    for name, array in qzf.numpy.load_file(tmp_path / "a.qzf").items():
        assert array.dtype == np.int32 and np.array_equal(array, tensors[name])


def test_tensors_that_are_lazily_conjugate_or_need_gradients(tmp_path: Path) -> None:
    base = torch.tensor([[1 + 2j, 3 - 1j]], dtype=torch.complex64)
    tensors = {
        "conj": base.conj(),
        "neg": base.conj().imag.contiguous(),
        "grad": torch.ones(3, requires_grad=True),
    }
    qzf.torch.save_file(tensors, tmp_path / "a.qzf")
    for name, tensor in qzf.torch.load_file(tmp_path / "a.qzf").items():
        assert torch.equal(tensor, tensors[name].detach().resolve_conj()) and not tensor.requires_grad


# --- what cannot be saved -------------------------------------------------------------------------

_BASE = torch.arange(24, dtype=torch.float32).reshape(4, 6)
UNSAVED: dict[str, Callable[[], Any]] = {
    "a list": lambda: [_BASE],
    "a list of pairs": lambda: list({"a": _BASE}.items()),
    "no tensor": lambda: {"a": [1, 2]},
    "an array": lambda: {"a": np.zeros(3)},
    "None": lambda: {"a": None},
    "not contiguous": lambda: {"a": _BASE.t()},
    "a part with steps": lambda: {"a": _BASE[:, ::2]},
    "sparse": lambda: {"a": _BASE.to_sparse()},
    "sparse rows": lambda: {"a": torch.eye(3).to_sparse_csr()},
    "the same twice": lambda: {"a": _BASE, "b": _BASE},
    "a view and its base": lambda: {"a": _BASE, "b": _BASE[1:3]},
    "parts that overlap": lambda: {"a": _BASE[:3], "b": _BASE[2:]},
    "shared and not contiguous": lambda: {"a": _BASE, "b": _BASE.t()},
    "complex128": lambda: {"a": torch.zeros(3, dtype=torch.complex128)},
    "a number for a name": lambda: {3: _BASE},
    "None for a name": lambda: {None: _BASE},
    "half of a surrogate pair": lambda: {"\ud800": _BASE},
}
SAVED: dict[str, Callable[[], Any]] = {
    "parts that do not overlap": lambda: {"a": _BASE[:2], "b": _BASE[2:]},
    "parts with a gap": lambda: {"a": _BASE[:1], "b": _BASE[3:]},
    "a scalar": lambda: {"a": torch.tensor(2.5)},
    "a part": lambda: {"a": _BASE[1:3]},
    "two without elements": lambda: {"a": torch.zeros(0), "b": torch.zeros(0, 3)},
    "a parameter": lambda: {"a": torch.nn.Parameter(_BASE)},
}


@pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant)")  # torch, of what is young in it
@pytest.mark.parametrize("name", UNSAVED)
def test_what_cannot_be_saved(name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception) as theirs:
        safetensors.torch.save_file(UNSAVED[name](), tmp_path / "a.safetensors")
    with pytest.raises((OptionError, TypeError)) as ours:
        qzf.torch.save_file(UNSAVED[name](), tmp_path / "a.qzf")
    kind = type(theirs.value)
    if kind in (ValueError, RuntimeError, TypeError):  # else it is SafetensorError, or a fault inside
        assert isinstance(ours.value, kind), theirs.value
    assert isinstance(ours.value, StateDictError) == (kind is RuntimeError)
    assert not (tmp_path / "a.qzf").exists()


@pytest.mark.parametrize("name", SAVED)
def test_what_can_be_saved(name: str, tmp_path: Path) -> None:
    tensors = SAVED[name]()
    qzf.torch.save_file(tensors, tmp_path / "a.qzf")
    assert _unpacked(tmp_path / "a.qzf")[1] == safetensors.torch.save(tensors)


@pytest.mark.parametrize(
    "metadata", [3, "text", ["a"], {"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}], ids=repr
)
def test_metadata_that_cannot_be(faces: tuple[Any, Any], metadata: Any, tmp_path: Path) -> None:
    theirs, ours = faces
    with pytest.raises(TypeError):
        theirs.save_file({}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(TypeError):
        ours.save_file({}, tmp_path / "a.qzf", metadata)


@pytest.mark.parametrize(
    "tensors",
    [
        [1],
        {"a": 3},
        {"a": [1.0]},
        {"a": np.float32(1)},
        *({"a": np.zeros(2, dtype)} for dtype in (object, "U4", np.complex128, "M8[s]", "i4,i4")),
    ],
    ids=repr,
)
def test_what_is_no_array(tensors: Any, tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017 - whatever it is
        safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(OptionError):
        qzf.numpy.save_file(tensors, tmp_path / "a.qzf")


def test_a_tensor_without_data_and_one_with_the_name_of_the_metadata(tmp_path: Path) -> None:
    for tensors in ({"a": torch.zeros(3, device="meta")}, {"__metadata__": torch.zeros(3)}):
        with pytest.raises(OptionError):
            qzf.torch.save_file(tensors, tmp_path / "a.qzf")


# --- loading --------------------------------------------------------------------------------------


def test_loading(faces: tuple[Any, Any], tmp_path: Path) -> None:
    theirs, ours = faces
    theirs.save_file(_tensors(theirs), tmp_path / "model.safetensors", METADATA)
    qzf.pack(tmp_path / "model.safetensors", tmp_path / "model.qzf", chunk_size=4096)
    expected = theirs.load_file(tmp_path / "model.safetensors")
    for loaded in (
        ours.load_file(tmp_path / "model.qzf"),
        ours.load_file(str(tmp_path / "model.qzf"), backend="pread"),
        ours.load((tmp_path / "model.qzf").read_bytes()),
    ):
        assert list(loaded) == list(expected) and type(loaded) is dict
        for name, tensor in loaded.items():
            same_tensor(tensor, expected[name])
    for path, error in (
        (tmp_path / "nobody", FileNotFoundError),
        (Path(__file__), safetensors.SafetensorError),
    ):
        for face in (theirs, ours):
            with pytest.raises(error):
                face.load_file(path)


_NUMPY_ALONE = """
import sys
import qzf.numpy
qzf.numpy.load_file(sys.argv[1])
assert not {"torch", "safetensors", "jax", "mlx", "transformers"} & set(sys.modules)
"""
_NO_TORCH = """
import sys
sys.modules["torch"] = None
try:
    import qzf.torch
except ImportError as error:
    print(error)
"""


def test_only_what_is_needed_is_imported(pair: Pair) -> None:
    run_python(_NUMPY_ALONE, pair.ours)
    assert "pip install 'qzf[torch]'" in run_python(_NO_TORCH)
    loads = "import sys, qzf.torch\nqzf.torch.load_file(sys.argv[1])\n"
    run_python(loads + "assert 'safetensors' not in sys.modules", pair.ours)
