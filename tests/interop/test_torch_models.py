"""``qzf.torch.load_model`` and ``save_model`` beside those of safetensors, on models that share weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import qzf
from qzf.errors import QzfError, StateDictError

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402 - it needs torch

import qzf.torch  # noqa: E402


def _plain() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))


def _tied() -> Any:
    """Input and output embedding are one tensor."""
    model = torch.nn.ModuleDict({"head": torch.nn.Linear(8, 16), "embed": torch.nn.Embedding(16, 8)})
    model["head"].weight = model["embed"].weight
    return model


def _twice() -> Any:
    """One module under three names, beside others."""
    layer = torch.nn.Linear(3, 3)
    return torch.nn.ModuleDict({"b": layer, "a": layer, "c": layer, "other": torch.nn.Linear(3, 3)})


def _parts() -> Any:
    """A buffer that is a part of another one, and one that covers it from elsewhere."""
    model = torch.nn.Module()
    whole = torch.arange(24, dtype=torch.float32)
    model.register_buffer("whole", whole)
    model.register_buffer("part", whole[4:8])
    model.register_buffer("inner", whole[5:6])
    model.register_buffer("rest", whole[12:])
    return model


def _nothing_whole() -> Any:
    """Parts that overlap, none of which is all of their memory."""
    model = torch.nn.Module()
    whole = torch.arange(24, dtype=torch.float32)
    model.register_buffer("first", whole[:16])
    model.register_buffer("second", whole[8:])
    return model


def _apart() -> Any:
    """Two halves of one memory, which do not overlap."""
    model = torch.nn.Module()
    whole = torch.arange(24, dtype=torch.float32)
    model.register_buffer("first", whole[:12])
    model.register_buffer("second", whole[12:])
    return model


def _turned() -> Any:
    """A weight that is not contiguous."""
    model = torch.nn.Linear(5, 3)
    model.weight = torch.nn.Parameter(torch.randn(5, 3).t())
    return model


def _empty() -> Any:
    return torch.nn.Identity()


MODELS: dict[str, Callable[[], Any]] = {
    "plain": _plain,
    "tied": _tied,
    "twice": _twice,
    "parts": _parts,
    "nothing whole": _nothing_whole,
    "apart": _apart,
    "turned": _turned,
    "empty": _empty,
}


class Outcome(NamedTuple):
    """What came of a call."""

    value: Any
    error: Exception | None


def _outcome(call: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(call(), None)
    except Exception as error:
        return Outcome(None, error)


def _same_errors(ours: Outcome, theirs: Outcome) -> None:
    assert (ours.error is None) == (theirs.error is None), (ours.error, theirs.error)
    if theirs.error is not None:
        assert isinstance(ours.error, type(theirs.error))


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}], ids=["bare", "metadata"])
@pytest.mark.parametrize("contiguous", [True, False], ids=["contiguous", "as they are"])
@pytest.mark.parametrize("name", MODELS)
def test_save_model(name: str, contiguous: bool, metadata: dict[str, str] | None, tmp_path: Path) -> None:
    model = MODELS[name]()
    theirs = tmp_path / "model.safetensors"
    ours = tmp_path / "model.qzf"
    their_metadata, our_metadata = (None if metadata is None else dict(metadata) for _ in range(2))
    expected = _outcome(lambda: safetensors.torch.save_model(model, str(theirs), their_metadata, contiguous))
    given = _outcome(lambda: qzf.torch.save_model(model, ours, our_metadata, contiguous))
    _same_errors(given, expected)
    assert our_metadata == metadata, "what the caller gave is not changed"
    if expected.error is not None:
        return
    with safetensors.safe_open(theirs, "pt") as a, qzf.safe_open(ours, "pt") as b:
        assert b.metadata() == a.metadata() and b.offset_keys() == a.offset_keys()
    with qzf.open(ours) as container:  # keys of metadata are in another order on each run of theirs
        assert container.members[0].size == theirs.stat().st_size
    loaded = MODELS[name]()
    assert qzf.torch.load_model(loaded, ours) == (set(), [])
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])


#: What is changed in the names of a checkpoint before it is loaded.
CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "nothing": lambda state: state,
    "one missing": lambda state: dict(list(state.items())[1:]),
    "the last missing": lambda state: dict(list(state.items())[:-1]),
    "all missing": lambda state: {},
    "one more": lambda state: state | {"more": torch.zeros(3)},
    "two more, one missing": lambda state: dict(list(state.items())[1:], y=torch.ones(1), x=torch.ones(2)),
    "another shape": lambda state: {name: torch.zeros(7, 7) for name in state},
}


@pytest.mark.parametrize("every_name", [False, True], ids=["one of those that share", "every name"])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MODELS)
def test_load_model(name: str, change: str, strict: bool, every_name: bool, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = {key: value.detach().clone().contiguous() for key, value in MODELS[name]().state_dict().items()}
    if not every_name:
        # As save_model keeps them, but the last of each name that shares, not the first.
        firsts = {value.data_ptr(): key for key, value in MODELS[name]().state_dict().items()}
        state = {key: value for key, value in state.items() if key in firsts.values() or "." not in key}
    state = CHANGES[change](state)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    qzf.pack(tmp_path / "model.safetensors", tmp_path / "model.qzf")
    theirs, ours = MODELS[name](), MODELS[name]()
    ours.load_state_dict(theirs.state_dict())
    expected = _outcome(
        lambda: safetensors.torch.load_model(theirs, tmp_path / "model.safetensors", strict=strict)
    )
    given = _outcome(lambda: qzf.torch.load_model(ours, tmp_path / "model.qzf", strict=strict))
    _same_errors(given, expected)
    if expected.error is None:
        assert given.value[0] == set(expected.value[0]) and sorted(given.value[1]) == sorted(
            expected.value[1]
        )
        assert type(given.value[0]) is type(expected.value[0])
        assert type(given.value[1]) is type(expected.value[1])
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)


def test_an_error_tells_the_names(tmp_path: Path) -> None:
    qzf.torch.save_file({"0.weight": torch.zeros(6, 4), "more": torch.zeros(2)}, tmp_path / "model.qzf")
    with pytest.raises(RuntimeError, match=r"does not get .*'0\.bias'.*no use for 'more'") as caught:
        qzf.torch.load_model(_plain(), tmp_path / "model.qzf")
    assert isinstance(caught.value, StateDictError) and isinstance(caught.value, QzfError)
    assert caught.value.file == str(tmp_path / "model.qzf")
