"""Tensors and models to and from containers by the functions of ``safetensors.torch``.

A container takes the place of the safetensors file, which ``qzf unpack`` writes from it. What is done about
tensors that share memory is what safetensors does (``bindings/python/py_src/safetensors/torch.py``).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

from qzf.access.frameworks import imported
from qzf.access.safe import load_all, safe_open
from qzf.errors import OptionError, StateDictError
from qzf.ops.saving import DTYPES, InMemory, save_tensors
from qzf.storage import StrPath

__all__ = ["load", "load_file", "load_model", "save", "save_file", "save_model"]

torch: Final = imported("torch", "torch", "qzf.torch")


def load_file(filename: StrPath, device: Any = "cpu", *, backend: str = "mmap") -> dict[str, Any]:
    """All tensors of the container ``filename``, by name, on ``device``, as `qzf.safe_open` gives them.

    Raises ``FormatError``, ``DamageError``, ``OptionError``; ``OSError`` passes through.
    """
    with safe_open(filename, "pt", device, backend=backend) as file:
        return file.get_tensors()


def load(data: bytes) -> dict[str, Any]:
    """All tensors of a container that is in memory. Raises as ``load_file``."""
    return load_all(data, "pt")


def load_model(
    model: Any, filename: StrPath, strict: bool = True, device: Any = "cpu", *, backend: str = "mmap"
) -> tuple[set[str], list[str]]:
    """Load the tensors of the container ``filename`` into a ``torch.nn.Module``.

    Returns the names in the model that got no tensor, and those in the container that the model has no use
    for. Of names in the model that share memory one is enough. With ``strict`` there may be neither.

    Raises ``StateDictError``, which is a ``RuntimeError``, where names do not fit, and as ``load_file``;
    torch raises ``RuntimeError`` where shapes do not fit.
    """
    state = load_file(filename, device, backend=backend)
    repeated = _repeated(model.state_dict(), preferred=state)
    outcome = model.load_state_dict(state, strict=False)
    missing, unexpected = set(outcome.missing_keys), list(outcome.unexpected_keys)
    for name in repeated:
        if name in missing:
            missing.remove(name)
        else:  # it is in the container as well as the name that it shares memory with
            unexpected.append(name)
    if strict and (missing or unexpected):
        faults = [f"the model does not get {', '.join(map(repr, sorted(missing)))}"] if missing else []
        faults += [f"it has no use for {', '.join(map(repr, sorted(unexpected)))}"] if unexpected else []
        raise StateDictError(f"{type(model).__name__} does not fit: {'; '.join(faults)}", file=str(filename))
    return missing, unexpected


def save_file(
    tensors: dict[str, Any],
    filename: StrPath,
    metadata: Mapping[str, str] | None = None,
    *,
    level: str = "default",
    threads: int | None = None,
) -> None:
    """Pack tensors to the container ``filename``.

    Its one member is the file that ``safetensors.torch.save_file`` would write, byte for byte. ``level`` and
    ``threads`` are those of `qzf.pack`. A file that is there is replaced. Nobody may change the tensors
    meanwhile.

    Raises ``OptionError``, which is a ``ValueError``, for what is no dict of dense, contiguous tensors of
    dtypes that safetensors has; ``StateDictError``, which is a ``RuntimeError``, for tensors that share
    memory; ``TypeError`` for names and metadata that are no strings; ``OSError`` passes through.
    """
    save_tensors(_in_memory(tensors), filename, metadata, level=level, threads=threads)


def save(tensors: dict[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """The container that ``save_file`` would write. Raises as that does."""
    out = io.BytesIO()
    save_tensors(_in_memory(tensors), out, metadata)
    return out.getvalue()


def save_model(
    model: Any,
    filename: StrPath,
    metadata: Mapping[str, str] | None = None,
    force_contiguous: bool = True,
    *,
    level: str = "default",
    threads: int | None = None,
) -> None:
    """Pack the tensors of a ``torch.nn.Module``.

    Of names that share memory one is packed, and the metadata say which, for each of the others. With
    ``force_contiguous`` tensors that are not contiguous are saved as if they were. Otherwise as
    ``save_file``.
    """
    state = dict(model.state_dict())
    noted = None if metadata is None else dict(metadata)
    for name, kept in _repeated(state).items():
        noted = {} if noted is None else noted
        noted.setdefault(name, kept)
        del state[name]
    if force_contiguous:
        state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, filename, noted, level=level, threads=threads)


# --- tensors that share memory --------------------------------------------------------------------


def _repeated(state: Mapping[str, Any], preferred: Iterable[str] = ()) -> dict[str, str]:
    """Names whose tensors are those of other names or parts of them -> the name that has it all.

    That is one of ``preferred`` if it can be. Raises ``StateDictError`` where no name has it all, be it the
    only one: as safetensors has it.
    """
    repeated: dict[str, str] = {}
    for names in _sharing(state):
        whole = {name for name in names if _is_whole(state[name])}
        if not whole:
            raise StateDictError(
                f"no tensor has all of the memory that is that of {', '.join(map(repr, sorted(names)))}: "
                "what of it belongs to the model cannot be told"
            )
        kept = min(whole.intersection(preferred) or whole)
        repeated.update({name: kept for name in sorted(names) if name != kept})
    return repeated


def _sharing(state: Mapping[str, Any]) -> list[set[str]]:
    """All names that have memory, in sets of those whose tensors overlap."""
    by_storage: dict[tuple[Any, int, int], list[tuple[int, int, str]]] = {}
    for name, tensor in state.items():
        if tensor.device.type == "meta" or tensor.layout != torch.strided:
            continue
        storage = tensor.untyped_storage()
        if storage.data_ptr() and storage.nbytes():
            area = (*_area(tensor), name)
            by_storage.setdefault((tensor.device, storage.data_ptr(), storage.nbytes()), []).append(area)
    found: list[set[str]] = []
    for areas in by_storage.values():
        end = -1
        for start, stop, name in sorted(areas):
            if start >= end:
                found.append(set())
            found[-1].add(name)
            end = stop  # of the last one, not of all of them: as safetensors has it
    return found


def _area(tensor: Any) -> tuple[int, int]:
    """Where the memory of a tensor begins and ends."""
    start = tensor.data_ptr()
    if not tensor.numel():
        return start, start
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in steps)
    return start, start + (last + 1) * tensor.element_size()


def _is_whole(tensor: Any) -> bool:
    storage = tensor.untyped_storage()
    same_start = tensor.data_ptr() == storage.data_ptr()
    return bool(same_start and tensor.numel() * tensor.element_size() == storage.nbytes())


def _in_memory(tensors: Any) -> dict[str, InMemory]:
    if not isinstance(tensors, dict):
        raise OptionError(f"a dict of tensors is due, not {type(tensors).__name__}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise OptionError(f"{name!r} is no tensor, but {type(tensor).__name__}", tensor=str(name))
    sparse = [name for name, tensor in tensors.items() if tensor.layout != torch.strided]
    if sparse:
        raise OptionError(f"sparse tensors cannot be saved, only what to_dense() makes of them: {sparse}")
    sharing = [sorted(names) for names in _sharing(tensors) if len(names) > 1]
    if sharing:
        raise StateDictError(
            f"tensors share memory, which they would not do any more once they are loaded: {sharing}; "
            "save_model saves models that have such"
        )
    return {name: _flat(name, tensor) for name, tensor in tensors.items()}


def _flat(name: str, tensor: Any) -> InMemory:
    dtype = DTYPES.get(str(tensor.dtype).removeprefix("torch."))
    fault = None
    if dtype is None:
        fault = f"safetensors has no dtype {tensor.dtype}"
    elif not tensor.is_contiguous():
        fault = "a tensor that is not contiguous cannot be saved, only what contiguous() makes of it"
    elif tensor.device.type == "meta":
        fault = "a tensor on device 'meta' has no data to be saved"
    if dtype is None or fault:
        raise OptionError(str(fault), tensor=str(name))
    shape = tuple(tensor.shape)
    if dtype == "F4" and shape:
        shape = (*shape[:-1], shape[-1] * 2)  # torch counts pairs
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1)
    return InMemory(dtype, shape, plain.view(torch.uint8).numpy().data)
