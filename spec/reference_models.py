"""The transforms `quant` and `values` of the slow decoder: sections 4.4 and 4.5 of spec/qzf-format.md, and
the pages of their codecs and tables.

Part of reference_decoder.py, for which it is too long. It imports only the standard library, and reads the
types, and where their blocks keep what, from the text itself. Whatever the input, it ends well or raises
`Broken`.
"""

from __future__ import annotations

import re
import struct
from ast import literal_eval
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from pathlib import Path

Bytes = bytes | memoryview
Slots = list[tuple[int, int, int]]  # for each slot: symbol, its frequency, rank
Coded = namedtuple("Coded", "codec slot stored size")  # a stream as section 4.2 has it

RAW, ZSTD, RANS, LANES, NO_TABLE = 0, 1, 2, 3, 255
# Section 6, Limits; those without a name there follow from the fields.
MAX_KEYS, MAX_COLUMN_CLASSES, MAX_CONTEXTS, MAX_SORTED = 256, 16, 64, 1 << 20
MAX_VALUES_CONTEXTS = 16


class Broken(Exception):  # noqa: N818
    """The chunk, or a table that it names, breaks a rule of `section`."""

    def __init__(self, section: str, message: str) -> None:
        super().__init__(message)
        self.section = section


def must(condition: bool, section: str, message: str) -> None:
    if not condition:
        raise Broken(section, message)


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


