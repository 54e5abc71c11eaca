"""Opening a container for reading: from its end, or by a scan where that is lost."""

from __future__ import annotations

from qzf.container.reader import ContainerReader
from qzf.errors import OptionError
from qzf.storage import ByteSource

__all__ = ["open_reader", "parse_digest"]


def open_reader(source: ByteSource, digest: str | None = None, recover: bool = False) -> ContainerReader:
    """A reader of ``source``; with ``recover`` over an index rebuilt by a scan.

    ``digest`` is the container digest that is expected, in hexadecimal.
    """
    if not recover:
        return ContainerReader(source, parse_digest(digest))
    if digest is not None:
        raise OptionError("a recovered container has no digest to compare")
    if source.remote:
        raise OptionError("recovering reads all of it: download the file first", file=source.name)
    from qzf.container.recover import recover_index  # rarely needed

    found = recover_index(source)
    return ContainerReader.from_index(source, found.index, found.lost)


def parse_digest(digest: str | None) -> bytes | None:
    """The 32 bytes of a container digest in hexadecimal, with ``sha256:`` before it or not."""
    if digest is None:
        return None
    if not isinstance(digest, str):
        raise OptionError(f"a container digest is a text in hexadecimal, not {type(digest).__name__}")
    try:
        value = bytes.fromhex(digest.removeprefix("sha256:"))
    except ValueError:
        value = b""
    if len(value) != 32:
        raise OptionError(f"{digest!r} is no container digest: 64 hexadecimal digits are due")
    return value
