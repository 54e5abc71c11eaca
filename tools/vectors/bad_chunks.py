"""Broken containers: chunks, payloads and codecs (spec, sections 4 and 5)."""

from __future__ import annotations

import struct

from tools.vectors.broken import (
    CONFIG,
    TABLE_ID,
    Broken,
    Cases,
    Edit,
    chunk,
    coded,
    member,
    nth,
    put,
    recode,
    rle_frame,
    table,
)
from tools.vectors.builder import noise
from tools.vectors.parts import Parts, Record, Stream, raw, streams_payload, zstd, zstd_frame

__all__ = ["chunk_cases"]

_FORMAT = "FormatError"
_UNSUPPORTED = "UnsupportedError"
_SIZE = len(CONFIG)
#: The only chunk of the config file: 600 spaces, transform ``none``.
_CONFIG = 5


def chunk_cases() -> list[Broken]:
    """All cases of sections 4 and 5."""
    return [
        *_sizes(),
        *_transforms(),
        *_counts(),
        *_entries(),
        *_codecs(),
        *_frames(),
        *_dictionaries(),
        *_tables(),
    ]


def _config(payload: bytes) -> Edit:
    """Give the config file's chunk another payload."""
    return coded(nth(_CONFIG), payload)


def _sizes() -> list[Broken]:
    cases = Cases("4")

    def add(name: str, reason: str, edit: Edit, error: str = _FORMAT) -> None:
        cases.add(f"chunk-{name}", error, reason, edit)

    add("empty", "a chunk of no bytes", _empty_chunk)
    add("large", "a chunk of 64 MiB and a byte", lambda p: _resize(p, (1 << 26) + 1))
    add("larger", "a chunk of 4 GiB less a byte", lambda p: _resize(p, (1 << 32) - 1))
    add("grown", "a payload larger than the chunk", coded(nth(_CONFIG), streams_payload([raw(CONFIG)])))
    cases.spec = "4.1"
    add(
        "stored-size",
        "a stored chunk whose sizes differ",
        coded(nth(4), noise("tail", 256)[:-1]),
    )
    add("stored-xxh3", "a stored chunk whose checksums differ", put(nth(4), decoded_xxh3=1))
    return cases.found


def _resize(parts: Parts, size: int) -> None:
    """The config file is one RLE chunk of ``size`` bytes, of which its frame says so."""
    payload = streams_payload([Stream(1, rle_frame(1 << 17, content_size=size), size)])
    recode(chunk(parts, _CONFIG), payload, decoded_size=size)
    member(parts, 1)["size"] = size


def _empty_chunk(parts: Parts) -> None:
    first = chunk(parts, _CONFIG)
    extra = Record(dict(first.fields), b"")
    recode(extra, b"", b"", transform=0, offset=_SIZE)
    parts.records.insert(parts.records.index(first) + 1, extra)
    member(parts, 1)["chunk_count"] = 2


