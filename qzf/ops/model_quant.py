"""Models of quantized types.

Where columns differ enough to pay for a table of column classes per tensor, a second model with such classes
serves the tensors that are large enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qzf.ops.sampling import RECORD, Chunks, Models, Piece
from qzf.transforms import quant_stats
from qzf.transforms.modeled import ChunkModel, QuantChunks, QuantSchema, SharedTable
from qzf.transforms.quant_table import QuantTable, Tally, column_classes, cost

__all__ = ["model_quant"]

#: Chunks of a type that are counted.
_SAMPLED: Final = 32
#: Chunks that are counted both without and with classes of columns.
_COMPARED: Final = 8
#: Classes of columns, and how large a tensor must be for a table of them: so many times its columns.
_CLASSES: Final = 16
_PAYS: Final = 200
#: Rows in a chunk below which groups of lanes would be of several columns.
_COLUMN_ROWS: Final = 256


class _Type:
    """A quantized type, and the chunks of a member that are of it."""

    def __init__(self, schema: QuantSchema, chunks: Chunks) -> None:
        self.schema, self.chunks = schema, chunks

    def row_blocks(self, piece: Piece) -> int:
        """Blocks of a row; of the whole chunk, where it is no whole number of rows."""
        row = piece.row if piece.row % self.schema.size == 0 else 0
        return (row or piece.size) // self.schema.size

    def plan(self) -> tuple[QuantTable, QuantTable]:
        """The tables in the making: without and with classes of columns."""
        schema = self.schema

        def look(_piece: Piece, data: memoryview) -> quant_stats.Look:
            return quant_stats.look(schema, data)

        looks = self.chunks.map(look, self.chunks.sample(self.chunks.pieces, _SAMPLED))
        extrema = all(each.extrema for each in looks)
        first, second = b"".join(each.first for each in looks), b"".join(each.second for each in looks)
        plain, classed = (QuantTable.plan(schema, extrema, first, second, c) for c in (1, _CLASSES))
        return plain, classed

    def wide(self) -> dict[int, Piece]:
        """The tensors that are large enough to pay for classes of columns, and a chunk to find these from."""
        by_tensor: dict[int, list[Piece]] = {}
        for piece in self.chunks.pieces:
            by_tensor.setdefault(piece.tensor, []).append(piece)
        chosen = {}
        for tensor, pieces in by_tensor.items():
            piece = pieces[len(pieces) // 2]
            blocks = self.row_blocks(piece)
            rows, size = piece.size // (blocks * self.schema.size), sum(each.size for each in pieces)
            whole = all(self.row_blocks(each) == blocks for each in pieces)
            if whole and rows >= _COLUMN_ROWS and size >= _PAYS * blocks * self.schema.codes:
                chosen[tensor] = piece
        return chosen

    def columns(self, chosen: Sequence[Piece]) -> dict[int, bytes]:
        """Classes of columns by tensor, from a chunk of each."""

        def classes(piece: Piece, data: memoryview) -> bytes:
            sums = quant_stats.deviations(self.schema, data, self.row_blocks(piece))
            return column_classes(sums, _CLASSES)

        return dict(zip((piece.tensor for piece in chosen), self.chunks.map(classes, chosen), strict=True))

    def count(self, table: QuantTable, columns: dict[int, bytes], pieces: Sequence[Piece]) -> Tally:
        """Symbols in these chunks by context and by table; chunks that it cannot express are left out."""
        model = SharedTable(table.dump()).quant(self.schema.name)

        def count(piece: Piece, data: memoryview, tally: Tally) -> None:
            quant_stats.count(model, columns.get(piece.tensor), data, self.row_blocks(piece), tally)

        return self.chunks.total(table.tally, count, pieces)

    def columns_pay(
        self, plain: QuantTable, classed: QuantTable, chosen: dict[int, Piece], pieces: Sequence[Piece]
    ) -> bool:
        """Whether classes of columns save more than they cost, by some of the chunks of these tensors."""
        sampled = self.chunks.sample(pieces, _COMPARED)
        columns = self.columns([chosen[tensor] for tensor in sorted({piece.tensor for piece in sampled})])
        without, by_column = (
            cost(self.count(table, by_tensor, sampled).codes, self.schema.alphabet)
            for table, by_tensor in ((plain, {}), (classed, columns))
        )
        share = sum(piece.size for piece in sampled) / sum(piece.size for piece in pieces)
        won = (without - by_column) / 8 / share
        codes = (self.row_blocks(piece) * self.schema.codes for piece in chosen.values())
        tables = sum(each * 3 // 8 + RECORD for each in codes)
        return won > tables + len(classed.dump()) // 8

    def use(self, models: Models, table: bytes, pieces: Sequence[Piece], columns: dict[int, bytes]) -> bool:
        """Let the tensors of ``pieces`` be coded by ``table``, if it pays; whether it does."""
        model, layout = SharedTable(table).quant(self.schema.name), pieces[0].layout
        shared: dict[int, ChunkModel] = {}
        ident, added = len(models.tables), [table]
        for piece in pieces:
            if piece.tensor in shared or layout is None:
                continue
            ids: tuple[int, ...] = (ident,)
            if piece.tensor in columns:
                ids += (ident + len(added),)
                added.append(columns[piece.tensor])
            shared[piece.tensor] = QuantChunks(
                self.schema, layout.wire_id, ids, model, columns.get(piece.tensor), self.row_blocks(piece)
            )
        return self.chunks.pays(table, pieces, shared) and models.add(added, shared)


def model_quant(schema: QuantSchema, chunks: Chunks, models: Models) -> None:
    """Add the models of one quantized type, and which tensors use them."""
    of = _Type(schema, chunks)
    chosen = of.wide()
    wide = [piece for piece in chunks.pieces if piece.tensor in chosen]
    rest = [piece for piece in chunks.pieces if piece.tensor not in chosen]
    plain, classed = of.plan()
    if wide and of.columns_pay(plain, classed, chosen, wide):
        columns = of.columns([*chosen.values()])
        counted = of.count(classed, columns, chunks.sample(wide, _SAMPLED))
        if of.use(models, classed.finish(counted), wide, columns):
            wide = []
    if rest or wide:
        sampled = [piece for pieces in (rest, wide) for piece in chunks.sample(pieces, _SAMPLED)]
        of.use(models, plain.finish(of.count(plain, {}, sampled)), rest + wide, {})
