"""Transforms that code a chunk by the shared tables of its tensor's type: ``quant`` and ``values``.

Unlike ``fields``, they hand their streams to codecs that need more than the stream: tables, and contexts from
streams that are decoded before. Format: spec/qzf-format.md, sections 4.4 and 4.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from qzf import _core
from qzf.codecs.base import Bytes
from qzf.codecs.registry import codec
from qzf.codecs.zstd import HUFFMAN
from qzf.errors import ChunkError
from qzf.format.ids import NO_TABLE, Codec, Transform
from qzf.scratch import scratch
from qzf.transforms.layouts import Layout

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "SCHEMAS",
    "ChunkModel",
    "CodedStream",
    "CodedStreams",
    "QuantChunks",
    "QuantSchema",
    "SharedTable",
    "ValuesChunks",
    "decode",
    "decode_plain",
]

_T = TypeVar("_T")


class QuantSchema(NamedTuple):
    """What the ``quant`` transform knows of a GGML type; the table is the core's."""

    name: str
    size: int
    codes: int
    elements: int
    bits: int
    low: int
    numbers: int
    scales: int
    mins: int
    extrema: int
    alphabet: int

    @property
    def lanes(self) -> int:
        """Lanes of a block."""
        return self.codes // self.elements

    @property
    def heads(self) -> int:
        """Symbols of scales in a block."""
        return self.numbers + self.scales + self.mins


#: The types that the ``quant`` transform knows, by name.
SCHEMAS: Final = {row[0]: QuantSchema(*row) for row in _core.quant_schemas()}

#: Codec and table slot of the streams of a quant chunk: symbols of scales, their low bits, codes, low bits of
#: codes.
_QUANT_STREAMS: Final = [
    (int(Codec.RANS), 0),
    (int(Codec.RAW), NO_TABLE),
    (int(Codec.LANES), 0),
    (int(Codec.RAW), NO_TABLE),
]
#: As a plain number, which compares faster.
_QUANT: Final = int(Transform.QUANT)
#: Layouts whose numbers the ``values`` transform knows, and their bytes.
_VALUES_WIDTH: Final = {"float2": 2, "float4": 4, "bytes": 1}
#: Streams of a values chunk: classes, symbols, extra bits, raw bits, raw 16-bit words.
_VALUES_STREAMS: Final = 5
#: A stream of raw bits is tried with zstd where this many bytes of it get smaller by a tenth.
_PROBE: Final = 4096


class CodedStream(NamedTuple):
    """A stream as it is stored: codec, place of its table in the payload's list, bytes, size once decoded."""

    codec: int
    slot: int
    body: Bytes
    size: int


class CodedStreams(list[CodedStream]):
    """The streams of a chunk.

    ``joined``: their bytes one behind the other, where they lie so. Each object takes time to hash and write.
    """

    def __init__(self, streams: Iterable[CodedStream], joined: Bytes | None = None) -> None:
        super().__init__(streams)
        self.joined = joined


class SharedTable:
    """A shared table's content, and the model made of it; safe to share between threads.

    A model takes up to 2 MiB, some 30 times its table, so only the one that was asked for last is kept.
    """

    def __init__(self, content: bytes) -> None:
        self.content: Final = content
        self._made: dict[str, object] = {}

    def quant(self, name: str) -> _core.QuantModel:
        """The table as a model of the GGML type ``name``; raises ``ChunkError`` where it is none."""
        return self._make(name, lambda: _core.QuantModel(name, self.content), _core.QuantModel)

    def values(self) -> _core.ValuesModel:
        """The table as a model of plain numbers; raises ``ChunkError`` where it is none."""
        return self._make("values", lambda: _core.ValuesModel(self.content), _core.ValuesModel)

    def forget(self) -> None:
        """Give the model's memory back; it is made again when it is asked for."""
        self._made.clear()

    def _make(self, name: str, make: Callable[[], _T], kind: type[_T]) -> _T:
        made = self._made.get(name)
        if not isinstance(made, kind):
            try:
                made = make()
            except ValueError as error:
                raise ChunkError(f"a shared table cannot serve {name}: {error}") from None
            self._made.clear()
            self._made[name] = made
        return made


class ChunkModel(Protocol):
    """How the chunks of a tensor are coded by the shared tables whose ids are ``tables``."""

    @property
    def transform(self) -> Transform: ...

    @property
    def layout(self) -> int:
        """Wire id of the layout."""
        ...

    @property
    def tables(self) -> tuple[int, ...]: ...

    def renumbered(self, by: int) -> ChunkModel:
        """The same, with ids of tables that are larger by ``by``."""
        ...

    def encode(self, data: Buffer) -> CodedStreams | None:
        """The streams of ``data``, or None where the model cannot express them."""
        ...


class QuantChunks(NamedTuple):
    """Chunks of quantization blocks: the model of their type, and the classes of their columns."""

    schema: QuantSchema
    layout: int
    tables: tuple[int, ...]
    model: _core.QuantModel
    columns: bytes | None
    row_blocks: int

    @property
    def transform(self) -> Transform:
        return Transform.QUANT

    def renumbered(self, by: int) -> QuantChunks:
        """As in ``ChunkModel``."""
        return self._replace(tables=tuple(table + by for table in self.tables))

    def encode(self, data: Buffer) -> CodedStreams | None:
        """As in ``ChunkModel``."""
        n = memoryview(data).nbytes // self.schema.size
        row_blocks = self.row_blocks if n % self.row_blocks == 0 else n
        if self.columns is not None and row_blocks != self.row_blocks:
            return None
        coded = self.model.encode(self.columns, data, row_blocks)
        if coded is None:
            return None
        heads, tails, codes, rest = coded
        streams = [
            CodedStream(Codec.RANS, 0, heads, n * self.schema.heads),
            CodedStream(Codec.RAW, NO_TABLE, tails, len(tails)),
            CodedStream(Codec.LANES, 0, codes, n * self.schema.lanes * self.model.steps),
            CodedStream(Codec.RAW, NO_TABLE, rest, len(rest)),
        ]
        joined = heads.obj
        return CodedStreams(streams, joined if isinstance(joined, bytes) else None)


