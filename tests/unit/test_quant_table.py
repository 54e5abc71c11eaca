"""Making models of quantized types: frequencies, ranks of numbers, contexts, and tables for the core."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qzf.transforms import quant_stats, quant_table
from qzf.transforms.modeled import SCHEMAS, SharedTable
from qzf.transforms.quant_table import Counts, Numbers, QuantTable, Tally, column_classes, zeros
from tests.helpers import MODEL, counted, quant_chunks, quantized

Ints = npt.NDArray[np.uint64]


def ints(*values: int) -> Ints:
    return np.array([values], np.uint64)


def rows(counts: Counts | bytes, width: int = 256) -> Ints:
    """Counts as an array, (rows, width)."""
    return np.frombuffer(counts, np.uint64).reshape(-1, width)


def quantize(counts: Ints, total: int, *, every: bool) -> npt.NDArray[np.int64]:
    found = np.frombuffer(quant_table.quantize(counts.data, counts.shape[1], total, every=every), np.uint16)
    return found.reshape(counts.shape).astype(np.int64)


def cost(counts: Ints) -> int:
    return quant_table.cost(counts.data, counts.shape[-1])


def ranked(patterns: Any, *, alone: bool) -> Numbers:
    return Numbers.of(np.asarray(patterns, np.uint16).data, alone=alone)


def values(numbers: Numbers) -> npt.NDArray[np.uint16]:
    return np.frombuffer(numbers.values, np.uint16)


def sampled(dtype: str, extrema: bool = False, columns: int = 1) -> tuple[QuantTable, bytes]:
    """A table in the making, and the 16 x 2,048 weights that it was planned for."""
    data = quantized(dtype, 16, 2048)
    _, first, second = quant_stats.look(SCHEMAS[dtype], data)
    return QuantTable.plan(SCHEMAS[dtype], extrema, first, second, columns), data


def accepted(table: QuantTable, tally: Tally | None = None) -> bool:
    """Whether the core takes the table; it raises an error that says why where it does not."""
    model = SharedTable(table.dump(tally)).quant(table.schema.name)
    return model.column_classes == table.column_classes and model.extrema == table.extrema


# --- frequencies ----------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(
            st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 1 << 30)), min_size=16, max_size=16
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([256, 4096]),
    st.booleans(),
)
def test_frequencies_add_up(drawn: list[list[int]], total: int, every: bool) -> None:
    counts = np.array(drawn, np.uint64)
    found = quantize(counts, total, every=every)
    assert found.shape == counts.shape
    assert (found.sum(axis=1) == total).all()
    assert ((found >= 0) & (found < total)).all()
    assert (found[counts > 0] > 0).all()
    if every:
        assert (found > 0).all()
    for row, result in zip(counts, found, strict=True):
        if (row > 0).sum() > 1 and not every:
            assert not result[row == 0].any()
    assert (quantize(counts, total, every=every) == found).all()


def test_a_symbol_never_has_all_of_the_probability() -> None:
    for row in ([0, 7, 0, 0], [0, 0, 0, 7], [1 << 30, 0, 0, 0]):
        found = quantize(ints(*row), 256, every=False)[0]
        assert np.sort(found)[:2].tolist() == [0, 0]
        assert found[np.argmax(row)] == found.max() < 256
    assert quantize(ints(1 << 40, 1, 1, 1), 256, every=False).tolist() == [[253, 1, 1, 1]]


def test_a_row_that_counted_nothing_is_even() -> None:
    assert quantize(ints(0, 0, 0, 0), 256, every=False).tolist() == [[64, 64, 64, 64]]


def test_as_many_symbols_as_slots() -> None:
    assert (quantize(ints(*range(256)), 256, every=True) == 1).all()


def test_frequencies_cost_little_more_than_the_entropy() -> None:
    draw = np.random.default_rng(3)
    for skew in (1, 3, 8):
        counts = (draw.random(64) ** skew * 10_000).astype(np.uint64)[None]
        found = quantize(counts, 4096, every=False)
        live = counts > 0
        bits = (counts[live] * (12 - np.log2(found[live]))).sum()
        assert cost(counts) <= bits + 1 <= 1.003 * cost(counts) + 1


@pytest.mark.parametrize("index", range(3))
def test_no_single_step_would_be_better(index: int) -> None:
    """Moving a slot from one symbol to another costs more, for each pair of them."""
    counts = [ints(1000, 10, 3, 1), ints(5, 5, 5, 4), ints(100_000, 99_000, 7, 2)][index]
    found = quantize(counts, 256, every=False)[0]

    def bits(frequencies: npt.NDArray[np.int64]) -> float:
        return float((counts[0] * (8 - np.log2(frequencies))).sum())

    for a in range(4):
        for b in range(4):
            moved = found.copy()
            moved[a] += 1
            moved[b] -= 1
            if a != b and moved.min() >= 1 and moved.max() < 256:
                assert bits(moved) >= bits(found) - 0.01 * counts.sum()


def test_cost() -> None:
    assert cost(np.array([[1, 1, 1, 1]], np.uint64)) == 8
    assert cost(np.array([[5, 0, 0, 0], [0, 0, 0, 0], [4, 4, 0, 0]], np.uint64)) == 8
    assert cost(np.array([3, 1], np.uint64)) == 3  # 3.245
    assert cost(np.array([1 << 40, 1 << 40], np.uint64)) == 1 << 41


# --- numbers --------------------------------------------------------------------------------------


def test_few_values_make_a_list_in_order() -> None:
    found = ranked(np.array([9, 700, 5, 700, 9, 5, 9], np.uint16), alone=False)
    assert (found.shift, found.base, values(found).tolist()) == (0, 0, [5, 9, 700])


def test_of_many_values_those_seen_once_are_left_out() -> None:
    patterns = np.repeat(np.arange(100, 4100), 10).tolist()
    once = range(5000, 5200)
    found = ranked(np.array([*patterns, *once], np.uint16), alone=False)
    assert values(found).tolist() == list(range(100, 4100))
    assert found.shift == 4


def test_values_that_are_mostly_seen_once_are_coded_as_they_are() -> None:
    draw = np.random.default_rng(1)
    found = ranked(draw.permutation(20_000)[:3000].astype(np.uint16), alone=True)
    assert len(found.values) == 0
    assert found.shift == 7


def test_a_list_may_be_in_the_order_of_how_common_values_are() -> None:
    """Where symbols have no context, and low bits would be as good as random else."""
    draw = np.random.default_rng(5)
    often = draw.permutation(2000)[:300]
    patterns = np.concatenate([np.repeat(often, 50), np.repeat(np.arange(2000), 2)]).astype(np.uint16)
    assert values(ranked(patterns, alone=False)).tolist() == list(range(2000))
    found = ranked(patterns, alone=True)
    assert found.shift == 3
    assert sorted(values(found).tolist()) == list(range(2000))
    assert set(values(found)[:300].tolist()) == set(often.tolist())


@pytest.mark.parametrize("pattern", [0, 5, 65535])
@pytest.mark.parametrize("count", [1, 9])
def test_a_constant_number(pattern: int, count: int) -> None:
    found = ranked(np.full(count, pattern, np.uint16), alone=True)
    assert found.shift == 0
    assert values(found).tolist() == [pattern] or found.base <= pattern < found.base + 256 <= 65536


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(1, 3000), st.integers(0, 9))
def test_ranks_reach_nearly_all_of_the_sample(low: int, high: int, count: int, seed: int) -> None:
    low, high = sorted((low, high))
    between = np.random.default_rng(seed).integers(low, high + 1, count)
    patterns = np.concatenate([between, [low, high]]).astype(np.uint16)
    found = ranked(patterns, alone=True)
    assert 0 <= found.shift <= 8
    if len(found.values):
        assert found.base == 0
        assert len(set(values(found).tolist())) == len(values(found)) <= min(4096, 256 << found.shift)
        assert np.isin(patterns, values(found)).mean() >= 0.9
    else:
        assert found.base <= low and high < found.base + (256 << found.shift) <= 65536
        assert found.shift == 0 or 128 << found.shift <= high - low


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 16])
@pytest.mark.parametrize("dtype", SCHEMAS)
def test_tables_to_count_with_are_valid(dtype: str, columns: int) -> None:
    table, _ = sampled(dtype, columns=columns)
    assert accepted(table)
    assert table.contexts <= 64
    assert table.keys <= 256


@pytest.mark.parametrize("dtype", SCHEMAS)
def test_contexts_are_joined(dtype: str) -> None:
    table, data = sampled(dtype)
    row_blocks = 2048 // SCHEMAS[dtype].codes
    heads, codes = counted(table, None, data, row_blocks)
    assert rows(heads).sum() == len(data) // SCHEMAS[dtype].size * SCHEMAS[dtype].heads
    before = table.contexts
    joined = table.merge_contexts(heads)
    assert len(rows(joined)) == table.contexts <= min(before, 1 + 8 + 1 + 12)
    assert (rows(joined).sum(axis=0) == rows(heads).sum(axis=0)).all()
    for map_ in (np.frombuffer(each, np.int8) for each in (table.second_contexts, table.min_contexts)):
        assert ((map_ >= 0) & (map_ < table.contexts)).all()
        if map_.any():  # neighbours are together
            assert (np.diff(map_) >= 0).all()
    assert table.scale_context < table.contexts
    assert accepted(table, Tally(joined, codes))
    # With the maps that it has now, the core counts what was joined.
    assert counted(table, None, data, row_blocks) == Tally(joined, codes)


def test_contexts_that_are_alike_are_joined_first() -> None:
    table, _ = sampled("Q4_K")
    heads = np.zeros((table.contexts, 256), np.uint64)
    heads[0, :4] = 100
    low, high = min(table.second_contexts), max(table.second_contexts)
    middle = (low + high) // 2
    heads[low:middle, 3] = heads[middle : high + 1, 200] = 400  # two kinds
    joined = rows(table.merge_contexts(heads.ravel().data))
    groups = set(table.second_contexts)
    assert len(groups) <= 8
    for group in groups:
        assert (joined[group] > 0).sum() == 1
    assert not joined[table.scale_context].any()


@pytest.mark.parametrize("dtype", SCHEMAS)
def test_tables_of_nothing_counted_are_valid(dtype: str) -> None:
    table, _ = sampled(dtype, columns=3)
    heads, codes = table.tally()
    assert accepted(table, Tally(table.merge_contexts(heads), codes))


@pytest.mark.parametrize("dtype", SCHEMAS)
def test_any_scales_and_codes_can_be_coded(dtype: str) -> None:
    """Whatever was counted: random bytes are blocks, too."""
    schema = SCHEMAS[dtype]
    table, data = sampled(dtype)
    model = SharedTable(table.finish(counted(table, None, data, 1))).quant(dtype)
    blocks = np.random.default_rng(1).integers(0, 256, 50 * schema.size, np.uint8).tobytes()
    streams = model.encode(None, blocks, 5)
    assert streams is not None
    out = bytearray(len(blocks))
    model.decode(None, *streams, out)
    assert out == blocks


@pytest.mark.parametrize("dtype", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantizers_leave_extrema(dtype: str) -> None:
    schema, data = SCHEMAS[dtype], quantized(dtype, 16, 2048)
    assert quant_stats.look(schema, data).extrema
    noise = np.random.default_rng(1).integers(0, 256, len(data), np.uint8).tobytes()
    assert not quant_stats.look(schema, noise).extrema
    zero = quantized(dtype, 1, 32)[:0] + bytes(schema.size)
    # A block of zero bytes: scale 0, and codes that quantizers leave only where zero is code 0.
    assert quant_stats.look(schema, zero).extrema == (dtype in ("Q4_1", "Q5_1", "Q8_0"))


@pytest.mark.parametrize("dtype", ["Q6_K", "IQ4_NL", "MXFP4"])
def test_types_without_extrema(dtype: str) -> None:
    assert not quant_stats.look(SCHEMAS[dtype], quantized(dtype, 4, 2048)).extrema


def test_numbers_are_the_fp16_fields() -> None:
    data = quantized("Q4_1", 2, 64)
    _, first, second = quant_stats.look(SCHEMAS["Q4_1"], data)
    blocks = np.frombuffer(data, np.dtype([("d", "<u2"), ("m", "<u2"), ("qs", "u1", 16)]))
    assert first == blocks["d"].tobytes()
    assert second == blocks["m"].tobytes()
    assert not any(quant_stats.look(SCHEMAS["MXFP4"], quantized("MXFP4", 2, 64)))


def test_the_same_table_from_the_same_blocks() -> None:
    data = quantized("Q4_K", 64, 1024)
    one, two = (quant_chunks("Q4_K", data, 4, 7)[1] for _ in range(2))
    assert [t.content for t in one.values()] == [t.content for t in two.values()]
    assert one[MODEL].content != quant_chunks("Q4_K", data, 4)[1][MODEL].content


# --- classes of columns ---------------------------------------------------------------------------


def test_classes_of_columns_are_equally_large_and_in_order() -> None:
    sums = np.random.default_rng(1).permutation(64).astype(np.uint64)
    classes = np.frombuffer(column_classes(sums.data, 16), np.uint8)
    assert (np.bincount(classes) == 4).all()
    assert (classes == sums // 4).all()
    assert column_classes(zeros(10), 5) == bytes([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert column_classes(np.array([7], np.uint64).data, 16) == b"\0"


def test_columns_that_deviate_more_have_higher_classes() -> None:
    schema = SCHEMAS["Q8_0"]
    rows = np.zeros((40, 2, 34), np.uint8)
    rows[:, :, 1] = 0x3C
    rows[:, :, 2:] = np.arange(64).reshape(2, 32)
    sums = quant_stats.deviations(schema, rows.tobytes(), 2)
    assert sums.tolist() == [40 * 16 * k for k in range(64)]
