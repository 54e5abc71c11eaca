"""Ranges of S3 objects, by the client of s3fs, so that all its options count.

Its own ``cat_file`` would not tell the size, nor whether it is still the same object.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar

import aiohttp
import fsspec
from botocore.exceptions import HTTPClientError, IncompleteReadError

from qzf.errors import RemoteError
from qzf.remote.ranges import worded
from qzf.remote.streamed import Answer, StreamedRanges, Version, parse_content_range

__all__ = ["S3Ranges"]

_PIECE = 1 << 18


class S3Ranges(StreamedRanges):
    """An object at an ``s3://`` URL."""

    transient: ClassVar[tuple[type[Exception], ...]] = (
        HTTPClientError,
        IncompleteReadError,
        aiohttp.ClientConnectionError,
        aiohttp.ClientPayloadError,
    )

    def _client(self) -> Any:
        return fsspec.filesystem("s3", **self._options, asynchronous=True, skip_instance_cache=True)

    @staticmethod
    async def _shut(client: Any) -> None:
        creator = getattr(client, "_s3creator", None)
        if creator is not None:
            await creator.__aexit__(None, None, None)

    async def _request(self, client: Any, wanted: str) -> Answer:
        bucket, key, version = client.split_path(client._strip_protocol(self.url))
        if not key:
            raise RemoteError("is a bucket, not an object", file=self.name)
        asked = {**client.req_kw, "Bucket": bucket, "Key": key, "Range": wanted}
        if version:
            asked["VersionId"] = version
        try:
            found = await client._call_s3("get_object", **asked)
        except FileNotFoundError as error:
            if self._size >= 0:
                raise self.changed("is no longer there, other") from None
            raise FileNotFoundError(errno.ENOENT, worded(error), self.name) from error
        except PermissionError as error:
            raise PermissionError(errno.EACCES, worded(error), self.name) from error
        except OSError as error:
            # s3fs has one number for all that the request itself is to blame for.
            if error.errno != errno.EINVAL:
                raise
            if self._size >= 0:
                raise self.changed("no longer has this range, other") from error
            raise RemoteError(worded(error), file=self.name) from error
        body = found["Body"]
        place = parse_content_range(found.get("ContentRange"))
        modified = found.get("LastModified")
        seen = Version(found.get("ETag"), None if modified is None else str(modified))

        async def more() -> bytes:
            data = await body.read(_PIECE)
            return bytes(data)

        return Answer(place, place is None, found.get("ContentLength"), seen, more, body.close)
