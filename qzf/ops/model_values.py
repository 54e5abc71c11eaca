"""Models of plain numbers: one a dtype, with contexts that segments of rows choose from."""

from __future__ import annotations

from typing import Final

import numpy as np

from qzf.ops.sampling import Chunks, Models, Piece
from qzf.transforms.modeled import ChunkModel, SharedTable, ValuesChunks
from qzf.transforms.values_table import Form, Ints, Symbols, histograms, keys, make_table

__all__ = ["model_values"]

_CONTEXTS: Final = 16
#: Numbers that pay for a further context, whose frequencies take some 250 bytes.
_NUMBERS: Final = 30_000
#: Chunks that are looked at: enough to meet most tensors, which differ more than those of quantized types.
_SAMPLED: Final = 64
#: Numbers of a segment: a row, where that is near; and segments that are looked at for contexts.
_SEGMENT: Final = 256
_LONGEST: Final = 512
_MOST_SEGMENTS: Final = 8000


def model_values(form: Form, chunks: Chunks, models: Models) -> None:
    """Add the model of the numbers in ``chunks``, if it pays."""
    pieces = [piece for piece in chunks.pieces if piece.size % form.width == 0]
    if not pieces:
        return
    sampled = chunks.sample(pieces, _SAMPLED)

    def tally(piece: Piece, data: memoryview) -> Ints:
        return np.bincount(keys(form, data), minlength=1 << form.key_bits).astype(np.int64)

    symbols = Symbols.of(form, sum(chunks.map(tally, sampled), np.zeros(1 << form.key_bits, np.int64)))
    by_key = symbols.map(form)
    share = max(1, _MOST_SEGMENTS // len(sampled))

    def segments(piece: Piece, data: memoryview) -> Ints:
        return histograms(by_key[keys(form, data)], segment(form, piece), share)

    seen = np.concatenate(chunks.map(segments, sampled))
    if not len(seen):
        return
    numbers = sum(piece.size for piece in pieces) // form.width
    contexts = int(np.clip(min(len(seen) // 16, numbers // _NUMBERS), 1, _CONTEXTS))
    table = make_table(form, symbols, seen, contexts)
    model = SharedTable(table).values()
    shared: dict[int, ChunkModel] = {
        piece.tensor: ValuesChunks(form.layout, (0,), model, segment(form, piece)) for piece in pieces
    }
    if chunks.pays(table, pieces, shared):
        models.add([table], shared)


def segment(form: Form, piece: Piece) -> int:
    """Numbers of a segment, a multiple of 32: a row or a part of one, so that rows may differ."""
    row = piece.row // form.width
    for parts in range(1, 33):
        if row % (32 * parts) == 0 and _SEGMENT // 2 <= row // parts <= _LONGEST:
            return row // parts
    return _SEGMENT
