"""Broken containers: chunks of the transforms ``quant`` and ``values``, and their shared tables."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import zstandard
from xxhash import xxh3_64_intdigest as xxh3

from tools.vectors.broken import Broken, Cases, chunk, table
from tools.vectors.modeled import MODEL, QuantCase, quant_parts, values_parts
from tools.vectors.parts import TABLE, Parts, Record, Stream, raw, seal, streams_payload, zstd

__all__ = ["modeled_cases"]

_QUANT = QuantCase("Q5_0", 120, 4)
_COLUMNS = QuantCase("Q8_0", 160, 2, classes=4)
_K = QuantCase("Q4_K", 18, 4)
_VALUES = ("BF16", 32, 2)
_STREAM = struct.Struct("<BBHII")

Streams = list[Stream]
Change = Callable[[Streams, list[int]], object]


def modeled_cases() -> list[Broken]:
    """All cases of sections 4.4 and 4.5 and of the tables."""
    return [*_quant_streams(), *_quant_values(), *_quant_tables(), *_values_streams(), *_values_tables()]


def _open(record: Record) -> tuple[Streams, list[int]]:
    """The streams and the table ids of a payload."""
    payload = record.payload
    count, tables = payload[0], payload[1]
    ids = list(struct.unpack_from(f"<{tables}I", payload, 4))
    at, streams = 4 + 4 * tables + 12 * count, []
    for i in range(count):
        codec, slot, zero, stored, size = _STREAM.unpack_from(payload, 4 + 4 * tables + 12 * i)
        streams.append(Stream(codec, payload[at : at + stored], size, slot, zero))
        at += stored
    return streams, ids


def _edited(make: Callable[[], Parts], change: Change) -> bytes:
    parts = make()
    record = chunk(parts, 0)
    streams, ids = _open(record)
    change(streams, ids)
    record.payload = streams_payload(streams, ids)
    return seal(parts)


def _with_table(make: Callable[[], Parts], change: Callable[[bytes], bytes]) -> bytes:
    """The container with the content of its model changed."""
    parts = make()
    record = table(parts)
    streams, _ = _open(record)
    content = change(zstandard.ZstdDecompressor().decompress(streams[0].body))
    record.payload = streams_payload([zstd(content, 19)])
    record.fields |= {"decoded_size": len(content), "decoded_xxh3": xxh3(content)}
    return seal(parts)


def _body(i: int, change: Callable[[bytes], bytes], *, sized: bool = False) -> Change:
    """Change the bytes of stream ``i``; with ``sized`` its decoded size follows."""

    def edit(streams: Streams, _: list[int]) -> None:
        body = change(streams[i].body)
        streams[i] = replace(
            streams[i], body=body, decoded_size=len(body) if sized else streams[i].decoded_size
        )

    return edit


def _set(i: int, **changes: int) -> Change:
    def edit(streams: Streams, _: list[int]) -> None:
        for name, value in changes.items():
            setattr(streams[i], name, value)

    return edit


def _shorter(data: bytes) -> bytes:
    return data[:-1]


def _longer(data: bytes) -> bytes:
    return data + b"\0"


def _flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 255])


def _no_tables(streams: Streams, ids: list[int]) -> None:
    ids.clear()
    for stream in streams:
        stream.table = 255


def _overwrite(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + new + data[at + len(new) :]


def _adder(cases: Cases, prefix: str, make: Callable[[], Parts]) -> Callable[[str, str, Change], None]:
    def add(name: str, reason: str, change: Change) -> None:
        cases.made(f"{prefix}-{name}", "Damage", reason, partial(_edited, make, change))

    return add


def _quant_streams() -> list[Broken]:
    cases = Cases("4.4")
    add = _adder(cases, "quant", partial(quant_parts, _QUANT))
    for i, name in enumerate(("heads", "tails", "codes", "rest")):
        add(f"{name}-codec", f"the {name} have another codec", _set(i, codec=1))
        add(f"{name}-table", f"the {name} name another table", _set(i, table=0 if i % 2 else 255))
        add(f"{name}-size", f"the {name} announce another size", _set(i, decoded_size=7))
        add(f"{name}-short", f"the {name} lack a byte", _body(i, _shorter, sized=bool(i % 2)))
        add(f"{name}-long", f"the {name} have a byte more", _body(i, _longer, sized=bool(i % 2)))
        add(f"{name}-empty", f"the {name} are not there", _body(i, lambda _: b"", sized=bool(i % 2)))
    add("stream-missing", "a stream is missing", lambda s, _: s.pop())
    add("stream-more", "there is a stream too many", lambda s, _: s.append(raw(b"")))
    add("no-table", "no table is named", _no_tables)
    add("three-tables", "three tables are named", lambda _, ids: ids.extend([MODEL, MODEL]))
    add("unknown-table", "a table that is not there", lambda _, ids: ids.__setitem__(0, 99))
    add(
        "column-table", "a table of columns that the model does not ask for", lambda _, ids: ids.append(MODEL)
    )
    cases.made(
        "quant-no-columns",
        "Damage",
        "the table of columns is not named",
        partial(_edited, partial(quant_parts, _COLUMNS), lambda _, ids: ids.pop()),
    )
    cases.made(
        "quant-columns-class", "Damage", "a class of column that is not in the model", _bad_columns(b"\4")
    )
    cases.made("quant-columns-size", "Damage", "the table of columns is too short", _bad_columns(None))
    return cases.found


def _bad_columns(first: bytes | None) -> Callable[[], bytes]:
    def make() -> bytes:
        parts = quant_parts(_COLUMNS)
        record = parts.of_kind(TABLE)[1]
        content = record.payload[:-1] if first is None else first + record.payload[1:]
        record.payload = content
        record.fields |= {"decoded_size": len(content), "decoded_xxh3": xxh3(content)}
        return seal(parts)

    return make


def _quant_values() -> list[Broken]:
    cases = Cases("4.4")
    add = _adder(cases, "quant", partial(quant_parts, _QUANT))
    for rows in (0, 7, 481, (1 << 32) - 1):
        add(f"rows-{rows}", "rows that do not fit", _body(1, _overwrite(0, struct.pack("<I", rows))))
    add("exceptions", "exceptions that are not there", _body(1, _overwrite(4, struct.pack("<I", 1))))
    add("exceptions-most", "more exceptions than scales", _body(1, _overwrite(4, struct.pack("<I", 1 << 31))))
    add(
        "exceptions-second",
        "exceptions of a number that the type lacks",
        _body(1, _exception_of_none, sized=True),
    )
    add("exception-place", "an exception of no scale", _body(1, _exception(480), sized=True))
    add("heads-state", "an initial state that cannot be", _body(0, _overwrite(0, bytes(4))))
    add(
        "heads-end",
        "the symbols of scales leave another state",
        _body(0, _overwrite(128, b"\xff\xff\xff\xff")),
    )
    add("codes-state", "an initial state that cannot be", _body(2, _overwrite(0, bytes(2))))
    add(
        "codes-end",
        "the codes leave another state",
        _body(2, lambda data: data[:-1] + bytes([data[-1] ^ 255])),
    )
    return cases.found


def _exception(place: int) -> Callable[[bytes], bytes]:
    return lambda data: _overwrite(4, struct.pack("<I", 1))(data) + struct.pack("<IH", place, 0)


def _exception_of_none(data: bytes) -> bytes:
    return _overwrite(8, struct.pack("<I", 1))(data) + struct.pack("<IH", 0, 0)


def _quant_tables() -> list[Broken]:
    cases = Cases("tables/01-quant")

    def add(name: str, reason: str, change: Callable[[bytes], bytes], case: QuantCase = _K) -> None:
        make = partial(_with_table, partial(quant_parts, case), change)
        cases.made(f"quant-table-{name}", "Damage", reason, make)

    add("kind", "a table of another kind", _overwrite(0, b"\2"))
    add("flags", "reserved flags", _overwrite(1, b"\2"))
    add("extrema", "extrema of a type that has none", _overwrite(1, b"\1"))
    add("shift", "a shift above 8", _overwrite(2, b"\x09"))
    add("keys-none", "no keys", _overwrite(8, bytes(2)))
    add("keys-many", "more than 256 keys", _overwrite(8, b"\1\1"))
    add("classes-none", "no column classes", _overwrite(10, b"\0"))
    add("classes-many", "17 column classes", _overwrite(10, b"\x11"))
    add("contexts-none", "no contexts", _overwrite(11, b"\0"))
    add("contexts-many", "65 contexts", _overwrite(11, b"\x41"))
    add("scale-context", "a context of scales that is not there", _overwrite(12, b"\x40"))
    add("reserved", "a reserved byte", _overwrite(13, b"\1"))
    add("ratio-key", "a key that is not there", _overwrite(18, b"\xff"))
    add("residual-key", "a key that is not there", _overwrite(18 + 128, b"\xff"))
    add("second-context", "a context that is not there", _overwrite(18 + 192, b"\xff"))
    add("min-context", "a context that is not there", _overwrite(18 + 448, b"\xff"))
    add("short", "a byte is missing", _shorter)
    add("long", "a byte too many", _longer)
    add("cut", "it ends within its maps", lambda d: d[:400])
    add("codes-sum", "frequencies of codes that do not add up", lambda d: d[:-1] + bytes([d[-1] ^ 1]))
    add("codes-beyond", "a frequency of no code", _beyond, QuantCase("Q2_K", 26, 4))
    add("scales-sum", "frequencies of scales that do not add up", _swap_frequency)
    add("other-type", "a table of another type", lambda d: d[: len(d) // 2])
    add("base", "a base beyond the last pattern", lambda d: d[:4] + b"\xff\xff" + d[6:])
    return cases.found


def _beyond(data: bytes) -> bytes:
    """One slot of the last code that there is becomes that of the next symbol."""
    return data[:-13] + bytes([data[-13] - 1, 1]) + data[-11:]


def _swap_frequency(data: bytes) -> bytes:
    """The first frequency that is not zero, one higher."""
    lists = struct.unpack_from("<HH", data, 14)
    at = 18 + 128 + 64 + 256 + 128 + 2 * sum(lists)
    while data[at : at + 2] == b"\0\0":
        at += 2
    return data[:at] + struct.pack("<H", struct.unpack_from("<H", data, at)[0] + 1) + data[at + 2 :]


def _values_streams() -> list[Broken]:
    cases = Cases("4.5")
    add = _adder(cases, "values", partial(values_parts, *_VALUES))
    for i, name in enumerate(("classes", "symbols", "extras", "low", "words")):
        add(f"{name}-codec", f"the {name} have another codec", _set(i, codec=3))
        add(f"{name}-table", f"the {name} name another table", _set(i, table=255 if i == 1 else 0))
        add(f"{name}-long", f"the {name} have a byte more", _body(i, _longer, sized=i != 1))
        if i not in (2, 4):
            add(f"{name}-short", f"the {name} lack a byte", _raw_shorter(i))
    add("symbols-size", "the symbols announce another size", _set(1, decoded_size=5))
    add("stream-missing", "a stream is missing", lambda s, _: s.pop())
    add("no-table", "no table is named", _no_tables)
    add("two-tables", "two tables are named", lambda _, ids: ids.append(MODEL))
    for segment in (0, 31, 33):
        add(f"segment-{segment}", "a segment of an impossible size", _classes(struct.pack("<H", segment)))
    add("class", "a class that is not in the table", _classes(b"\x20\0\2"))
    add("symbols-state", "an initial state that cannot be", _body(1, _overwrite(0, bytes(4))))
    add(
        "symbols-end",
        "the symbols leave another state",
        _body(1, lambda d: d[:-2] + bytes([d[-2] ^ 255, d[-1]])),
    )
    return cases.found


def _plain(stream: Stream) -> bytes:
    return stream.body if stream.codec == 0 else zstandard.ZstdDecompressor().decompress(stream.body)


def _raw_shorter(i: int) -> Change:
    def edit(streams: Streams, _: list[int]) -> None:
        if i == 1:
            streams[1] = replace(streams[1], body=streams[1].body[:-1])
        else:
            streams[i] = raw(_plain(streams[i])[:-1])

    return edit


def _classes(start: bytes) -> Change:
    def edit(streams: Streams, _: list[int]) -> None:
        plain = _plain(streams[0])
        streams[0] = raw(start + plain[len(start) :])

    return edit


def _values_tables() -> list[Broken]:
    cases = Cases("tables/02-values")

    def add(name: str, reason: str, change: Callable[[bytes], bytes]) -> None:
        make = partial(_with_table, partial(values_parts, *_VALUES), change)
        cases.made(f"values-table-{name}", "Damage", reason, make)

    add("kind", "a table of another kind", _overwrite(0, b"\1"))
    add("form", "an unknown form", _overwrite(1, b"\4"))
    add("width", "a form of another width", _overwrite(1, b"\3"))
    add("key", "a key beyond the last", _overwrite(2, b"\0\x10"))
    add("plain", "more than 256 symbols", _overwrite(4, b"\1\1"))
    add("contexts-none", "no contexts", _overwrite(6, b"\0"))
    add("contexts-many", "17 contexts", _overwrite(6, b"\x11"))
    add("coarse-bits", "a symbol for 2^13 keys", lambda d: d[:8] + d[8:10] + b"\x0d" + d[11:])
    add("coarse-base", "a symbol for keys beyond the last", lambda d: d[:8] + b"\xff\x0f\x01" + d[11:])
    add("short", "a byte is missing", _shorter)
    add("long", "a byte too many", _longer)
    add("sum", "frequencies that do not add up", lambda d: d[:-2] + b"\1\0")
    return cases.found
