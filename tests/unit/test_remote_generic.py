"""File systems of any kind: what goes wrong there is tried again, or a typed error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import qzf
from qzf.errors import (
    DamageError,
    RemoteError,
    SourceChangedError,
)
from qzf.remote import source as remote_source
from qzf.remote.generic import FileSystemRanges

fsspec = pytest.importorskip("fsspec")
aiohttp = pytest.importorskip("aiohttp")

NAME = "blk.0.q8_0"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are not made."""
    made: list[float] = []
    monkeypatch.setattr(remote_source, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.fixture
def expected(modeled: Path) -> Any:
    with qzf.open(modeled) as container:
        return container.tensor(NAME)


def _damaged(data: bytes, container: qzf.Container) -> bytes:
    at = int(container.chunks["offset"][container.info(NAME).first_chunk]) + 300
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def files(modeled: Path) -> Iterator[Any]:
    memory = fsspec.filesystem("memory")
    memory.pipe("/a.qzf", modeled.read_bytes())
    yield memory
    memory.store.clear()


def _failing(monkeypatch: pytest.MonkeyPatch, files: Any, failures: list[Any]) -> list[tuple[int, int]]:
    """Have the file system fail so, one request after another; returns the ranges that it is asked for."""
    read, asked = type(files).cat_file, []

    def cat_file(self: Any, path: str, start: int, end: int) -> Any:
        asked.append((start, end))
        if failures:
            failure = failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure(read(self, path, start, end))
        return read(self, path, start, end)

    monkeypatch.setattr(type(files), "cat_file", cat_file)
    return asked


def test_failures_of_a_file_system(monkeypatch: pytest.MonkeyPatch, files: Any, expected: Any) -> None:
    asked = _failing(monkeypatch, files, [OSError("a"), lambda data: data[:-1]])
    with qzf.open("memory://a.qzf") as container:
        assert len(asked) == 3
        assert np.array_equal(container.tensor(NAME), expected)
        assert len(asked) == 5
        _failing(monkeypatch, files, [TimeoutError("slow")] * 3)
        with pytest.raises(RemoteError, match="tried 3 times: TimeoutError: slow") as caught:
            container.tensor(NAME)
        assert caught.value.tensor == NAME and isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (PermissionError("no"), PermissionError),
        (FileNotFoundError("no"), SourceChangedError),
        (KeyError("odd"), RemoteError),
        (lambda data: data + b"x", RemoteError),
        (lambda data: None, RemoteError),
    ],
)
def test_what_a_file_system_refuses(
    failure: Any, kind: type[Exception], monkeypatch: pytest.MonkeyPatch, files: Any
) -> None:
    with qzf.open("memory://a.qzf") as container:
        container.tensor("blk.0.q4_0")
        asked = _failing(monkeypatch, files, [failure])
        with pytest.raises(kind):
            container.tensor(NAME)
        assert len(asked) == 1


def test_a_file_system_without_sizes(monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
    with pytest.raises(FileNotFoundError):
        qzf.open("memory://none.qzf")
    files.mkdir("/folder")
    with pytest.raises(qzf.SourceError, match="is a directory"):
        qzf.open("memory://folder")
    for size in (None, -1, 1 << 63, "1"):
        monkeypatch.setattr(type(files), "info", lambda *_, size=size, **__: {"size": size, "type": "file"})
        with pytest.raises(RemoteError, match="size"):
            qzf.open("memory://a.qzf")


def test_an_object_of_a_file_system_that_was_replaced(files: Any, modeled: Path) -> None:
    with qzf.open("memory://a.qzf") as container:
        damaged = _damaged(modeled.read_bytes(), container)
        files.pipe("/a.qzf", damaged)  # another object by its time of creation
        with pytest.raises(SourceChangedError) as caught:
            container.tensor(NAME)
        assert isinstance(caught.value.__context__, DamageError)
    with qzf.open("memory://a.qzf") as container:  # the same as when it was opened
        with pytest.raises(DamageError, match="may have changed"):
            container.tensor(NAME)
        files.rm("/a.qzf")
        with pytest.raises(SourceChangedError, match="no longer there"):
            container.tensor("blk.1.q8_0")


@pytest.mark.parametrize("what", ["record", "chunk header", "table header"])
def test_a_replaced_object_that_does_not_even_parse(what: str, files: Any, modeled: Path) -> None:
    """Of the new object nothing may be where the old one had it: that is no fault of its format."""
    with qzf.open("memory://a.qzf") as container:
        chunk = int(container.chunks["offset"][container.info(NAME).first_chunk])
        tables = [entry.offset for entry in container.reader.index.sections if entry.kind == 2]
        data = bytearray(modeled.read_bytes())
        places = {"record": [chunk + 64], "chunk header": [chunk], "table header": tables}[what]
        for at in places:
            data[at : at + 4] = b"none"
        files.pipe("/a.qzf", bytes(data))
        with pytest.raises(SourceChangedError) as caught:
            container.tensor(NAME)
        assert caught.value.tensor == NAME
        assert caught.value.__context__ is not None


def test_plain_file_systems_do_not_read_ahead(monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
    from fsspec.spec import AbstractFileSystem

    opened = []
    open_file = type(files).open

    def noting(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        opened.append(options.get("cache_type"))
        return open_file(self, path, mode)

    monkeypatch.setattr(type(files), "open", noting)
    monkeypatch.setattr(type(files), "cat_file", AbstractFileSystem.cat_file)
    ranges = FileSystemRanges("memory://a.qzf", "a", {})
    assert ranges.tail(100).data == files.store["/a.qzf"].getvalue()[-100:]
    assert opened == ["none"]
