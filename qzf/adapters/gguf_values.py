"""GGUF metadata values as plain JSON data.

Source: ``docs/gguf.md`` (gguf_metadata_value_t) and ``src/gguf.cpp`` in ggml-org/ggml. Where JSON cannot
say it, or the catalog should not hold it:

- NaN and infinities are the strings ``"nan"``, ``"inf"`` and ``"-inf"``;
- a float32 is the shortest decimal that rounds to it, or of a few powers of two one with a digit more;
- bytes of a string that are no UTF-8 become U+FFFD;
- too long a string is ``{"type": "string", "length": bytes}``, too long an array
  ``{"type": "array", "of": element type, "length": elements}``, unless everything is asked for.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from qzf import limits
from qzf.adapters.gguf_cursor import Cursor
from qzf.model import ArraySpec, Extent

__all__ = ["ARRAY", "STRING", "TYPE_NAMES", "UINT32", "ValueReader"]

UINT32: Final = 4
FLOAT32: Final = 6
FLOAT64: Final = 12
STRING: Final = 8
ARRAY: Final = 9

TYPE_NAMES: Final = {
    0: "uint8",
    1: "int8",
    2: "uint16",
    3: "int16",
    UINT32: "uint32",
    5: "int32",
    FLOAT32: "float32",
    7: "bool",
    STRING: "string",
    ARRAY: "array",
    10: "uint64",
    11: "int64",
    FLOAT64: "float64",
}

#: Codes of ``struct`` for the types of fixed size. A bool is true unless it is 0, as gguf.cpp has it.
_CODES: Final = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    UINT32: "I",
    5: "i",
    FLOAT32: "f",
    7: "?",
    10: "Q",
    11: "q",
    FLOAT64: "d",
}
_WIDTHS: Final = {number: struct.calcsize(f"<{code}") for number, code in _CODES.items()}
_FLOAT: Final = struct.Struct("<f")
#: What is as large as this rounds to no float32; what is smaller than the other has fewer digits.
_TOO_LARGE: Final = (2 - 2**-24) * 2.0**127
_SUBNORMAL: Final = 2.0**-126

#: What tensors of such numbers have for a dtype; strings have a name that no tensor has.
_TENSOR_DTYPES: Final = {
    number: "BOOL" if name == "bool" else f"{name[0].upper()}{8 * _WIDTHS[number]}"
    for number, name in TYPE_NAMES.items()
    if number in _WIDTHS
} | {STRING: "STRING"}

#: Fewest bytes of an element: a string's length; an array's element type and length.
_STRING_BYTES: Final = 8
_ARRAY_BYTES: Final = 12


@dataclass
class ValueReader:
    """Reads values at the cursor; ``full`` means nothing is left out, however long.

    ``arrays`` are the long ones that were left out, by offset.
    """

    cursor: Cursor
    full: bool = False
    arrays: list[ArraySpec] = field(default_factory=list)
    _strings: int = limits.GGUF_MAX_STRINGS
    _nested: int = limits.GGUF_MAX_NESTED
    _spent: int = 0
    _stops: int = field(default_factory=lambda: limits.GGUF_MAX_STOPS)

    def value(self, number: int, what: str) -> Any:
        """Read one value of the type ``number``, which is in `TYPE_NAMES`."""
        if number == STRING:
            return self._string(what)
        if number == ARRAY:
            return self._array(what, depth=1)
        return self._numbers(number, 1, what)[0]

    def type_number(self, what: str) -> int:
        """Read a value type and check that there is one of that number."""
        start = self.cursor.at
        number = self.cursor.u32(f"the type of {what}")
        if number not in TYPE_NAMES:
            raise self.cursor.error(f"{what} has the unknown value type {number}", offset=start)
        return number

    def _string(self, what: str) -> Any:
        length = self.cursor.length(what)
        if self._inline(length, length <= limits.METADATA_MAX_STRING):
            return self.cursor.take(length, what).decode("utf-8", errors="replace")
        self.cursor.skip(length, what)
        return {"type": "string", "length": length}

    def _array(self, what: str, depth: int) -> Any:
        of = self.type_number(f"an element of {what}")
        start = self.cursor.at
        count = self.cursor.u64(f"the length of {what}")
        smallest = _WIDTHS.get(of, _STRING_BYTES if of == STRING else _ARRAY_BYTES)
        if count * smallest > self.cursor.remaining:
            raise self.cursor.error(
                f"{what} has {count} elements of at least {smallest} bytes, "
                f"the file has {self.cursor.remaining} more",
                offset=start,
            )
        inline, begin = self._inline(count * smallest, count <= limits.METADATA_MAX_ARRAY), self.cursor.at
        stops: list[int] = []
        if of in _WIDTHS:
            values = self._fixed(of, count, what, inline)
        elif of == STRING:
            values = self._string_array(count, what, inline, start, stops)
        else:
            values = self._array_array(count, what, inline, start, depth)
        if inline:
            return values
        extent = Extent(begin, self.cursor.at - begin)
        if depth == 1 and of != ARRAY and extent.size >= limits.GGUF_MIN_ARRAY:
            self._stops -= len(stops)
            self.arrays.append(ArraySpec(extent, _TENSOR_DTYPES[of], tuple(stops)))
        return {"type": "array", "of": TYPE_NAMES[of], "length": count}

    def _fixed(self, number: int, count: int, what: str, inline: bool) -> list[Any]:
        if not inline:
            self.cursor.skip(count * _WIDTHS[number], what)
            return []
        return self._numbers(number, count, what)

    def _numbers(self, number: int, count: int, what: str) -> list[Any]:
        """Read numbers of the type ``number``, as JSON can say them."""
        data = self.cursor.take(count * _WIDTHS[number], what)
        values: list[Any] = list(struct.unpack(f"<{count}{_CODES[number]}", data))
        if number == FLOAT32:
            return [_shortest(value) for value in values]
        if number != FLOAT64:
            return values
        return [value if math.isfinite(value) else str(value) for value in values]

    def _string_array(self, count: int, what: str, inline: bool, start: int, stops: list[int]) -> list[Any]:
        """Strings that are left out add to ``stops`` where some of them begin."""
        self._strings -= count
        if self._strings < 0:
            raise self.cursor.error(
                f"more than {limits.GGUF_MAX_STRINGS} strings in metadata arrays", offset=start
            )
        if inline:
            return [self._string(f"a string in {what}") for _ in range(count)]
        stops += self.cursor.skip_strings(count, what, self._stops)
        return []

    def _array_array(self, count: int, what: str, inline: bool, start: int, depth: int) -> list[Any]:
        self._nested -= count
        if self._nested < 0:
            raise self.cursor.error(
                f"more than {limits.GGUF_MAX_NESTED} arrays in metadata arrays", offset=start
            )
        if depth >= limits.GGUF_MAX_NESTING:
            raise self.cursor.error(
                f"{what} nests arrays more than {limits.GGUF_MAX_NESTING} deep", offset=start
            )
        values = []
        for _ in range(count):
            value = self._array(what, depth + 1)
            if inline:
                values.append(value)
        return values

    def _inline(self, cost: int, short: bool) -> bool:
        """Say whether a value of ``cost`` bytes goes into the metadata, and if so count them."""
        if self.full and self._spent + cost > limits.METADATA_MAX_FULL:
            raise self.cursor.error(f"more than {limits.METADATA_MAX_FULL} bytes of metadata")
        if not self.full and (not short or self._spent + cost > limits.METADATA_MAX_TOTAL):
            return False
        self._spent += cost
        return True


def _shortest(value: float) -> float | str:
    """The decimal of a float32, or its name where it is no number."""
    if not math.isfinite(value):
        return str(value)
    packed = _FLOAT.pack(value)
    for digits in range(6 if abs(value) >= _SUBNORMAL else 1, 9):
        decimal = float(f"{value:.{digits}g}")
        if abs(decimal) < _TOO_LARGE and _FLOAT.pack(decimal) == packed:
            return decimal
    return float(f"{value:.9g}")
