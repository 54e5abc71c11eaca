"""Payload of a chunk, table or manifest: bytes <-> streams <-> coded streams (spec, section 4)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from qzf.codecs.base import Bytes
from qzf.codecs.registry import codec
from qzf.errors import ChunkError, UnsupportedError
from qzf.format.ids import NO_TABLE, Codec, Transform, pad64
from qzf.limits import MAX_STREAMS
from qzf.scratch import scratch
from qzf.transforms import fields, modeled
from qzf.transforms.layouts import BY_ID, Layout
from qzf.transforms.modeled import ChunkModel, CodedStream, SharedTable
from qzf.transforms.strings import decode_strings, split_strings

__all__ = ["Effort", "LoadTable", "Payload", "decode", "encode", "no_table"]

#: Yields a shared table by id.
LoadTable = Callable[[int], SharedTable]

_PRELUDE: Final = struct.Struct("<BBBB")
_STREAM: Final = struct.Struct("<BBHII")
#: The transforms as plain numbers: looking up members of an enumeration takes its time.
_STORED, _NONE, _FIELDS, _QUANT, _VALUES, _STRINGS = map(int, Transform)
#: Bytes of a chunk that are looked at for repetitions.
_PROBE: Final = 4096


class Effort(NamedTuple):
    """The zstd levels to try (or ``HUFFMAN``); the smallest result counts.

    ``scales`` are for streams of one byte a block (scales, and the planes of floats) and the lengths of
    strings, ``codes`` for all other streams of fields, ``whole`` for bytes left whole and the text of
    strings. ``both`` also tries the bytes left whole where there is another way. ``models``: chunks are coded
    by models of their tensors' types where there are such.
    """

    scales: tuple[int, ...]
    codes: tuple[int, ...]
    whole: tuple[int, ...]
    both: bool = False
    models: bool = False


class Payload(NamedTuple):
    """A coded payload in ``parts``, to be written one after another; ``codecs`` has an id per stream."""

    transform: int
    layout: int
    parts: tuple[Bytes, ...]
    size: int
    codecs: tuple[int, ...]


def encode(
    data: Bytes,
    layout: Layout | None,
    effort: Effort,
    table: tuple[int, bytes] | None = None,
    model: ChunkModel | None = None,
    *,
    strings: bool = False,
) -> Payload:
    """The smallest payload for ``data`` that ``effort`` finds; stored where nothing saves a 64-byte unit.

    ``table`` is a shared table (id, content) that zstd may use as a dictionary. ``model`` is how the chunk
    may be coded by tables of the tensor's type; other ways are tried only where it cannot, or with
    ``effort.both``. ``strings`` says that the data should be a sequence of strings.
    """
    stored = Payload(Transform.STORED, 0, (data,), len(data), ())
    candidates = [stored]
    coded = None if model is None else model.encode(data)
    if model is not None and coded is not None:
        candidates.append(_assemble(model.transform, model.layout, coded, model.tables, coded.joined))
        if not effort.both and not _repetitive(data):
            return min(candidates, key=lambda payload: pad64(payload.size))
    if layout is not None and len(data) % layout.block == 0:
        levels = [effort.scales if width == 1 else effort.codes for width in layout.widths]
        streams = fields.split(layout, data)
        candidates.append(_encode_streams(Transform.FIELDS, layout.wire_id, streams, levels, table))
    apart = split_strings(data) if strings else None
    if apart is not None:
        candidates.append(_encode_streams(Transform.STRINGS, 0, apart, [effort.scales, effort.whole], None))
    if len(candidates) == 1 or effort.both:
        candidates.append(_encode_streams(Transform.NONE, 0, [memoryview(data)], [effort.whole], table))
    # Payloads are padded to 64 bytes, so less than a unit is no gain and costs the stored form's zero copy.
    return min(candidates, key=lambda payload: pad64(payload.size))


def _repetitive(data: Bytes) -> bool:
    """Whether a part of the data says that matches would save more than a model can, as in rows of zeros."""
    middle = len(data) // 2
    part = memoryview(data)[middle : middle + _PROBE]
    return len(codec(Codec.ZSTD).encode(part, 1, None)) < len(part) // 2


def _encode_streams(
    transform: int,
    layout: int,
    streams: Sequence[Bytes],
    levels: Sequence[tuple[int, ...]],
    table: tuple[int, bytes] | None,
) -> Payload:
    zstd = codec(Codec.ZSTD)
    coded, tables_used = [], False
    for stream, tried in zip(streams, levels, strict=True):
        # (coded bytes, codec, table slot); ties go to the first, so raw wins where nothing is saved
        options: list[tuple[Bytes, int, int]] = [(stream, Codec.RAW, NO_TABLE)]
        options += [(zstd.encode(stream, level, None), Codec.ZSTD, NO_TABLE) for level in tried]
        if table is not None:
            options += [(zstd.encode(stream, level, table[1]), Codec.ZSTD, 0) for level in tried]
        body, used, slot = min(options, key=lambda option: len(option[0]))
        tables_used |= slot != NO_TABLE
        coded.append(CodedStream(used, slot, body, len(stream)))
    return _assemble(transform, layout, coded, (table[0],) if table is not None and tables_used else ())


def _assemble(
    transform: int,
    layout: int,
    streams: Sequence[CodedStream],
    tables: tuple[int, ...],
    joined: Bytes | None = None,
) -> Payload:
    entries = [_STREAM.pack(each.codec, each.slot, 0, len(each.body), each.size) for each in streams]
    head = b"".join(
        [
            _PRELUDE.pack(len(streams), len(tables), 0, 0),
            *(table.to_bytes(4, "little") for table in tables),
            *entries,
        ]
    )
    size = len(head) + sum(len(each.body) for each in streams)
    codecs = tuple(int(each.codec) for each in streams)
    parts = (head, *(each.body for each in streams)) if joined is None else (head, joined)
    return Payload(transform, layout, parts, size, codecs)


def decode(
    transform: int,
    layout_id: int,
    payload: memoryview,
    decoded_size: int,
    load_table: LoadTable,
    out: memoryview | None = None,
) -> memoryview:
    """The ``decoded_size`` bytes of ``payload``, written to ``out`` where that is given.

    ``load_table`` yields a shared table's content by id. Raises ``ChunkError`` for a payload that
    breaks the rules and ``UnsupportedError`` for unknown transforms, layouts and codecs. Nothing is
    allocated beyond the sizes that ``decoded_size`` and the layout imply.
    """
    if transform == _STORED:
        if layout_id or len(payload) != decoded_size:
            raise ChunkError("a stored payload has another size than its decoded bytes")
        return payload if out is None else _copy(payload, out)
    target = memoryview(bytearray(decoded_size)) if out is None else out
    if transform == _NONE:
        if layout_id:
            raise ChunkError("a payload without transform names a layout")
        (stream,) = _decode_streams(payload, [target], load_table)
        return target if stream is target else _copy(stream, target)
    if transform == _STRINGS:
        if layout_id:
            raise ChunkError("a strings chunk names a layout")
        coded, tables = _parse_streams(payload, load_table)
        decode_strings(coded, len(tables), target)
        return target
    if transform not in (_FIELDS, _QUANT, _VALUES):
        raise UnsupportedError(f"transform {transform} is not known to this reader")
    layout = BY_ID.get(layout_id)
    if layout is None:
        raise UnsupportedError(f"layout {layout_id} is not known to this reader")
    blocks, rest = divmod(decoded_size, layout.block)
    if rest:
        raise ChunkError(f"{decoded_size} bytes are no whole number of {layout.name} blocks")
    if transform != _FIELDS:
        coded, tables = _parse_streams(payload, load_table)
        modeled.decode(transform, layout, coded, tables, target)
        return target
    with scratch(blocks * sum(layout.widths)) as space:
        streams = _decode_streams(payload, fields.divide(layout, space), load_table)
        fields.merge(layout, streams, target)
    return target


def no_table(table_id: int) -> SharedTable:
    """The ``load_table`` of tables and manifests, which must not name any."""
    raise ChunkError(f"a table or manifest names shared table {table_id}")


def _copy(data: memoryview, out: memoryview) -> memoryview:
    out[:] = data
    return out


def _parse_streams(payload: memoryview, load_table: LoadTable) -> tuple[list[CodedStream], list[SharedTable]]:
    """The streams of a payload as they are coded, and the tables that it names."""
    if len(payload) < _PRELUDE.size:
        raise ChunkError("the payload ends inside of its prelude")
    streams, tables, references, reserved = _PRELUDE.unpack_from(payload)
    if references or reserved:
        raise ChunkError("reserved bytes of the payload's prelude are not zero")
    if not 1 <= streams <= MAX_STREAMS or tables > MAX_STREAMS:
        raise ChunkError(f"the payload has {streams} streams and {tables} tables")
    at = _PRELUDE.size + 4 * tables
    body = at + _STREAM.size * streams
    if len(payload) < body:
        raise ChunkError("the payload ends inside of its stream entries")
    coded = []
    for used, slot, zero, stored, size in _STREAM.iter_unpack(payload[at:body]):
        if zero:
            raise ChunkError("reserved bytes of a stream entry are not zero")
        if slot != NO_TABLE and slot >= tables:
            raise ChunkError(f"a stream names table {slot} of {tables}")
        coded.append(CodedStream(used, slot, payload[body : body + stored], size))
        body += stored
    if body != len(payload):
        raise ChunkError("the streams do not add up to the payload")
    return coded, [load_table(i) for i in struct.unpack_from(f"<{tables}I", payload, _PRELUDE.size)]


def _decode_streams(
    payload: memoryview, outs: Sequence[memoryview], load_table: LoadTable
) -> list[memoryview]:
    """Decode all streams of a payload, to ``outs``, which have the sizes that the transform implies.

    A stream that needs no decoding is returned where it lies.
    """
    coded, tables = _parse_streams(payload, load_table)
    if len(coded) != len(outs):
        raise ChunkError(f"the payload has {len(coded)} streams in place of {len(outs)}")
    decoded = []
    for stream, out in zip(coded, outs, strict=True):
        if stream.size != len(out):
            raise ChunkError(f"a stream entry of {stream.size} bytes stands where {len(out)} are due")
        table = None if stream.slot == NO_TABLE else tables[stream.slot].content
        decoded.append(codec(stream.codec).decode(memoryview(stream.body), out, table))
    return decoded
