"""Reading tensors out of a container: the public face of ``qzf.open``."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import numpy as np
import numpy.typing as npt

from qzf import quant
from qzf.adapters import read_metadata
from qzf.container.catalog import MemberEntry, TensorEntry
from qzf.container.member import MemberSource
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader, located
from qzf.errors import ChecksumError, FormatError, NotFoundError, OptionError
from qzf.format.wire import xxh3
from qzf.parallel import default_threads, ordered_map
from qzf.quant import GgmlType
from qzf.storage import ByteSource, FileSource, SourceBase

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Room = Buffer | npt.NDArray[Any]

__all__ = ["Container", "QuantArray", "open_container"]

#: Original dtype -> numpy dtype, where numpy has it; GGML and safetensors use the same names.
_NUMPY: Final = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "C64": "<c8",
}
#: The same, where ml_dtypes has it; that package is imported when the first such tensor is read.
_ML_DTYPES: Final = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
#: Fewer chunks than this are decoded in the calling thread.
_PARALLEL_CHUNKS: Final = 3
#: How often a thread comes for more, at least where there is as much; and the most chunks that it gets.
_SHARES: Final = 16
_MOST_CHUNKS: Final = 8


class QuantArray(npt.NDArray[np.uint8]):
    """Raw bytes of a tensor that has no numpy dtype: uint8 of shape (rows, bytes per row).

    ``quant`` is the GGML type (block size and field layout), None for other packed dtypes; ``original`` is
    the dtype's name in the original file.
    """

    quant: GgmlType | None
    original: str

    def __array_finalize__(self, source: object) -> None:
        self.quant = getattr(source, "quant", None)
        self.original = getattr(source, "original", "")

    def __reduce__(self) -> tuple[Any, ...]:
        plain = np.asarray(self).view(np.ndarray)
        return _restore, (plain, None if self.quant is None else self.quant.name, self.original)


def _restore(data: npt.NDArray[np.uint8], quant_name: str | None, original: str) -> QuantArray:
    """A pickled ``QuantArray``."""
    array = data.view(QuantArray)
    array.quant = None if quant_name is None else quant.BY_NAME[quant_name]
    array.original = original
    return array


class Container:
    """An open container. Reading from it is safe from many threads at once.

    Use it as a context manager, or call ``close``.
    """

    def __init__(self, reader: ContainerReader, threads: int | None = None) -> None:
        self._reader = reader
        self._threads = default_threads(threads)
        self._names = _names(reader)

    # --- what is there ----------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """Tensor names, in the container's order.

        A name that several members have is given as ``member:name``.
        """
        return list(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    @property
    def members(self) -> tuple[MemberEntry, ...]:
        """The original files."""
        return self._reader.index.members

    @property
    def tensors(self) -> tuple[TensorEntry, ...]:
        """All tensors, with dtype, shape, extent, pipeline and quantization scheme."""
        return self._reader.index.tensors

    @property
    def chunks(self) -> npt.NDArray[np.void]:
        """The chunk table: a read-only structured array (spec, section 2.3)."""
        return self._reader.index.chunks.array()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Header metadata of all members; of keys that several have, the first member's value.

        Long values are only described, as ``{"type": "array", "of": "string", "length": 262144}`` (spec,
        section 3.3); ``full_metadata`` reads them.
        """
        merged: dict[str, Any] = {}
        for member in reversed(self.members):
            merged.update(member.metadata)
        return merged

    def full_metadata(self, member: str | None = None) -> dict[str, Any]:
        """All metadata of a member in full, read from its header; by default that of the first member.

        Takes its time where there is much of it: about a second for a vocabulary of 262,144 tokens. Raises
        ``NotFoundError``, ``DamageError``.
        """
        name = self.members[0].name if member is None and self.members else member or ""
        return read_metadata(MemberSource(self._reader, name), name)

    def member_bytes(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of an original file, by default all from ``offset`` on; decodes only the chunks they are in.

        Raises ``NotFoundError``, ``OptionError`` for a range that is not in the file, ``DamageError``.
        """
        source = MemberSource(self._reader, name)
        return source.read(offset, source.size - offset if size is None else size)

    @property
    def digest(self) -> str:
        """The container digest, 64 hexadecimal digits."""
        return self._reader.digest.hex()

    @property
    def reader(self) -> ContainerReader:
        """Access by chunk."""
        return self._reader

    def info(self, name: str) -> TensorEntry:
        """What is known of a tensor; raises ``NotFoundError``."""
        try:
            return self.tensors[self._names[name]]
        except KeyError:
            raise NotFoundError(f"there is no tensor {name!r}", file=self._reader.source.name) from None

    # --- reading ----------------------------------------------------------------------------------

    def tensor(self, name: str, *, copy: bool = True) -> npt.NDArray[Any]:
        """A tensor as a numpy array of its original dtype and shape.

        GGML quantized types, unknown types and dtypes of less than a byte come as a ``QuantArray``: raw
        bytes as uint8 of shape (rows, bytes per row). Only the tensor's chunks are read; each is held
        against its XXH3. With ``copy=False`` a tensor that is stored uncompressed in one chunk is a
        read-only view of the file, with no copy made.

        Raises ``NotFoundError``, ``DamageError``; ``OSError`` passes through.
        """
        entry = self.info(name)
        data = None if copy else self._view(entry)
        if data is None:
            data = np.empty(entry.extent.size, np.uint8)
            self._fill([(entry, data.data)])
        return self._array(name, data)

    def load(
        self,
        names: Iterable[str] | None = None,
        *,
        out: Mapping[str, Room] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Tensors by name, each as ``tensor`` returns it; by default all.

        The fastest way to many of them, as all threads share in all their chunks. ``out`` has buffers for
        some or all of them (writable, contiguous, of exactly the tensor's size in bytes; numpy arrays will
        do), which they are decoded to, and which the arrays then are views of: memory that is used again is
        faster than new memory. What they hold is unspecified if this raises.

        Raises ``NotFoundError``, ``OptionError`` for a buffer that fits no tensor, ``DamageError``;
        ``OSError`` passes through.
        """
        rooms: dict[str, memoryview] = {}
        wanted = dict.fromkeys(self.keys() if names is None else names)
        for name in out or ():
            if name not in wanted:
                raise OptionError(f"there is a buffer for {name!r}, which is not to be loaded")
        for name in wanted:
            size, given = self.info(name).extent.size, None if out is None else out.get(name)
            rooms[name] = np.empty(size, np.uint8).data if given is None else _room(name, given, size)
        self._fill([(self.info(name), room) for name, room in rooms.items()])
        return {name: self._array(name, np.frombuffer(room, np.uint8)) for name, room in rooms.items()}

    def _array(self, name: str, data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The bytes of a tensor as the array that ``tensor`` returns."""
        entry = self.info(name)
        dtype, shape = self.array_spec(name)
        if dtype == np.uint8 and entry.dtype != "U8":
            raw = data.reshape(shape).view(QuantArray)
            kind = self.members[entry.member].kind
            raw.quant = quant.BY_NAME.get(entry.dtype) if kind == "gguf" else None
            raw.original = entry.dtype
            return raw
        return data.view(dtype).reshape(shape)

    def array_spec(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """The dtype and shape of the array that ``tensor`` returns, without reading the tensor.

        Raises ``FormatError`` where the catalog's dtype and shape do not fit the tensor's size.
        """
        entry = self.info(name)
        size, dtype = entry.extent.size, _numpy_dtype(entry.dtype)
        where: dict[str, Any] = {"file": self._reader.source.name, "tensor": entry.name}
        if dtype is not None:
            if math.prod(entry.shape) * dtype.itemsize != size:
                raise FormatError("dtype, shape and size do not fit", **where)
            return dtype, entry.shape
        rows = size // entry.row_size if entry.row_size else 0
        if rows * entry.row_size != size:
            raise FormatError("row size and size do not fit", **where)
        return np.dtype(np.uint8), (rows, entry.row_size)

    def iter_bytes(self, name: str) -> Iterator[bytes | bytearray | memoryview]:
        """The original bytes of a tensor, chunk by chunk."""
        entry = self.info(name)
        chunks = range(entry.first_chunk, entry.first_chunk + entry.chunk_count)
        yield from ordered_map(self._reader.read_chunk, chunks, self._threads)

    def _view(self, entry: TensorEntry) -> npt.NDArray[np.uint8] | None:
        view = self._reader.view_chunk(entry.first_chunk) if entry.chunk_count == 1 else None
        if view is None:
            return None
        if self._reader.authenticated:
            # The digest covers header and payload of the record, which a view of the payload is not.
            return np.frombuffer(self._reader.read_chunk(entry.first_chunk), np.uint8)
        if xxh3(view) != self._reader.index.chunks[entry.first_chunk].decoded_xxh3:
            with located(**self._reader.where(entry.first_chunk)):
                raise ChecksumError("the stored bytes do not match their XXH3")
        return np.frombuffer(view, np.uint8)

    def _fill(self, rooms: list[tuple[TensorEntry, memoryview]]) -> None:
        """Decode tensors, each to a buffer of its size."""
        starts = self._reader.index.starts
        jobs = []
        for entry, out in rooms:
            base = starts[entry.first_chunk]
            for chunk in range(entry.first_chunk, entry.first_chunk + entry.chunk_count):
                jobs.append((chunk, out[starts[chunk] - base : starts[chunk + 1] - base]))
        threads = self._threads if len(jobs) >= _PARALLEL_CHUNKS else 1
        # Of many chunks a thread takes some at a time, but not so many that others run out of them.
        some = min(max(len(jobs) // (_SHARES * threads), 1), _MOST_CHUNKS)

        def work(first: int) -> None:
            for chunk, room in jobs[first : first + some]:
                self._reader.read_chunk(chunk, room)

        for _ in ordered_map(work, range(0, len(jobs), some), threads):
            pass

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Container cannot be pickled: open the file in each process")

    def close(self) -> None:
        """Close the file. Views handed out with ``copy=False`` stay valid."""
        self._reader.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_container(
    path: str | os.PathLike[str] | ByteSource,
    *,
    digest: str | None = None,
    threads: int | None = None,
    recover: bool = False,
) -> Container:
    """Open a container for reading tensors; ``qzf.open``.

    Reads trailer and index only. ``digest``: the container digest that is expected (hexadecimal); with it
    every chunk is also held against its SHA-256. ``threads`` bounds those that decode one large tensor;
    default: the processors there are. ``recover`` rebuilds a lost index by a scan.

    Raises ``FormatError`` for what is no valid container, ``ChecksumError``, ``OptionError``; ``OSError``
    passes through.
    """
    if isinstance(path, str | os.PathLike):
        source: ByteSource = FileSource(path)
    elif isinstance(path, SourceBase):
        source = path
    else:
        raise OptionError(f"a path or a byte source is due, not {type(path).__name__}")
    try:
        return Container(open_reader(source, digest, recover), threads)
    except BaseException:
        source.close()
        raise


def _room(name: str, given: Room, size: int) -> memoryview:
    """A caller's buffer as ``size`` bytes to be written."""
    try:
        room = given if isinstance(given, np.ndarray) else np.frombuffer(memoryview(given), np.uint8)
    except (TypeError, ValueError, BufferError):
        room = None  # not to be looked at as bytes
    if (
        room is None
        or room.nbytes != size
        or not room.flags.c_contiguous
        or not (room.flags.writeable or not size)
    ):
        raise OptionError(f"tensor {name!r} needs a writable, contiguous buffer of {size} bytes")
    return room.reshape(-1).view(np.uint8).data


def _names(reader: ContainerReader) -> dict[str, int]:
    index = reader.index
    # Member names hold no colon, so two tensors never have one qualified name.
    qualified = [f"{index.members[tensor.member].name}:{tensor.name}" for tensor in index.tensors]
    count = Counter(tensor.name for tensor in index.tensors)
    count.update(qualified)
    return {
        tensor.name if count[tensor.name] == 1 else qualified[ordinal]: ordinal
        for ordinal, tensor in enumerate(index.tensors)
    }


def _numpy_dtype(name: str) -> np.dtype[Any] | None:
    """The numpy dtype of an original dtype, None where the tensor stays raw bytes."""
    if name in _NUMPY:
        return np.dtype(_NUMPY[name])
    if name in _ML_DTYPES:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
        return found
    return None
