"""Golden chunks of the transforms ``quant`` and ``values``, and the shared tables that they name.

Tables are made from the chunks themselves; the data are slices of real tensors in ``fixtures/sources``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qzf.adapters import describe
from qzf.model import TensorSpec
from qzf.storage import FileSource
from qzf.transforms import quant_stats
from qzf.transforms.layouts import BY_NAME
from qzf.transforms.modeled import SCHEMAS, ChunkModel, QuantChunks, QuantSchema, SharedTable, ValuesChunks
from qzf.transforms.quant_table import QuantTable, Tally, column_classes, zeros
from qzf.transforms.values_table import FORMS, Symbols, count_keys, histograms, make_table
from tools.vectors.builder import Builder, Coded, Tensor, noise, skewed, stored
from tools.vectors.parts import Parts, Stream, streams_payload, zstd

__all__ = ["MODEL", "QuantCase", "cases", "coded", "quant_model", "quant_parts", "values_parts"]

SOURCES: Final = Path(__file__).resolve().parents[2] / "fixtures" / "sources"
#: Ids of the tables in a vector: the model, and the classes of columns.
MODEL: Final = 3
COLUMNS: Final = 17


#: Types of which so few real blocks do not get smaller: they are made of skewed bits.
_HARD: Final = ("Q3_K", "IQ4_NL", "IQ4_XS", "NVFP4")


@dataclass(frozen=True)
class QuantCase:
    """Blocks of one type, ``rows`` of ``row_blocks`` each: all in one chunk, then few, then some stored."""

    dtype: str
    rows: int
    row_blocks: int
    classes: int = 1
    random: bool = False


def tensor_bytes(path: str, dtype: str) -> tuple[bytes, TensorSpec]:
    """The largest tensor of this type in a source file."""
    with FileSource(SOURCES / path) as source:
        spec = describe(source, Path(path).name, opaque=False)
        tensor = max((t for t in spec.tensors if t.dtype == dtype), key=lambda t: t.extent.size)
        return source.read(tensor.extent.offset, tensor.extent.size), tensor


def _blocks(case: QuantCase) -> bytes:
    schema, n = SCHEMAS[case.dtype], case.rows * case.row_blocks
    if case.random:
        return skewed(f"quant-{case.dtype}", n * schema.size)
    data, _ = tensor_bytes(f"gguf/{case.dtype.lower()}.gguf", case.dtype)
    count = len(data) // schema.size
    return b"".join(data[i % count * schema.size :][: schema.size] for i in range(n))


def coded(data: bytes, model: ChunkModel) -> Coded:
    """A chunk as the model codes it."""
    streams = model.encode(data)
    assert streams is not None
    return coded_streams(data, model, [Stream(s.codec, bytes(s.body), s.size, s.slot) for s in streams])


def coded_streams(data: bytes, model: ChunkModel, streams: Sequence[Stream]) -> Coded:
    """A chunk of this model with these streams."""
    payload = streams_payload(streams, model.tables)
    return Coded(data, payload, model.transform, model.layout, tuple(s.codec for s in streams))


def _few(data: bytes, row: int, model: ChunkModel) -> Coded:
    """A chunk of as few rows as can be coded without growing."""
    size = len(data) // row * row
    found = coded(data[:size], model)
    for step in (97, 7, 1):
        while size > step * row:
            smaller = coded(data[: size - step * row], model)
            if len(smaller.payload) > len(smaller.data):
                break
            found, size = smaller, size - step * row
    return found


def _counted(table: QuantTable, columns: bytes | None, data: bytes, row_blocks: int) -> Tally:
    model, tally = SharedTable(table.dump()).quant(table.schema.name), table.tally()
    assert quant_stats.count(model, columns, data, row_blocks, tally)
    return tally


def quant_model(case: QuantCase) -> tuple[bytes, QuantChunks, bytes]:
    """The table, the way to code chunks by it, and the bytes that it was made from."""
    schema, data = SCHEMAS[case.dtype], _blocks(case)
    columns = None
    if case.classes > 1:
        columns = column_classes(quant_stats.deviations(schema, data, case.row_blocks), case.classes)
    extrema, *numbers = quant_stats.look(schema, data)
    first, second = (memoryview(each).cast("H")[::2].tobytes() for each in numbers)
    table = QuantTable.plan(schema, extrema, first, second, case.classes)
    content = table.finish(_counted(table, columns, data, case.row_blocks))
    tables = (MODEL, COLUMNS) if columns else (MODEL,)
    layout, model = BY_NAME[schema.name].wire_id, SharedTable(content).quant(schema.name)
    return content, QuantChunks(schema, layout, tables, model, columns, case.row_blocks), data


def _tables(builder: Builder, content: bytes, columns: bytes | None = None) -> None:
    builder.table(MODEL, content, streams_payload([zstd(content, 19)]))
    if columns is not None:
        builder.table(COLUMNS, columns)


def quant_parts(case: QuantCase) -> Parts:
    """A container of one tensor in three chunks."""
    content, model, data = quant_model(case)
    schema: QuantSchema = model.schema
    row = case.row_blocks * schema.size
    chunks = [coded(data, model), _few(data, row, model), stored(noise(case.dtype, row))]
    assert all(len(chunk.payload) <= len(chunk.data) for chunk in chunks)
    builder = Builder(chunk_size=len(data))
    _tables(builder, content, model.columns)
    rows = sum(len(chunk.data) for chunk in chunks) // row
    builder.member(
        "q.bin", [Tensor("t", case.dtype, [rows, case.row_blocks * schema.codes], row, chunks)], "gguf"
    )
    return builder.parts()


def values_parts(dtype: str, segment: int, contexts: int) -> Parts:
    """A container of one tensor of plain numbers in three chunks, the last of odd length."""
    form, data = FORMS[dtype], tensor_bytes(f"safetensors/{dtype.lower()}.safetensors", dtype)[0][:8000]
    counts = zeros(1 << form.key_bits)
    count_keys(form, data, counts)
    symbols = Symbols.of(form, counts)
    content = make_table(form, symbols, histograms(form, symbols.map(form), data, segment), contexts)
    model = ValuesChunks(form.layout, (MODEL,), SharedTable(content).values(), segment)
    odd = _few(data[7 * form.width :], form.width, model)
    chunks = [coded(data, model), odd, stored(noise(dtype, 3 * form.width))]
    builder = Builder(chunk_size=len(data))
    _tables(builder, content)
    count = sum(len(chunk.data) for chunk in chunks) // form.width
    builder.member("v.bin", [Tensor("t", dtype, [count], form.width, chunks)], "safetensors")
    return builder.parts()


def cases() -> Iterator[tuple[str, str, QuantCase | tuple[str, int, int]]]:
    """Name, what it is about, and what it is made of, of each vector."""
    for name, schema in SCHEMAS.items():
        rows = 200 if schema.lanes == 1 else 26
        real = QuantCase(name, rows, 4, random=name in _HARD)
        yield f"quant-{name.lower()}", f"transform quant, {name}", real
    yield "quant-columns", "transform quant with classes of columns", QuantCase("Q8_0", 150, 3, classes=4)
    yield "quant-k-columns", "classes of columns in sub-blocks", QuantCase("Q6_K", 26, 4, classes=3)
    yield (
        "quant-no-extrema",
        "blocks that lack the extrema of their type",
        QuantCase("Q4_0", 40, 5, random=True),
    )
    yield "quant-one-group", "fewer lanes than a group has", QuantCase("Q8_0", 1, 63, random=True)
    for dtype, segment in (("F32", 64), ("BF16", 32), ("F16", 96), ("F8_E4M3", 64), ("I8", 160)):
        yield f"values-{dtype.lower()}", f"transform values, {dtype}", (dtype, segment, 3)
