"""Broken containers: chunks of the transform ``strings``."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tools.vectors.broken import TABLE_ID, Broken, Cases, Edit, chunk, recode, rle_frame
from tools.vectors.builder import leb128
from tools.vectors.parts import Parts, Stream, raw, streams_payload, zstd, zstd_frame

__all__ = ["strings_cases"]

#: The only chunk of the config file, which becomes one of strings: 20 of them, 600 bytes with their lengths.
_CONFIG: Final = 5
_ITEMS: Final = [b"ab" * 60, b"", *([b" " * 17] * 17), b" " * 31]
_DATA: Final = b"".join(len(item).to_bytes(8, "little") + item for item in _ITEMS)
_LENGTHS: Final = b"".join(leb128(len(item)) for item in _ITEMS)
_TEXT: Final = b"".join(_ITEMS)
assert len(_DATA) == 600


def strings_cases() -> list[Broken]:
    """All cases of section 4.6."""
    return [*_streams(), *_lengths(), *_text()]


def _coded(payload: bytes, data: bytes = _DATA) -> Edit:
    def edit(parts: Parts) -> None:
        recode(chunk(parts, _CONFIG), payload, data, transform=5)

    return edit


def _with(lengths: Stream, text: Stream | None = None, *more: Stream) -> Edit:
    return _coded(streams_payload([lengths, zstd(_TEXT) if text is None else text, *more]))


def _streams() -> list[Broken]:
    cases = Cases("4.6")

    def add(name: str, reason: str, edit: Edit) -> None:
        cases.add(f"strings-{name}", "Damage", reason, edit)

    lengths, text = raw(_LENGTHS), zstd(_TEXT)
    add("one-stream", "there is no text", _coded(streams_payload([lengths])))
    add("three-streams", "there is a third stream", _with(lengths, text, raw(b"")))
    add("swapped", "text and lengths have changed places", _with(text, lengths))
    add("table", "a table is named and not used", _coded(streams_payload([lengths, text], [TABLE_ID])))
    for i, name in enumerate(("lengths", "text")):
        tabled, coded = [zstd(_LENGTHS), text], [lengths, text]
        tabled[i] = replace(tabled[i], table=0)
        coded[i] = replace(coded[i], codec=2)
        add(f"{name}-table", f"the {name} use a table", _coded(streams_payload(tabled, [TABLE_ID])))
        add(f"{name}-codec", f"the {name} have another codec", _coded(streams_payload(coded)))
    huge = Stream(1, rle_frame(1 << 17, content_size=(1 << 32) - 1), (1 << 32) - 1)
    add("lengths-huge", "lengths of 4 GiB less a byte", _with(huge))
    add("text-huge", "text of 4 GiB less a byte", _with(lengths, huge))
    add("lengths-most", "more lengths than there is room for", _with(raw(bytes(76)), raw(b"")))
    add("text-most", "as much text as there are bytes", _with(lengths, zstd(bytes(593))))
    add("no-lengths", "there are no lengths", _with(raw(b"")))
    add("nothing", "there are no strings", _with(raw(b""), raw(b"")))
    cases.spec = "2.2"
    good = streams_payload([lengths, text])
    add("layout", "a chunk of strings with a layout", lambda parts: _layout(parts, good))
    return cases.found


def _layout(parts: Parts, payload: bytes) -> None:
    recode(chunk(parts, _CONFIG), payload, _DATA, transform=5, layout=7)


def _lengths() -> list[Broken]:
    cases = Cases("4.6")

    def add(name: str, reason: str, lengths: bytes) -> None:
        cases.add(f"strings-length-{name}", "Damage", reason, _with(raw(lengths)))

    first, rest = _LENGTHS[:1], _LENGTHS[1:]
    add("cut", "the lengths end within one", _LENGTHS[:-1] + bytes([_LENGTHS[-1] | 0x80]))
    add("zero", "a length of 0 in two bytes", first + b"\x80\0" + rest[1:])
    add("long", "a length in two bytes where one would do", bytes([first[0] | 0x80, 0]) + rest)
    add("longer", "a length in four bytes where one would do", b"\xf8\x80\x80\0" + rest)
    add("five", "a length of five bytes", b"\x80\x80\x80\x80\1" + rest)
    add("ten", "a length of 2^64 - 1", b"\xff" * 9 + b"\1" + rest)
    add("most", "a length of 2^28 - 1", b"\xff\xff\xff\x7f" + rest)
    add("fewer", "a length is missing", _LENGTHS[:-1])
    add("more", "a string of no bytes too many", _LENGTHS + b"\0")
    add("sum-more", "the lengths add up to more", _LENGTHS[:-1] + bytes([_LENGTHS[-1] + 1]))
    add("sum-less", "the lengths add up to less", _LENGTHS[:-1] + bytes([_LENGTHS[-1] - 1]))
    add("merged", "two strings have become one of their size", _LENGTHS[:-2] + bytes([17 + 31]))
    return cases.found


def _text() -> list[Broken]:
    cases = Cases("4.6")

    def add(name: str, reason: str, text: Stream, lengths: bytes = _LENGTHS) -> None:
        cases.add(f"strings-text-{name}", "Damage", reason, _with(raw(lengths), text))

    add("short", "the text lacks a byte", zstd(_TEXT[:-1]))
    add("long", "the text has a byte more", zstd(_TEXT + b" "))
    add("none", "there is no text for the lengths", raw(b""))
    longer = _LENGTHS[:-1] + bytes([_LENGTHS[-1] + 1])
    add("both-long", "a string is longer than in the chunk", zstd(_TEXT + b" "), longer)
    cases.spec = "codecs/01-zstd"
    empty = zstd_frame(b"")
    assert empty == bytes.fromhex("28b52ffd2000010000")

    def frame(name: str, reason: str, body: bytes) -> None:
        payload = streams_payload([raw(bytes(75)), Stream(1, body, 0)])
        cases.add(f"strings-text-frame-{name}", "Damage", reason, _coded(payload, bytes(600)))

    frame("content", "an empty frame with content", empty[:6] + b"\x09\0\0x")
    frame("more", "a byte after an empty frame", empty + b"\0")
    frame("cut", "an empty frame that ends in its block", empty[:-1])
    return cases.found
