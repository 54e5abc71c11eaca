"""The static table of codecs, by wire id."""

from __future__ import annotations

from typing import Final

from qzf.codecs.base import CodecImpl
from qzf.codecs.raw import Raw
from qzf.codecs.zstd import Zstd
from qzf.errors import UnsupportedError

__all__ = ["CODECS", "codec"]

_ALL: Final[tuple[CodecImpl, ...]] = (Raw(), Zstd())
CODECS: Final = {impl.wire_id: impl for impl in _ALL}
if len(CODECS) != len(_ALL):
    raise RuntimeError("two codecs share a wire id")


def codec(wire_id: int) -> CodecImpl:
    """The codec with this wire id; raises ``UnsupportedError`` for an unknown one."""
    try:
        return CODECS[wire_id]
    except KeyError:
        raise UnsupportedError(f"codec {wire_id} is not known to this reader") from None
