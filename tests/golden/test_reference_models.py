"""The transforms ``quant`` and ``values``: qzf and ``spec/reference_models.py`` decode and reject the same.

Slices of real models are packed by qzf; random models and symbols are packed here, as a hostile writer may.
"""

from __future__ import annotations

import importlib.util
import io
import random
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import qzf
from qzf.adapters import describe
from qzf.errors import QzfError
from qzf.format.ids import NO_TABLE, Codec, Transform
from qzf.storage import FileSource
from qzf.transforms import modeled, quant_stats
from qzf.transforms.layouts import BY_NAME
from qzf.transforms.modeled import SCHEMAS, CodedStream, QuantChunks, QuantSchema, SharedTable, ValuesChunks
from qzf.transforms.quant_table import QuantTable, column_classes
from qzf.transforms.values_table import FORMS, Form
from tests.helpers import SOURCES, counted, values_table

SPEC = Path(__file__).resolve().parents[2] / "spec"


def _load_decoder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qzf_reference_of_models", SPEC / "reference_decoder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


REFERENCE = _load_decoder()
MODELS = REFERENCE.models


class Chunk(NamedTuple):
    """A coded chunk: streams, contents of its tables, and its size once decoded."""

    transform: Transform
    layout: str
    streams: list[CodedStream]
    tables: list[bytes]
    size: int


def ours(chunk: Chunk) -> bytes | None:
    """What qzf makes of it; None where it rejects it."""
    out = bytearray(chunk.size)
    tables = [SharedTable(content) for content in chunk.tables]
    try:
        modeled.decode(chunk.transform, BY_NAME[chunk.layout], chunk.streams, tables, memoryview(out))
    except QzfError:
        return None
    return bytes(out)


def theirs(chunk: Chunk) -> bytes | None:
    """What the reference decoder makes of it; None where it rejects it."""
    layout = REFERENCE.LAYOUTS[BY_NAME[chunk.layout].wire_id]
    streams = [MODELS.Coded(int(s.codec), s.slot, bytes(s.body), s.size) for s in chunk.streams]
    try:
        found = REFERENCE.decode_modeled(chunk.transform, layout, streams, chunk.tables, chunk.size, 0)
    except REFERENCE.Invalid:
        return None
    assert isinstance(found, bytes)
    return found


def agree(chunk: Chunk) -> bool:
    """Both make the same of it; whether that is something."""
    one, other = ours(chunk), theirs(chunk)
    assert one == other, "only one accepts" if one is None or other is None else "they differ"
    return one is not None


def check(chunk: Chunk, data: bytes) -> None:
    """Both decode it to ``data``."""
    assert theirs(chunk) == data
    assert ours(chunk) == data


# --- slices of real models ---


class Slice(NamedTuple):
    """The first rows of a tensor of a source."""

    dtype: str
    data: bytes
    row: int


