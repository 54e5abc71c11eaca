"""The vocabulary as immutable values: what a container holds, apart from how it is written.

Sizes and offsets are in bytes, shapes in numpy order (outermost dimension first).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["ArraySpec", "Extent", "MemberSpec", "PipelineSpec", "TensorSpec"]


class Extent(NamedTuple):
    """A byte range ``[offset, offset + size)`` of a member."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


class TensorSpec(NamedTuple):
    """One tensor of a member.

    ``dtype`` is the source format's own name: a GGML type (``Q4_K``, ``F32``), a safetensors dtype
    (``BF16``, ``F8_E4M3``), or ``GGML_<number>`` for a GGML type that QZF does not know. ``row_size``
    is what chunks are cut by: the bytes of one row (innermost dimension), a whole number of
    quantization blocks; the size of the tensor where it has no rows (scalars, unknown types). ``scheme``
    names the quantization scheme that it and other tensors make up together, None where it is none's.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    extent: Extent
    row_size: int
    scheme: str | None = None


class ArraySpec(NamedTuple):
    """A long array in a member's header: its elements, one after another.

    ``dtype`` is that of tensors of such numbers (``F32``, ``U8``), or ``STRING``: each a u64 length and so
    many bytes. ``stops`` are offsets in the member where strings begin, so that a writer can cut there: some
    of them, in order, some KiB apart.
    """

    extent: Extent
    dtype: str
    stops: tuple[int, ...] = ()

    @property
    def strings(self) -> bool:
        return self.dtype == "STRING"


class MemberSpec(NamedTuple):
    """One original file: its name in the container (relative POSIX path), kind, size and tensors.

    ``tensors`` are sorted by offset and do not overlap; bytes of the member outside of them are
    verbatim extents. ``metadata`` is plain JSON data taken from the file's header. ``arrays`` tell a writer
    what verbatim extents hold; they too are sorted and do not overlap, and no container has them.
    """

    name: str
    kind: str
    size: int
    tensors: tuple[TensorSpec, ...] = ()
    metadata: Mapping[str, Any] = {}
    arrays: tuple[ArraySpec, ...] = ()

    def verbatim(self) -> list[Extent]:
        """The byte ranges that no tensor covers, in order."""
        gaps, at = [], 0
        for tensor in self.tensors:
            if tensor.extent.offset > at:
                gaps.append(Extent(at, tensor.extent.offset - at))
            at = tensor.extent.end
        if at < self.size:
            gaps.append(Extent(at, self.size - at))
        return gaps


class PipelineSpec(NamedTuple):
    """How the chunks of a tensor are coded: transform, its layout, and the codecs of the streams."""

    transform: str
    layout: str | None
    codecs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The short name: ``stored``, ``zstd``, ``fields+zstd``."""
        used = "+".join(dict.fromkeys(codec for codec in self.codecs if codec != "raw"))
        if not used:
            return "stored"
        return used if self.transform == "none" else f"{self.transform}+{used}"
