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
from qzf.parallel import ordered_map
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
    by_type = {
        dtype: pieces
        for dtype, pieces in _pieces(member, cuts).items()
        if sum(piece.size for piece in pieces) >= _LEAST and _modeled(member, dtype)
    }
    # Types are modelled side by side, the largest first: one alone leaves threads waiting for its last chunk.
    order = sorted(by_type, key=lambda dtype: -sum(piece.size for piece in by_type[dtype]))
    each = -(-threads // max(len(order), 1))

    def model(dtype: str) -> Models:
        chunks, found = Chunks(by_type[dtype], source, effort, each), Models(room)
        if member.kind == "gguf" and dtype in SCHEMAS:
            model_quant(SCHEMAS[dtype], chunks, found)
        else:
            model_values(FORMS[dtype], chunks, found)
        return found

    made = dict(zip(order, ordered_map(model, order, threads), strict=True))
    models = Models(room)
    for dtype in sorted(made):
        models.merge(made[dtype], first_id)
    return models


def _pieces(member: MemberSpec, cuts: Iterable[Cut]) -> dict[str, list[Piece]]:
    """The chunks that hold tensors, by type."""
    by_type: dict[str, list[Piece]] = {}
    for cut in cuts:
        if cut.tensor is not None:
            tensor = member.tensors[cut.tensor]
            row = tensor.row_size if tensor.row_size and cut.size % tensor.row_size == 0 else 0
            piece = Piece(cut.offset, cut.size, cut.tensor, row, cut.layout)
            by_type.setdefault(tensor.dtype, []).append(piece)
    return by_type


def _modeled(member: MemberSpec, dtype: str) -> bool:
    """Whether there is a model for this type."""
    return dtype in FORMS or (member.kind == "gguf" and dtype in SCHEMAS)
