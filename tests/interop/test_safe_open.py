"""``qzf.safe_open`` beside ``safetensors.safe_open``: the same calls on the same tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

import qzf
from tests.helpers import open_files
from tests.interop.beside import CUBE, FRAMEWORKS, TENSORS, Pair, both, outcome, same, same_tensor

# --- the table of calls ---------------------------------------------------------------------------

CALLS: dict[str, Callable[[Any], Any]] = {
    "keys": lambda file: file.keys(),
    "offset_keys": lambda file: file.offset_keys(),
    "metadata": lambda file: file.metadata(),
    "names of get_tensors": lambda file: list(file.get_tensors()),
    "unknown tensor": lambda file: file.get_tensor("nobody"),
    "unknown slice": lambda file: file.get_slice("nobody"),
    "number for a name": lambda file: file.get_tensor(3),
    "None for a name": lambda file: file.get_slice(None),
    "bytes for a name": lambda file: file.get_tensor(b"wide"),
    "enter": lambda file: file.__enter__() is file,
    "exit": lambda file: file.__exit__(None, None, None),
    "keys once closed": lambda file: (file.__exit__(None, None, None), file.keys()),
    "offset_keys once closed": lambda file: (file.__exit__(None, None, None), file.offset_keys()),
    "metadata once closed": lambda file: (file.__exit__(None, None, None), file.metadata()),
    "tensor once closed": lambda file: (file.__exit__(None, None, None), file.get_tensor("wide")),
    "tensors once closed": lambda file: (file.__exit__(None, None, None), file.get_tensors()),
    "slice once closed": lambda file: (file.__exit__(None, None, None), file.get_slice("wide")),
    "length of a slice": lambda file: len(file.get_slice("wide")),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(pair: Pair, framework: str, name: str) -> None:
    both(pair, framework, CALLS[name])


@pytest.mark.parametrize("name", TENSORS)
def test_tensors(pair: Pair, framework: str, name: str) -> None:
    both(pair, framework, lambda file: file.get_tensor(name))
    both(pair, framework, lambda file: file.get_slice(name).get_shape())
    both(pair, framework, lambda file: file.get_slice(name).get_dtype())
    both(pair, framework, lambda file: file.get_tensors()[name])


#: What is put in the brackets.
INDICES = """
    0; 2; -1; -3; 3; -4; 2**31; 2**70; -(2**70); np.int64(1); np.uint8(1); np.array(1); True; False;
    (True,); np.bool_(True); 1.0; 'a'; b'a'; {}; None; object(); ...; (); (...,); (..., 0); (0, ...);
    (0, ..., 0); (..., ...); (0, ..., ...); (0, 0, 0, ...); (..., 0, 0, 0); (0, 0, 0, 0, ...);
    (..., slice(0, 2)); (None, 0); (0, None); (0, 1); (0, 1, 2); (-1, -1, -1); (0, 1, 2, 3); (0, 4);
    (0, 0, -6); (3, 0); (0, slice(None)); slice(None); slice(1, 3); slice(0, 3); slice(0, 0); slice(1, 1);
    slice(3, 3); slice(2, 1); slice(0, 4); slice(0, 100); slice(3, None); slice(5, 9); slice(None, 0);
    slice(0, 2**70); slice(-2, None); slice(None, -1); slice(-9, 2); slice(None, -5); slice(-1, -3);
    slice(0, -1, 2); slice(0, 3, 2); slice(None, None, 2); slice(1, None, 2); slice(0, 3, 3);
    slice(None, None, 9); slice(2, 2, 2); slice(1, 0, 2); slice(None, None, 0); slice(None, None, -1);
    slice(None, None, 2**70); slice('a', None); slice(0.5, 2); slice(None, None, 'a');
    slice(None, None, 1.5); slice(True, None); slice(np.int64(1), None); slice(None, None, np.int64(2));
    slice(None, None, True); (slice(None), slice(1, 2)); (slice(None), 1);
    (slice(1, 2), 0, slice(0, 5, 2)); (slice(0, 3, 2), 1); (slice(1, 3), slice(0, 4, 3), slice(1, 5, 2));
    (slice(0, 3, 2), ..., slice(0, 5, 3)); (slice(None),) * 3; (slice(None),) * 4;
    (slice(None), slice(-3, -1)); (0, slice(2, 1)); (0, slice(3, 3)); (0, slice(4, 4));
    (slice(None), slice(2, 2), 1); (slice(0, 0), 1); (slice(None), slice(None, 5)); []; [0, 2]; [-1]; [5];
    [0, 0]; [True, False, True]; [[0]]; [[0, 1], [2, 0]]; ([0, 2],); ([],); (slice(None), [0, 2]);
    (slice(None), [0, 2], 1); (0, [1]); ([0], [1]); (0, slice(None), [1, 2]); (slice(1, 3), [1, 3]);
    (-1, [0, 3], slice(0, 2)); (slice(None), [9]); (7, [0]); (slice(0, 2), None, [0]); ((0, 1),); range(2);
    np.array([0, 1]); np.array([[0], [2]]); (..., [0, 1]); (None, slice(None))
