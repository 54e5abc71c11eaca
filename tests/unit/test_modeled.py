"""Chunks coded by models: what goes in comes out, and streams or tables that do not fit are typed errors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qzf.errors import ChunkError
from qzf.format.ids import NO_TABLE, Codec, Transform
from qzf.transforms import modeled
from qzf.transforms.layouts import BY_ID, BY_NAME
from qzf.transforms.modeled import SCHEMAS, ChunkModel, CodedStream, QuantChunks, SharedTable, ValuesChunks
from qzf.transforms.values_table import FORMS
from tests.helpers import MODEL, quant_chunks, quantized, values_chunks, weights
from tools.vectors.builder import noise

Streams = list[CodedStream]
Tables = list[SharedTable]
Change = Callable[[Streams, Tables], tuple[Streams, Tables]]


def encoded(model: ChunkModel, data: bytes) -> Streams:
    streams = model.encode(data)
    assert streams is not None
    return streams


def decoded(model: ChunkModel, streams: Streams, tables: Tables, size: int) -> bytes:
    out = bytearray(size)
    modeled.decode(model.transform, BY_ID[model.layout], streams, tables, memoryview(out))
    return bytes(out)


def numbers(dtype: str, count: int) -> bytes:
    """Weights as plain numbers of this dtype; those of one byte are the first of always the same ones."""
    if FORMS[dtype].width == 1:
        return quantized("I8", 1, 8192)[:count]
    plain = weights(1, count)
    if dtype == "BF16":
        return (plain.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return plain.astype(np.float16).tobytes() if dtype == "F16" else plain.tobytes()


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("dtype", SCHEMAS)
def test_blocks_come_out_as_they_went_in(dtype: str, classes: int) -> None:
    data = quantized(dtype, 40, 1024, spread=1.0)
    model, tables = quant_chunks(dtype, data, 1024 // SCHEMAS[dtype].codes, classes)
    streams = encoded(model, data)
    assert [(s.codec, s.slot) for s in streams] == [
        (Codec.RANS, 0), (Codec.RAW, NO_TABLE), (Codec.LANES, 0), (Codec.RAW, NO_TABLE),
    ]  # fmt: skip
    assert sum(len(memoryview(s.body)) for s in streams) < len(data)
    assert decoded(model, streams, list(tables.values()), len(data)) == data
    assert model.model.extrema == (SCHEMAS[dtype].extrema > 0)
    assert len(tables) == len(model.tables) == (2 if classes > 1 else 1)


@pytest.mark.parametrize("dtype", SCHEMAS)
def test_other_rows_than_the_model_was_made_for(dtype: str) -> None:
    """A chunk of no whole number of rows counts as one row; with classes of columns it cannot be coded."""
    data, schema = quantized(dtype, 8, 1024), SCHEMAS[dtype]
    part = data[: 3 * schema.size]
    model, tables = quant_chunks(dtype, data, 1024 // schema.codes)
    assert decoded(model, encoded(model, part), list(tables.values()), len(part)) == part
    by_column, _ = quant_chunks(dtype, data, 1024 // schema.codes, 3)
    assert by_column.encode(part) is None


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "I8", "F8_E4M3"])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 3001])
def test_numbers_come_out_as_they_went_in(dtype: str, count: int) -> None:
    model, tables = values_chunks(dtype, numbers(dtype, 5001))
    data = numbers(dtype, count)
    streams = encoded(model, data)
    assert len(streams) == 5
    assert decoded(model, streams, list(tables.values()), len(data)) == data


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_any_number_can_be_coded(dtype: str) -> None:
    """Infinities, NaN and noise too, which the model has not seen."""
    model, tables = values_chunks(dtype, numbers(dtype, 3001))
    data = noise("any", 1000 * FORMS[dtype].width)
    assert decoded(model, encoded(model, data), list(tables.values()), len(data)) == data


def test_blocks_without_the_extrema_are_not_coded_by_a_model_that_has_them() -> None:
    data = quantized("Q4_0", 8, 1024)
    model, _ = quant_chunks("Q4_0", data, 32)
    assert model.model.extrema
    without = b"\x00\x3c" + b"\x77" * 16  # a scale, and nothing but the code 7
    assert model.encode(data[:-18] + without) is None
    zero = b"\x00\x00" + b"\x88" * 16
    assert model.encode(data[:-18] + zero) is not None


def test_numbers_that_no_sample_had_are_exceptions() -> None:
    data = quantized("Q6_K", 8, 1024)
    model, tables = quant_chunks("Q6_K", data, 4)
    odd = bytearray(data)
    odd[208:210] = b"\xff\xff"
    streams = encoded(model, bytes(odd))
    assert decoded(model, streams, list(tables.values()), len(odd)) == bytes(odd)


def test_streams_of_raw_bits_are_zstd_frames_where_that_pays() -> None:
    """Whole numbers as floats have low bits of zero; weights have not."""
    whole = np.arange(4096, dtype=np.float32).tobytes()
    model, tables = values_chunks("F32", whole)
    streams = encoded(model, whole)
    assert [s.codec for s in streams[3:]] == [Codec.ZSTD, Codec.ZSTD]
    assert decoded(model, streams, list(tables.values()), len(whole)) == whole
    model, _ = values_chunks("F32", numbers("F32", 4096))
    assert encoded(model, numbers("F32", 4096))[4].codec == Codec.RAW


def test_the_same_streams_each_time_and_in_each_thread() -> None:
    data = quantized("Q5_K", 64, 1024)
    model, _ = quant_chunks("Q5_K", data, 4, 5)
    again, _ = quant_chunks("Q5_K", data, 4, 5)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(again.encode, [data] * 8))
    assert all(result == model.encode(data) for result in results)


# --- shared tables --------------------------------------------------------------------------------


def test_a_shared_table_is_made_once() -> None:
    _, tables = quant_chunks("Q4_0", quantized("Q4_0", 8, 1024), 32)
    table = SharedTable(tables[MODEL].content)
    model = table.quant("Q4_0")
    assert table.quant("Q4_0") is model
    assert table.quant("Q4_1") is not model  # of the same alphabet: the table can serve both
    assert table.quant("Q4_0").steps == model.steps
    with ThreadPoolExecutor(8) as pool:
        fresh = SharedTable(table.content)
        assert all(m.steps == model.steps for m in pool.map(lambda _: fresh.quant("Q4_0"), range(32)))


def test_a_shared_table_of_another_kind_is_an_error_every_time() -> None:
    quant = quant_chunks("Q4_0", quantized("Q4_0", 8, 1024), 32)[1][MODEL]
    values = values_chunks("F32", numbers("F32", 3001))[1][MODEL]
    for _ in range(2):
        with pytest.raises(ChunkError, match=r"cannot serve values: .* of another kind"):
            quant.values()
        with pytest.raises(ChunkError, match=r"cannot serve Q4_0: .* of another kind"):
            values.quant("Q4_0")
        with pytest.raises(ChunkError, match="cannot serve Q6_K"):
            quant.quant("Q6_K")  # has no extrema
    quant.quant("Q4_0")
    with pytest.raises(ChunkError, match="cannot serve"):
        quant.values()


@pytest.mark.parametrize("name", ["F32", "IQ2_XXS", "", "values"])
def test_types_that_the_core_does_not_know(name: str) -> None:
    quant = quant_chunks("Q4_0", quantized("Q4_0", 8, 1024), 32)[1][MODEL]
    with pytest.raises(ChunkError, match="does not know"):
        quant.quant(name)


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_K", "F32"])
def test_tables_cut_short_or_too_long(dtype: str) -> None:
    if dtype in FORMS:
        content = values_chunks(dtype, numbers(dtype, 3001))[1][MODEL].content
    else:
        content = quant_chunks(dtype, quantized(dtype, 8, 1024), 4)[1][MODEL].content
    for wrong in [b"", *(content[:size] for size in range(1, len(content), 97)), content + b"\0"]:
        with pytest.raises(ChunkError, match="cannot serve"):
            SharedTable(wrong).values() if dtype in FORMS else SharedTable(wrong).quant(dtype)


# --- hostile streams ------------------------------------------------------------------------------


def _quant_case() -> tuple[QuantChunks, Streams, Tables, int]:
    data = quantized("Q8_0", 12, 256)
    model, tables = quant_chunks("Q8_0", data, 8, 4)
    return model, encoded(model, data), list(tables.values()), len(data)


def _values_case() -> tuple[ValuesChunks, Streams, Tables, int]:
    data = numbers("F32", 500)
    model, tables = values_chunks("F32", data)
    return model, encoded(model, data), list(tables.values()), len(data)


def _with(at: int, **fields: object) -> Change:
    """A change of one stream's fields."""

    def change(streams: Streams, tables: Tables) -> tuple[Streams, Tables]:
        return [*streams[:at], streams[at]._replace(**fields), *streams[at + 1 :]], tables  # type: ignore[arg-type]

    return change


