"""What a codec is."""

from __future__ import annotations

from typing import ClassVar, Protocol

__all__ = ["Bytes", "CodecImpl"]

Bytes = bytes | bytearray | memoryview


class CodecImpl(Protocol):
    """Turns one stream into bytes and back; instances are stateless and safe to use from many threads."""

    wire_id: ClassVar[int]
    name: ClassVar[str]

    def encode(self, stream: Bytes, effort: int, table: bytes | None) -> Bytes:
        """The coded bytes of ``stream``.

        ``effort`` is a zstd level or ``HUFFMAN``, ``table`` the content of a shared table to use.
        """
        ...

    def decode(self, data: memoryview, out: memoryview, table: bytes | None) -> memoryview:
        """The stream that ``data`` codes, which has the size of ``out``.

        It is in ``out``, or is ``data`` itself where there is nothing to decode. Raises ``ChunkError`` for
        data that does not yield exactly ``len(out)`` bytes.
        """
        ...
