"""llama.cpp models straight from containers, by llama-cpp-python: nothing is unpacked to disk, or mounted."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from qzf.access.frameworks import imported
from qzf.container.catalog import MemberEntry
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader
from qzf.errors import NotFoundError, OptionError
from qzf.integrations.cookie import CookieFile, available
from qzf.integrations.memory import first_of_split, path_of, unpack_to_memory
from qzf.integrations.readahead import ReadAhead
from qzf.storage import FileSource, StrPath

__all__ = ["Llama", "load"]

llama_cpp: Final = imported("llama_cpp", "llama", "qzf.llama_cpp")
#: The functions of llama.h, one of which llama-cpp-python calls with a path.
_api: Any = llama_cpp.llama_cpp

#: Loads a model with the given parameters; returns llama.cpp's pointer to it, or None.
_Loader = Callable[[Any], Any]


class Llama(llama_cpp.Llama):  # type: ignore[name-defined, misc]
    """A ``llama_cpp.Llama`` from the GGUF file ``member`` of the container ``model_path``; see `load`."""

    _begun = False

    def __init__(
        self,
        model_path: StrPath,
        *,
        member: str | None = None,
        digest: str | None = None,
        threads: int | None = None,
        use_mmap: bool = False,
        **options: Any,
    ) -> None:
        self._qzf = {"member": member, "digest": digest, "threads": threads}
        with FileSource(model_path) as source, ExitStack() as stack:
            reader = open_reader(source, digest)
            parts = _choose(reader, member)
            if len(parts) == 1 and not use_mmap and available():
                loader, check = _from_stream(stack, reader, parts[0], threads)
            else:
                loader, check = _from_memory(stack, reader, parts, threads), lambda: None
            with _loading_by(loader):
                self._begun = True
                try:
                    super().__init__(os.fspath(model_path), use_mmap=use_mmap, **options)
                finally:
                    check()  # what went wrong in reading is why it failed, or must not be passed over

    def close(self) -> None:
        """Free the model."""
        if self._begun:  # also called for what failed before there was anything to free
            super().close()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **self._qzf}


def load(
    path: StrPath,
    member: str | None = None,
    *,
    digest: str | None = None,
    threads: int | None = None,
    **options: Any,
) -> Llama:
    """A ready ``llama_cpp.Llama`` from the container ``path``; ``options`` are those of that class.

    ``member`` names the GGUF file, where the container has several. It is read once, from front to back,
    while ``threads`` decode ahead (default: the processors there are); the weights are then in llama.cpp's
    own memory. Each chunk is held against its XXH3; with ``digest`` (the container digest, hexadecimal) each
    record also against its SHA-256.

    With ``use_mmap=True``, for a split GGUF (``member`` is any of its parts), and where the C library has no
    ``fopencookie``, the file is first unpacked to anonymous memory, as by ``qzf exec``.

    ``model_path`` of the result is ``path``. A pickled model is loaded from there again, as those of
    ``llama_cpp.Llama`` are. ``lora_path`` must be a file.

    Raises ``NotFoundError``, ``OptionError`` (no GGUF, or which of several?), ``FormatError``,
    ``DamageError``; ``ValueError`` where llama.cpp itself cannot load the model; ``OSError`` passes through.
    """
    return Llama(path, member=member, digest=digest, threads=threads, **options)


def _choose(reader: ContainerReader, name: str | None) -> list[MemberEntry]:
    """The GGUF member ``name``, or the only one; of a split GGUF all parts, in order."""
    found = {member.name: member for member in reader.index.members if member.kind == "gguf"}
    where = reader.source.name
    if name is not None and name not in found:
        raise NotFoundError(f"there is no GGUF member {name!r}", file=where)
    chosen = list(found) if name is None else [name]
    if name is not None and found[name].metadata.get("split.count", 1) != 1:
        stem = name.rpartition("-of-")[0][:-5]
        chosen = [other for other in found if other.startswith(stem)]
    if not chosen:
        raise OptionError("there is no GGUF file in the container", file=where)
    if len(chosen) > 1:
        if first_of_split(chosen) is None:
            raise OptionError(f"name one of {', '.join(map(repr, found))}", file=where)
        chosen.sort()
    return [found[one] for one in chosen]


# --- where llama.cpp reads from -------------------------------------------------------------------


def _from_stream(
    stack: ExitStack, reader: ContainerReader, member: MemberEntry, threads: int | None
) -> tuple[_Loader, Callable[[], None]]:
    """Load from a ``FILE*`` that decodes ahead; and a check that raises what went wrong in it."""
    # llama.cpp takes the tensors of a layer in an order of its own: what is decoded ahead may be for later.
    ahead = stack.enter_context(ReadAhead(threads))
    file = stack.enter_context(CookieFile(ahead.open(reader, member.name)))

    def check() -> None:
        if file.error is not None:
            raise file.error

    return lambda params: _api.llama_model_load_from_file_ptr(file.pointer, params), check


def _from_memory(
    stack: ExitStack, reader: ContainerReader, parts: list[MemberEntry], threads: int | None
) -> _Loader:
    """Load from memory that has paths, which llama.cpp can map."""
    files = unpack_to_memory(reader, parts, threads=threads)
    for file in files.values():
        stack.callback(os.close, file)
    paths = [path_of(file).encode() for file in files.values()]
    array = (ctypes.c_char_p * len(paths))(*paths)
    return lambda params: _api.llama_model_load_from_splits(array, len(paths), params)


# --- llama-cpp-python has no hook for that --------------------------------------------------------

_lock: Final = threading.Lock()
_loaders: Final[dict[int, _Loader]] = {}  # by thread
_original: Any = None


@contextmanager
def _loading_by(loader: _Loader) -> Iterator[None]:
    """Have this thread load models by ``loader`` in place of from a path. Other threads do as always."""
    global _original
    with _lock:
        if not _loaders:
            _original, _api.llama_model_load_from_file = _api.llama_model_load_from_file, _load
        _loaders[threading.get_ident()] = loader
    try:
        yield
    finally:
        with _lock:
            del _loaders[threading.get_ident()]
            if not _loaders:
                _api.llama_model_load_from_file = _original


def _load(path: bytes, params: Any) -> Any:
    loader = _loaders.get(threading.get_ident())
    return _original(path, params) if loader is None else loader(params)