"""


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # torch, of sequences that it does not like
@pytest.mark.parametrize("index", [index.strip() for index in INDICES.split(";")])
def test_slices(pair: Pair, framework: str, index: str) -> None:
    at = eval(index, {"np": np})
    both(pair, framework, lambda file: file.get_slice(CUBE)[at])


@pytest.mark.parametrize(
    "index", ["...", "()", "0", "slice(None)", "slice(0, 0)", "slice(0, 1)", "(slice(None), 0)"]
)
@pytest.mark.parametrize("name", TENSORS)
def test_slices_of_every_kind_of_tensor(pair: Pair, framework: str, name: str, index: str) -> None:
    at = eval(index)
    both(pair, framework, lambda file: file.get_slice(name)[at])


@pytest.mark.parametrize(
    "index", ["torch.tensor(1)", "torch.tensor([0, 2])", "torch.tensor([True, False, True])"]
)
def test_tensors_as_indices(pair: Pair, framework: str, index: str) -> None:
    torch = pytest.importorskip("torch")
    at = eval(index, {"torch": torch})
    both(pair, framework, lambda file: file.get_slice(CUBE)[at])
    both(pair, framework, lambda file: file.get_slice(CUBE)[1, at])


_BOUND = st.none() | st.integers(-1, 400)
_ITEM = (
    st.slices(400) | st.builds(slice, _BOUND, _BOUND, st.none() | st.integers(1, 9)) | st.integers(-400, 400)
)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@given(data=st.data())
def test_any_slices(pair: Pair, framework: str, data: st.DataObject) -> None:
    if framework == "pt":
        pytest.importorskip("torch")
    name = data.draw(st.sampled_from([CUBE, "wide", "long", "brain"]))
    items: list[Any] = data.draw(st.lists(_ITEM, max_size=TENSORS[name].ndim))
    # Of two axes that end before they begin, Rust panics, and says so at length.
    for axis, item in enumerate(items):
        if isinstance(item, slice) and len(range(*item.indices(TENSORS[name].shape[axis]))) == 0:
            items[axis + 1 :] = []
            break
    if data.draw(st.booleans()):
        items.insert(data.draw(st.integers(0, len(items))), ...)
    index = items[0] if len(items) == 1 and data.draw(st.booleans()) else tuple(items)
    both(pair, framework, lambda file: file.get_slice(name)[index])


def test_a_slice_outlives_the_file(pair: Pair, framework: str) -> None:
    with safetensors.safe_open(pair.theirs, framework) as their_file:
        theirs = their_file.get_slice("wide")
    with qzf.safe_open(pair.ours, framework) as our_file:
        ours = our_file.get_slice("wide")
    same_tensor(ours[3:7], theirs[3:7])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells open files by /proc")
def test_no_descriptor_stays_open(pair: Pair) -> None:
    before = open_files()
    with qzf.safe_open(pair.ours, "numpy") as file:
        piece = file.get_slice("wide")
    assert open_files() == before + 1
    del piece
    assert open_files() == before
    unclosed = qzf.safe_open(pair.ours, "numpy")
    unclosed.get_tensor("wide")
    del unclosed
    assert open_files() == before


# --- opening --------------------------------------------------------------------------------------

OPENINGS: dict[str, Callable[[Any, Any], Any]] = {
    "no framework": lambda open_, path: open_(path),
    "nothing": lambda open_, path: open_(),
    "as text": lambda open_, path: open_(str(path), "np").keys(),
    "by keyword": lambda open_, path: open_(filename=path, framework="np", device="cpu").keys(),
    "pread": lambda open_, path: open_(path, "np", backend="pread").keys(),
    "another backend": lambda open_, path: open_(path, "np", backend="carrier pigeon"),
    "backend by position": lambda open_, path: open_(path, "np", "cpu", "mmap"),
    "no such file": lambda open_, path: open_(path.with_name("nobody"), "np"),
    "an empty name": lambda open_, path: open_("", "np"),
    "a folder": lambda open_, path: open_(path.parent, "np"),
    "neither of the two": lambda open_, path: open_(Path(__file__), "np"),
    "bytes for a name": lambda open_, path: open_(os.fsencode(path), "np"),
    "a number for a name": lambda open_, path: open_(3, "np"),
    "no such framework": lambda open_, path: open_(path, "abacus"),
    "capitals": lambda open_, path: open_(path, "NP"),
    "None for a framework": lambda open_, path: open_(path, None),
    "device None": lambda open_, path: open_(path, "np", None).keys(),
    "numpy has one device": lambda open_, path: open_(path, "np", "cuda:0"),
    "numpy has no numbers": lambda open_, path: open_(path, "np", 0),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_opening(pair: Pair, name: str) -> None:
    call = OPENINGS[name]
    theirs = outcome(lambda: call(safetensors.safe_open, pair.theirs))
    same(outcome(lambda: call(qzf.safe_open, pair.ours)), theirs)


@pytest.mark.parametrize("device", ["cpu", None, "bogus", "meta", -1, 1.5, "", "cuda:x"])
def test_devices_of_torch(pair: Pair, device: Any) -> None:
    pytest.importorskip("torch")

    def load(open_: Any, path: Path) -> Any:
        return open_(path, "pt", device).get_tensor("wide")

    theirs = outcome(lambda: load(safetensors.safe_open, pair.theirs))
    same(outcome(lambda: load(qzf.safe_open, pair.ours)), theirs)


@pytest.mark.parametrize("name", ["pt", "torch", "pytorch"])
def test_names_of_torch(pair: Pair, name: str) -> None:
    torch = pytest.importorskip("torch")
    for device in ("cpu", torch.device("cpu"), "cpu:0"):  # more than safetensors takes
        with qzf.safe_open(pair.ours, name, device=device) as file:
            assert isinstance(file.get_tensor("wide"), torch.Tensor)