class ValuesChunks(NamedTuple):
    """Chunks of plain numbers; every ``segment`` numbers choose a context."""

    layout: int
    tables: tuple[int, ...]
    model: _core.ValuesModel
    segment: int

    @property
    def transform(self) -> Transform:
        return Transform.VALUES

    def renumbered(self, by: int) -> ValuesChunks:
        """As in ``ChunkModel``."""
        return self._replace(tables=tuple(table + by for table in self.tables))

    def encode(self, data: Buffer) -> CodedStreams | None:
        """As in ``ChunkModel``."""
        coded = self.model.encode(data, self.segment)
        if coded is None:
            return None
        classes, symbols, *raw = coded
        streams = [
            _smaller(classes, probe=False),
            CodedStream(Codec.RANS, 0, symbols, memoryview(data).nbytes // self.model.width),
            *(_smaller(each, probe=True) for each in raw),
        ]
        return CodedStreams(streams)


def _smaller(stream: bytes, *, probe: bool) -> CodedStream:
    """The stream raw, or as a zstd frame where that is smaller; with ``probe`` only if a part of it was."""
    zstd, middle = codec(Codec.ZSTD), len(stream) // 2
    part = stream[middle : middle + _PROBE]
    if not probe or len(zstd.encode(part, HUFFMAN, None)) < 0.9 * len(part):
        coded = zstd.encode(stream, HUFFMAN, None)
        if len(coded) < len(stream):
            return CodedStream(Codec.ZSTD, NO_TABLE, coded, len(stream))
    return CodedStream(Codec.RAW, NO_TABLE, stream, len(stream))


def decode(
    transform: int,
    layout: Layout,
    streams: Sequence[CodedStream],
    tables: Sequence[SharedTable],
    out: memoryview,
) -> None:
    """Decode the streams of a chunk to ``out``, a whole number of blocks. Raises ``ChunkError``."""
    try:
        if transform == _QUANT:
            _decode_quant(layout, streams, tables, out)
        else:
            _decode_values(layout, streams, tables, out)
    except ValueError as error:
        raise ChunkError(str(error)) from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ChunkError(message)


def _decode_quant(
    layout: Layout, streams: Sequence[CodedStream], tables: Sequence[SharedTable], out: memoryview
) -> None:
    schema = SCHEMAS.get(layout.name)
    if schema is None:
        raise ChunkError(f"the quant transform does not know {layout.name}")
    used = [(stream.codec, stream.slot) for stream in streams]
    _require(used == _QUANT_STREAMS and len(tables) in (1, 2), "a quant chunk has other streams or tables")
    model, n = tables[0].quant(layout.name), len(out) // schema.size
    heads, tails, codes, rest = streams
    sizes = (n * schema.heads, len(tails.body), n * schema.lanes * model.steps)
    _require(
        (heads.size, tails.size, codes.size) == sizes and rest.size == len(rest.body),
        "the streams of a quant chunk have other sizes than its blocks need",
    )
    columns = tables[1].content if len(tables) == 2 else None
    model.decode(columns, heads.body, tails.body, codes.body, rest.body, out)


def _decode_values(
    layout: Layout, streams: Sequence[CodedStream], tables: Sequence[SharedTable], out: memoryview
) -> None:
    width = _VALUES_WIDTH.get(layout.name)
    if width is None:
        raise ChunkError(f"the values transform does not know {layout.name}")
    _require(
        len(streams) == _VALUES_STREAMS and len(tables) == 1, "a values chunk has other streams or tables"
    )
    model, n = tables[0].values(), len(out) // width
    _require(model.width == width, "a values chunk names a table for numbers of another size")
    classes, symbols, *raw = streams
    _require(
        (symbols.codec, symbols.slot, symbols.size) == (Codec.RANS, 0, n),
        "the symbols of a values chunk have another codec, table or size",
    )
    plain = (classes, *raw)
    # The most that each can be, before room is made for it; the core asks for the exact sizes.
    most = (2 + n // 32 + 1, 3 * n // 2 + 1, n + 1, 2 * n)
    _require(
        all(stream.size <= bound for stream, bound in zip(plain, most, strict=True)),
        "the streams of a values chunk have other sizes than its numbers need",
    )
    with scratch(sum(stream.size for stream in plain)) as space:
        first, extras, low, words = decode_plain(plain, space, "values")
        model.decode(first, symbols.body, extras, low, words, out)


def decode_plain(streams: Sequence[CodedStream], space: memoryview, transform: str) -> list[memoryview]:
    """Decode streams that must be raw or zstd frames and name no table, one behind the other in ``space``.

    Their sizes are bounded already. Raises ``ChunkError``.
    """
    decoded = []
    for stream in streams:
        _require(
            stream.codec in (Codec.RAW, Codec.ZSTD) and stream.slot == NO_TABLE,
            f"a stream of a {transform} chunk has another codec or table",
        )
        room, space = space[: stream.size], space[stream.size :]
        decoded.append(codec(stream.codec).decode(memoryview(stream.body), room, None))
    return decoded
