"""The index's bulk tables as numpy dtypes (spec, section 2.3), so that no code loops over entries."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["CHUNK_DTYPE", "SECTION_DTYPE", "ChunkEntry", "SectionEntry", "Table"]

Table = npt.NDArray[np.void]

CHUNK_DTYPE: Final[np.dtype[Any]] = np.dtype(
    [
        ("offset", "<u8"),
        ("stored_size", "<u4"),
        ("decoded_size", "<u4"),
        ("tensor", "<u4"),
        ("transform", "u1"),
        ("reserved", "u1"),
        ("layout", "<u2"),
        ("stored_xxh3", "<u8"),
        ("decoded_xxh3", "<u8"),
        ("digest", "V32"),
    ]
)

SECTION_DTYPE: Final[np.dtype[Any]] = np.dtype(
    [
        ("kind", "u1"),
        ("transform", "u1"),
        ("layout", "<u2"),
        ("id", "<u4"),
        ("offset", "<u8"),
        ("stored_size", "<u8"),
        ("decoded_size", "<u8"),
        ("stored_xxh3", "<u8"),
        ("decoded_xxh3", "<u8"),
        ("digest", "V32"),
    ]
)


class ChunkEntry(NamedTuple):
    """One entry of the chunk table as Python values, its fields in the order of ``CHUNK_DTYPE``."""

    offset: int
    stored_size: int
    decoded_size: int
    tensor: int
    transform: int
    reserved: int
    layout: int
    stored_xxh3: int
    decoded_xxh3: int
    digest: bytes


class SectionEntry(NamedTuple):
    """One entry of the section table as Python values, its fields in the order of ``SECTION_DTYPE``."""

    kind: int
    transform: int
    layout: int
    id: int
    offset: int
    stored_size: int
    decoded_size: int
    stored_xxh3: int
    decoded_xxh3: int
    digest: bytes
