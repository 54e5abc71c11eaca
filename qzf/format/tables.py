"""The index's bulk tables (spec, section 2.3): entries one by one, or all of them as a numpy array.

Opening a container goes over each entry once, and loads no numpy for it: its import takes longer than that
for anything but huge containers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "CHUNKS",
    "SECTIONS",
    "ChunkEntry",
    "EntryTable",
    "SectionEntry",
    "TableFormat",
]


class ChunkEntry(NamedTuple):
    """One entry of the chunk table."""

    offset: int
    stored_size: int
    decoded_size: int
    tensor: int
    transform: int
    reserved: int
    layout: int
    stored_xxh3: int
    decoded_xxh3: int
    digest: bytes


class SectionEntry(NamedTuple):
    """One entry of the section table."""

    kind: int
    transform: int
    layout: int
    id: int
    offset: int
    stored_size: int
    decoded_size: int
    stored_xxh3: int
    decoded_xxh3: int
    digest: bytes


_Entry = TypeVar("_Entry", bound=tuple[int | bytes, ...])

#: Codes of ``struct`` as numpy has them.
_NUMPY: Final = {"B": "u1", "H": "<u2", "I": "<u4", "Q": "<u8", "32s": "V32"}


class TableFormat(Generic[_Entry]):
    """How the entries of a table are laid out: the code of ``struct`` for each field, little-endian."""

    def __init__(self, make: Callable[[Iterable[Any]], _Entry], names: tuple[str, ...], *codes: str) -> None:
        self._make, self._names, self._codes = make, names, codes
        self._struct = struct.Struct("<" + "".join(codes))
        self.size: Final = self._struct.size

    def unpack(self, data: memoryview, position: int) -> _Entry:
        """The entry at ``position`` of a table."""
        return self._make(self._struct.unpack_from(data, position * self.size))

    def rows(self, data: memoryview) -> Iterator[_Entry]:
        """All entries of a table, one after another."""
        return map(self._make, self._struct.iter_unpack(data))

    def pack(self, entries: Iterable[_Entry]) -> bytes:
        """The table of these entries."""
        return b"".join(self._struct.pack(*entry) for entry in entries)

    @property
    def dtype(self) -> np.dtype[Any]:
        """An entry as a numpy dtype."""
        import numpy as np

        return np.dtype([(name, _NUMPY[code]) for name, code in zip(self._names, self._codes, strict=True)])


CHUNKS: Final = TableFormat(ChunkEntry._make, ChunkEntry._fields, *"QIIIBBHQQ", "32s")
SECTIONS: Final = TableFormat(SectionEntry._make, SectionEntry._fields, *"BBHIQQQQQ", "32s")


class EntryTable(Generic[_Entry]):
    """A table as it lies in the index; ``data`` holds a whole number of entries."""

    def __init__(self, form: TableFormat[_Entry], data: memoryview) -> None:
        self._form: TableFormat[_Entry] = form
        self._data = data
        self._count = len(data) // form.size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> _Entry:
        """The entry at ``position``, from 0 on; raises ``IndexError``."""
        if not 0 <= position < self._count:
            raise IndexError(f"there is no entry {position} of {self._count}")
        return self._form.unpack(self._data, position)

    def __iter__(self) -> Iterator[_Entry]:
        return self._form.rows(self._data)

    def array(self) -> npt.NDArray[np.void]:
        """All entries as a read-only structured array that shares the table's memory."""
        import numpy as np

        found = np.frombuffer(self._data, self._form.dtype)
        found.flags.writeable = False
        return found
