"""
The compiled core: kernels, chosen once for the instruction set of this machine.
"""

from collections.abc import Sequence

from typing_extensions import Buffer


def active_isa() -> str:
    """
    The instruction set in use: the widest there is, or what QZF_FORCE_ISA names (else ValueError).
    """

def available_isas() -> list[str]:
    """The instruction sets of this machine, ``scalar`` first."""

class Layout:
    """
    A block layout: steps are added in the order of their streams, then frozen.

    The steps are those of ``qzf.transforms.layouts``. ValueError where a step reaches outside of
    the block, uses a bit that another step uses, or comes after ``freeze``.
    """

    def __init__(self, block: int) -> None: ...

    def copy(self, offset: int, width: int) -> Layout: ...

    def planes(self, size: int, rotate: bool) -> Layout: ...

    def codes(self, lanes: int, low_bits: int, high_bits: int, planes: Sequence[tuple[int, int, int, int]]) -> Layout: ...

    def mask_codes(self, lanes: int, low_bits: int, planes: Sequence[tuple[int, int, int]]) -> Layout: ...

    def freeze(self) -> Layout:
        """
        Make the layout usable and constant. ValueError where a bit of the block is not used.
        """

    def split(self, src: Buffer, out: Buffer, isa: str | None = None) -> None:
        """
        Split the n blocks of ``src`` into ``out``: n * sum(widths) bytes, the streams one after another.

        ValueError for wrong sizes, buffers that overlap, are not contiguous or not writable.
        """

    def merge(self, streams: Sequence[Buffer], out: Buffer, isa: str | None = None) -> None:
        """
        Inverse of ``split``: stream k has n * widths[k] bytes, ``out`` n * block. Errors as there.
        """

    @property
    def block(self) -> int:
        """Bytes of a block."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes a block of each stream, in order."""