class Cursor:
    """Reads a table field by field."""

    def __init__(self, data: Bytes, page: str) -> None:
        self.data, self.page, self.at = bytes(data), page, 0

    def take(self, size: int) -> bytes:
        must(self.at + size <= len(self.data), self.page, "the table ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def read(self, form: str) -> tuple[int, ...]:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))

    def end(self) -> None:
        must(self.at == len(self.data), self.page, "the table has another size")


def unpack_bits(data: Bytes, count: int, width: int) -> list[int]:
    """`count` numbers of `width` bits, packed from the lowest bit of the first byte up."""
    out: list[int] = []
    for first in range(0, count, 512):  # in parts, as to shift one large integer each time would take long
        part = int.from_bytes(data[first * width // 8 : (first + 512) * width // 8], "little")
        out += [part >> i * width & (1 << width) - 1 for i in range(min(512, count - first))]
    return out


def packed_size(count: int, width: int) -> int:
    return (count * width + 7) // 8


# === 4.4 Transform quant ==============================================================================
# --- the table of types, and where blocks keep what ---
Type = namedtuple(
    "Type",
    "name block codes elements bits low numbers scales minima extrema alphabet log "
    "number_places scale_places minimum_places code_places inverted",
)
Part = tuple[int, int, int, int, int]  # item, its lowest bit, number of bits, byte, its lowest bit


def part(i: int, n: int, b: int, w: int, o: int, s: int) -> list[Part]:
    return [(i + j, b, w, o + j, s) for j in range(n)]


def planes(b: int, w: int, l: int, k: int, *o: int) -> list[Part]:  # noqa: E741
    order = [(at, p) for at in o for p in range(k)]
    return [each for i, (at, p) in enumerate(order) for each in part(l * i, l, b, w, at, w * p)]


def signed(l: int, o: int) -> list[Part]:  # noqa: E741
    return planes(0, 8, l, 1, o)  # and bit 7 of these bytes is inverted


def read_places(cell: str) -> list[Part]:
    notation: dict[str, Callable[..., list[Part]]] = {"part": part, "planes": planes, "signed": signed}
    steps = re.findall(r"([a-z]+)(\(.+?\))", cell)
    return [each for step, arguments in steps for each in notation[step](*literal_eval(arguments))]


def read_types() -> dict[str, Type]:
    """The two tables of section 4.4, as they stand in the text beside this file."""
    text = Path(__file__).with_name("qzf-format.md").read_text(encoding="utf-8")
    places = {}
    for name, numbers, *cells in re.findall(r"^\| `(\w+)` \|" + r" ([^|]+) \|" * 4 + "$", text, re.M):
        numbered = [int(at) for at in re.findall(r"\d+", numbers)]
        inverted = [byte for _, _, _, byte, _ in read_places(cells[-1]) if cells[-1].startswith("signed")]
        places[name] = [numbered, *map(read_places, cells), inverted]
    rows = re.findall(r"^\| `(\w+)` \| (\d+(?: \| \d+){9}) \| `(\w+)` \|$", text, re.M)
    return {
        name: Type._make([name, *map(int, row.split(" | ")), log, *places[name]]) for name, row, log in rows
    }


TYPES = read_types()


# --- the streams ---
Tails = namedtuple("Tails", "row_blocks low exceptions")


def decode_quant(name: str, streams: Sequence[Coded], tables: Sequence[bytes], n: int) -> bytes:
    """The n blocks of a chunk whose layout is `name`; `tables` are those that it names, in order."""
    must(name in TYPES, "4.4", f"the transform does not know {name}")
    kind = TYPES[name]
    used = [(stream.codec, stream.slot) for stream in streams]
    must(used == [(RANS, 0), (RAW, NO_TABLE), (LANES, 0), (RAW, NO_TABLE)], "4.4", "other codecs or tables")
    must(len(tables) in (1, 2), "4.4", f"{len(tables)} tables")
    table = quant_table(name, tables[0])
    heads, tails, codes, rest = streams
    lanes = n * kind.codes // kind.elements
    steps = kind.elements - (kind.extrema if table.extrema else 0)
    must(heads.size == n * (kind.numbers + kind.scales + kind.minima), "4.4", "heads of another size")
    must(codes.size == lanes * steps, "4.4", "codes of another size")
    must(
        tails.size == len(tails.stored) and rest.size == len(rest.stored),
        "codecs/00-raw",
        "a raw stream's size",
    )
    low = lanes * kind.elements * kind.low // 8
    width = (5 * kind.extrema if kind.low < 4 else 2) if table.extrema else 0
    must(rest.size == low + packed_size(lanes, width), "4.4", "the rest has another size")

    parsed = parse_tails(kind, table, tails.stored, n)
    numbers, scales, minima = decode_heads(kind, table, heads.stored, parsed, n)
    row_blocks, columns = parsed.row_blocks, None
    if len(tables) == 2:
        columns = column_classes(kind, table, tables[1], row_blocks)
    must(
        (columns is not None) == (table.column_classes > 1),
        "4.4",
        "a table of column classes too many, or none",
    )
    order, groups = lanes_order(kind, table, numbers, scales, minima, row_blocks, columns)
    coded = decode_lanes(codes.stored, lanes, steps, lambda g, t: table.lanes(groups[g][t]))

    symbols = [bytearray(kind.elements)] * lanes  # replaced one by one
    for position, lane in enumerate(order):
        symbols[lane] = coded[position * steps : (position + 1) * steps] + bytes(kind.elements - steps)
    add_low_bits(kind, symbols, rest.stored[:low])
    if table.extrema:
        places = unpack_bits(rest.stored[low:], lanes, width)
        for lane, place in enumerate(places):  # a block of these types is one lane
            put_extrema(kind, symbols[lane], place, zero=numbers[0][lane] & 0x7FFF == 0)
    return merge_blocks(kind, numbers, scales, minima, b"".join(symbols), n)


# --- tails and heads ---
def parse_tails(kind: Type, table: QuantTable, data: Bytes, n: int) -> Tails:
    must(len(data) >= 12, "4.4", "the tails are cut short")
    row_blocks, *counts = struct.unpack("<III", data[:12])
    must(row_blocks > 0 and n % row_blocks == 0, "4.4", f"rows of {row_blocks} blocks, {n} in the chunk")
    sizes = [packed_size(n, shift) for shift in table.shifts[: kind.numbers]] + [
        6 * count for count in counts
    ]
    for k, count in enumerate(counts):
        must(count <= (n if k < kind.numbers else 0), "4.4", "more exceptions than numbers")
    must(len(data) == 12 + sum(sizes), "4.4", "the tails have another size")
    ends = list(accumulate(sizes, initial=12))
    parts = [data[start:end] for start, end in pairwise(ends)]
    low = [unpack_bits(parts[k], n, table.shifts[k]) for k in range(kind.numbers)]
    exceptions = [list(struct.iter_unpack("<IH", each)) for each in parts[kind.numbers :]]
    return Tails(row_blocks, low, exceptions)


Numbers = list[list[int]]


def decode_heads(
    kind: Type, table: QuantTable, data: Bytes, tails: Tails, n: int
) -> tuple[Numbers, bytes, bytes]:
    """Numbers, scales and minima."""
    rans = Rans(data)
    numbers: Numbers = []
    for k in range(kind.numbers):
        contexts = [0] * n if k == 0 else [table.second_contexts[first >> 7 & 255] for first in numbers[0]]
        symbols, values, shift = rans.section(table.rans, contexts), table.values[k], table.shifts[k]
        ranks = [symbol << shift | low for symbol, low in zip(symbols, tails.low[k], strict=True)]
        must(max(ranks) < len(values), "4.4", "a number that is not in the list")
        numbers.append([values[rank] for rank in ranks])
        for place, pattern in tails.exceptions[k]:
            must(place < n, "4.4", "an exception of no block")
            numbers[k][place] = pattern
    scales = rans.section(table.rans, [table.scale_context] * (n * kind.scales))
    contexts, each = [], kind.minima
    for j in range(n * each):
        first, second = (numbers[k][j // each] & 0x7FFF for k in (0, 1))
        expected = first - second + 4096 + log1024(scales[j])
        contexts.append(table.minimum_contexts[clamp(expected >> 7, 0, 127)])
    minima = rans.section(table.rans, contexts)
    rans.end()
    return numbers, scales, minima


# --- the order of lanes ---
@cache
def log1024(x: int) -> int:
    octave = x.bit_length() - 1
    return 1024 * octave + (1024 * x >> octave) if x else 0


def lane_logs(kind: Type, numbers: Numbers, scales: bytes, j: int, lane: int) -> int:
    """The logarithm of the scale of a lane, in block j."""
    if kind.log == "number":
        return numbers[0][j] & 0x7FFF
    scale = scales[lane]
    if kind.log == "e8m0":
        return scale << 7
    if kind.log == "ue4m3":
        return (scale & 127) << 7
    magnitude = {
        "product": scale,
        "signed": min(scale, 256 - scale),
        "offset32": abs(scale - 32),
        "nibbles": scale & 15,
    }[kind.log]
    return (numbers[0][j] & 0x7FFF) + log1024(magnitude)


def lanes_order(
    kind: Type,
    table: QuantTable,
    numbers: Numbers,
    scales: bytes,
    minima: bytes,
    row_blocks: int,
    columns: bytes | None,
) -> tuple[list[int], list[list[int]]]:
    """The lane at each position, and for each group the table of each step."""
    each = kind.codes // kind.elements
    row = row_blocks * each
    count = len(numbers[0]) * each if kind.numbers else len(scales)
    rows = count // row
    logs = [lane_logs(kind, numbers, scales, lane // each, lane) for lane in range(count)]
    column_sums = [sum(logs[c::row]) for c in range(row)]
    row_means = [sum(logs[r * row : (r + 1) * row]) // row for r in range(rows)]
    mean = sum(column_sums) // count

    keys = []
    for lane, log in enumerate(logs):
        residual = log - column_sums[lane % row] // rows - row_means[lane // row] + mean
        key = table.residual_keys[clamp(residual + 2048 >> 6, 0, 63)]
        ratio = -2048
        if kind.numbers == 2:
            ratio = (numbers[1][lane // each] & 0x7FFF) - log
            if kind.log == "nibbles":
                ratio += log1024(scales[lane] >> 4)
            elif kind.log == "product":
                ratio += log1024(minima[lane])
        keys.append(key + table.ratio_keys[clamp(ratio + 2048 >> 6, 0, 127)])

    order = sorted(range(count), key=lambda lane: (lane % row if columns else 0, keys[lane], lane))
    groups = []
    for first in range(0, count, 64):
        middle = order[min(first + 32, count - 1)]
        base, column = keys[middle] * table.column_classes, middle % row * kind.elements
        classes = columns[column : column + kind.elements] if columns else bytes(kind.elements)
        groups.append([base + each for each in classes])
    return order, groups


# --- low bits and extrema ---
def add_low_bits(kind: Type, symbols: list[bytearray], data: Bytes) -> None:
    """Put below each symbol what the rest has of its code: 4, 1 or no bits."""
    size = kind.elements * kind.low // 8
    for lane, codes in enumerate(symbols):
        mine = data[lane * size : (lane + 1) * size]
        for e in range(kind.elements if kind.low else 0):
            low = mine[e % 16] >> e // 16 * 4 & 15 if kind.low == 4 else mine[e // 8] >> e % 8 & 1
            codes[e] = codes[e] << kind.low | low


def put_extrema(kind: Type, codes: bytearray, place: int, zero: bool) -> None:
    """Exchange them with the last elements again."""
    top, middle = (1 << kind.bits) - 1, 1 << kind.bits - 1
    if kind.low == 4:
        first = (codes[31] & 15) + 16 * (place & 1)
        value = middle if zero else 1 if place & 2 else top
    else:
        first = place & 31
        value = middle if zero and kind.extrema == 1 else 0
    if kind.extrema == 2:
        second = place >> 5
        must(second < 31, "4.4", "the second extremum in the place of the first")
        codes[30], codes[second] = codes[second], 0 if zero else top
    codes[31] = codes[first]
    codes[first] = value


# --- blocks ---
def merge_blocks(kind: Type, numbers: Numbers, scales: bytes, minima: bytes, codes: bytes, n: int) -> bytes:
    empty = bytearray(kind.block)
    for byte in kind.inverted:
        empty[byte] = 0x80
    out = empty * n
    fields = [
        (scales, kind.scales, kind.scale_places),
        (minima, kind.minima, kind.minimum_places),
        (codes, kind.codes, kind.code_places),
    ]
    for i, at in enumerate(range(0, len(out), kind.block)):
        for k, place in enumerate(kind.number_places):
            out[at + place : at + place + 2] = struct.pack("<H", numbers[k][i])
        for items, count, places in fields:
            first = i * count
            for item, bit, width, byte, shift in places:
                out[at + byte] ^= (items[first + item] >> bit & (1 << width) - 1) << shift
    return bytes(out)


# === 4.5 Transform values =============================================================================
VALUES_WIDTH = {"float2": 2, "float4": 4, "bytes": 1}


def values_table_of(name: str, streams: Sequence[Coded], tables: Sequence[bytes], n: int) -> ValuesTable:
    """The table of a chunk of n numbers with layout `name`, once sizes and codecs of the streams fit it."""
    must(name in VALUES_WIDTH, "4.5", f"the transform does not know {name}")
    must(len(streams) == 5 and len(tables) == 1, "4.5", "other streams or tables")
    table = values_table(tables[0])
    must(table.width == VALUES_WIDTH[name], "4.5", "a table for numbers of another width")
    classes, symbols, extras, low, words = streams
    must((symbols.codec, symbols.slot, symbols.size) == (RANS, 0, n), "4.5", "other symbols")
    plain = all(each.codec in (RAW, ZSTD) and each.slot == NO_TABLE for each in (classes, extras, low, words))
    must(plain, "4.5", "another codec or table")
    must((low.size, words.size) == table.raw_sizes(n), "4.5", "raw bits of another size")
    must(classes.size <= 2 + (n + 31) // 32, "4.5", "too many classes")
    must(extras.size <= packed_size(n, table.key_bits), "4.5", "too many extra bits")
    return table


def decode_values(table: ValuesTable, coded: Bytes, plain: Sequence[bytes], n: int) -> bytes:
    """The n numbers of a chunk from its symbols and, decoded, its other streams."""
    classes, extras, low, words = plain
    must(len(classes) >= 2, "4.5", "the classes are cut short")
    segment, classes = int.from_bytes(classes[:2], "little"), classes[2:]
    must(segment > 0 and segment % 32 == 0, "4.5", f"segments of {segment} numbers")
    must(len(classes) == (n + segment - 1) // segment, "4.5", "the number of classes")
    must(max(classes) < table.contexts, "4.5", "a class that is not in the table")
    rans = Rans(coded)
    symbols = rans.section(table.rans, (classes[i // segment] for i in range(n)))
    rans.end()

    out, at = bytearray(), 0
    for i, symbol in enumerate(symbols):
        if symbol < table.plain:
            key = (table.key0 + symbol) % (1 << table.key_bits)
        else:
            base, bits = table.coarse[symbol - table.plain]
            must(at + bits <= 8 * len(extras), "4.5", "the extra bits are cut short")
            key = base + (int.from_bytes(extras[at // 8 : at // 8 + 3], "little") >> at % 8 & (1 << bits) - 1)
            at += bits
        out += table.number(key, i, low, words)
    must((at + 7) // 8 == len(extras), "4.5", "there are too many extra bits")
    return bytes(out)


# === 5 Codec 2, rans ==================================================================================
class Rans:
    """A stream being read, section by section."""

    PAGE = "codecs/02-rans"

    def __init__(self, data: Bytes) -> None:
        must(len(data) >= 128 and len(data) % 2 == 0, self.PAGE, "the stream is cut short")
        self.states = list(struct.unpack("<32I", data[:128]))
        must(min(self.states) >= 1 << 16, self.PAGE, "a state below 2^16")
        self.words = iter(struct.unpack(f"<{len(data) // 2 - 64}H", data[128:]))

    def section(self, tables: Callable[[int], Slots], contexts: Sequence[int] | Iterator[int]) -> bytes:
        """A symbol for each of the contexts."""
        out, states, words = bytearray(), self.states, self.words
        for i, context in enumerate(contexts):
            x = states[i & 31]
            symbol, frequency, rank = tables(context)[x & 4095]
            x = frequency * (x >> 12) + rank
            if x < 1 << 16:
                word = next(words, None)
                if word is None:
                    raise Broken(self.PAGE, "the stream is cut short")
                x = x << 16 | word
            states[i & 31] = x
            out.append(symbol)
        return bytes(out)

    def end(self) -> None:
        must(next(self.words, None) is None, self.PAGE, "the stream is too long")
        must(
            set(self.states) == {1 << 16}, self.PAGE, "the stream ends in other states than it was begun with"
        )


def rans_slots(frequencies: Sequence[int]) -> Slots:
    return [(symbol, f, rank) for symbol, f in enumerate(frequencies) for rank in range(f)]


def rans_frequencies(cursor: Cursor) -> tuple[int, ...]:
    frequencies = cursor.read("256H")
    fits = sum(frequencies) == 4096 and max(frequencies) < 4096
    must(fits, Rans.PAGE, "frequencies that are not below 4096, or do not add up to it")
    return frequencies


# === 5 Codec 3, lanes =================================================================================
LANES_PAGE = "codecs/03-lanes"


def decode_lanes(data: Bytes, lanes: int, steps: int, table: Callable[[int, int], Slots]) -> bytearray:
    """`steps` symbols of each lane; `table` has the slots of each group and step."""
    groups = (lanes + 63) // 64
    sets = min(groups, 4)
    must(len(data) >= 128 * sets, LANES_PAGE, "the stream is cut short")
    initial = struct.unpack(f"<{64 * sets}H", data[: 128 * sets])
    must(min(initial) >= 256, LANES_PAGE, "a state below 256")
    states = [list(initial[64 * s : 64 * s + 64]) for s in range(sets)]
    out, stored = bytearray(lanes * steps), iter(bytes(data[128 * sets :]))
    for first in range(0, groups, 4):
        for t in range(steps):
            for g in range(first, min(first + 4, groups)):
                state, slots = states[g - first], table(g, t)
                for lane in range(min(64, lanes - 64 * g)):
                    x = state[lane]
                    symbol, frequency, rank = slots[x & 255]
                    x = frequency * (x >> 8) + rank
                    if x < 256:
                        byte = next(stored, None)
                        if byte is None:
                            raise Broken(LANES_PAGE, "the stream is cut short")
                        x = x << 8 | byte
                    state[lane] = x
                    out[(64 * g + lane) * steps + t] = symbol
    must(next(stored, None) is None, LANES_PAGE, "the stream is too long")
    begun = all(x == 256 for state in states for x in state)
    must(begun, LANES_PAGE, "the stream ends in other states than it was begun with")
    return out


def lanes_slots(frequencies: Sequence[int]) -> Slots:
    """The alias method, by the rules of the page."""
    size = len(frequencies)
    capacity = 256 // size
    left, own, alias = list(frequencies), [capacity] * size, list(range(size))
    lacking = [s for s in range(size) if left[s] < capacity]
    for b in lacking:  # it grows on the way
        own[b] = left[b]
        alias[b] = next(s for s in range(size) if left[s] >= capacity)
        left[alias[b]] -= capacity - own[b]
        if left[alias[b]] < capacity:
            lacking.append(alias[b])
    slots: Slots = [(0, 0, 0)] * 256
    following = list(own)  # the next rank of each symbol, once those in its own bucket are taken
    for b in range(size):
        for j in range(capacity):
            symbol, rank = b, j
            if j >= own[b]:
                symbol = alias[b]
                rank = following[symbol]
                following[symbol] += 1
            slots[j * size + b] = symbol, frequencies[symbol], rank
    return slots


# === Tables ===========================================================================================
class QuantTable:
    """tables/01-quant."""

    PAGE = "tables/01-quant"

    def __init__(self, kind: Type, content: bytes) -> None:
        cursor = Cursor(content, self.PAGE)
        form, flags, *shifts, base0, base1 = cursor.read("BBBBHH")
        keys, self.column_classes, contexts, self.scale_context, reserved, *counts = cursor.read("HBBBBHH")
        self.must(form == 1, "it is of another kind")
        self.must(flags <= 1, "reserved flags are set")
        self.must(flags == 0 or kind.extrema > 0, "the type has no extrema")
        self.must(max(shifts) <= 8, "a shift above 8")
        self.must(1 <= keys <= MAX_KEYS, "the number of keys")
        self.must(1 <= self.column_classes <= MAX_COLUMN_CLASSES, "the number of column classes")
        self.must(1 <= contexts <= MAX_CONTEXTS, "the number of contexts")
        self.must(self.scale_context < contexts and reserved == 0, "scale_context, or a reserved byte")
        self.extrema, self.shifts, self.keys = flags == 1, shifts, keys
        self.ratio_keys, self.residual_keys = cursor.take(128), cursor.take(64)
        self.must(max(self.ratio_keys) + max(self.residual_keys) < keys, "a key that is not there")
        self.second_contexts, self.minimum_contexts = cursor.take(256), cursor.take(128)
        self.must(max(self.second_contexts + self.minimum_contexts) < contexts, "a context that is not there")
        self.values: list[Sequence[int]] = []
        for shift, base, count in zip(shifts, (base0, base1), counts, strict=True):
            values: Sequence[int] = cursor.read(f"{count}H")
            ranks = 256 << shift
            self.must(count <= ranks, "a list that is longer than its ranks reach")
            self.must(base == 0 if count else base + ranks <= 1 << 16, "a base that is out of range")
            self.values.append(values or range(base, base + ranks))
        scales = [rans_frequencies(cursor) for _ in range(contexts)]
        codes = [cursor.take(kind.alphabet) for _ in range(keys * self.column_classes)]
        cursor.end()
        must(all(sum(each) == 256 for each in codes), LANES_PAGE, "frequencies that do not add up to 256")
        symbols = 1 << kind.bits - kind.low
        self.must(not any(sum(each[symbols:]) for each in codes), "a frequency of no code")
        self.rans = cache(lambda context: rans_slots(scales[context]))
        self.lanes = cache(lambda table: lanes_slots(codes[table]))

    def must(self, condition: bool, message: str) -> None:
        must(condition, self.PAGE, message)


@lru_cache(4)
def quant_table(name: str, content: bytes) -> QuantTable:
    return QuantTable(TYPES[name], content)


class ValuesTable:
    """tables/02-values."""

    PAGE = "tables/02-values"
    FORMS = ((1, 8), (2, 12), (2, 8), (4, 12))  # width, bits of the key

    def __init__(self, content: bytes) -> None:
        cursor = Cursor(content, self.PAGE)
        kind, self.form, self.key0, self.plain, self.contexts, count = cursor.read("BBHHBB")
        must(kind == 2, self.PAGE, "it is of another kind")
        must(self.form < len(self.FORMS), self.PAGE, f"form {self.form} is unknown")
        self.width, self.key_bits = self.FORMS[self.form]
        keys = 1 << self.key_bits
        must(self.key0 < keys, self.PAGE, "a key that is not there")
        must(1 <= self.contexts <= MAX_VALUES_CONTEXTS, self.PAGE, "the number of contexts")
        must(1 <= self.plain + count <= 256, self.PAGE, "the number of symbols")
        self.coarse = [cursor.read("HB") for _ in range(count)]
        fits = all(bits <= 12 and base + (1 << bits) <= keys for base, bits in self.coarse)
        must(fits, self.PAGE, "a symbol for keys that are not there")
        frequencies = [rans_frequencies(cursor) for _ in range(self.contexts)]
        cursor.end()
        must(
            not any(sum(each[self.plain + count :]) for each in frequencies),
            self.PAGE,
            "a symbol that is not there",
        )
        self.rans = cache(lambda context: rans_slots(frequencies[context]))

    def raw_sizes(self, n: int) -> tuple[int, int]:
        """Bytes of `low` and `words` for n numbers."""
        return (0, (n + 1) // 2, n, (n + 1) // 2)[self.form], 2 * n if self.form == 3 else 0

    def number(self, key: int, i: int, low: bytes, words: bytes) -> bytes:
        """Number i: key, then raw bits, rotated right by one bit; a byte is its key."""
        if self.form == 0:
            return bytes([key])
        rotated = key << 8 | low[i] if self.form == 2 else key << 4 | low[i // 2] >> i % 2 * 4 & 15
        if self.form == 3:
            rotated = rotated << 16 | words[2 * i] | words[2 * i + 1] << 8
        number = rotated >> 1 | (rotated & 1) << 8 * self.width - 1
        return number.to_bytes(self.width, "little")


@lru_cache(4)
def values_table(content: bytes) -> ValuesTable:
    return ValuesTable(content)


def column_classes(kind: Type, table: QuantTable, content: bytes, row_blocks: int) -> bytes:
    """tables/03-columns."""
    page = "tables/03-columns"
    must(len(content) == row_blocks * kind.codes, page, "it has another size than a row has elements")
    must(max(content) < table.column_classes, page, "a class that is not there")
    row = row_blocks * kind.codes // kind.elements
    must(table.keys * row <= MAX_SORTED, page, "too many keys and columns")
    return content
