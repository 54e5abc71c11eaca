"""Making shared tables of kind 2: the model of plain numbers from a sample of their keys.

Every so many numbers (a segment) choose the context that codes them best; contexts are found by k-means, with
the cost of coding as distance. Format: spec/tables/02-values.md.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qzf import _core
from qzf.transforms.quant_table import quantize

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FORMS", "Form", "Symbols", "histograms", "keys", "make_table"]

_HEAD: Final = struct.Struct("<BBHHBB")
_KIND: Final = 2
_SUM: Final = 4096
#: Rounds of k-means.
_ROUNDS: Final = 8
#: A key is given a symbol of its own where at least one in this many has it; what a frequency can tell.
_RARE: Final = 8192

Ints = npt.NDArray[np.int64]


class Form(NamedTuple):
    """How a number falls into key and raw bits: wire id, bytes of a number, bits of a key, layout's id."""

    wire_id: int
    width: int
    key_bits: int
    layout: int


_BYTE: Final = Form(0, 1, 8, 7)
#: By dtype, GGML's and safetensors' names alike.
FORMS: Final = {
    "BF16": Form(1, 2, 12, 4),
    "F16": Form(2, 2, 8, 4),
    "F32": Form(3, 4, 12, 5),
    **dict.fromkeys(("I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), _BYTE),
    **dict.fromkeys(("I32", "U32", "F4", "F6_E2M3", "F6_E3M2"), _BYTE),
}


def keys(form: Form, data: Buffer) -> npt.NDArray[np.uint16]:
    """The key of each number in ``data``."""
    out = np.empty(memoryview(data).nbytes // form.width, np.uint16)
    _core.values_keys(form.wire_id, data, out.data)
    return out


@dataclass(frozen=True)
class Symbols:
    """Which keys a symbol stands for: ``plain`` single keys from ``key0`` on, then (base, bits) ranges."""

    key0: int
    plain: int
    coarse: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, form: Form, counts: Ints) -> Symbols:
        """Symbols that suit keys counted so often.

        The most used run of keys gets symbols of its own; octaves (runs of 16) around it, and single keys far
        off, share the rest; the last symbol stands for any key.
        """
        often = (counts * _RARE >= counts.sum()).nonzero()[0]
        low, high = (int(often[0]), int(often[-1]) + 1) if len(often) else (0, 1)
        if high - low == 256 and form.key_bits == 8:
            return cls(low, 256, ())
        limit, octave = 192 if form.key_bits == 12 else 255, 16
        if high - low > limit:  # the heaviest run of that length
            sums = np.concatenate([[0], counts.cumsum()])
            low = int((sums[limit:] - sums[:-limit]).argmax())
            high = low + limit
        outside = [int(key) for key in often if not low <= key < high]
        single = sorted(outside, key=lambda key: (-counts[key], key))[:16]
        coarse = [(key, 0) for key in single]
        if form.key_bits == 12:
            whole = counts.reshape(-1, octave).sum(axis=1)
            ranges = [
                o
                for o in (whole * _RARE >= counts.sum()).nonzero()[0]
                if not low <= o * octave < high - octave
            ]
            coarse += [(int(o) * octave, 4) for o in ranges[-(255 - (high - low) - len(coarse)) :]]
        return cls(low, high - low, (*coarse, (0, form.key_bits)))

    def map(self, form: Form) -> npt.NDArray[np.uint8]:
        """The symbol of each key: the one that stands for fewest keys."""
        out = np.zeros(1 << form.key_bits, np.int64)
        ordered = sorted(range(len(self.coarse)), key=lambda i: (-self.coarse[i][1], i))
        for i in ordered:
            base, bits = self.coarse[i]
            out[base : base + (1 << bits)] = self.plain + i
        out[self.key0 : self.key0 + self.plain] = np.arange(self.plain)
        return out.astype(np.uint8)


def histograms(symbols: npt.NDArray[np.uint8], segment: int, share: int | None = None) -> Ints:
    """How often each symbol occurs in each whole segment: (segments, 256); in about ``share`` of them."""
    whole = len(symbols) // segment
    step = 1 if share is None else max(1, whole // share)
    rows = symbols[: whole * segment].reshape(whole, segment)[::step]
    places = np.arange(len(rows))[:, None] * 256 + rows
    counts = np.bincount(places.ravel(), minlength=len(rows) * 256)
    return counts.reshape(len(rows), 256).astype(np.int64, copy=False)


def make_table(form: Form, symbols: Symbols, segments: Ints, contexts: int) -> bytes:
    """The table for segments with these histograms, (segments, 256), in up to ``contexts`` contexts."""
    frequencies = _contexts(segments, contexts, symbols)
    head = _HEAD.pack(_KIND, form.wire_id, symbols.key0, symbols.plain, len(frequencies), len(symbols.coarse))
    coarse = b"".join(struct.pack("<HB", *each) for each in symbols.coarse)
    return head + coarse + frequencies.astype("<u2").tobytes()


@cache
def _logs() -> npt.NDArray[np.float64]:
    """Cost of a symbol by its frequency, in 1/256 bit; whole numbers, so that sums are exact."""
    return np.array([1 << 14] + [round(256 * (12 - math.log2(f))) for f in range(1, _SUM)], np.float64)


def _contexts(segments: Ints, contexts: int, symbols: Symbols) -> Ints:
    """Frequencies, one row a context, that suit the segments.

    Every row has some for the last symbol, which stands for any key; where there is none such, for all.
    """
    everything = segments.sum(axis=0)
    floats = segments.astype(np.float64)  # products and sums of whole numbers: exact, and by BLAS
    # Start from segments in the order of their mean symbol, in parts of equal number.
    weights = segments @ np.arange(256, dtype=np.int64)
    rank = np.lexsort((np.arange(len(segments)), weights * 256 // np.maximum(segments.sum(axis=1), 1)))
    chosen = np.empty(len(segments), np.int64)
    chosen[rank] = np.arange(len(segments)) * contexts // max(len(segments), 1)
    for _ in range(_ROUNDS):
        used = [segments[chosen == c].sum(axis=0) for c in range(contexts) if (chosen == c).any()]
        rows = np.stack(used) if used else everything[None]
        rows = rows * 16 + everything * 16 // max(int(everything.sum()) // 64, 1)  # rare symbols lean on all
        rows[:, symbols.plain + len(symbols.coarse) - 1] += 1
        rows[(rows > 0).sum(axis=1) < 2, 0] += 1  # else another would be made up, which may be no symbol
        frequencies = quantize(rows, _SUM, every=not symbols.coarse)
        chosen = (floats @ _logs()[frequencies].T).argmin(axis=1)
    return frequencies
