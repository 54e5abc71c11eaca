"""How a member is cut into chunks, and how each is coded: the writer's choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from qzf.codecs.zstd import HUFFMAN, SHORT_MATCHES
from qzf.container.payload import Effort
from qzf.errors import OptionError
from qzf.limits import MAX_CHUNK, MIN_CHUNK
from qzf.model import MemberSpec, TensorSpec
from qzf.transforms.layouts import BY_NAME, Layout

__all__ = ["LEVELS", "Cut", "check_chunk_size", "cuts", "effort"]

#: On fields zstd gains from its Huffman stage alone. Codes get level 1 too, since some models repeat rows (of
#: unused tokens), and it is hardly slower.
LEVELS: Final = {
    "fast": Effort(scales=(HUFFMAN,), codes=(HUFFMAN,), whole=(1,)),
    "default": Effort(scales=(HUFFMAN,), codes=(1,), whole=(6, SHORT_MATCHES), models=True),
    "max": Effort(
        scales=(HUFFMAN, 1, 9, 19),
        codes=(HUFFMAN, 1, 3, 9, 19),
        whole=(1, 9, SHORT_MATCHES, 19),
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

#: Chunks reach up to 2.5 times what was asked for (see ``cuts``), and must stay below the format's limit.
_MAX_CHUNK_SIZE: Final = MAX_CHUNK // 4


@dataclass(frozen=True, slots=True)
class Cut:
    """One chunk to be: ``size`` bytes at ``offset`` of the member; ``tensor`` counts within the member."""

    offset: int
    size: int
    tensor: int | None
    layout: Layout | None


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


def layout_of(kind: str, tensor: TensorSpec) -> Layout | None:
    """The layout that suits the tensor's dtype; None for bytes to be left whole."""
    # A GGML block type has a layout of its own name; plain numbers are the same in both formats.
    layout = BY_NAME.get(_NUMBERS.get(tensor.dtype, tensor.dtype if kind == "gguf" else ""))
    return layout if layout is not None and tensor.extent.size % layout.block == 0 else None


def cuts(member: MemberSpec, chunk_size: int) -> Iterator[Cut]:
    """The chunks of a member, in order.

    A run of bytes is divided evenly into the number of chunks that comes nearest to ``chunk_size`` each, at
    row boundaries where rows are no larger than that, else at block boundaries.
    """
    at = 0
    for ordinal, tensor in enumerate(member.tensors):
        yield from _divide(at, tensor.extent.offset - at, 1, chunk_size, None, None)
        layout = layout_of(member.kind, tensor)
        rows_fit = 0 < tensor.row_size <= chunk_size and tensor.extent.size % tensor.row_size == 0
        unit = tensor.row_size if rows_fit else layout.block if layout else 1
        yield from _divide(tensor.extent.offset, tensor.extent.size, unit, chunk_size, ordinal, layout)
        at = tensor.extent.end
    yield from _divide(at, member.size - at, 1, chunk_size, None, None)


def _divide(
    offset: int, size: int, unit: int, chunk_size: int, tensor: int | None, layout: Layout | None
) -> Iterator[Cut]:
    count = max(1, (size + chunk_size // 2) // chunk_size)
    units = size // unit
    step = max(1, -(-units // count)) * unit
    for at in range(0, size, step):
        yield Cut(offset + at, min(step, size - at), tensor, layout)
