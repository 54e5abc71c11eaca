"""``qzf.open``: from a path, bytes or a file object to an open container."""

from __future__ import annotations

import os
from typing import IO, Any

from qzf.access.container import Container
from qzf.access.frameworks import by_name
from qzf.container.opening import open_reader
from qzf.errors import OptionError
from qzf.parallel import whole_number
from qzf.storage import ByteSource, MemorySource, ObjectSource, SourceBase, open_source

__all__ = ["open_container"]

#: What a container can be opened from.
Openable = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | ByteSource


def open_container(
    src: Openable,
    *,
    framework: str = "numpy",
    device: Any = None,
    digest: str | None = None,
    threads: int | None = None,
    recover: bool = False,
    cache_bytes: int = 0,
    storage_options: dict[str, Any] | None = None,
) -> Container:
    """Open a container for reading tensors; ``qzf.open``.

    ``src``: a path, a URL of any file system that fsspec knows (``https://``, ``s3://``, ``hf://``), the
    container's bytes, or a binary file object that can seek. Reads trailer and index only, from a URL with
    one or two requests. ``storage_options`` are for the file system of a URL, such as credentials or an
    endpoint. ``framework`` and ``device`` say what tensors come as (`qzf.access.frameworks.by_name`).
    ``digest``: the container digest that is expected (hexadecimal); with it every chunk is also held against
    its SHA-256. ``threads`` bounds those that decode; default: the processors there are, for a URL at least
    eight. ``recover`` rebuilds a lost index by a scan. ``cache_bytes`` of decoded chunks are kept for being
    read again, by default none.

    Raises ``FormatError`` for what is no valid container, ``ChecksumError``, ``OptionError``, ``RemoteError``
    where a server does not answer as it should; ``OSError`` passes through.
    """
    arrays = by_name(framework, device)
    cached = whole_number(cache_bytes)
    if cached is None or cached < 0:
        raise OptionError(f"cache_bytes must be a number of bytes, not {cache_bytes!r}")
    source = _source(src, storage_options)
    try:
        source.scattered()
        reader = open_reader(source, digest, recover)
        return Container(reader, threads, framework=arrays, cache_bytes=cached)
    except BaseException:
        source.close()
        raise


def _source(src: Any, storage_options: dict[str, Any] | None) -> ByteSource:
    if isinstance(src, str | os.PathLike):
        return open_source(src, storage_options)
    if storage_options:
        raise OptionError("storage_options are for URLs")
    if isinstance(src, SourceBase):
        return src
    if isinstance(src, bytes | bytearray | memoryview):
        return MemorySource(src)
    if hasattr(src, "read") and hasattr(src, "seek"):
        return ObjectSource(src)
    raise OptionError(f"a path, bytes, a file object or a byte source is due, not {type(src).__name__}")
