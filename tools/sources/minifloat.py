"""Small floats: float32 to codes of up to 8 bits, and codes to packed bytes.

ml_dtypes does the rounding (to nearest, ties to even); it keeps one code a byte, also below 8 bits.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tools.sources.source import Bytes, Floats

Kind = np.dtype[Any]
"""One of the dtypes below."""

E4M3: Kind = np.dtype(ml_dtypes.float8_e4m3fn)
E5M2: Kind = np.dtype(ml_dtypes.float8_e5m2)
E4M3FNUZ: Kind = np.dtype(ml_dtypes.float8_e4m3fnuz)
E5M2FNUZ: Kind = np.dtype(ml_dtypes.float8_e5m2fnuz)
E2M3: Kind = np.dtype(ml_dtypes.float6_e2m3fn)
E3M2: Kind = np.dtype(ml_dtypes.float6_e3m2fn)
E2M1: Kind = np.dtype(ml_dtypes.float4_e2m1fn)


def _info(kind: Kind) -> Any:
    return ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]


def bits(kind: Kind) -> int:
    """Return the bits of one code."""
    return int(_info(kind).bits)


def largest(kind: Kind) -> np.float32:
    """Return the largest finite value."""
    return np.float32(_info(kind).max)


def encode(values: Floats, kind: Kind) -> Bytes:
    """Return the nearest code of each finite value, saturating; uint8, same shape."""
    codes: Bytes = np.clip(values, -largest(kind), largest(kind)).astype(kind).view(np.uint8)
    return codes


def pack(codes: npt.NDArray[np.integer], width: int) -> Bytes:
    """Pack codes of `width` bits as one little-endian bit stream, the first in the lowest bits of byte 0."""
    places = np.arange(width, dtype=np.uint64)
    stream = (codes.astype(np.uint64).reshape(-1, 1) >> places) & np.uint64(1)
    return np.packbits(stream.astype(np.uint8), bitorder="little")


def microscale(rows: Floats, kind: Kind, group: int = 32) -> tuple[Bytes, Bytes]:
    """Quantize float32 ``[rows, columns]`` with one power-of-two scale per `group` columns.

    Returns the codes, uint8 ``[rows, columns]``, and the E8M0 scales, uint8 ``[rows, columns / group]``.
    Source: OCP Microscaling Formats (MX) specification 1.0, section 6.3.
    """
    grouped = rows.reshape(len(rows), -1, group)
    peaks = np.max(np.abs(grouped), axis=2)
    # frexp's fraction lies in [0.5, 1), so both exponents are one too high, and the difference is right.
    exponents = np.clip(np.frexp(peaks)[1] - np.frexp(largest(kind))[1], -127, 127)
    scaled = np.ldexp(grouped, -exponents[:, :, None])
    return encode(scaled, kind).reshape(rows.shape), (exponents + 127).astype(np.uint8)
