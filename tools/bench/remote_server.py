"""A file server on loopback with the latency and the bandwidth of a line, for ``tools/bench/remote.py``.

    python -m tools.bench.remote_server FOLDER --delay 0.03 --rate 50000000

Prints its port. Each answer begins after ``--delay`` seconds; all bodies together have ``--rate`` bytes a
second (0: no limit). ``GET /`` tells requests and body bytes since it was last asked, as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

_PIECE: Final = 1 << 16


class Line(ThreadingHTTPServer):
    """Serves the files of a folder over a line."""

    daemon_threads = True

    def __init__(self, folder: Path, delay: float, rate: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.delay, self._rate = folder, delay, rate
        self._lock = threading.Lock()
        self._free = 0.0
        self._counts = {"requests": 0, "bytes": 0}

    def begin(self) -> None:
        """A request has come: let the latency pass."""
        with self._lock:
            self._counts["requests"] += 1
        time.sleep(self.delay)

    def carry(self, size: int) -> None:
        """Wait until the line has carried so many bytes more."""
        with self._lock:
            self._counts["bytes"] += size
            now = time.monotonic()
            self._free = max(self._free, now) + (size / self._rate if self._rate else 0)
            wait = self._free - now
        # Waits shorter than the clock is fine are made up for by the next ones.
        if wait > 0.002:
            time.sleep(wait)

    def counts(self) -> dict[str, int]:
        """Requests and bytes since this was last asked."""
        with self._lock:
            counts, self._counts = self._counts, {"requests": 0, "bytes": 0}
        return counts

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave when they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Line

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        if self.path == "/":
            data = json.dumps(self.server.counts()).encode()
            self._begin(200, len(data))
            self.wfile.write(data)
        else:
            self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        self.server.begin()
        path = self.server.folder / Path(self.path).name
        if not path.is_file():
            self._begin(404, 0)
            return
        size = path.stat().st_size
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        start, end = 0, size
        if match and match[1]:
            start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
        elif match:
            start = max(size - int(match[2]), 0)
        told = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if match else {}
        self._begin(206 if match else 200, end - start, told)
        with path.open("rb") as file:
            file.seek(start)
            while body and start < end:
                part = file.read(min(_PIECE, end - start))
                self.server.carry(len(part))
                self.wfile.write(part)
                start += len(part)

    def _begin(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="A file server with the latency and bandwidth of a line.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--rate", type=int, default=0)
    options = parser.parse_args(arguments)
    with Line(options.folder, options.delay, options.rate) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
