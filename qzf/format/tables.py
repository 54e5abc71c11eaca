"""The index's bulk tables as numpy dtypes (spec, section 2.3), so that no code loops over entries."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["CHUNK_DTYPE", "SECTION_DTYPE", "Table"]

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
        ("digest", "u1", (32,)),
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
        ("digest", "u1", (32,)),
    ]
)