def _tables(change: Callable[[Tables], Tables]) -> Change:
    return lambda streams, tables: (streams, change(tables))


EMPTY_FRAME = b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"
OTHER = values_chunks("F16", numbers("F16", 500))[1][MODEL]

QUANT: dict[str, tuple[Change, str]] = {
    "one stream fewer": (lambda s, t: (s[:3], t), "other streams or tables"),
    "one stream more": (lambda s, t: ([*s, s[3]], t), "other streams or tables"),
    "streams in another order": (lambda s, t: (s[::-1], t), "other streams or tables"),
    "heads raw": (_with(0, codec=Codec.RAW), "other streams or tables"),
    "codes as rans": (_with(2, codec=Codec.RANS), "other streams or tables"),
    "tails as zstd": (_with(1, codec=Codec.ZSTD), "other streams or tables"),
    "an unknown codec": (_with(2, codec=200), "other streams or tables"),
    "heads by the second table": (_with(0, slot=1), "other streams or tables"),
    "heads without table": (_with(0, slot=NO_TABLE), "other streams or tables"),
    "rest by a table": (_with(3, slot=0), "other streams or tables"),
    "no table": (_tables(lambda t: []), "other streams or tables"),
    "three tables": (_tables(lambda t: [*t, t[1]]), "other streams or tables"),
    "heads' size": (_with(0, size=95), "other sizes"),
    "tails' size": (_with(1, size=1), "other sizes"),
    "codes' size": (_with(2, size=0), "other sizes"),
    "rest's size": (_with(3, size=1), "other sizes"),
    "heads empty": (_with(0, body=b""), "symbols of the scales are cut short"),
    "tails empty": (_with(1, body=b"", size=0), "tails of the scales are cut short"),
    "codes empty": (_with(2, body=b""), "codes do not end"),
    "rest empty": (_with(3, body=b"", size=0), "low bits of the codes have another size"),
    "a model for plain numbers": (_tables(lambda t: [OTHER, t[1]]), "cannot serve Q8_0"),
    "tables the other way round": (_tables(lambda t: t[::-1]), "cannot serve Q8_0"),
    "no table of columns": (_tables(lambda t: t[:1]), "table of columns does not fit"),
    "fewer columns": (_tables(lambda t: [t[0], SharedTable(t[1].content[:-1])]), "columns does not fit"),
    "no columns": (_tables(lambda t: [t[0], SharedTable(b"")]), "columns does not fit"),
    "a class too many": (
        _tables(lambda t: [t[0], SharedTable(t[1].content[:-1] + b"\4")]),
        "columns does not fit",
    ),
}


