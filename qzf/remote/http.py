"""Ranges over HTTP, by the session of fsspec's HTTP file system, so that all its options count.

Its own ``cat_file`` would take in whatever the server sends, as a server that knows no ranges sends all.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar, Final

import aiohttp
import fsspec

from qzf.errors import RemoteError
from qzf.remote.ranges import BUSY, DENIED, MISSING, TransientError
from qzf.remote.streamed import Answer, StreamedRanges, Version, parse_content_range

__all__ = ["HttpRanges"]

#: Seconds without a connection or without a byte after which a request is tried again; a transfer as a
#: whole may take any time, since large ranges over slow lines do.
_PATIENCE: Final = 30.0


class HttpRanges(StreamedRanges):
    """An object at an ``http://`` or ``https://`` URL."""

    transient: ClassVar[tuple[type[Exception], ...]] = (
        aiohttp.ClientConnectionError,
        aiohttp.ClientPayloadError,
    )

    def _client(self) -> Any:
        return fsspec.filesystem("https", **self._options, asynchronous=True, skip_instance_cache=True)

    @staticmethod
    async def _shut(client: Any) -> None:
        if client._session is not None:
            await client._session.close()

    async def _request(self, client: Any, wanted: str) -> Answer:
        session = await client.set_session()
        options = dict(client.kwargs)
        headers = {**options.pop("headers", {}), "Range": wanted, "Accept-Encoding": "identity"}
        if "timeout" not in client.client_kwargs:
            patience = aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE, sock_read=_PATIENCE)
            options.setdefault("timeout", patience)
        response = await session.get(client.encode_url(self.url), headers=headers, **options)
        try:
            return self._answered(response)
        except BaseException:
            response.close()
            raise

    def _answered(self, response: aiohttp.ClientResponse) -> Answer:
        status, headers = response.status, response.headers
        place, length = None, response.content_length
        coded = headers.get("Content-Encoding", "identity") != "identity"
        if status == 206:
            place = parse_content_range(headers.get("Content-Range"))
            if place is None or coded:
                raise RemoteError("the server's answer is no plain range of bytes", file=self.name)
        elif status == 416:
            if self._size >= 0:
                raise self.changed("no longer has this range, other")
            total = headers.get("Content-Range", "").removeprefix("bytes */")
            length = int(total) if total.isascii() and total.isdecimal() and len(total) < 20 else None
        elif status != 200:
            self._refuse(status, response.reason or "")
        elif coded:
            length = None  # its own, not the object's
        etag = headers.get("ETag", "")
        version = Version(etag if etag.startswith('"') else None, headers.get("Last-Modified"))
        return Answer(place, status == 200, length, version, response.content.readany, response.close)

    def _refuse(self, status: int, reason: str) -> None:
        text = f"the server answers {status} {reason}".rstrip()
        if status in MISSING:
            if self._size >= 0:
                raise self.changed("is no longer there, other")
            raise FileNotFoundError(errno.ENOENT, text, self.name)
        if status in DENIED:
            raise PermissionError(errno.EACCES, text, self.name)
        if status in BUSY or status >= 500:
            raise TransientError(text)
        raise RemoteError(text, file=self.name)
