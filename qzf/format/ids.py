"""Wire ids, magics and sizes (spec, sections 2, 4 and 5)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = [
    "ALIGNMENT",
    "END_MAGIC",
    "FILE_MAGIC",
    "HEADER_SIZE",
    "INDEX_HEAD_SIZE",
    "KNOWN_FEATURES",
    "NO_TABLE",
    "NO_TENSOR",
    "OPTIONAL_KIND",
    "RECORD_HEADER_SIZE",
    "RECORD_MAGIC",
    "TRAILER_SIZE",
    "VERSION",
    "Codec",
    "Kind",
    "Transform",
    "pad64",
]

FILE_MAGIC: Final = b"\x89QZF\r\n\x1a\n"
RECORD_MAGIC: Final = b"QZFR"
END_MAGIC: Final = b"QZF1END\n"

#: Format version that is written: (major, minor).
VERSION: Final = (1, 0)
#: Required-feature bits that this reader knows.
KNOWN_FEATURES: Final = 0

HEADER_SIZE: Final = 64
RECORD_HEADER_SIZE: Final = 64
INDEX_HEAD_SIZE: Final = 64
TRAILER_SIZE: Final = 80
#: Records, and with them payloads, start at multiples of this.
ALIGNMENT: Final = 64

#: ``tensor`` of a chunk that belongs to no tensor.
NO_TENSOR: Final = 0xFFFFFFFF
#: ``table`` of a stream without a shared table.
NO_TABLE: Final = 255
#: Record kinds from here on are optional: a reader that does not know one skips it.
OPTIONAL_KIND: Final = 128


class Kind(IntEnum):
    """What a record holds."""

    CHUNK = 1
    TABLE = 2
    MEMBER = 3
    INDEX = 4


class Transform(IntEnum):
    """How a chunk's bytes become streams."""

    STORED = 0
    NONE = 1
    FIELDS = 2
    QUANT = 3
    VALUES = 4
    STRINGS = 5


class Codec(IntEnum):
    """How a stream becomes bytes."""

    RAW = 0
    ZSTD = 1
    RANS = 2
    LANES = 3


def pad64(size: int) -> int:
    """``size`` rounded up to a multiple of 64."""
    return (size + ALIGNMENT - 1) & -ALIGNMENT
