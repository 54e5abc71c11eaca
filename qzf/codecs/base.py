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
        """The coded bytes of ``stream``. ``effort`` is a zstd level; ``table`` a shared table's content."""
        ...

    def decode(self, data: memoryview, size: int, table: bytes | None) -> Bytes:
        """The ``size`` bytes of the stream; raises ``ChunkError`` for data that does not yield them."""
        ...
