"""The static table of codecs, by wire id."""

from __future__ import annotations

from typing import Final

from qzf.codecs.base import CodecImpl
from qzf.codecs.raw import Raw
from qzf.codecs.zstd import Zstd
from qzf.errors import ChunkError, UnsupportedError
from qzf.format.ids import Codec

__all__ = ["CODECS", "codec"]

_ALL: Final[tuple[CodecImpl, ...]] = (Raw(), Zstd())
CODECS: Final = {impl.wire_id: impl for impl in _ALL}
if len(CODECS) != len(_ALL):
    raise RuntimeError("two codecs share a wire id")


#: Codecs that need more than a stream, and so stand only where a transform has a place for them.
_PLACED: Final = (Codec.RANS, Codec.LANES)


def codec(wire_id: int) -> CodecImpl:
    """The codec with this wire id.

    Raises ``UnsupportedError`` for an unknown one, and ``ChunkError`` for one that codes no stream by itself.
    """
    try:
        return CODECS[wire_id]
    except KeyError:
        if wire_id in _PLACED:
            raise ChunkError(f"codec {wire_id} stands where its transform has no place for it") from None
        raise UnsupportedError(f"codec {wire_id} is not known to this reader") from None