@pytest.mark.parametrize("name", QUANT)
def test_quant_streams_or_tables_that_do_not_fit(name: str) -> None:
    change, message = QUANT[name]
    model, streams, tables, size = _quant_case()
    streams, tables = change(streams, tables)
    with pytest.raises(ChunkError, match=message):
        decoded(model, streams, tables, size)


VALUES: dict[str, tuple[Change, str]] = {
    "one stream fewer": (lambda s, t: (s[:4], t), "other streams or tables"),
    "one stream more": (lambda s, t: ([*s, s[3]], t), "other streams or tables"),
    "no table": (_tables(lambda t: []), "other streams or tables"),
    "two tables": (_tables(lambda t: t * 2), "other streams or tables"),
    "numbers of another width": (_tables(lambda t: [OTHER]), "numbers of another size"),
    "a model of blocks": (
        _tables(lambda t: [SharedTable(b"\1" + t[0].content[1:])]),
        "cannot serve values",
    ),
    "symbols raw": (_with(1, codec=Codec.RAW), "another codec, table or size"),
    "symbols without table": (_with(1, slot=NO_TABLE), "another codec, table or size"),
    "symbols' size": (_with(1, size=499), "another codec, table or size"),
    "symbols cut": (_with(1, body=b"abc"), "symbols do not end"),
    "classes as lanes": (_with(0, codec=Codec.LANES), "another codec or table"),
    "classes by a table": (_with(0, slot=0), "another codec or table"),
    "classes empty": (_with(0, codec=Codec.RAW, body=b"", size=0), "classes are cut short"),
    "classes missing": (_with(0, codec=Codec.RAW, body=b"\x40\0", size=2), "number of classes is wrong"),
    "a segment of 0": (_with(0, codec=Codec.RAW, body=bytes(10), size=10), "impossible size"),
    "words as rans": (_with(4, codec=Codec.RANS), "another codec or table"),
    "words of another size": (
        _with(4, codec=Codec.RAW, body=bytes(999), size=999),
        "raw bits have another size",
    ),
    "words of an unknown codec": (_with(4, codec=99), "another codec or table"),
    "words said to be huge": (_with(4, size=1 << 31), "other sizes than its numbers need"),
    "a frame of another size": (_with(3, codec=Codec.ZSTD, body=EMPTY_FRAME), "zstd"),
    "extra bits too many": (_with(2, codec=Codec.RAW, body=bytes(9), size=9), "too many extra bits"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_streams_or_tables_that_do_not_fit(name: str) -> None:
    change, message = VALUES[name]
    model, streams, tables, size = _values_case()
    streams, tables = change(streams, tables)
    with pytest.raises(ChunkError, match=message):
        decoded(model, streams, tables, size)


def test_layouts_that_the_transforms_do_not_know() -> None:
    model, streams, tables, size = _quant_case()
    for layout in (BY_NAME["float2"], BY_NAME["IQ2_XXS"], BY_NAME["bytes"]):
        with pytest.raises(ChunkError, match="the quant transform does not know"):
            modeled.decode(Transform.QUANT, layout, streams, tables, memoryview(bytearray(layout.block)))
    # A model of this alphabet can serve the type, but the streams cannot be its.
    with pytest.raises(ChunkError):
        decoded(model._replace(layout=BY_NAME["Q4_0"].wire_id), streams, tables, size // 34 * 18)
    values, streams, tables, size = _values_case()
    for layout in (BY_NAME["Q8_0"], BY_NAME["float8"], BY_NAME["planes4"]):
        with pytest.raises(ChunkError, match="the values transform does not know"):
            modeled.decode(Transform.VALUES, layout, streams, tables, memoryview(bytearray(layout.block)))
    with pytest.raises(ChunkError, match="numbers of another size"):
        decoded(values._replace(layout=BY_NAME["float2"].wire_id), streams, tables, size)
