"""How a member is cut into chunks, and how each is coded: the writer's choices."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from qzf.codecs.zstd import HUFFMAN
from qzf.container.payload import Effort
from qzf.errors import OptionError
from qzf.limits import MAX_CHUNK, MIN_CHUNK
from qzf.model import ArraySpec, Extent, MemberSpec, TensorSpec
from qzf.transforms.layouts import BY_NAME, Layout

__all__ = ["LEVELS", "Cut", "check_chunk_size", "cuts", "effort"]

#: On fields zstd gains from its Huffman stage alone. Codes get level 1 too, since some models repeat rows (of
#: unused tokens), and it is hardly slower. Level 6 leaves 5 % less of a vocabulary than 3, in twice
#: the time: 14 ms more for 256,000 tokens.
LEVELS: Final = {
    "fast": Effort(scales=(HUFFMAN,), codes=(HUFFMAN,), whole=(1,)),
    "default": Effort(scales=(HUFFMAN,), codes=(1,), whole=(6,), models=True),
    "max": Effort(
        scales=(HUFFMAN, 1, 9, 19),
        codes=(HUFFMAN, 1, 3, 9, 19),
        whole=(1, 9, 19),
        both=True,
        models=True,
    ),
}

#: Layouts of types that are plain numbers, GGML's and safetensors' names alike; one byte stays as it is.
_NUMBERS: Final = {
    "F64": "float8",
    "F32": "float4",
    "C64": "float4",
    "F16": "float2",
    "BF16": "float2",
    "I64": "planes8",
    "U64": "planes8",
    "I32": "planes4",
    "U32": "planes4",
    "I16": "planes2",
    "U16": "planes2",
}

#: Chunks reach up to 2.5 times what was asked for (see ``cuts``), those of strings up to so many times, and
#: must stay below the format's limit.
_LONGEST: Final = 4
_MAX_CHUNK_SIZE: Final = MAX_CHUNK // _LONGEST


class Cut(NamedTuple):
    """One chunk to be: ``size`` bytes at ``offset`` of the member; ``tensor`` counts within the member.

    ``strings``: they are a sequence of strings.
    """

    offset: int
    size: int
    tensor: int | None = None
    layout: Layout | None = None
    strings: bool = False


def effort(level: str) -> Effort:
    """The effort of a level by name; raises ``OptionError``."""
    try:
        return LEVELS[level]
    except KeyError:
        raise OptionError(f"there is no level {level!r}; the levels are {', '.join(LEVELS)}") from None


def check_chunk_size(size: int) -> int:
    """``size`` if chunks can aim for it; raises ``OptionError``."""
    if not MIN_CHUNK <= size <= _MAX_CHUNK_SIZE:
        raise OptionError(f"the chunk size must be from {MIN_CHUNK} to {_MAX_CHUNK_SIZE} bytes, not {size}")
    return size


def layout_of(kind: str, dtype: str, size: int) -> Layout | None:
    """The layout that suits ``size`` bytes of a tensor's dtype; None for bytes to be left whole."""
    # A GGML block type has a layout of its own name; plain numbers are the same in both formats.
    layout = BY_NAME.get(_NUMBERS.get(dtype, dtype if kind == "gguf" else ""))
    return layout if layout is not None and size % layout.block == 0 else None


def cuts(member: MemberSpec, chunk_size: int) -> Iterator[Cut]:
    """The chunks of a member, in order.

    A run of bytes is divided evenly into the number of chunks that comes nearest to ``chunk_size`` each, at
    row boundaries where rows are no larger than that, else at block boundaries; strings are divided where one
    begins.
    """
    parts: list[tuple[int | None, TensorSpec | ArraySpec]] = [*enumerate(member.tensors)]
    parts += [(None, array) for array in member.arrays]
    at = 0
    for ordinal, part in sorted(parts, key=lambda each: each[1].extent.offset):
        extent = part.extent
        yield from _divide(Extent(at, extent.offset - at), 1, chunk_size)
        if isinstance(part, ArraySpec) and part.strings:
            yield from _strings(part, chunk_size)
        else:
            layout = layout_of(member.kind, part.dtype, extent.size)
            unit = layout.block if layout else 1
            row = 0 if isinstance(part, ArraySpec) else part.row_size
            if 0 < row <= chunk_size and extent.size % row == 0:
                unit = row
            yield from _divide(extent, unit, chunk_size, ordinal, layout)
        at = extent.end
    yield from _divide(Extent(at, member.size - at), 1, chunk_size)


def _divide(
    extent: Extent, unit: int, chunk_size: int, tensor: int | None = None, layout: Layout | None = None
) -> Iterator[Cut]:
    units = extent.size // unit
    step = max(1, -(-units // _count(extent, chunk_size))) * unit
    for at in range(0, extent.size, step):
        yield Cut(extent.offset + at, min(step, extent.size - at), tensor, layout)


def _strings(array: ArraySpec, chunk_size: int) -> Iterator[Cut]:
    """Cuts at the last stops before even chunks would end; where those lie too far apart, anywhere."""
    extent, count = array.extent, _count(array.extent, chunk_size)
    at, stops = extent.offset, (extent.offset, *array.stops)
    for i in range(1, count + 1):
        place = extent.offset + extent.size * i // count
        end = stops[bisect_right(stops, place) - 1] if i < count else extent.end
        if end - at > _LONGEST * chunk_size:
            yield from _divide(Extent(at, end - at), 1, chunk_size)
        elif end > at:
            yield Cut(at, end - at, strings=True)
        at = end


def _count(extent: Extent, chunk_size: int) -> int:
    """The number of chunks that comes nearest to the size asked for."""
    return max(1, (extent.size + chunk_size // 2) // chunk_size)
