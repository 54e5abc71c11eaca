"""Making shared tables of kind 2: the model of plain numbers from a sample of their keys.

Every so many numbers (a segment) choose the context that codes them best; contexts are found by k-means, with
the cost of coding as distance. Format: spec/tables/02-values.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from qzf import _core
from qzf.transforms.quant_table import Counts

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FORMS", "Form", "Symbols", "count_keys", "histograms", "make_table"]

_HEAD: Final = struct.Struct("<BBHHBB")
_KIND: Final = 2
#: A key is given a symbol of its own where at least one in this many has it; what a frequency can tell.
_RARE: Final = 8192


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


def count_keys(form: Form, data: Buffer, counts: Counts) -> None:
    """Add to ``counts``, one a key, how often each occurs in ``data``."""
    _core.values_count_keys(form.wire_id, data, counts)


class Symbols(NamedTuple):
    """Which keys a symbol stands for: ``plain`` single keys from ``key0`` on, then (base, bits) ranges."""

    key0: int
    plain: int
    coarse: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, form: Form, counts: Sequence[int]) -> Symbols:
        """Symbols that suit keys counted so often.

        The most used run of keys gets symbols of its own; octaves (runs of 16) around it, and single keys far
        off, share the rest; the last symbol stands for any key.
        """
        total = sum(counts)
        often = [key for key, count in enumerate(counts) if count * _RARE >= total]
        low, high = (often[0], often[-1] + 1) if often else (0, 1)
        if high - low == 256 and form.key_bits == 8:
            return cls(low, 256, ())
        limit, octave = 192 if form.key_bits == 12 else 255, 16
        if high - low > limit:  # the heaviest run of that length
            sums = list(accumulate(counts, initial=0))
            runs = [above - below for above, below in zip(sums[limit:], sums, strict=False)]
            low = runs.index(max(runs))
            high = low + limit
        outside = [key for key in often if not low <= key < high]
        single = sorted(outside, key=lambda key: (-counts[key], key))[:16]
        coarse = [(key, 0) for key in single]
        if form.key_bits == 12:
            ranges = [
                key
                for key in range(0, len(counts), octave)
                if sum(counts[key : key + octave]) * _RARE >= total and not low <= key < high - octave
            ]
            coarse += [(key, 4) for key in ranges[-(255 - (high - low) - len(coarse)) :]]
        return cls(low, high - low, (*coarse, (0, form.key_bits)))

    def map(self, form: Form) -> bytes:
        """The symbol of each key: the one that stands for fewest keys."""
        out = bytearray(1 << form.key_bits)
        for i in sorted(range(len(self.coarse)), key=lambda i: (-self.coarse[i][1], i)):
            base, bits = self.coarse[i]
            out[base : base + (1 << bits)] = bytes([self.plain + i]) * (1 << bits)
        out[self.key0 : self.key0 + self.plain] = bytes(range(self.plain))
        return bytes(out)


def histograms(form: Form, by_key: bytes, data: Buffer, segment: int, share: int | None = None) -> bytes:
    """How often each symbol occurs in each whole segment (uint16, 256 a segment); in about ``share`` of them.

    ``by_key`` is the map of the symbols.
    """
    whole = memoryview(data).nbytes // form.width // segment
    step = 1 if share is None else max(1, whole // share)
    return _core.values_count_segments(form.wire_id, by_key, data, segment, step)


def make_table(form: Form, symbols: Symbols, segments: Buffer, contexts: int) -> bytes:
    """The table for segments with these histograms, in up to ``contexts`` contexts.

    Every context has a frequency for the last symbol, which stands for any key; where there is none such,
    for all.
    """
    count = symbols.plain + len(symbols.coarse)
    frequencies = _core.values_contexts(segments, contexts, count - 1, not symbols.coarse)
    head = _HEAD.pack(
        _KIND, form.wire_id, symbols.key0, symbols.plain, len(frequencies) // 512, len(symbols.coarse)
    )
    coarse = b"".join(struct.pack("<HB", *each) for each in symbols.coarse)
    return head + coarse + frequencies
