"""Models of plain numbers: one a dtype, with contexts that segments of rows choose from."""

from __future__ import annotations

from typing import Final

from qzf.ops.sampling import Chunks, Models, Piece
from qzf.transforms.modeled import ChunkModel, SharedTable, ValuesChunks
from qzf.transforms.quant_table import Counts, zeros
from qzf.transforms.values_table import Form, Symbols, count_keys, histograms, make_table

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
#: Bytes of a segment's histogram.
_HISTOGRAM: Final = 512


def model_values(form: Form, chunks: Chunks, models: Models) -> None:
    """Add the model of the numbers in ``chunks``, if it pays."""
    pieces = [piece for piece in chunks.pieces if piece.size % form.width == 0]
    if not pieces:
        return
    sampled = chunks.sample(pieces, _SAMPLED)

    def tally(_piece: Piece, data: memoryview, counts: tuple[Counts]) -> None:
        count_keys(form, data, counts[0])

    (counted,) = chunks.total(lambda: (zeros(1 << form.key_bits),), tally, sampled)
    symbols = Symbols.of(form, counted.tolist())
    by_key = symbols.map(form)
    share = max(1, _MOST_SEGMENTS // len(sampled))

    def segments(piece: Piece, data: memoryview) -> bytes:
        return histograms(form, by_key, data, segment(form, piece), share)

    seen = b"".join(chunks.map(segments, sampled))
    if not seen:
        return
    numbers = sum(piece.size for piece in pieces) // form.width
    contexts = max(1, min(len(seen) // _HISTOGRAM // 16, numbers // _NUMBERS, _CONTEXTS))
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
