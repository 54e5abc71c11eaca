"""An open container: what is in it, and reading of tensors, parts of tensors and layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from qzf.access.arrays import Layout, as_array, float_dtype, hold_apart, layout, room_of
from qzf.access.cache import ChunkCache
from qzf.access.frameworks import Framework, by_name
from qzf.access.layers import Layer, Named, families, layers_of, main_family
from qzf.access.loading import Loader, Want
from qzf.access.numbers import float_name, floats_of, numbers_of, read_floats
from qzf.access.slices import Index, TensorSlice, axes_of, read_axes
from qzf.access.stream import (
    DEFAULT_WINDOW,
    Part,
    Ring,
    Spec,
    Window,
    plan_parts,
    rooms_of,
    stream_parts,
    window_limit,
)
from qzf.adapters import read_metadata
from qzf.container.catalog import MemberEntry, TensorEntry
from qzf.container.member import MemberSource
from qzf.container.reader import ContainerReader, located
from qzf.errors import ChecksumError, NotFoundError, OptionError
from qzf.format.wire import xxh3
from qzf.parallel import default_threads
from qzf.quant import GgmlType
from qzf.transforms.dequant import FLOATS

if TYPE_CHECKING:
    from qzf.access.arrays import Room

__all__ = ["Container"]


class Container:
    """An open container. Reading from it is safe from many threads at once.

    Use it as a context manager, or call ``close``.
    """

    def __init__(
        self,
        reader: ContainerReader,
        threads: int | None = None,
        *,
        framework: Framework | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self._reader = reader
        self._threads = default_threads(threads)
        self._framework = framework or by_name("numpy")
        self._cache = ChunkCache(cache_bytes) if cache_bytes else None
        self._loader = Loader(reader, threads, self._cache)
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
        file = self._reader.source.name
        if size is None:
            if not 0 <= offset <= source.size:
                message = f"offset {offset} is not within the {source.size} bytes of {name!r}"
                raise OptionError(message, file=file, member=name)
            size = source.size - offset
        if offset < 0 or size < 0 or offset + size > source.size:
            raise OptionError(
                f"{size} bytes from {offset} on are not within the {source.size} bytes of {name!r}",
                file=file,
                member=name,
            )
        room = bytearray(size)
        self._loader.fill([Want(source.start + offset, memoryview(room))])
        return bytes(room)

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

    def tensor(self, name: str, *, copy: bool = True, dequantize: bool | str = False) -> Any:
        """A tensor as an array of its original dtype and shape.

        With numpy, GGML quantized types, unknown types and dtypes of less than a byte come as a
        ``QuantArray``: raw bytes as uint8 of shape (rows, bytes per row). Only the tensor's chunks are read;
        each is held against its XXH3. With ``copy=False`` a tensor that is stored uncompressed in one chunk
        is a read-only view of the file, with no copy made.

        With ``dequantize`` (True for "float32", "float16", "bfloat16", or "f32", "f16", "bf16") tensors of a
        GGUF file that are quantized or floats come as such floats, of their shape in weights, bit for bit as
        the gguf package makes them. Integers, and tensors of other files, come as they are.

        Raises ``NotFoundError``, ``OptionError`` for a type that cannot be dequantized, ``DamageError``;
        ``OSError`` passes through.
        """
        if float_name(dequantize) is not None:
            return self.load([name], dequantize=dequantize)[name]
        entry, spec = self.info(name), self._layout(name)
        data = None if copy else self._view(entry)
        if data is None:
            data = np.empty(entry.extent.size, np.uint8)
            self._loader.fill([Want(self._start(entry), data.data)])
        return self._framework.wrap(as_array(data, spec))

    def load(
        self,
        names: Iterable[str] | None = None,
        *,
        out: Mapping[str, Room] | None = None,
        dequantize: bool | str = False,
    ) -> dict[str, Any]:
        """Tensors by name, each as ``tensor`` returns it; by default all.

        The fastest way to many of them, as all threads share in all their chunks. ``out`` has buffers for
        some or all of them (writable, contiguous, of exactly the array's size in bytes, no two of them
        overlapping; numpy arrays and tensors of torch's on the processor will do, of any dtype), which they
        are decoded to, and which the arrays then are views of: memory that is used again is faster than new
        memory. With frameworks that copy (jax, mlx, torch on other devices) it brings nothing. What the
        buffers hold is unspecified if this raises.

        Raises ``NotFoundError``, ``OptionError`` for a buffer that fits no tensor, ``DamageError``;
        ``OSError`` passes through.
        """
        if isinstance(names, str | bytes):
            raise OptionError(f"a list of names is due, not {names!r} alone: load([name])")
        if out is not None and not isinstance(out, Mapping):
            raise OptionError(f"out is a dict of buffers by name, not {type(out).__name__}")
        wanted = dict.fromkeys(self.keys() if names is None else names)
        for name in out or ():
            if name not in wanted:
                raise OptionError(f"there is a buffer for {name!r}, which is not to be loaded")
        floats = float_name(dequantize)
        kinds = {name: self._numbers(name) if floats else None for name in wanted}
        given: dict[str, memoryview] = {}
        for name, buffer in (out or {}).items():
            entry = self.info(name)
            size = math.prod(entry.shape) * FLOATS[floats] if floats and kinds[name] else entry.extent.size
            given[name] = room_of(name, buffer, size)
        hold_apart(given)
        rooms = {
            name: np.frombuffer(given[name], np.uint8)
            if name in given and not kind
            else np.empty(self.info(name).extent.size, np.uint8)
            for name, kind in kinds.items()
        }
        self._loader.fill(Want(self._start(self.info(name)), room.data) for name, room in rooms.items())
        found = {}
        for name, kind in kinds.items():
            data = rooms.pop(name)
            if floats and kind:
                shape = self.info(name).shape
                array = floats_of(data, kind, shape, floats, self._threads, given.get(name))
            else:
                array = as_array(data, self._layout(name))
            found[name] = self._framework.wrap(array)
        return found

    def get_slice(self, name: str, *, dequantize: bool | str = False) -> TensorSlice:
        """A tensor to be read in parts: ``get_slice(name)[a:b, c:d]`` decodes only the chunks that hold them.

        ``dequantize`` as for ``tensor``: indices are then those of weights. Raises ``NotFoundError``,
        ``OptionError``.
        """
        entry, spec, floats = self.info(name), self._layout(name), float_name(dequantize)
        start, kind = self._start(entry), self._numbers(name) if floats else None

        def read(index: Index) -> Any:
            if floats and kind:
                axes = axes_of(entry.shape, index, name)
                part = read_floats(self._loader, start, entry, kind, axes, floats, self._threads)
            else:
                part = read_axes(self._loader, start, spec, axes_of(spec.shape, index, name))
            return self._framework.wrap(part[()])  # one number is a scalar, as for numpy

        return TensorSlice(entry.shape if kind else spec.shape, entry.dtype, read)

    def _numbers(self, name: str) -> GgmlType | None:
        """The GGML type of a tensor that ``dequantize`` makes floats of, None for others."""
        entry = self.info(name)
        return numbers_of(
            entry, self._layout(name), self.members[entry.member].kind, self._reader.source.name
        )

    def layers(self, family: str | None = None) -> list[Layer]:
        """Tensors grouped by layer (block), in the order in which a model uses them.

        Layers are told by their number in tensor names: ``blk.3.``, ``model.layers.3.``, ``h.3.``. Tensors
        that belong to none are a group before the first layer and one behind the last. With ``family``
        (``blk``) only the layers of that name. Where several members have tensors of the same names, each
        member has its own layers, of families that are called as their tensors (``a.gguf:blk``).
        """
        found = self._layers
        return list(found) if family is None else [layer for layer in found if layer.family == family]

    def layer(self, number: int | str, family: str | None = None, **options: Any) -> dict[str, Any]:
        """The tensors of one layer, by name; ``options`` are those of ``load``.

        ``family`` is what stands before the number in their names, by default that of the layers that have
        the most bytes. Raises ``NotFoundError``, and what ``load`` does.
        """
        return self.load(self.find_layer(number, family).names, **options)

    def find_layer(self, number: int | str, family: str | None = None) -> Layer:
        """Which tensors a layer has; a name is that of `Layer.name`. Raises ``NotFoundError``."""
        where = self._reader.source.name
        if isinstance(number, str):
            for layer in self._layers:
                if layer.family is not None and layer.name == number:
                    return layer
            raise NotFoundError(f"there is no tensor or layer {number!r}", file=where)
        family = main_family(self._layers) if family is None else family
        for layer in self._layers:
            if layer.family == family and layer.number == number and not isinstance(number, bool):
                return layer
        message = f"there is no layer {number!r} of {family!r}; {families(self._layers)}"
        raise NotFoundError(message, file=where)

    def stream(
        self,
        order: Iterable[Layer | int | str] | None = None,
        *,
        window_bytes: int = DEFAULT_WINDOW,
        out: Iterable[Room] | None = None,
        dequantize: bool | str = False,
    ) -> Generator[Part]:
        """Layers one after another, while threads read and decode the next ones; memory is bounded.

        For running a model that does not fit. ``order`` has layers, their numbers or names, and names of
        tensors; by default all layers, as ``layers`` has them. At most ``window_bytes`` of tensors exist at
        any time, as long as the caller keeps none but those of the part it has. A layer that is larger than a
        third of that comes in several parts, a tensor that is, in several parts of rows (``Part.rows``).

        With ``out``, two or more buffers in turn are decoded to, in place of a window: the arrays of a part
        are then valid until the next one is asked for, and no part is larger than the smallest of them.
        ``dequantize`` is as for ``tensor``; sizes are then those of the floats. ``threads`` of `open` work
        ahead, and the caller's own while it would wait.

        Raises ``NotFoundError``, ``OptionError``, ``DamageError``; ``OSError`` passes through.
        """
        if isinstance(order, str):
            raise OptionError("order is a list of layers and names, not one text")
        floats, rooms = float_name(dequantize), None if out is None else rooms_of(out)
        limit = window_limit(window_bytes) if rooms is None else min(map(len, rooms))
        layers = self._layers if order is None else [self._ordered(item) for item in order]
        specs = [[self._spec(name, floats) for name in layer.names] for layer in layers]
        memory = Window(int(window_bytes)) if rooms is None else Ring(rooms)
        return stream_parts(self._loader, plan_parts(layers, specs, limit), memory, self._framework)

    def _spec(self, name: str, floats: str | None) -> Spec:
        """A tensor as ``stream`` takes it."""
        entry, spec = self.info(name), self._layout(name)
        kind = self._numbers(name) if floats else None
        if not floats or not kind:
            return Spec(name, self._start(entry), entry.extent.size, spec, None)
        numbers = Layout(float_dtype(floats), entry.shape, False, None, entry.dtype)
        return Spec(name, self._start(entry), entry.extent.size, numbers, (kind, floats))

    def _ordered(self, item: Layer | int | str) -> Layer:
        """The layer that an item of an order stands for."""
        if isinstance(item, Layer):
            return item
        if isinstance(item, str) and item in self._names:
            return Layer(None, None, (item,), self.info(item).extent.size)
        return self.find_layer(item)

    @cached_property
    def _layers(self) -> list[Layer]:
        return layers_of(
            Named(key, entry.extent.size, entry.name, self.members[entry.member].name)
            for key in self._names
            for entry in (self.info(key),)
        )

    def array_spec(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """The dtype and shape of the array that ``tensor`` returns, without reading the tensor.

        Raises ``FormatError`` where the catalog's dtype and shape do not fit the tensor's size.
        """
        spec = self._layout(name)
        return spec.dtype, spec.shape

    def _layout(self, name: str) -> Layout:
        entry = self.info(name)
        return layout(entry, self.members[entry.member].kind, self._reader.source.name)

    def _start(self, entry: TensorEntry) -> int:
        return self._reader.index.starts[entry.first_chunk]

    def iter_bytes(self, name: str) -> Iterator[bytes | bytearray | memoryview]:
        """The original bytes of a tensor, chunk by chunk."""
        entry = self.info(name)
        yield from self._loader.chunks(entry.first_chunk, entry.chunk_count)

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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Container cannot be pickled: open the file in each process")

    def close(self) -> None:
        """Close the file. Views handed out with ``copy=False`` stay valid."""
        self._reader.source.close()
        if self._cache is not None:
            self._cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
