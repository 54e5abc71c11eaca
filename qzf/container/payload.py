"""Payload of a chunk, table or manifest: bytes <-> streams <-> coded streams (spec, section 4)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qzf.codecs.base import Bytes
from qzf.codecs.registry import codec
from qzf.errors import ChunkError, UnsupportedError
from qzf.format.ids import NO_TABLE, Codec, Transform, pad64
from qzf.limits import MAX_STREAMS
from qzf.scratch import scratch
from qzf.transforms import fields
from qzf.transforms.layouts import BY_ID, Layout

__all__ = ["Effort", "Payload", "decode", "encode", "no_table"]

_PRELUDE: Final = struct.Struct("<BBBB")
_STREAM: Final = struct.Struct("<BBHII")


@dataclass(frozen=True, slots=True)
class Effort:
    """The zstd levels to try (or ``HUFFMAN``); the smallest result counts.

    ``scales`` are for streams of one byte a block (scales, and the planes of floats), ``codes`` for all other
    streams of fields, ``whole`` for bytes left whole. ``both`` also tries the bytes left whole where there is
    a layout.
    """

    scales: tuple[int, ...]
    codes: tuple[int, ...]
    whole: tuple[int, ...]
    both: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """A coded payload in ``parts``, to be written one after another; ``codecs`` has an id per stream."""

    transform: int
    layout: int
    parts: tuple[Bytes, ...]
    size: int
    codecs: tuple[int, ...]


def encode(
    data: Bytes, layout: Layout | None, effort: Effort, table: tuple[int, bytes] | None = None
) -> Payload:
    """The smallest payload for ``data`` that ``effort`` finds; stored where nothing saves a 64-byte unit.

    ``table`` is a shared table (id, content) that zstd may use as a dictionary.
    """
    stored = Payload(Transform.STORED, 0, (data,), len(data), ())
    candidates = [stored]
    if layout is not None and len(data) % layout.block == 0:
        levels = [effort.scales if width == 1 else effort.codes for width in layout.widths]
        streams = fields.split(layout, data)
        candidates.append(_encode_streams(Transform.FIELDS, layout.wire_id, streams, levels, table))
    if len(candidates) == 1 or effort.both:
        candidates.append(_encode_streams(Transform.NONE, 0, [memoryview(data)], [effort.whole], table))
    # Payloads are padded to 64 bytes, so less than a unit is no gain and costs the stored form's zero copy.
    return min(candidates, key=lambda payload: pad64(payload.size))


def _encode_streams(
    transform: int,
    layout: int,
    streams: Sequence[Bytes],
    levels: Sequence[tuple[int, ...]],
    table: tuple[int, bytes] | None,
) -> Payload:
    zstd = codec(Codec.ZSTD)
    entries, bodies, codecs, tables_used = [], [], [], False
    for stream, tried in zip(streams, levels, strict=True):
        # (coded bytes, codec, table slot); ties go to the first, so raw wins where nothing is saved
        options: list[tuple[Bytes, int, int]] = [(stream, Codec.RAW, NO_TABLE)]
        options += [(zstd.encode(stream, level, None), Codec.ZSTD, NO_TABLE) for level in tried]
        if table is not None:
            options += [(zstd.encode(stream, level, table[1]), Codec.ZSTD, 0) for level in tried]
        body, used, slot = min(options, key=lambda option: len(option[0]))
        tables_used |= slot != NO_TABLE
        entries.append(_STREAM.pack(used, slot, 0, len(body), len(stream)))
        bodies.append(body)
        codecs.append(int(used))
    tables = [table[0].to_bytes(4, "little")] if table is not None and tables_used else []
    head = b"".join([_PRELUDE.pack(len(streams), len(tables), 0, 0), *tables, *entries])
    return Payload(transform, layout, (head, *bodies), len(head) + sum(map(len, bodies)), tuple(codecs))


def decode(
    transform: int,
    layout_id: int,
    payload: memoryview,
    decoded_size: int,
    load_table: Callable[[int], bytes],
    out: memoryview | None = None,
) -> memoryview:
    """The ``decoded_size`` bytes of ``payload``, written to ``out`` where that is given.

    ``load_table`` yields a shared table's content by id. Raises ``ChunkError`` for a payload that
    breaks the rules and ``UnsupportedError`` for unknown transforms, layouts and codecs. Nothing is
    allocated beyond the sizes that ``decoded_size`` and the layout imply.
    """
    if transform == Transform.STORED:
        if layout_id or len(payload) != decoded_size:
            raise ChunkError("a stored payload has another size than its decoded bytes")
        return payload if out is None else _copy(payload, out)
    target = np.empty(decoded_size, np.uint8).data if out is None else out
    if transform == Transform.NONE:
        if layout_id:
            raise ChunkError("a payload without transform names a layout")
        (stream,) = _decode_streams(payload, [target], load_table)
        return target if stream is target else _copy(stream, target)
    if transform != Transform.FIELDS:
        raise UnsupportedError(f"transform {transform} is not known to this reader")
    layout = BY_ID.get(layout_id)
    if layout is None:
        raise UnsupportedError(f"layout {layout_id} is not known to this reader")
    blocks, rest = divmod(decoded_size, layout.block)
    if rest:
        raise ChunkError(f"{decoded_size} bytes are no whole number of {layout.name} blocks")
    with scratch(blocks * sum(layout.widths)) as space:
        streams = _decode_streams(payload, fields.divide(layout, space), load_table)
        fields.merge(layout, streams, target)
    return target


def no_table(table_id: int) -> bytes:
    """The ``load_table`` of tables and manifests, which must not name any."""
    raise ChunkError(f"a table or manifest names shared table {table_id}")


def _copy(data: memoryview, out: memoryview) -> memoryview:
    out[:] = data
    return out


def _decode_streams(
    payload: memoryview, outs: Sequence[memoryview], load_table: Callable[[int], bytes]
) -> list[memoryview]:
    """Decode all streams of a payload, to ``outs``, which have the sizes that the transform implies.

    A stream that needs no decoding is returned where it lies.
    """
    if len(payload) < _PRELUDE.size:
        raise ChunkError("the payload ends inside of its prelude")
    streams, tables, references, reserved = _PRELUDE.unpack_from(payload)
    if references or reserved:
        raise ChunkError("reserved bytes of the payload's prelude are not zero")
    if streams != len(outs) or tables > MAX_STREAMS:
        raise ChunkError(
            f"the payload has {streams} streams and {tables} tables in place of {len(outs)} streams"
        )
    at = _PRELUDE.size + 4 * tables
    body = at + _STREAM.size * streams
    if len(payload) < body:
        raise ChunkError("the payload ends inside of its stream entries")
    loaded = [load_table(i) for i in struct.unpack_from(f"<{tables}I", payload, _PRELUDE.size)]
    entries = list(_STREAM.iter_unpack(payload[at:body]))
    if body + sum(entry[3] for entry in entries) != len(payload):
        raise ChunkError("the streams do not add up to the payload")
    decoded = []
    for (used, slot, zero, stored, size), out in zip(entries, outs, strict=True):
        if zero or size != len(out):
            raise ChunkError(f"a stream entry of {size} bytes stands where {len(out)} are due")
        if slot != NO_TABLE and slot >= tables:
            raise ChunkError(f"a stream names table {slot} of {tables}")
        table = None if slot == NO_TABLE else loaded[slot]
        decoded.append(codec(used).decode(payload[body : body + stored], out, table))
        body += stored
    return decoded
