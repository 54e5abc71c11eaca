"""Members as C files, by what the C library makes of them."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from qzf.container.opening import open_reader
from qzf.errors import DamageError, OptionError
from qzf.integrations import cookie
from qzf.integrations.cookie import CookieFile
from qzf.integrations.readahead import MemberReader, ReadAhead
from qzf.storage import FileSource
from tests.helpers import SOURCES, flip

ORIGINAL = (SOURCES / "gguf" / "smollm2-slice.gguf").read_bytes()

pytestmark = pytest.mark.skipif(not cookie.available(), reason="the C library has no fopencookie")


class C:
    """Functions of stdio, on one file."""

    def __init__(self, pointer: int) -> None:
        self._library, self._file = ctypes.CDLL(None), ctypes.c_void_p(pointer)
        self._library.fread.restype = ctypes.c_size_t
        self._library.ftell.restype = ctypes.c_long

    def read(self, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        done = self._library.fread(buffer, ctypes.c_size_t(1), ctypes.c_size_t(size), self._file)
        return buffer.raw[:done]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        result: int = self._library.fseek(self._file, ctypes.c_long(offset), whence)
        return result

    def tell(self) -> int:
        result: int = self._library.ftell(self._file)
        return result

    def failed(self) -> bool:
        return bool(self._library.ferror(self._file))

    def ended(self) -> bool:
        return bool(self._library.feof(self._file))


def opened(path: Path) -> Iterator[MemberReader]:
    with FileSource(path) as source, ReadAhead(2) as ahead:
        reader = open_reader(source)
        yield ahead.open(reader, reader.index.members[0].name)


@pytest.fixture
def member(smollm2: Path) -> Iterator[MemberReader]:
    yield from opened(smollm2)


def test_forward(member: MemberReader) -> None:
    with CookieFile(member) as file:
        c, whole = C(file.pointer), b""
        while part := c.read(7000):
            whole += part
        assert whole == ORIGINAL
        assert c.ended()
        assert not c.failed()
        assert file.error is None


def test_anywhere(member: MemberReader) -> None:
    draw = random.Random(3)
    with CookieFile(member) as file:
        c, at = C(file.pointer), 0
        for _ in range(500):
            at = draw.randrange(len(ORIGINAL))
            whence = draw.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
            base = {os.SEEK_SET: 0, os.SEEK_CUR: c.tell(), os.SEEK_END: len(ORIGINAL)}[whence]
            assert c.seek(at - base, whence) == 0
            assert c.tell() == at
            size = draw.choice([1, 8, 1000, 300_000])
            assert c.read(size) == ORIGINAL[at : at + size]
        assert c.seek(-1) != 0
        assert c.seek(-len(ORIGINAL) - 1, os.SEEK_END) != 0
        assert c.seek(10) == 0
        assert c.read(10) == ORIGINAL[10:20]


def test_damage(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with FileSource(smollm2) as source:
        index = open_reader(source).index
    for damaged in opened(flip(smollm2, index.chunks[30].offset + 200)):
        with CookieFile(damaged) as file:
            c, whole = C(file.pointer), b""
            while part := c.read(1000):
                whole += part
            assert ORIGINAL.startswith(whole)
            assert c.failed()
            assert isinstance(file.error, DamageError)
            assert file.error.chunk == 30


def test_a_library_without(member: MemberReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cookie, "available", lambda: False)
    with pytest.raises(OptionError):
        CookieFile(member)
