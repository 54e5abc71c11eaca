"""Containers at URLs: the same tensors as from a file, and what options there are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qzf
from qzf.errors import OptionError, RemoteError
from qzf.remote.ranges import worded
from qzf.storage import FileSource, is_url, open_source
from tests.range_server import RangeServer

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


@pytest.fixture
def memory(modeled: Path) -> Iterator[str]:
    """The same container in fsspec's memory."""
    files = fsspec.filesystem("memory")
    files.pipe("/models/a.qzf", modeled.read_bytes())
    yield "memory://models/a.qzf"
    files.store.clear()


def _same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)


# --- what a URL is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("src", "url"),
    [
        ("https://a/b", True),
        ("s3://a", True),
        ("HTTP://a", True),
        ("simplecache::https://a", True),
        ("a+b.c-1://", True),
        ("model.qzf", False),
        ("c:/model.qzf", False),
        ("c://model.qzf", False),
        ("./http://a", False),
        ("/http://a", False),
        ("://a", False),
        (Path("http://a"), False),
        (b"http://a", False),
    ],
)
def test_is_url(src: object, url: bool) -> None:
    assert is_url(src) is url


def test_a_local_file_may_have_a_name_like_a_url(
    modeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("http:").mkdir()
    Path("http://a.qzf").write_bytes(modeled.read_bytes())
    with qzf.open(Path("http://a.qzf")) as container:
        assert len(container) == 8


def test_file_urls_are_files(modeled: Path) -> None:
    source = open_source(f"file://{modeled}")
    assert isinstance(source, FileSource) and not source.remote
    source.close()
    with qzf.open(f"file://{modeled}") as container:
        assert len(container) == 8
    with pytest.raises(FileNotFoundError):
        qzf.open("file:///nothing/here.qzf")


# --- the same as from a file ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "http"])
def test_all_ways_of_reading(kind: str, modeled: Path, memory: str, server: RangeServer) -> None:
    url = memory if kind == "memory" else server.url
    with qzf.open(modeled) as local, qzf.open(url) as container:
        assert container.keys() == local.keys() and container.digest == local.digest
        assert container.metadata == local.metadata and container.full_metadata() == local.full_metadata()
        loaded = container.load()
        for name in local:
            whole = local.tensor(name)
            assert _same(container.tensor(name), whole) and _same(loaded[name], whole)
            assert _same(container.tensor(name, copy=False), whole)
            assert b"".join(container.iter_bytes(name)) == whole.tobytes()
            for index in (slice(3, 70), slice(None, None, -7), (slice(500, None), slice(8))):
                assert _same(container.get_slice(name)[index], local.get_slice(name)[index])
        member = local.members[0]
        for offset, size in ((0, None), (member.size, 0), (member.size // 3, 1_000_000)):
            assert container.member_bytes(member.name, offset, size) == local.member_bytes(
                member.name, offset, size
            )
        parts = zip(container.stream(window_bytes=2 << 20), local.stream(window_bytes=2 << 20), strict=True)
        for part, expected in parts:
            assert (part.layer, part.rows, part.last) == expected[:1] + expected[2:]
            assert all(_same(part.tensors[name], array) for name, array in expected.tensors.items())


def test_member_bytes_out_of_range(memory: str) -> None:
    with qzf.open(memory) as container:
        name, size = container.members[0].name, container.members[0].size
        for offset, count in ((-1, 1), (0, -1), (size, 1), (0, size + 1), (size + 1, None)):
            with pytest.raises(OptionError, match="not within"):
                container.member_bytes(name, offset, count)


def test_a_digest_is_held_against_what_a_server_sends(server: RangeServer, modeled: Path) -> None:
    digest = qzf.verify(modeled).digest
    with qzf.open(server.url, digest=digest) as container, qzf.open(modeled) as local:
        name = container.keys()[0]
        assert _same(container.tensor(name), local.tensor(name))
    with pytest.raises(qzf.ChecksumError):
        qzf.open(server.url, digest=digest[::-1])


def test_many_threads(server: RangeServer, modeled: Path) -> None:
    with qzf.open(modeled) as local, qzf.open(server.url) as container, ThreadPoolExecutor(8) as pool:
        names = local.keys() * 4
        for name, array in zip(names, pool.map(container.tensor, names), strict=True):
            assert _same(array, local.tensor(name))


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [
        ("fsspec", "https://a/b.qzf", "remote"),
        ("aiohttp", "https://a/b.qzf", "remote"),
        ("s3fs", "s3://a/b.qzf", "s3"),
        ("fsspec", "s3://a/b.qzf", "s3"),
        ("huggingface_hub", "hf://a/b/c.qzf", "hub"),
    ],
)
def test_a_missing_package_is_named(package: str, url: str, extra: str) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "import qzf\n"
        "try:\n"
        f"    qzf.open({url!r})\n"
        "except qzf.MissingPackageError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'qzf[{extra}]'" in done.stdout


def test_options_that_do_not_fit(memory: str, modeled: Path, server: RangeServer) -> None:
    with pytest.raises(OptionError, match="for URLs"):
        qzf.open(modeled, storage_options={"a": 1})
    with pytest.raises(OptionError, match="for URLs"):
        qzf.open(modeled.read_bytes(), storage_options={"a": 1})
    with pytest.raises(OptionError, match="nosuch"):
        qzf.open("nosuch://a/b")
    with pytest.raises(OptionError, match="asynchronous"):
        qzf.open(server.url, storage_options={"asynchronous": False})
    with pytest.raises(qzf.RemoteError, match="nothing"):
        qzf.open(server.url, storage_options={"client_kwargs": {"nothing": 1}})
    for url in (memory, server.url):
        with pytest.raises(OptionError, match="download"):
            qzf.open(url, recover=True)


def test_options_reach_the_server(server: RangeServer) -> None:
    options = {"headers": {"Authorization": "Bearer x"}}
    with qzf.open(server.url, storage_options=options) as container:
        container.tensor("blk.0.q8_0")
    assert {asked.headers["Authorization"] for asked in server.requests} == {"Bearer x"}
    assert {asked.headers["Accept-Encoding"] for asked in server.requests} == {"identity"}


def test_names_have_no_secrets(server: RangeServer) -> None:
    url = server.url.replace("http://", "http://user:secret@") + "?signature=secret#secret"
    with qzf.open(url) as container:
        assert container.reader.source.name == server.url
        assert server.requests[0].headers["Authorization"].startswith("Basic ")
        with pytest.raises(qzf.NotFoundError) as caught:
            container.tensor("none")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("0, url='http://h/l.qzf?sig=SECRET'", "0, url='http://h/l.qzf'"),
        ("GET https://user:SECRET@h:8/a?x=SECRET#SECRET : 500", "GET https://h:8/a : 500"),
        ("/nope?SECRET", "/nope"),
        ('URL("http://SECRET@h/a#SECRET")', 'URL("http://h/a")'),
        ("is it there? no: #3 of 4", "is it there? no: #3 of 4"),
    ],
)
def test_what_other_libraries_say_has_no_secrets(text: str, left: str) -> None:
    assert worded(ValueError(text)) == f"ValueError: {left}"


def test_errors_of_a_file_system_have_no_secrets() -> None:
    for url in ("memory://nope?SECRET", "simplecache::memory://nope?SECRET"):
        with pytest.raises(FileNotFoundError) as caught:
            qzf.open(url)
        assert "nope" in str(caught.value) and "SECRET" not in str(caught.value)


def test_a_loop_of_redirections_has_no_secrets(server: RangeServer) -> None:
    url = server.url.replace("http://", "http://user:SECRET@") + "?sig=SECRET"
    server.refusals, server.status = 1000, 302
    server.refusal_headers = {"Location": "/model.qzf?sig=SECRET"}
    with pytest.raises(RemoteError, match="TooManyRedirects") as caught:
        qzf.open(url)
    assert "SECRET" not in str(caught.value)


def test_nothing_is_imported_for_paths(modeled: Path) -> None:
    code = (
        "import sys, qzf\n"
        f"with qzf.open({str(modeled)!r}) as container: container.load()\n"
        "print([name for name in ('fsspec', 'aiohttp', 'asyncio', 'qzf.remote') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
