"""Layouts of the ``fields`` transform: into which streams the bytes of a block go.

A layout is a block size and a list of steps, each of which yields one or more streams; every bit of
the block is used by exactly one step. The normative text is ``spec/qzf-format.md``, "Layouts".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from qzf import quant
from qzf.quant import GgmlType

__all__ = ["BY_ID", "BY_NAME", "Codes", "Copy", "Layout", "MaskCodes", "Planes", "Step"]


class Copy(NamedTuple):
    """One stream: the ``width`` bytes at ``offset`` of each block."""

    offset: int
    width: int

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.width,)


class Planes(NamedTuple):
    """``size`` streams of one byte a block, least significant first; the block is one number.

    With ``rotate`` the number is first rotated left by one bit, so that a float's sign moves to bit 0
    and the top byte holds exponent bits first.
    """

    size: int
    rotate: bool

    @property
    def widths(self) -> tuple[int, ...]:
        return (1,) * self.size


class Codes(NamedTuple):
    """One stream: codes put together from a low and a high field, one byte a code.

    For each entry (low offset, low shift, high offset, high shift) of ``planes``, in this order, and
    each lane l below ``lanes``: the ``low_bits`` bits of byte (low offset + l) from bit (low shift) up,
    below the ``high_bits`` bits of byte (high offset + l) from bit (high shift) up.
    """

    lanes: int
    low_bits: int
    high_bits: int
    planes: tuple[tuple[int, int, int, int], ...]

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.lanes * len(self.planes),)


class MaskCodes(NamedTuple):
    """One stream: codes whose highest bit comes from a bit mask, one byte a code.

    For each entry (low offset, low shift, mask offset) of ``planes``, in this order, and each lane l
    below ``lanes`` (a multiple of 8): the ``low_bits`` bits of byte (low offset + l) from bit
    (low shift) up, below bit (l mod 8) of byte (mask offset + l div 8).
    """

    lanes: int
    low_bits: int
    planes: tuple[tuple[int, int, int], ...]

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.lanes * len(self.planes),)


Step = Copy | Planes | Codes | MaskCodes


class Layout(NamedTuple):
    """A block of ``block`` bytes, split by ``steps``."""

    wire_id: int
    name: str
    block: int
    steps: tuple[Step, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes a block of each stream, in order."""
        return tuple(width for step in self.steps for width in step.widths)


def _bytes(width: int, offsets: Iterable[int]) -> Codes:
    """One stream of whole bytes: ``width`` from each of ``offsets`` on."""
    return Codes(width, 4, 4, tuple((at, 0, at, 4) for at in offsets))


def _regrouped(t: GgmlType) -> tuple[tuple[str, ...], tuple[Step, ...]] | None:
    """Fields that do not become streams as they are, and the steps that stand for them.

    Codes kept in two fields become one stream of whole codes. Not for Q3_K: a prefix code cannot do better
    than 3 bits on nearly uniform 3-bit codes. In codebook types grid indices and scales are parted from the
    signs, which are noise.
    """
    match t.name:
        case "Q5_0" | "Q5_1":
            low, mask = t.offset("qs"), t.offset("qh")
            return ("qh", "qs"), (MaskCodes(16, 4, ((low, 0, mask), (low, 4, mask + 2))),)
        case "Q5_K":
            low, high = t.offset("qs"), t.offset("qh")
            planes = tuple((low + 32 * (p // 2), 4 * (p % 2), high, p) for p in range(8))
            return ("qh", "qs"), (Codes(32, 4, 1, planes),)
        case "Q6_K":
            low, high = t.offset("ql"), t.offset("qh")
            planes = tuple(
                (low + 64 * h + 32 * (p % 2), 4 * (p // 2), high + 32 * h, 2 * p)
                for h in range(2)
                for p in range(4)
            )
            return ("ql", "qh"), (Codes(32, 4, 2, planes),)
        case "IQ2_XXS":  # 8 times: 4 indices, then 32 bits whose upper 4 are a scale
            start, end = t.offset("qs"), t.size
            scales = _bytes(1, range(start + 7, end, 8))
            return ("qs",), (scales, _bytes(3, range(start + 4, end, 8)), _bytes(4, range(start, end, 8)))
        case "IQ3_XXS":  # 64 indices, then 8 times 32 bits whose upper 4 are a scale
            start, end = t.offset("qs"), t.size
            scales = _bytes(1, range(start + 67, end, 4))
            return ("qs",), (scales, _bytes(3, range(start + 64, end, 4)), Copy(start, 64))
        case "IQ1_M":  # the upper halves of the odd bytes are d
            start, end = t.offset("scales"), t.size
            halves = (Copy(at, 1) for at in range(start + 1, end, 2))
            return ("scales",), (_bytes(1, range(start, end, 2)), *halves)
    return None


def _steps(t: GgmlType) -> tuple[Step, ...]:
    """Scales byte by byte, other fields whole, those that are regrouped last."""
    taken, regrouped = _regrouped(t) or ((), ())
    steps: list[Step] = []
    for field in t.fields:
        if field.name in taken:
            continue
        at, width = t.offset(field.name), field.size
        if field.count == 1:
            steps += [Copy(at + i, 1) for i in range(width)]
        else:
            steps.append(Copy(at, width))
    return (*steps, *regrouped)


#: Block layouts have the GGML type number plus this as their wire id.
GGML_BASE: Final = 64

_NUMBERS = (
    Layout(1, "planes2", 2, (Planes(2, rotate=False),)),
    Layout(2, "planes4", 4, (Planes(4, rotate=False),)),
    Layout(3, "planes8", 8, (Planes(8, rotate=False),)),
    Layout(4, "float2", 2, (Planes(2, rotate=True),)),
    Layout(5, "float4", 4, (Planes(4, rotate=True),)),
    Layout(6, "float8", 8, (Planes(8, rotate=True),)),
    Layout(7, "bytes", 1, (Copy(0, 1),)),
)
_BLOCKS = tuple(
    Layout(GGML_BASE + t.number, t.name, t.size, _steps(t))
    for t in quant.BY_NUMBER.values()
    if t.name not in quant.PLAIN
)

BY_ID: Final = {layout.wire_id: layout for layout in (*_NUMBERS, *_BLOCKS)}
BY_NAME: Final = {layout.name: layout for layout in BY_ID.values()}
