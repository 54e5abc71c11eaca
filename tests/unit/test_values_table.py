"""Making models of plain numbers: keys, symbols, segments and the contexts that they choose from."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qzf.format.ids import NO_TABLE
from qzf.transforms.layouts import BY_ID
from qzf.transforms.modeled import SharedTable, ValuesChunks
from qzf.transforms.quant_table import zeros
from qzf.transforms.values_table import FORMS, Form, Symbols, count_keys, histograms, make_table
from tests.helpers import MODEL, values_chunks, weights

Ints = npt.NDArray[np.int64]

BYTE, BF16, F16, F32 = FORMS["I8"], FORMS["BF16"], FORMS["F16"], FORMS["F32"]
ALL = [BYTE, BF16, F16, F32]


def counted(form: Form, **counts: int) -> Ints:
    """Counts by key: ``k5=9`` for 9 numbers of key 5."""
    out = np.zeros(1 << form.key_bits, np.int64)
    for name, count in counts.items():
        out[int(name[1:])] = count
    return out


def reach(form: Form, symbols: Symbols, symbol: int) -> range:
    """The keys that a symbol stands for."""
    if symbol < symbols.plain:
        return range(symbols.key0 + symbol, symbols.key0 + symbol + 1)
    base, bits = symbols.coarse[symbol - symbols.plain]
    return range(base, base + (1 << bits))


def check(form: Form, symbols: Symbols, counts: Ints) -> None:
    """What holds of all symbols: they cover all keys, each key has the finest, and the core takes them."""
    assert 1 <= symbols.plain + len(symbols.coarse) <= 256
    assert symbols.coarse == () or symbols.coarse[-1] == (0, form.key_bits)
    by_key = symbols.map(form)
    assert len(by_key) == 1 << form.key_bits
    sizes = np.full(len(by_key), 1 << 20)
    for symbol in range(symbols.plain + len(symbols.coarse)):
        keys_of = reach(form, symbols, symbol)
        assert keys_of.start >= 0 and keys_of.stop <= len(by_key)
        sizes[keys_of] = np.minimum(sizes[keys_of], len(keys_of))
    assert [len(reach(form, symbols, int(s))) for s in by_key] == sizes.tolist()
    assert all(key in reach(form, symbols, int(s)) for key, s in enumerate(by_key))
    segment = np.minimum(np.bincount(np.frombuffer(by_key, np.uint8), counts, 256), 65535)
    SharedTable(make_table(form, symbols, segment.astype(np.uint16).data, 1)).values()


# --- keys -----------------------------------------------------------------------------------------


def test_forms() -> None:
    for dtype, form in FORMS.items():
        assert BY_ID[form.layout].block == form.width, dtype
    assert FORMS["F8_E4M3"] is FORMS["I8"]


@pytest.mark.parametrize(
    ("form", "data", "expected"),
    [
        (BYTE, b"\x00\x7f\xff", [0, 127, 255]),
        # Exponents come first, mantissa next; the sign is the lowest of the raw bits.
        (BF16, struct.pack("<2H", 0x3F80, 0xBF90), [0x7F0, 0x7F2]),
        (F16, struct.pack("<2e", 1.0, -1.75), [0x78, 0x7E]),
        (F32, struct.pack("<3f", 1.0, -1.0, 0.0), [0x7F0, 0x7F0, 0]),
    ],
)
def test_keys(form: Form, data: bytes, expected: list[int]) -> None:
    counts = zeros(1 << form.key_bits)
    for _ in range(2):  # added up
        count_keys(form, data, counts)
    assert counts.tolist() == [2 * expected.count(key) for key in range(1 << form.key_bits)]


# --- symbols --------------------------------------------------------------------------------------


def test_bytes_of_all_values_have_a_symbol_each() -> None:
    symbols = Symbols.of(BYTE, [1] * 256)
    assert symbols == Symbols(0, 256, ())
    assert symbols.map(BYTE) == bytes(range(256))


def test_bytes_of_some_values() -> None:
    symbols = Symbols.of(BYTE, counted(BYTE, k10=5, k12=1, k200=1).tolist())
    assert symbols == Symbols(10, 191, ((0, 8),))
    assert [symbols.map(BYTE)[key] for key in (9, 10, 200, 201)] == [191, 0, 190, 191]


def test_a_constant_has_one_symbol_beside_the_escape() -> None:
    symbols = Symbols.of(BYTE, counted(BYTE, k77=1000).tolist())
    assert symbols == Symbols(77, 1, ((0, 8),))
    check(BYTE, symbols, counted(BYTE, k77=1000))


def test_octaves_and_single_keys_beside_the_run() -> None:
    counts = counted(BF16, k2000=5000, k2001=5000, k2300=3000, k48=500, k50=2, k4000=300)
    counts[1920:2090] += 100
    symbols = Symbols.of(BF16, counts.tolist())
    assert symbols.plain == 192
    assert symbols.key0 <= 1920 and symbols.key0 + 192 >= 2090
    singles = [base for base, bits in symbols.coarse if bits == 0]
    assert singles == [2300, 48, 4000]  # the commonest first; 50 is rare
    octaves = [base for base, bits in symbols.coarse if bits == 4]
    assert 48 in octaves and 4000 in octaves
    check(BF16, symbols, counts)


def test_of_too_many_octaves_the_highest_are_kept() -> None:
    counts = np.full(4096, 1, np.int64)
    counts[1000:1192] = 50
    symbols = Symbols.of(F32, counts.tolist())
    assert symbols.key0 == 1000
    assert symbols.plain + len(symbols.coarse) == 256
    assert (4080, 4) in symbols.coarse and (0, 4) not in symbols.coarse
    check(F32, symbols, counts)


@given(
    st.sampled_from(ALL),
    st.lists(st.tuples(st.integers(0, 4095), st.integers(1, 300), st.integers(0, 1 << 20)), max_size=8),
)
def test_symbols_of_any_counts(form: Form, runs: list[tuple[int, int, int]]) -> None:
    counts = np.zeros(1 << form.key_bits, np.int64)
    for first, length, count in runs:
        counts[first % len(counts) :][:length] += count
    check(form, Symbols.of(form, counts.tolist()), counts)
    assert Symbols.of(form, counts.tolist()) == Symbols.of(form, counts.tolist())


# --- segments and contexts ------------------------------------------------------------------------


def test_histograms_of_whole_segments() -> None:
    by_key, data = bytes(range(256)), bytes([1, 1, 2, 9, 9, 9, 7])
    found = np.frombuffer(histograms(BYTE, by_key, data, 3), np.uint16).reshape(2, 256)
    assert found[0, [1, 2]].tolist() == [2, 1]
    assert found[1, 9] == 3
    assert found.sum() == 6
    assert histograms(BYTE, by_key, data, 8) == b""
    sampled = np.frombuffer(histograms(BYTE, by_key, bytes(range(100)), 10, 3), np.uint16).reshape(-1, 256)
    assert sampled.argmax(axis=1).tolist() == [0, 30, 60, 90]  # every third of ten


def head(table: bytes) -> tuple[Any, ...]:
    """Kind, form, key of symbol 0, plain symbols, contexts, coarse symbols."""
    return struct.unpack_from("<BBHHBB", table)


def test_segments_of_nothing_but_rare_numbers() -> None:
    """They are coded by the escape, which must not have all of the probability."""
    symbols = Symbols.of(F32, counted(F32, k5=3).tolist())
    rare = np.zeros((20, 256), np.uint16)
    rare[:, symbols.plain + len(symbols.coarse) - 1] = 64
    model = SharedTable(make_table(F32, symbols, rare.data, 2)).values()
    assert model.encode(bytes(range(256)), 64) is not None


def test_contexts_are_no_more_than_pay() -> None:
    """Segments of two kinds make two contexts, whatever is asked for, and each kind chooses its own."""
    small, large = weights(40, 64) / 1000, weights(40, 64) * 1000
    data = np.stack([small, large], axis=1).astype(np.float32).tobytes()  # rows take turns
    model, tables = values_chunks("F32", data, 64, 8)
    contexts = head(tables[MODEL].content)[4]
    assert 2 <= contexts <= 8
    assert model.model.width == 4
    classes = segment_classes(model, data)
    assert set(classes[::2]).isdisjoint(classes[1::2])
    one, _ = values_chunks("F32", data, 64, 1)
    assert set(segment_classes(one, data)) == {0}
    assert stored(model, data) < stored(one, data)


def segment_classes(model: ValuesChunks, data: bytes) -> bytes:
    coded = model.model.encode(data, model.segment)
    assert coded is not None
    segment, classes = int.from_bytes(coded[0][:2], "little"), coded[0][2:]
    assert segment == model.segment
    assert len(classes) == -(-len(data) // model.model.width // segment)
    return classes


def stored(model: ValuesChunks, data: bytes) -> int:
    streams = model.encode(data)
    assert streams is not None
    assert [s.slot for s in streams] == [NO_TABLE, 0, NO_TABLE, NO_TABLE, NO_TABLE]
    return sum(len(memoryview(s.body)) for s in streams)


@pytest.mark.parametrize("segment", [0, 1, 31, 33, 65535, 1 << 20])
def test_segments_of_impossible_sizes(segment: int) -> None:
    data = weights(1, 500).tobytes()
    model, _ = values_chunks("F32", data)
    assert model.model.encode(data, segment) is None


@pytest.mark.parametrize("segment", [32, 96, 65504])
def test_segments_of_many_sizes(segment: int) -> None:
    data = weights(1, 70_000).tobytes()
    model, _ = values_chunks("F32", data, segment)
    assert len(segment_classes(model, data)) == -(-70_000 // segment)


def test_the_same_table_from_the_same_numbers() -> None:
    one, two, other = (
        values_chunks("F32", weights(30, 100, seed).tobytes())[1][MODEL].content for seed in (1, 1, 2)
    )
    assert one == two != other


def test_every_context_can_code_any_number() -> None:
    """By the escape, for which a table of 200 keys far apart has frequencies everywhere."""
    counts = np.zeros(4096, np.int64)
    counts[::20] = 1
    symbols = Symbols.of(BF16, counts.tolist())
    numbers = (np.arange(0, 4096, 20).repeat(10) << 3).astype("<u2").tobytes()  # the sign is the highest bit
    seen = np.zeros(4096, np.uint64)
    count_keys(BF16, numbers, seen.data)
    assert seen.nonzero()[0].tolist() == counts.nonzero()[0].tolist()
    table = make_table(BF16, symbols, histograms(BF16, symbols.map(BF16), numbers, 32), 8)
    contexts = head(table)[4]
    frequencies = np.frombuffer(table[-512 * contexts :], "<u2").reshape(contexts, 256)
    assert (frequencies.sum(axis=1) == 4096).all()
    assert (frequencies[:, symbols.plain + len(symbols.coarse) - 1] > 0).all()
    data = np.arange(65536, dtype="<u2").tobytes()
    assert SharedTable(table).values().encode(data, 64) is not None
