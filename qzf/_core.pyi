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

def quant_schemas() -> list[tuple[str, int, int, int, int, int, int, int, int, int, int]]:
    """
    The types that the quant transform knows: name, bytes and codes of a block, codes of a lane, bits of a code, low bits, numbers, integer scales, integer minima, extrema of a lane, size of the alphabet.
    """

def quant_look(name: str, src: Buffer, first: Buffer, second: Buffer, isa: str | None = None) -> bool:
    """
    The fp16 fields of blocks as 16-bit patterns; a field that the type lacks has an empty buffer. Returns whether every block holds the extreme codes that its type's quantizer leaves.
    """

def quant_deviations(name: str, src: Buffer, row_blocks: int, sums: Buffer, isa: str | None = None) -> None:
    """
    Add to ``sums`` (uint64, one a column) how far codes lie from zero, in 1/16.
    """

class QuantModel:
    """
    How the chunks of a type are modelled: a shared table of kind 1 (spec, tables).

    ValueError for a table that breaks the rules. Safe to use from many threads.
    """

    def __init__(self, name: str, table: Buffer) -> None: ...

    def decode(self, columns: Buffer | None, heads: Buffer, tails: Buffer, codes: Buffer, rest: Buffer, out: Buffer, isa: str | None = None) -> None:
        """
        Decode the streams to ``out``: whole blocks. ValueError says what is wrong with them.
        """

    def encode(self, columns: Buffer | None, src: Buffer, row_blocks: int, isa: str | None = None) -> tuple[memoryview, memoryview, memoryview, memoryview] | None:
        """
        The streams of whole blocks, or None where the model cannot express them. They are views of one bytes object, one behind the other.
        """

    def count(self, columns: Buffer | None, src: Buffer, row_blocks: int, heads: Buffer, codes: Buffer, isa: str | None = None) -> bool:
        """
        Add up symbols by context and by table (uint64); False where the model cannot express the blocks.
        """

    @property
    def steps(self) -> int:
        """Codes of a lane that are coded."""

    @property
    def extrema(self) -> bool:
        """Extrema are left out of the codes."""

    @property
    def column_classes(self) -> int:
        """Classes of columns; above 1 chunks need a table of columns."""

class ValuesModel:
    """
    How numbers of a type are modelled: a shared table of kind 2 (spec, tables).

    ValueError for a table that breaks the rules. Safe to use from many threads.
    """

    def __init__(self, table: Buffer) -> None: ...

    def decode(self, classes: Buffer, symbols: Buffer, extras: Buffer, low: Buffer, words: Buffer, out: Buffer, isa: str | None = None) -> None:
        """
        Decode the streams to ``out``: whole numbers. ValueError says what is wrong with them.
        """

    def encode(self, src: Buffer, segment: int, isa: str | None = None) -> tuple[bytes, bytes, bytes, bytes, bytes] | None:
        """
        The streams of whole numbers, a context for every ``segment`` of them; None where the model cannot express them.
        """

    @property
    def width(self) -> int:
        """Bytes of a number."""

def strings_split(src: Buffer) -> tuple[bytes, bytes] | None:
    """
    Lengths and text of a sequence of strings, each a u64 length and its bytes; None where ``src`` is none.
    """

def strings_merge(lengths: Buffer, text: Buffer, out: Buffer) -> None:
    """
    Inverse of ``strings_split``. ValueError says what is wrong with the streams, or their size with ``out``.
    """

def strings_walk(src: Buffer, count: int) -> tuple[int, int]:
    """
    Walk over up to ``count`` strings that start in ``src``: how many they are, and where the next one would start, which may lie behind it (2**64 - 1: or further).
    """

def dequant_types() -> list[tuple[str, int, int]]:
    """The types that can be dequantized: name, weights and bytes of a block."""

def dequantize(name: str, dtype: str, src: Buffer, out: Buffer, isa: str | None = None) -> None:
    """
    Write the weights of the blocks ``src`` to ``out`` as float32, float16 or bfloat16.

    ValueError for another name or dtype, wrong sizes, and buffers that overlap, are not contiguous or not
    writable.
    """

def quantize(counts: Buffer, width: int, total: int, every: bool = False) -> bytes:
    """
    Frequencies (uint16) of rows of ``width`` counts (uint64), which sum to ``total``. What was counted gets at least 1; with ``every`` all symbols do, else those not counted get 0.
    """

def quantize_leaning(counts: Buffer, width: int, lean: Buffer, total: int) -> bytes:
    """
    The same of 64 times the counts plus ``lean`` (uint64, one a symbol); symbols it lacks get 0.
    """

def cost(counts: Buffer, width: int) -> int:
    """
    Bits that counted symbols take at the entropy of their rows; the same on every machine.
    """

def add_counts(to: Buffer, counts: Buffer) -> None:
    """Add counts (uint64) to others."""

def sum_counts(counts: Buffer, width: int) -> bytes:
    """The sum of all rows of ``width`` counts (uint64)."""

def join_counts(counts: Buffer, width: int, most: int) -> tuple[bytes, bytes]:
    """
    Join neighbouring rows of counts (uint64) where it costs least until there are at most ``most``. Returns which group each row belongs to, and the sums of the groups.
    """

def rank_patterns(patterns: Buffer, alone: bool) -> tuple[int, int, bytes]:
    """
    A ranking that suits 16-bit patterns: low bits of a rank, value of rank 0, or a list of values. ``alone``: their symbols have no context.
    """

def pattern_parts(patterns: Buffer, parts: int) -> bytes:
    """
    Which of ``parts`` equally common parts of 16-bit patterns each value of their bits 7 to 14 is in.
    """

def column_classes(deviations: Buffer, classes: int) -> bytes:
    """
    Classes of columns by how far their codes lie from zero (uint64): equally many columns in each.
    """

def values_count_keys(form: int, src: Buffer, counts: Buffer, isa: str | None = None) -> None:
    """Add to ``counts`` (uint64, one a key) how often each key occurs."""

def values_count_segments(form: int, symbols: Buffer, src: Buffer, segment: int, step: int, isa: str | None = None) -> bytes:
    """
    How often each symbol occurs (uint16, 256 a segment) in every ``step``th of the whole segments; ``symbols`` has one a key.
    """

def values_contexts(counts: Buffer, contexts: int, last: int, every: bool) -> bytes:
    """
    Frequencies (uint16, 256 a context) that suit segments with these counts, in up to ``contexts`` contexts. Symbol ``last`` has some in each; with ``every``, all have.
    """
