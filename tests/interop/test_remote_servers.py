"""Servers and clients that others wrote: S3 by moto, files by aiohttp and by the standard library."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qzf
from qzf.errors import RemoteError, SourceChangedError
from tests.range_server import serving

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

#: botocore and moto use what newer Pythons and packages advise against.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:moto.*"),
]
KEYS = {"key": "access", "secret": "secret"}
NAME = "blk.0.q8_0"


class Requests(logging.Handler):
    """The lines that werkzeug logs, one for each request."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def requests() -> Iterator[Requests]:
    """What the S3 server is asked."""
    logger, handler = logging.getLogger("werkzeug"), Requests()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server on loopback."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, modeled: Path) -> Any:
    """A bucket with a container in it, and with what is put there."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEYS["key"],
        aws_secret_access_key=KEYS["secret"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="models")
    client.put_object(Bucket="models", Key="some/model.qzf", Body=modeled.read_bytes())
    yield client
    client.close()


@pytest.fixture
def options(endpoint: str) -> dict[str, Any]:
    return {**KEYS, "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"}}


# --- S3 -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bucket")
def test_s3(modeled: Path, options: dict[str, Any], requests: Requests) -> None:
    with (
        qzf.open("s3://models/some/model.qzf", storage_options=options) as container,
        qzf.open(modeled) as local,
    ):
        assert len(requests.lines) == 1
        for name in ("blk.1.q4_k", NAME):
            before = len(requests.lines)
            assert np.array_equal(container.tensor(name), local.tensor(name))
            assert 1 <= len(requests.lines) - before <= 3
        before = len(requests.lines)
        for name, array in container.load().items():
            assert np.array_equal(array, local.tensor(name))
        assert len(requests.lines) - before <= 2
        before = len(requests.lines)
        assert np.array_equal(container.get_slice(NAME)[7:9], local.get_slice(NAME)[7:9])
        assert len(requests.lines) - before == 1
        assert b"".join(container.iter_bytes(NAME)) == local.tensor(NAME).tobytes()
        assert container.reader.source.name == "s3://models/some/model.qzf"
    assert all("GET /models/some/model.qzf" in line and " 206 " in line for line in requests.lines)


@pytest.mark.usefixtures("bucket")
def test_s3_objects_that_are_not_there(options: dict[str, Any]) -> None:
    for url in ("s3://models/none", "s3://nothing/none"):
        with pytest.raises(FileNotFoundError) as caught:
            qzf.open(url, storage_options=options)
        assert caught.value.filename == url
    with pytest.raises(RemoteError, match="bucket"):
        qzf.open("s3://models", storage_options=options)


def test_s3_objects_that_change(bucket: Any, modeled: Path, options: dict[str, Any]) -> None:
    url, data = "s3://models/some/model.qzf", modeled.read_bytes()

    def put(content: bytes) -> None:
        bucket.put_object(Bucket="models", Key="some/model.qzf", Body=content)

    with qzf.open(url, storage_options=options) as container:
        container.tensor("blk.0.q4_0")
        for content in (data[:-1] + b"x", data + b"x", data[:1000]):
            put(content)
            with pytest.raises(SourceChangedError):
                container.tensor(NAME)
        put(data)
        container.tensor(NAME)
        bucket.delete_object(Bucket="models", Key="some/model.qzf")
        with pytest.raises(SourceChangedError, match="no longer there"):
            container.tensor(NAME)


@pytest.mark.usefixtures("bucket")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_s3_connections_are_closed(options: dict[str, Any]) -> None:
    def sockets() -> int:
        found = 0
        for entry in Path("/proc/self/fd").iterdir():
            try:
                found += os.readlink(entry).startswith("socket:")  # noqa: PTH115  # no path
            except FileNotFoundError:
                continue
        return found

    counts = []
    for _ in range(4):
        with qzf.open("s3://models/some/model.qzf", storage_options=options) as container:
            container.load()
            next(iter(container.iter_bytes(NAME)))
        gc.collect()
        time.sleep(0.1)  # the server's side of a connection takes a moment
        counts.append(sockets())
    assert counts[-1] <= counts[0]


# --- HTTP servers ---------------------------------------------------------------------------------


@pytest.fixture
def aiohttp_server(modeled: Path) -> Iterator[str]:
    """aiohttp's server of files, which has ranges, ETag and Last-Modified of its own."""
    from aiohttp import web

    loop = asyncio.new_event_loop()
    runner = web.AppRunner(_files(modeled.parent))

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _files(folder: Path) -> Any:
    from aiohttp import web

    async def moved(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/files/model.qzf")

    app = web.Application()
    app.router.add_static("/files", folder)
    app.router.add_get("/moved.qzf", moved)
    return app


@pytest.mark.parametrize("path", ["files/model.qzf", "moved.qzf"])
def test_aiohttp(path: str, aiohttp_server: str, modeled: Path) -> None:
    with qzf.open(f"{aiohttp_server}/{path}") as container, qzf.open(modeled) as local:
        for name, array in container.load().items():
            assert np.array_equal(array, local.tensor(name))
    with pytest.raises(FileNotFoundError):
        qzf.open(f"{aiohttp_server}/files/none.qzf")


def test_the_standard_library_serves_no_ranges(modeled: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(modeled.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(RemoteError, match="does not serve ranges"):
                qzf.open(f"http://127.0.0.1:{server.server_port}/model.qzf")
        finally:
            server.shutdown()
            thread.join()


# --- Hugging Face ---------------------------------------------------------------------------------


def test_hugging_face(modeled: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with serving(modeled.read_bytes()) as server, qzf.open(modeled) as local:
        entry = {"type": "file", "path": "model.qzf", "size": len(server.data), "oid": "a" * 40}
        server.pages = {
            "/api/models/some/model": json.dumps({"id": "some/model", "sha": "b" * 40}).encode(),
            "/api/models/some/model/tree/main": json.dumps([entry]).encode(),
        }
        hub = {"endpoint": server.url.rpartition("/")[0], "token": False, "skip_instance_cache": True}

        def ranges() -> list[str | None]:
            return [asked.range for asked in server.requests if asked.range]

        with qzf.open("hf://some/model/model.qzf", storage_options=hub) as container:
            assert len(ranges()) == 1
            assert np.array_equal(container.tensor(NAME), local.tensor(NAME))
            assert len(ranges()) == 3
            for name, array in container.load().items():
                assert np.array_equal(array, local.tensor(name))
            assert len(ranges()) == 4
            server.status, server.refusals = 403, 1
            with pytest.raises(PermissionError):
                container.tensor(NAME)
        with pytest.raises(FileNotFoundError) as caught:
            qzf.open("hf://some/model/none.qzf", storage_options=hub)
        assert caught.value.filename == "hf://some/model/none.qzf"


# --- file systems on top of others ----------------------------------------------------------------


def test_a_local_copy_is_kept_by_fsspec(aiohttp_server: str, modeled: Path, tmp_path: Path) -> None:
    url = f"simplecache::{aiohttp_server}/files/model.qzf"
    kept = {"simplecache": {"cache_storage": str(tmp_path)}}
    with qzf.open(url, storage_options=kept) as container, qzf.open(modeled) as local:
        assert np.array_equal(container.tensor(NAME), local.tensor(NAME))
    assert any(path.stat().st_size == modeled.stat().st_size for path in tmp_path.iterdir())


def test_a_container_within_an_archive(modeled: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        archive.write(modeled, "model.qzf")
    with qzf.open(f"zip://model.qzf::{tmp_path}/models.zip") as container, qzf.open(modeled) as local:
        assert np.array_equal(container.tensor(NAME), local.tensor(NAME))
    from fsspec.implementations.zip import ZipFileSystem

    ZipFileSystem.clear_instance_cache()
    gc.collect()


# --- a real model ---------------------------------------------------------------------------------


@pytest.mark.realmodel
@pytest.mark.usefixtures("bucket")
def test_gemma_over_http_and_s3(
    gemma: Path, tmp_path: Path, bucket: Any, options: dict[str, Any], requests: Requests
) -> None:
    qzf.pack(gemma, tmp_path / "gemma.qzf")
    bucket.upload_file(str(tmp_path / "gemma.qzf"), "models", "gemma.qzf")
    with serving((tmp_path / "gemma.qzf").read_bytes()) as server, qzf.open(tmp_path / "gemma.qzf") as local:
        counted: list[tuple[str, dict[str, Any] | None, Callable[[], int]]] = [
            (server.url, None, lambda: server.count),
            ("s3://models/gemma.qzf", options, lambda: len(requests.lines)),
        ]
        for url, storage_options, count in counted:
            begin = count()
            with qzf.open(url, storage_options=storage_options) as container:
                assert count() - begin <= 2
                for name in ("token_embd.weight", "blk.3.ffn_up.weight", "output_norm.weight"):
                    before = count()
                    assert np.array_equal(container.tensor(name), local.tensor(name))
                    assert count() - before <= 3
                before = count()
                assert container.load().keys() == set(local.keys())
                assert count() - before <= 12
