"""The ``fields`` transform: blocks of a quantized tensor <-> one stream for each of their fields.

What goes where is the matter of :mod:`qzf.transforms.layouts`; the work is done by the compiled core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from qzf import _core
from qzf.transforms.layouts import Codes, Copy, Layout, MaskCodes, Planes

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["divide", "isas", "merge", "native", "split"]


def isas() -> list[str]:
    """The instruction sets that :func:`split` and :func:`merge` can be told to use here, slowest first."""
    return _core.available_isas()


@cache
def native(layout: Layout) -> _core.Layout:
    """The core's form of ``layout``, made once; it is frozen, so threads may share it.

    ValueError where the steps do not use every bit of the block exactly once.
    """
    core = _core.Layout(layout.block)
    for step in layout.steps:
        match step:
            case Copy():
                core.copy(step.offset, step.width)
            case Planes():
                core.planes(step.size, step.rotate)
            case Codes():
                core.codes(step.lanes, step.low_bits, step.high_bits, step.planes)
            case MaskCodes():
                core.mask_codes(step.lanes, step.low_bits, step.planes)
    return core.freeze()


def split(layout: Layout, src: Buffer, *, isa: str | None = None) -> list[memoryview]:
    """The streams of ``src``, which holds n whole blocks: stream k has n * ``layout.widths[k]`` bytes.

    The streams are views of one new buffer, in which they lie one after another. ``isa`` is one of
    ``isas()``, the active one by default. ValueError where ``src`` is not contiguous
    or not a whole number of blocks.
    """
    n = memoryview(src).nbytes // layout.block
    out = memoryview(bytearray(n * sum(layout.widths)))
    native(layout).split(src, out, isa)
    return divide(layout, out)


def divide(layout: Layout, space: memoryview) -> list[memoryview]:
    """Views of ``space``, one a stream, where the streams lie one after another for as many blocks as fit."""
    n = len(space) // sum(layout.widths)
    ends = [n * width for width in accumulate(layout.widths, initial=0)]
    return [space[start:end] for start, end in pairwise(ends)]


def merge(layout: Layout, streams: Sequence[Buffer], out: Buffer, *, isa: str | None = None) -> None:
    """Write the blocks whose streams are ``streams`` to ``out``: the inverse of :func:`split`.

    ``out`` is writable and has n * ``layout.block`` bytes. Bits of a code above those that the layout
    keeps are ignored. ValueError where a size does not fit or where ``out`` overlaps a stream.
    """
    native(layout).merge(streams, out, isa)