def _transforms() -> list[Broken]:
    cases = Cases("4.1")

    def add(name: str, error: str, reason: str, edit: Edit) -> None:
        cases.add(f"transform-{name}", error, reason, edit)

    add("6", _UNSUPPORTED, "an unknown transform", put(nth(_CONFIG), transform=6))
    add("255", _UNSUPPORTED, "an unknown transform", put(nth(_CONFIG), transform=255))
    cases.spec = "2.2"
    add("stored-layout", "Damage", "a stored chunk with a layout", put(nth(4), layout=1))
    add("none-layout", "Damage", "a chunk of transform none with a layout", put(nth(_CONFIG), layout=1))
    cases.spec = "4.3"
    for layout in (0, 8, 64, 255, 65535):
        add(f"layout-{layout}", _UNSUPPORTED, "an unknown layout", put(nth(1), layout=layout))
    planes = streams_payload([zstd(CONFIG[: _SIZE // 18 * width]) for width in (1, 1, 16)])
    add(
        "part-block",
        "Damage",
        "a chunk that is no whole number of blocks",
        coded(nth(_CONFIG), planes, transform=2, layout=66),
    )
    return cases.found


def _counts() -> list[Broken]:
    cases = Cases("4.2")

    def add(name: str, reason: str, payload: bytes) -> None:
        cases.add(f"payload-{name}", "Damage", reason, _config(payload))

    good = zstd(CONFIG)
    add("empty", "a payload of no bytes", b"")
    add("prelude", "the payload ends in its prelude", b"\1\0\0")
    add("no-streams", "no streams", streams_payload([]))
    add("two-streams", "two streams for transform none", streams_payload([good, zstd(b"")]))
    add("announced", "64 streams announced, one there", streams_payload([good], stream_count=64))
    add("255-streams", "255 streams announced", streams_payload([good], stream_count=255))
    add("entries", "the payload ends in its stream entries", streams_payload([good])[:15])
    add("65-tables", "65 tables", streams_payload([zstd(CONFIG, 19)], [TABLE_ID] * 65))
    add("tables-cut", "the payload ends in its tables", streams_payload([good], table_count=64))
    add("references", "a reference", streams_payload([good], references=1))
    add("reserved", "the reserved byte of the prelude", streams_payload([good], reserved=0x80))
    add("table-unknown", "a stream uses a table that does not exist", _with_slot(0, [TABLE_ID + 1]))
    add(
        "table-unused",
        "a table that does not exist is named and not used",
        streams_payload([good], [TABLE_ID, 9]),
    )
    add("table-slot", "a stream names a table that the chunk does not", _with_slot(1, [TABLE_ID]))
    add("table-slot-254", "a stream names a table, the chunk none", _with_slot(254, []))
    return cases.found


def _with_slot(slot: int, tables: list[int]) -> bytes:
    stream = zstd(CONFIG)
    stream.table = slot
    return streams_payload([stream], tables)


def _entries() -> list[Broken]:
    cases = Cases("4.2")

    def add(name: str, reason: str, payload: bytes) -> None:
        cases.add(f"stream-{name}", "Damage", reason, _config(payload))

    body = zstd_frame(CONFIG)

    def one(**changes: int) -> bytes:
        stream = Stream(1, body, _SIZE)
        for name, value in changes.items():
            setattr(stream, name, value)
        return streams_payload([stream])

    add("reserved", "reserved bytes of a stream entry", one(reserved=0x100))
    add("longer", "a stream ends after the payload", one(stored_size=len(body) + 1))
    add("shorter", "bytes after the last stream", one(stored_size=len(body) - 1))
    add("largest", "a stream of 4 GiB less a byte", one(stored_size=(1 << 32) - 1))
    add("more-bytes", "bytes that no stream has", one() + b"\0")
    add("decoded-more", "a stream announces too much", one(decoded_size=_SIZE + 1))
    add("decoded-less", "a stream announces too little", one(decoded_size=_SIZE - 1))
    add("decoded-none", "a stream announces nothing", one(decoded_size=0))
    add("decoded-huge", "a stream announces 4 GiB less a byte", one(decoded_size=(1 << 32) - 1))
    planes = [zstd(bytes(n)) for n in (128, 128, 127, 129)]
    cases.spec = "4.3"
    cases.add(
        "stream-widths",
        "Damage",
        "streams of a split chunk with wrong sizes",
        coded(nth(1), streams_payload(planes)),
    )
    fewer = [zstd(bytes(n)) for n in (128, 128, 256)]
    cases.add(
        "stream-fewer",
        "Damage",
        "a stream of a split chunk is missing",
        coded(nth(1), streams_payload(fewer)),
    )
    return cases.found


def _codecs() -> list[Broken]:
    cases = Cases("5")

    def add(
        name: str, reason: str, *streams: Stream, tables: tuple[int, ...] = (), error: str = "Damage"
    ) -> None:
        payload = streams_payload(streams, tables)
        cases.add(f"codec-{name}", error, reason, coded(nth(1), payload))

    planes = [zstd(bytes(128)) for _ in range(3)]
    for codec, name in ((2, "rans"), (3, "lanes")):
        add(
            f"{name}-misplaced",
            f"a stream of a split chunk by {name}",
            Stream(codec, bytes(128), 128),
            *planes,
        )
    for codec in (4, 255):
        add(
            str(codec),
            f"codec {codec} is unknown",
            Stream(codec, zstd_frame(bytes(128)), 128),
            *planes,
            error=_UNSUPPORTED,
        )
    cases.spec = "codecs/00-raw"
    add("raw-short", "a raw stream with fewer bytes than it decodes to", Stream(0, bytes(127), 128), *planes)
    add("raw-long", "a raw stream with more bytes than it decodes to", Stream(0, bytes(129), 128), *planes)
    add(
        "raw-table",
        "a raw stream with a table",
        Stream(0, bytes(128), 128, table=0),
        *planes,
        tables=(TABLE_ID,),
    )
    return cases.found


def _frames() -> list[Broken]:
    cases = Cases("codecs/01-zstd")

    def add(name: str, reason: str, body: bytes) -> None:
        payload = streams_payload([Stream(1, body, _SIZE)])
        cases.add(f"zstd-{name}", "Damage", reason, _config(payload))

    frame = rle_frame(_SIZE)
    add("no-size", "the frame states no content size", rle_frame(_SIZE, content_size=None, window_log=10))
    add("size-more", "the frame states one byte more", rle_frame(_SIZE, content_size=_SIZE + 1))
    add("size-less", "the frame states one byte less", rle_frame(_SIZE, content_size=_SIZE - 1))
    add("content-less", "the frame holds less than it states", rle_frame(_SIZE - 1, content_size=_SIZE))
    add("content-more", "the frame holds more than it states", rle_frame(_SIZE + 1, content_size=_SIZE))
    add(
        "content-bomb",
        "the frame holds 2 MiB and states 600",
        rle_frame(1 << 21, content_size=_SIZE, window_log=20, blocks=16),
    )
    add("window", "a window of 128 MiB", rle_frame(_SIZE, window_log=27))
    add("window-largest", "a window of 2 TiB", rle_frame(_SIZE, window_log=41))
    add("trailing", "a byte after the frame", frame + b"\0")
    add("two", "two frames", rle_frame(300) + rle_frame(300))
    add("two-empty", "an empty frame after the frame", frame + zstd_frame(b""))
    add("empty-first", "an empty frame before the frame", zstd_frame(b"") + frame)
    add("skippable-first", "a skippable frame before the frame", b"\x50\x2a\x4d\x18\1\0\0\0x" + frame)
    add("skippable-last", "a skippable frame after the frame", frame + b"\x5f\x2a\x4d\x18\0\0\0\0")
    add("none", "no frame", b"")
    add("magic", "no zstd magic", b"\x29" + frame[1:])
    add("cut-header", "the frame ends in its header", frame[:7])
    add("cut-block", "the frame ends in its block", frame[:-1])
    add("not-last", "no block is the last", frame[:-4] + bytes([frame[-4] & 0xFE]) + frame[-3:])
    add("reserved", "the reserved bit of the frame header", rle_frame(_SIZE, descriptor=8))
    add("checksum", "the frame's own checksum is wrong", rle_frame(_SIZE, descriptor=4) + bytes(4))
    add("block-type", "a reserved block type", frame[:-4] + bytes([frame[-4] | 6]) + frame[-3:])
    return cases.found


def _dictionaries() -> list[Broken]:
    cases = Cases("codecs/01-zstd")

    def add(name: str, reason: str, stream: Stream, content: bytes | None = None) -> None:
        def edit(parts: Parts) -> None:
            recode(chunk(parts, _CONFIG), streams_payload([stream], [TABLE_ID]))
            if content is not None:
                recode(table(parts), content, content)

        cases.add(f"dictionary-{name}", "Damage", reason, edit)

    named = rle_frame(_SIZE, dictionary_id=77)
    add("none", "the frame names a dictionary, the stream no table", Stream(1, named, _SIZE))
    add("other", "the frame names another dictionary than the table", Stream(1, named, _SIZE, table=0))
    magic = struct.pack("<II", 0xEC30A437, 77)
    add(
        "broken",
        "the table has the magic of a dictionary and is none",
        Stream(1, named, _SIZE, table=0),
        magic + b"\xff" * 60,
    )
    return cases.found


def _tables() -> list[Broken]:
    cases = Cases("4.1")

    def add(name: str, reason: str, edit: Edit, error: str = _FORMAT) -> None:
        cases.add(f"table-{name}", error, reason, edit)

    text = bytes(500)
    good = streams_payload([zstd(text)])
    add("empty", "a table of no bytes", coded(table, b"", b""))
    add(
        "large",
        "a table of 16 MiB and a byte",
        put(table, transform=1, decoded_size=(1 << 24) + 1),
    )
    add(
        "grown",
        "a table larger than its content",
        coded(table, streams_payload([raw(text)]), text, transform=1),
    )
    add(
        "fields",
        "a table with transform 2",
        coded(table, streams_payload([zstd(bytes(250))] * 2), text, transform=2, layout=1),
    )
    add("layout", "a table with a layout", put(table, layout=1))
    add("transform", "a table with an unknown transform", coded(table, good, text, transform=3))
    add(
        "names",
        "a table whose payload names itself",
        coded(table, streams_payload([zstd(text)], [TABLE_ID]), text, transform=1),
        "Damage",
    )
    add(
        "uses",
        "a table whose payload uses itself",
        coded(table, _with_slot(0, [TABLE_ID]), CONFIG, transform=1),
        "Damage",
    )
    add(
        "payload",
        "a table whose payload is none",
        coded(table, b"\1\0\0\0", text, transform=1),
        "Damage",
    )
    return cases.found
