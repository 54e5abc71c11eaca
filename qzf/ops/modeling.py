"""The first pass of packing: models of a member's tensors by type, from a sample of their chunks.

All tensors of a type share a model, so that small chunks cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qzf.container.payload import Effort
from qzf.model import MemberSpec
from qzf.ops.model_quant import model_quant
from qzf.ops.model_values import model_values
from qzf.ops.recipe import Cut
from qzf.ops.sampling import Chunks, Models, Piece
from qzf.storage import ByteSource
from qzf.transforms.modeled import SCHEMAS
from qzf.transforms.values_table import FORMS

__all__ = ["build_models"]

#: A type with less than this is left to the codecs that need no tables.
_LEAST: Final = 16 << 10


def build_models(
    member: MemberSpec,
    cuts: Iterable[Cut],
    source: ByteSource,
    effort: Effort,
    threads: int,
    *,
    first_id: int,
    room: int,
) -> Models:
    """Models for the chunks ``cuts`` of a member; table ids count from ``first_id``, and tables take
    up to ``room`` bytes.

    The result depends on the member's content, on ``cuts`` and on ``effort``. ``OSError`` passes through.
    """
    models = Models(room)
    by_type: dict[str, list[Piece]] = {}
    for cut in cuts:
        if cut.tensor is not None:
            tensor = member.tensors[cut.tensor]
            row = tensor.row_size if tensor.row_size and cut.size % tensor.row_size == 0 else 0
            piece = Piece(cut.offset, cut.size, cut.tensor, row, cut.layout)
            by_type.setdefault(tensor.dtype, []).append(piece)
    for dtype, pieces in sorted(by_type.items()):
        if sum(piece.size for piece in pieces) < _LEAST:
            continue
        chunks = Chunks(pieces, source, effort, threads)
        if dtype in SCHEMAS and member.kind == "gguf":
            model_quant(SCHEMAS[dtype], chunks, models, first_id)
        elif dtype in FORMS:
            model_values(FORMS[dtype], chunks, models, first_id)
    return models