@cache
def _tensors(path: Path, most: int = 40_000) -> list[Slice]:
    found = []
    with FileSource(path) as source:
        for tensor in describe(source, path.name).tensors:
            size, row = tensor.extent.size, tensor.row_size
            found.append(
                Slice(
                    tensor.dtype, bytes(source.read(tensor.extent.offset, min(size, most // row * row))), row
                )
            )
    return found


def _quantized(schema: QuantSchema) -> list[Slice]:
    paths = sorted((SOURCES / "gguf").glob("*.gguf"))
    found = [each for path in paths for each in _tensors(path) if each.dtype == schema.name and each.data]
    assert found, f"no source has {schema.name}"
    return found[:3]


def _quant_table(
    schema: QuantSchema, data: bytes, row_blocks: int, extrema: bool, columns: bytes | None
) -> bytes:
    """As ``qzf.ops.model_quant`` makes it, from these blocks alone."""
    _, first, second = quant_stats.look(schema, data)
    table = QuantTable.plan(schema, extrema, first, second, 1 if columns is None else 16)
    return table.dump(counted(table, columns, data, row_blocks))


def _quant_chunk(
    schema: QuantSchema, data: bytes, table: bytes, row_blocks: int, columns: bytes | None = None
) -> Chunk:
    model = SharedTable(table).quant(schema.name)
    chunks = QuantChunks(schema, BY_NAME[schema.name].wire_id, (0, 1), model, columns, row_blocks)
    streams = chunks.encode(data)
    assert streams is not None, "the model cannot express the blocks"
    return Chunk(
        Transform.QUANT, schema.name, streams, [table] if columns is None else [table, columns], len(data)
    )


def _packed(schema: QuantSchema, part: Slice, extrema: bool, by_column: bool) -> Chunk:
    """With columns the rows are cut short, so that there are some of them."""
    row_blocks = part.row // schema.size
    if by_column:
        row_blocks = 2 if len(part.data) // schema.size % 2 == 0 else 1
    columns = None
    if by_column:
        columns = column_classes(quant_stats.deviations(schema, part.data, row_blocks), 16)
    table = _quant_table(schema, part.data, row_blocks, extrema, columns)
    return _quant_chunk(schema, part.data, table, row_blocks, columns)


@pytest.mark.parametrize("by_column", [False, True], ids=["plain", "columns"])
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
def test_quantized_slices(schema: QuantSchema, by_column: bool) -> None:
    for part in _quantized(schema):
        check(_packed(schema, part, False, by_column), part.data)
        if quant_stats.look(schema, part.data).extrema:
            chunk = _packed(schema, part, True, by_column)
            assert chunk.tables[0][1] == 1
            check(chunk, part.data)


def test_extrema_are_in_the_slices() -> None:
    for schema in SCHEMAS.values():
        if schema.extrema:
            looks = [quant_stats.look(schema, part.data) for part in _quantized(schema)]
            assert all(look.extrema for look in looks), schema.name


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
def test_few_lanes_and_groups(schema: QuantSchema) -> None:
    """A last group that is not full, and fewer than four groups, or just more than that."""
    data = _quantized(schema)[0].data
    whole = len(data) // schema.size
    table = _quant_table(schema, data, whole, False, None)
    for lanes in (1, 63, 64, 65, 128, 200, 255, 256, 257, 300, 500):
        blocks = -(-lanes // schema.lanes)
        assert blocks <= whole
        part = data[: blocks * schema.size]
        check(_quant_chunk(schema, part, table, 1), part)
        check(_quant_chunk(schema, part, table, blocks), part)


#: A block without scale, as quantizers leave it, after its scale (and minimum).
_ZEROS = {
    "Q4_0": b"\x88" * 16,
    "Q4_1": b"\x34\x12" + bytes(16),
    "Q5_0": b"\xff" * 4 + bytes(16),
    "Q5_1": b"\x34\x12" + bytes(20),
    "Q8_0": bytes(32),
}


@pytest.mark.parametrize("name", _ZEROS)
def test_blocks_without_scale_and_exceptions(name: str) -> None:
    schema, part = SCHEMAS[name], _quantized(SCHEMAS[name])[0]
    data, size = bytearray(part.data), schema.size
    table = _quant_table(schema, part.data, part.row // size, True, None)
    for block, pattern in ((0, 0x0000), (7, 0x8000), (65, 0x0000)):  # 0 and -0: exceptions, too
        data[block * size : (block + 1) * size] = struct.pack("<H", pattern) + _ZEROS[name]
    for block in (3, 64):
        data[block * size : block * size + 2] = struct.pack("<H", 0x7BFF - block)
    chunk = _quant_chunk(schema, bytes(data), table, part.row // size)
    exceptions = struct.unpack_from("<III", chunk.streams[1].body)[1]
    assert exceptions >= 3
    check(chunk, bytes(data))


def test_a_number_may_have_several_exceptions() -> None:
    schema = SCHEMAS["Q4_0"]
    part = _quantized(schema)[0]
    chunk = _packed(schema, part, False, False)
    tails = bytearray(chunk.streams[1].body)
    (count,) = struct.unpack_from("<I", tails, 4)
    tails[4:8] = struct.pack("<I", count + 3)
    # The list of first numbers comes last, as there are no second ones.
    tails += struct.pack("<IHIHIH", 5, 0x1111, 5, 0x2222, 0, 0x3333)
    streams = list(chunk.streams)
    streams[1] = streams[1]._replace(body=bytes(tails), size=len(tails))
    # Logarithms change with the numbers, and so may the order of lanes; one key for all avoids that.
    table = bytearray(chunk.tables[0])
    table[146:210] = bytes(64)
    chunk = _quant_chunk(schema, part.data, bytes(table), part.row // schema.size)
    streams[2] = chunk.streams[2]
    found = ours(chunk._replace(streams=streams))
    assert found is not None and found[5 * 18 : 5 * 18 + 2] == b"\x22\x22" and found[:2] == b"\x33\x33"
    assert theirs(chunk._replace(streams=streams)) == found


def test_keys_times_columns() -> None:
    """At the limit, and one key above it."""
    schema, row_blocks, keys = SCHEMAS["Q4_0"], 8192, 128
    data = random.Random(1).randbytes(row_blocks * schema.size)
    table = QuantTable.plan(schema, False, *quant_stats.look(schema, data)[1:], 2)
    table.ratio_keys = bytes(128)
    table.residual_keys = bytes([*bytes(63), keys - 1])  # only for scales far above their row and column
    columns = bytes(i % 2 for i in range(row_blocks * schema.codes))
    chunk = _quant_chunk(schema, data, table.dump(), row_blocks, columns)
    check(chunk, data)
    content = bytearray(chunk.tables[0] + 32 * b"\x10")
    content[8] = keys + 1
    assert not agree(chunk._replace(tables=[bytes(content), columns]))


# --- plain numbers ---

_FORMS: dict[str, Form] = {
    **FORMS,
    "BF16 as F16": FORMS["F16"],
    "F16 as BF16": FORMS["BF16"],
}


def _values_chunk(form: Form, data: bytes, table: bytes, segment: int) -> Chunk:
    layout = {0: "bytes", 1: "float2", 2: "float2", 3: "float4"}[form.wire_id]
    model = SharedTable(table).values()
    streams = ValuesChunks(BY_NAME[layout].wire_id, (0,), model, segment).encode(data)
    assert streams is not None
    return Chunk(Transform.VALUES, layout, streams, [table], len(data))


def _values_table(form: Form, data: bytes, contexts: int = 4) -> bytes:
    whole = form.key_bits == 8 and len(set(data)) == 256  # no symbol stands for what a context lacks
    return values_table(form, data, 32, 1 if whole else contexts)


def _numbers() -> Iterator[tuple[str, Form, Slice]]:
    paths = [*(SOURCES / "gguf").glob("*.gguf"), *(SOURCES / "safetensors").glob("*.safetensors")]
    seen: dict[str, int] = {}
    for path in sorted(paths):
        for part in _tensors(path):
            for name, form in _FORMS.items():
                if (
                    name.split()[0] == part.dtype
                    and len(part.data) >= 2048
                    and len(part.data) % form.width == 0
                ):
                    seen[name] = seen.get(name, 0) + 1
                    if seen[name] <= 2:
                        yield f"{path.stem}-{name}-{seen[name]}".replace(" ", "-"), form, part


_NUMBERS = list(_numbers())


def test_all_forms_are_in_the_slices() -> None:
    assert {form.wire_id for _, form, _ in _NUMBERS} == {0, 1, 2, 3}


@pytest.mark.parametrize(("form", "part"), [pytest.param(*rest, id=name) for name, *rest in _NUMBERS])
def test_slices_of_numbers(form: Form, part: Slice) -> None:
    for segment in (32, 64, 384):
        check(_values_chunk(form, part.data, _values_table(form, part.data), segment), part.data)
    table = _values_table(form, part.data, 1)
    for n in (1, 2, 31, 32, 33, 65):
        check(_values_chunk(form, part.data[: n * form.width], table, 32), part.data[: n * form.width])


def test_numbers_far_from_the_model() -> None:
    """All of them by the symbol that stands for every key, with the most extra bits."""
    for dtype, value in (("BF16", b"\0\0"), ("F32", bytes(4))):
        form = FORMS[dtype]
        part = next(part for _, each, part in _NUMBERS if each == form)
        data = value * 1000
        chunk = _values_chunk(form, data, _values_table(form, part.data), 256)
        assert chunk.streams[2].size == 1500
        check(chunk, data)


def test_many_numbers_far_from_the_model() -> None:
    """The streams are then larger than the chunk before zstd makes them smaller."""
    form = FORMS["F32"]
    part = next(part for _, each, part in _NUMBERS if each == form)
    data = bytes(4 * 20_000)
    chunk = _values_chunk(form, data, _values_table(form, part.data), 256)
    assert sum(each.size for each in chunk.streams) > len(data) + 20_000
    check(chunk, data)


# --- a writer that may choose anything ---


def _frequencies(chance: random.Random, symbols: int, alphabet: int, total: int) -> list[int]:
    """For ``symbols`` of an alphabet; some rare, some common, none with all of it."""
    weights = [chance.choice((0, 1, 1, 3, 10, 200)) for _ in range(symbols)]
    weights[chance.randrange(symbols)] += 1
    weights[0 if weights[0] == 0 else symbols - 1] += 1
    out = [weight * total // (sum(weights) + 1) or int(weight > 0) for weight in weights]
    while sum(out) != total:
        step = 1 if sum(out) < total else -1
        at = chance.choice([i for i, f in enumerate(out) if f + step >= 1 and f + step < total])
        out[at] += step
    return out + [0] * (alphabet - symbols)


Slots = list[tuple[int, int, int]]


def _push(x: int, symbol: int, slots: Slots, word: int, emit: list[int]) -> int:
    """The state before this symbol; ``word`` is the bits of a word."""
    frequency = next(f for s, f, _ in slots if s == symbol)
    if x >= frequency << (20 if word == 16 else 8):
        emit.append(x & (1 << word) - 1)
        x >>= word
    return x // frequency * len(slots) + slots.index((symbol, frequency, x % frequency))


def _rans(sections: Sequence[Sequence[tuple[int, Slots]]]) -> bytes:
    """Codec 2: sections of symbols, each with the slots of its context."""
    states, words = [1 << 16] * 32, list[int]()
    for section in reversed(sections):
        for i in reversed(range(len(section))):
            states[i % 32] = _push(states[i % 32], *section[i], 16, words)
    return struct.pack("<32I", *states) + struct.pack(f"<{len(words)}H", *reversed(words))


def _lanes(symbols: Sequence[Sequence[int]], steps: int, slots: Callable[[int, int], Slots]) -> bytes:
    """Codec 3: symbols by position."""
    groups = -(-len(symbols) // 64)
    states, stored = [[256] * 64 for _ in range(min(groups, 4))], list[int]()
    for first in reversed(range(0, groups, 4)):
        for t in reversed(range(steps)):
            for g in reversed(range(first, min(first + 4, groups))):
                for i in reversed(range(min(64, len(symbols) - 64 * g))):
                    state = states[g - first]
                    state[i] = _push(state[i], symbols[64 * g + i][t], slots(g, t), 8, stored)
    return b"".join(struct.pack("<64H", *state) for state in states) + bytes(reversed(stored))


def _pack_bits(values: Sequence[int], width: int) -> bytes:
    whole = sum(value << i * width for i, value in enumerate(values))
    return whole.to_bytes((len(values) * width + 7) // 8, "little")


def _random_quant_table(chance: random.Random, schema: QuantSchema, classes: int) -> bytes:
    keys, contexts = chance.choice((1, 2, 9, 40)), chance.randint(1, 4)
    part = chance.randrange(keys)
    shifts = [chance.randrange(4), chance.randrange(4)]
    counts = [chance.choice((0, 5, 200)), chance.choice((0, 5, 200))]
    bases = [0 if count else chance.randrange(1 << 15) for count in counts]
    head = struct.pack(
        "<BBBBHHHBBBBHH",
        1,
        chance.randrange(2) if schema.extrema else 0,
        *shifts,
        *bases,
        keys,
        classes,
        contexts,
        chance.randrange(contexts),
        0,
        *counts,
    )
    maps = [
        bytes(chance.randint(0, most) for _ in range(n)) for most, n in ((part, 128), (keys - 1 - part, 64))
    ]
    maps += [bytes(chance.randrange(contexts) for _ in range(n)) for n in (256, 128)]
    values = [
        struct.pack("<H", chance.choice((0, 0x8000, chance.randrange(1 << 16)))) for _ in range(sum(counts))
    ]
    heads = [struct.pack("<256H", *_frequencies(chance, 256, 256, 4096)) for _ in range(contexts)]
    codes = [
        bytes(_frequencies(chance, 1 << schema.bits - schema.low, schema.alphabet, 256))
        for _ in range(keys * classes)
    ]
    return b"".join([head, *maps, *values, *heads, *codes])


def _some(chance: random.Random, slots: Slots) -> int:
    return chance.choice(slots)[0]


def _random_quant(seed: int, schema: QuantSchema) -> Chunk:
    """Random symbols by a random model, none of which need be of blocks that a quantizer would make."""
    chance = random.Random(f"{seed} {schema.name}")
    row_blocks = chance.randint(1, 3)
    n = row_blocks * chance.randint(1, 700 // schema.lanes // row_blocks + 1)
    classes = chance.choice((1, 3))
    content = _random_quant_table(chance, schema, classes)
    kind, table = MODELS.TYPES[schema.name], MODELS.quant_table(schema.name, content)
    tables = [content]
    columns = None
    if classes > 1:
        columns = bytes(chance.randrange(classes) for _ in range(row_blocks * schema.codes))
        tables.append(columns)

    numbers: list[list[int]] = []
    sections: list[list[tuple[int, Slots]]] = []
    low, exceptions = [], []
    for k in range(schema.numbers):
        used = [0] * n if k == 0 else [table.second_contexts[p >> 7 & 255] for p in numbers[0]]
        shift, values = table.shifts[k], table.values[k]
        symbols = [
            _some(chance, [e for e in table.rans(c) if e[0] << shift < len(values)] or [(0, 0, 0)])
            for c in used
        ]
        if any(symbol not in {e[0] for e in table.rans(c)} for symbol, c in zip(symbols, used, strict=True)):
            return _random_quant(seed + 1000, schema)
        lows = [chance.randrange(min(1 << shift, len(values) - (symbol << shift))) for symbol in symbols]
        numbers.append([values[symbol << shift | each] for symbol, each in zip(symbols, lows, strict=True)])
        places = [chance.randrange(n) for _ in range(chance.randrange(min(n, 4)))]
        listed = [(place, chance.randrange(1 << 16)) for place in places]
        for place, pattern in listed:
            numbers[k][place] = pattern
        sections.append([(symbol, table.rans(c)) for symbol, c in zip(symbols, used, strict=True)])
        low.append(_pack_bits(lows, shift))
        exceptions.append(b"".join(struct.pack("<IH", *each) for each in listed))
    scales = bytes(_some(chance, table.rans(table.scale_context)) for _ in range(n * schema.scales))
    sections.append([(scale, table.rans(table.scale_context)) for scale in scales])
    minima = []
    for j in range(n * schema.mins):
        first, second = (numbers[k][j // schema.mins] & 0x7FFF for k in (0, 1))
        expected = first - second + 4096 + MODELS.log1024(scales[j])
        slots = table.rans(table.minimum_contexts[max(0, min(expected // 128, 127))])
        minima.append((_some(chance, slots), slots))
    sections.append(minima)
    counts = [len(each) // 6 for each in exceptions] + [0, 0]
    tails = struct.pack("<III", row_blocks, *counts[:2]) + b"".join(low + exceptions)

    lanes, steps = n * schema.lanes, schema.elements - (schema.extrema if table.extrema else 0)
    mins = bytes(symbol for symbol, _ in minima)
    order, groups = MODELS.lanes_order(kind, table, numbers, scales, mins, row_blocks, columns)
    symbols_of = [
        [_some(chance, table.lanes(groups[i // 64][t])) for t in range(steps)] for i in range(len(order))
    ]
    codes = _lanes(symbols_of, steps, lambda g, t: table.lanes(groups[g][t]))
    rest = chance.randbytes(lanes * schema.elements * schema.low // 8)
    if table.extrema:
        width = 2 if schema.low == 4 else 5 * schema.extrema
        top = 1 << width if schema.extrema == 1 else 31 << 5  # else the second may be where the first is
        rest += _pack_bits([chance.randrange(top) for _ in range(lanes)], width)
    heads = _rans(sections)
    return Chunk(
        Transform.QUANT,
        schema.name,
        [
            CodedStream(Codec.RANS, 0, heads, n * schema.heads),
            CodedStream(Codec.RAW, NO_TABLE, tails, len(tails)),
            CodedStream(Codec.LANES, 0, codes, lanes * steps),
            CodedStream(Codec.RAW, NO_TABLE, rest, len(rest)),
        ],
        tables,
        n * schema.size,
    )


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
def test_random_quant_models(schema: QuantSchema) -> None:
    for seed in range(4):
        assert agree(_random_quant(seed, schema)), f"seed {seed}: rejected"


def _random_values(seed: int) -> Chunk:
    chance = random.Random(seed)
    form = chance.randrange(4)
    width, key_bits = MODELS.ValuesTable.FORMS[form]
    coarse = []
    for _ in range(chance.choice((0, 1, 5))):
        bits = chance.randrange(key_bits + 1)
        coarse.append((chance.randrange((1 << key_bits) - (1 << bits) + 1), bits))
    plain = chance.randint(0 if coarse else 1, 256 - len(coarse))
    if plain + len(coarse) == 1:
        plain = 2
    contexts, n, segment = chance.randint(1, 4), chance.randint(1, 300), 32 * chance.randint(1, 4)
    content = struct.pack("<BBHHBB", 2, form, chance.randrange(1 << key_bits), plain, contexts, len(coarse))
    content += b"".join(struct.pack("<HB", *each) for each in coarse)
    for _ in range(contexts):
        content += struct.pack("<256H", *_frequencies(chance, plain + len(coarse), 256, 4096))
    table = MODELS.values_table(content)
    classes = bytes(chance.randrange(contexts) for _ in range(-(-n // segment)))
    symbols = [
        (_some(chance, table.rans(classes[i // segment])), table.rans(classes[i // segment]))
        for i in range(n)
    ]
    extras = sum(coarse[symbol - plain][1] for symbol, _ in symbols if symbol >= plain)
    low, words = table.raw_sizes(n)
    streams = [
        CodedStream(Codec.RAW, NO_TABLE, struct.pack("<H", segment) + classes, 2 + len(classes)),
        CodedStream(Codec.RANS, 0, _rans([symbols]), n),
        *(CodedStream(Codec.RAW, NO_TABLE, chance.randbytes(s), s) for s in ((extras + 7) // 8, low, words)),
    ]
    layout = ("bytes", "float2", "float2", "float4")[form]
    return Chunk(Transform.VALUES, layout, streams, [content], n * width)


def test_random_values_models() -> None:
    for seed in range(60):
        assert agree(_random_values(seed)), f"seed {seed}: rejected"


# --- damage ---


def _damaged(chunk: Chunk, chance: random.Random) -> Chunk:
    """One thing is changed: a bit, length or entry of a stream; a bit or length of a table; the tables."""
    streams, tables = list(chunk.streams), list(chunk.tables)
    at, which = chance.randrange(len(streams)), chance.randrange(len(tables))
    body, content = bytearray(streams[at].body), bytearray(tables[which])
    match chance.randrange(12):
        case 0 | 1 | 2 if body:
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        case 3 if body:  # where most of the rules are
            body[chance.randrange(min(len(body), 16))] = chance.choice((0, 1, 255, chance.randrange(256)))
        case 4:
            del body[chance.randrange(len(body) + 1) :]
        case 5:
            body += chance.randbytes(chance.randint(1, 3))
        case 6 | 7:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        case 8:
            content[chance.randrange(min(len(content), 18))] = chance.choice(
                (0, 1, 255, chance.randrange(256))
            )
        case 9:
            content = bytearray(
                chance.choice([content[:-1], content + b"\0", content[: chance.randrange(len(content))]])
            )
        case 10:
            entry = streams[at]
            changed = [
                entry._replace(codec=chance.randrange(5)),
                entry._replace(slot=chance.choice((0, NO_TABLE))),
                entry._replace(size=max(0, entry.size + chance.choice((-1, 1, 100)))),
            ]
            streams[at] = chance.choice(changed)
            return chunk._replace(streams=streams)
        case _:
            one = chance.choice([tables * 2, tables[:-1], tables[::-1], [*tables, bytes(8)]])
            rest = chance.choice([streams[:-1], [*streams, streams[0]], streams])
            return chunk._replace(tables=one, streams=rest)
    size = len(body) if streams[at].codec == Codec.RAW and chance.randrange(4) else streams[at].size
    streams[at] = streams[at]._replace(body=bytes(body), size=size)
    tables[which] = bytes(content) or b"\0"
    return chunk._replace(streams=streams, tables=tables)


def _damage(chunk: Chunk, seed: int, rounds: int) -> None:
    for i in range(rounds):
        broken = _damaged(chunk, random.Random(f"{seed} {i}"))
        try:
            agree(broken)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, round {i}: {error}") from None


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
def test_damaged_quant_chunks(schema: QuantSchema) -> None:
    for seed in range(2):
        _damage(_random_quant(seed, schema), seed, 60)


def test_damaged_values_chunks() -> None:
    for seed in range(8):
        _damage(_random_values(seed), seed, 80)


def test_a_second_extremum_where_the_first_is() -> None:
    schema = SCHEMAS["Q4_1"]
    part = _quantized(schema)[0]
    chunk = _packed(schema, part, True, False)
    rest = bytearray(chunk.streams[3].body)
    rest[0:2] = b"\xe0\xff"  # place 31 of the second, place 0 of the first
    broken = [*chunk.streams[:3], chunk.streams[3]._replace(body=bytes(rest))]
    assert not agree(chunk._replace(streams=broken))


# --- whole containers ---


@pytest.mark.parametrize(
    "source", ["gguf/q4_k", "gguf/q8_0", "gguf/q2_k", "gguf/bf16", "safetensors/f8_e4m3"]
)
def test_packed_sources(source: str) -> None:
    """Some of those that models pay for, from file to file."""
    (path,) = SOURCES.glob(f"{source}.*")
    packed = io.BytesIO()
    qzf.pack(path, packed)
    container = REFERENCE.open_container(memoryview(packed.getvalue()))
    used = {chunk.record.transform for chunk in container.chunks}
    assert used & {Transform.QUANT, Transform.VALUES}, "no chunk is modelled"
    (member,) = container.members
    assert b"".join(map(bytes, REFERENCE.decode_member(container, member))) == path.read_bytes()
