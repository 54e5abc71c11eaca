"""An HTTP server on loopback that serves ranges, counts requests, and misbehaves as it is told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request that came."""

    method: str
    range: str | None
    headers: dict[str, str]


class RangeServer(ThreadingHTTPServer):
    """Serves ``data`` at each path; set the attributes to have it misbehave."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = data
        self.requests: list[Asked] = []
        #: What is at other paths, as JSON.
        self.pages: dict[str, bytes] = {}
        #: Headers that are sent along, by default one that tells versions apart.
        self.headers: dict[str, str] = {"ETag": '"one"'}
        #: So many answers break off in the middle, stop there, or are refused with this status.
        self.drops = self.stalls = self.refusals = 0
        self.status = 500
        self.refusal_headers: dict[str, str] = {}
        #: Those that break off or stop do so after this part of them.
        self.part = 0.5
        #: Ranges are not known at all; not from the end; the size is not told.
        self.ignores_ranges = self.ignores_suffixes = self.hides_size = False
        #: The range that is announced is elsewhere; so many bytes come beyond it; the size is told as this.
        self.shift = self.excess = 0
        self.claim: int | None = None
        #: Any range is promised, of which nothing much comes.
        self.promises = False
        #: Bodies come in chunks, without a length.
        self.chunked = False
        #: Seconds before each answer, and bytes in a second (0: as fast as it goes).
        self.delay = 0.0
        self.rate = 0
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.qzf"

    @property
    def count(self) -> int:
        """Requests so far."""
        return len(self.requests)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave when they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        with server.lock:
            server.requests.append(Asked(self.command, asked, dict(self.headers)))
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
            refused, dropped, stalled = (self._due(what) for what in ("refusals", "drops", "stalls"))
        try:
            time.sleep(server.delay)
            page = server.pages.get(self.path.partition("?")[0])
            if page is not None:
                self._answer(200, page, {"Content-Type": "application/json"})
            elif refused:
                self._answer(server.status, b"no", server.refusal_headers)
            else:
                self._serve(asked, dropped, stalled)
        finally:
            with server.lock:
                server.busy -= 1

    def _due(self, what: str) -> bool:
        left: int = getattr(self.server, what)
        setattr(self.server, what, max(left - 1, 0))
        return left > 0

    def _serve(self, asked: str | None, dropped: bool, stalled: bool) -> None:
        server, data = self.server, self.server.data
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
        suffix = match is not None and not match[1]
        if match is None or server.ignores_ranges or (suffix and server.ignores_suffixes):
            self._answer(200, data, server.headers, dropped, stalled)
            return
        if suffix:
            start, end = max(len(data) - int(match[2]), 0), len(data)
        else:
            start, end = int(match[1]), min(int(match[2]) + 1, len(data))
        if start >= end:
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        if server.promises and not suffix:
            self._promise(int(match[1]), int(match[2]))
            return
        total = "*" if server.hides_size else len(data) if server.claim is None else server.claim
        told = f"bytes {start + server.shift}-{end - 1 + server.shift}/{total}"
        body = data[start:end] + bytes(server.excess)
        self._answer(206, body, {**server.headers, "Content-Range": told}, dropped, stalled)

    def _promise(self, first: int, last: int) -> None:
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{self.server.claim}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(bytes(1000))
        self.close_connection = True

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], dropped: bool = False, stalled: bool = False
    ) -> None:
        server = self.server
        body = b"" if status in (204, 304) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(0, len(body), 1 << 16):
            part = body[at : at + (1 << 16)]
            if (dropped or stalled) and at + len(part) > len(body) * server.part:
                self._write(part[: int(len(body) * server.part) - at])
                self.wfile.flush()
                if stalled:
                    server.over.wait(10)
                self.close_connection = True
                return
            if server.rate:
                time.sleep(len(part) / server.rate)
            self._write(part)
        if server.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if self.server.chunked else part)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def serving(data: bytes) -> Iterator[RangeServer]:
    """A server of ``data`` while the block runs."""
    with RangeServer(data) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
