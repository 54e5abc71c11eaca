"""``qzf.safe_open``: containers as the safetensors package opens its files.

Code that was written for ``safetensors.safe_open`` runs when that name comes from here. What the class does
follows safetensors 0.8 (``bindings/python/src/lib.rs``) call by call; the tests hold both against each other.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from qzf.access.container import Container
from qzf.access.frameworks import canonical
from qzf.access.opening import Openable, open_container
from qzf.access.safe_index import leading_rows, strict_index, torch_takes
from qzf.adapters import GGUF, SAFETENSORS, read_safetensors_metadata
from qzf.container.catalog import MemberEntry
from qzf.container.member import MemberSource
from qzf.errors import OptionError, QzfError

__all__ = ["SafeSlice", "load_all", "safe_open"]

_BACKENDS: Final = ("mmap", "pread")
#: dtypes of less than a byte. Of these torch has the first, as pairs.
_PACKED: Final = ("F4", "F6_E2M3", "F6_E3M2")


class safe_open:  # noqa: N801 - it is called as the class that it stands in for
    """A container, opened for reading tensors by the methods of ``safetensors.safe_open``.

    ``filename``: a path to a container (or what else names one to ``qzf.open``). ``framework``: ``pt``,
    ``numpy``, ``jax`` (``flax``) or ``mlx``. ``device``: for ``pt`` any device of torch's, by name, number or
    ``torch.device``; others have ``"cpu"`` only, which leaves the choice to the framework. ``backend`` is
    looked at and makes no difference.

    All tensors of all members are there, in several members of the same name as ``member:name``. With numpy,
    bfloat16 and 8-bit floats are dtypes of ml_dtypes; quantized GGUF tensors are raw blocks, as for
    `Container.tensor`.

    Use it as a context manager. After that only slices that were taken before can be read.

    Raises ``FormatError``, ``ChecksumError``, ``OptionError``, ``MissingPackageError``; ``OSError`` passes
    through. Where safetensors has been imported, all errors of qzf that come from here are also
    ``safetensors.SafetensorError``, as code that catches those expects.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        framework: str,
        device: Any = "cpu",
        *,
        backend: str = "mmap",
    ) -> None:
        if not isinstance(filename, str | os.PathLike):
            raise TypeError(f"filename must be a path, not {type(filename).__name__}")
        if not isinstance(framework, str):
            raise TypeError(f"framework must be a name, not {type(framework).__name__}")
        with _theirs_too():
            if backend not in _BACKENDS:
                raise OptionError(f"there is no backend {backend!r}; those there are: {', '.join(_BACKENDS)}")
            fault = _path_fault(os.fspath(filename))
            if fault:
                raise OSError(fault, os.strerror(fault), os.fspath(filename))
            self._opened: _Opened | None = _open(filename, framework, device)

    def keys(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self.container)

    def offset_keys(self) -> list[str]:
        """Names of all tensors in the order in which they are stored."""
        return self.container.keys()

    def metadata(self) -> dict[str, str] | None:
        """``__metadata__`` of a safetensors member, None where it has none.

        Of a GGUF member the header's values: strings as they are, others as JSON; long ones are described
        only (see `Container.metadata`). Of several members together; where two have a key, the first
        member's value. Raises ``DamageError``.
        """
        with _theirs_too():
            container = self.container
            found: dict[str, str] | None = None
            for member in container.members:
                texts = _metadata(container, member)
                if texts is not None:
                    found = texts if found is None else {**texts, **found}
            return found

    def get_tensor(self, name: str) -> Any:
        """A tensor. Raises ``NotFoundError``, ``DamageError``."""
        return self.get_slice(name).whole()

    def get_tensors(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """All tensors by name, or some, as ``get_tensor`` gives them; faster than one after another."""
        if isinstance(names, str | bytes):
            raise TypeError("the names of tensors must be a list of strings, not one string")
        with _theirs_too():
            return _load(self._still(), names)

    def get_slice(self, name: str) -> SafeSlice:
        """A tensor to be read in parts: ``get_slice(name)[a:b, c:d]``. Raises ``NotFoundError``."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a tensor must be a string, not {type(name).__name__}")
        with _theirs_too():
            return SafeSlice(self._still(), name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._opened = None

    @property
    def container(self) -> Container:
        """The container, for what safetensors has not."""
        with _theirs_too():
            return self._still().container

    def _still(self) -> _Opened:
        if self._opened is None:
            raise OptionError("the file is closed")
        return self._opened


class SafeSlice:
    """A tensor that is read in parts; only the chunks that hold them are decoded.

    Indices are what they are in safetensors. With ``pt``: all that torch takes. With the other frameworks:
    integers, slices with bounds that are not negative and lie within the axis, and one ``...``; for more,
    use `Container.get_slice`.
    """

    def __init__(self, opened: _Opened, name: str) -> None:
        container = opened.container
        self._opened, self._name = opened, name
        self._entry = container.info(name)
        self._slice = container.get_slice(name)
        self._framework = opened.framework
        self._safetensors = container.members[self._entry.member].kind == SAFETENSORS

    def get_shape(self) -> list[int]:
        """The shape of the whole tensor."""
        return list(self._entry.shape if self._safetensors else self._slice.shape)

    def get_dtype(self) -> str:
        """The dtype's name in the original file (``F32``, ``BF16``, ``Q4_K``)."""
        return self._entry.dtype

    def __getitem__(self, index: Any) -> Any:
        with _theirs_too():
            if self._framework == "pt":
                return self._of_torch(index)
            part = self._slice[strict_index(index, self._slice.shape, self._name)]
            self.check_dtype()
            if self._framework != "numpy":
                return part
            part = np.asanyarray(part)
            return part if part.flags.c_contiguous else part.copy()

    def whole(self) -> Any:
        """The whole tensor."""
        with _theirs_too():
            self.check_dtype()
            return self.finished(self._opened.container.tensor(self._name))

    def finished(self, tensor: Any) -> Any:
        """A tensor as `Container.tensor` gives it, with the dtype and shape that safetensors gives it."""
        self.check_dtype()
        if not self._is_packed():
            return tensor
        import torch  # it is there, as the tensor is one of its

        return tensor.view(torch.float4_e2m1fn_x2).reshape(self._pairs())

    def _of_torch(self, index: Any) -> Any:
        self.check_dtype()
        shape = self._pairs() if self._is_packed() else self._slice.shape
        if self._is_packed():
            return self.whole()[index]
        if torch_takes(index, shape):
            return self._slice[index]
        rows, rest = leading_rows(index, shape)
        # Whatever else torch can do with an index, it does itself, on the rows that are needed.
        return self.whole()[index] if rows is None else self._slice[rows][rest]

    def _is_packed(self) -> bool:
        return self._safetensors and self._entry.dtype in _PACKED

    def _pairs(self) -> tuple[int, ...]:
        return (*self._entry.shape[:-1], self._entry.shape[-1] // 2)

    def check_dtype(self) -> None:
        """Raise ``OptionError`` for a dtype that the framework lacks, as safetensors does."""
        if not self._is_packed():
            return
        dtype, shape = self._entry.dtype, self._entry.shape
        if self._framework != "pt" or dtype != "F4" or not shape or shape[-1] % 2:
            raise OptionError(
                f"framework {self._framework!r} cannot hold {dtype} of shape {list(shape)}; "
                "qzf.open gives its bytes",
                tensor=self._name,
            )


class _Opened:
    """A container that is closed when nothing refers to this any more: neither the file nor a slice."""

    def __init__(self, container: Container, framework: str) -> None:
        self.container, self.framework = container, framework
        weakref.finalize(self, container.close)


def _open(src: Openable, framework: str, device: Any) -> _Opened:
    name = canonical(framework)
    if name == "raw":
        raise OptionError("framework 'raw' is one of qzf.open")
    if name == "jax" and device == "cpu":
        device = None
    elif name == "jax" and device is not None:
        raise OptionError(
            f"framework {framework!r} has no device {device!r}; qzf.open takes devices of jax's"
        )
    return _Opened(open_container(src, framework=name, device=device), name)


def load_all(src: Openable, framework: str, device: Any = "cpu") -> dict[str, Any]:
    """All tensors of a container by name, as ``safe_open.get_tensors`` gives them."""
    with _theirs_too():
        return _load(_open(src, framework, device), None)


def _load(opened: _Opened, names: Iterable[str] | None) -> dict[str, Any]:
    slices = {name: SafeSlice(opened, name) for name in (opened.container if names is None else names)}
    for one in slices.values():
        one.check_dtype()
    loaded = opened.container.load(slices)
    return {name: slices[name].finished(tensor) for name, tensor in loaded.items()}


def _path_fault(path: str) -> int:
    """The number of the error that the system has for what is no file, 0 for what may be one."""
    if not path:
        return errno.ENOENT
    return errno.EISDIR if Path(path).is_dir() else 0


def _metadata(container: Container, member: MemberEntry) -> dict[str, str] | None:
    found = member.metadata
    if member.kind == GGUF:
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}
    if member.kind != SAFETENSORS:
        return None
    if found and all(isinstance(value, str) for value in found.values()):
        return dict(found)
    # Some of it is too long for the catalog, or there is none: the header tells.
    return read_safetensors_metadata(MemberSource(container.reader, member.name))


@contextmanager
def _theirs_too() -> Iterator[None]:
    """Have errors of qzf be caught by ``except safetensors.SafetensorError`` where someone may do so."""
    try:
        yield
    except QzfError as error:
        theirs = getattr(sys.modules.get("safetensors"), "SafetensorError", None)
        if theirs is None or isinstance(error, theirs):
            raise
        both = _both(type(error), theirs)(error.message)
        both.__dict__.update(error.__dict__)
        raise both.with_traceback(error.__traceback__) from error.__cause__


def _both(ours: type[QzfError], theirs: type[Exception]) -> type[QzfError]:
    """A class of errors that are both; pickled, they are plainly ours."""

    def reduce(self: QzfError) -> tuple[Any, ...]:
        return ours, self.args, self.__dict__

    names = {"__reduce__": reduce, "__module__": ours.__module__, "__doc__": ours.__doc__}
    return type(ours.__name__, (ours, theirs), names)
