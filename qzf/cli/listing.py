"""What ``qzf ls`` says of a container: as rows of text and as JSON data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qzf.access import Container
from qzf.cli.human import count, printable, saved, size
from qzf.cli.tables import Column
from qzf.container.catalog import TensorEntry
from qzf.format.ids import NO_TENSOR, Transform
from qzf.transforms.layouts import BY_ID

__all__ = ["Listing", "Table"]

#: What ``tables.show`` takes.
Table = tuple[tuple[Column, ...], Iterator[tuple[str, ...]]]


class Listing:
    """The facts on one open container."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._index = container.reader.index
        self._stored = np.zeros(len(container.chunks) + 1, np.uint64)
        np.cumsum(container.chunks["stored_size"], out=self._stored[1:], dtype=np.uint64)
        self._schemes = any(tensor.scheme is not None for tensor in container.tensors)
        self._several = len(container.members) != 1
        self._tensor_counts = np.bincount(
            np.array([tensor.member for tensor in container.tensors], np.int64),
            minlength=len(container.members),
        )

    # --- text -------------------------------------------------------------------------------------

    def facts(self) -> list[tuple[str, str]]:
        """Labels and values on the container as a whole. The longest line has 80 characters."""
        container, catalog = self._container, self._index.catalog
        original = sum(member.size for member in container.members)
        stored = container.reader.source.size
        holds = [
            count(len(container.members), "file"),
            count(len(container.tensors), "tensor"),
            count(len(container.chunks), "chunk"),
        ]
        return [
            ("container", f"{size(stored)} ({stored:,} bytes)"),
            ("original", f"{size(original)} ({original:,} bytes)"),
            ("saved", saved(original, stored)),
            ("holds", ", ".join(holds)),
            ("format", f"{_version(self._index.head.version)}, written by {printable(catalog.generator)}"),
            ("level", f"{printable(catalog.level)}, chunks of {catalog.chunk_size:,} bytes"),
            ("digest", container.digest),
        ]

    def hashes(self) -> Iterator[str]:
        """A line for each member as ``sha256sum`` prints and checks them."""
        for member in self._container.members:
            yield f"{member.sha256 or '-'}  {printable(member.name)}"

    def member_table(self) -> Table:
        columns = (
            Column("file"),
            Column("kind"),
            Column("original", number=True),
            Column("stored", number=True, spare=True),
            Column("saved", number=True),
            Column("tensors", number=True),
            Column("chunks", number=True),
        )
        return columns, self._member_rows()

    def tensor_table(self) -> Table:
        columns = (
            Column("tensor"),
            Column("dtype"),
            Column("shape"),
            Column("original", number=True),
            Column("stored", number=True, spare=True),
            Column("saved", number=True),
            Column("pipeline"),
        )
        return (*columns, *self._scheme_column(), *self._file_column()), self._tensor_rows()

    def chunk_table(self) -> Table:
        columns = (
            Column("chunk", number=True),
            Column("offset", number=True),
            Column("original", number=True, spare=True),
            Column("stored", number=True),
            Column("saved", number=True),
            Column("coding"),
            Column("tensor"),
        )
        return (*columns, *self._file_column()), self._chunk_rows()

    def _scheme_column(self) -> tuple[Column, ...]:
        return (Column("scheme"),) if self._schemes else ()

    def _scheme_cell(self, tensor: TensorEntry) -> tuple[str, ...]:
        return (tensor.scheme or "-",) if self._schemes else ()

    def _file_column(self) -> tuple[Column, ...]:
        return (Column("file", spare=True),) if self._several else ()

    def _file_cell(self, member: int) -> tuple[str, ...]:
        return (self._container.members[member].name,) if self._several else ()

    def _member_rows(self) -> Iterator[tuple[str, ...]]:
        for ordinal, member in enumerate(self._container.members):
            stored = self._stored_size(member.first_chunk, member.chunk_count)
            yield (
                member.name,
                member.kind,
                size(member.size),
                size(stored),
                saved(member.size, stored),
                f"{self._tensor_counts[ordinal]:,}",
                f"{member.chunk_count:,}",
            )

    def _tensor_rows(self) -> Iterator[tuple[str, ...]]:
        for tensor in self._container.tensors:
            stored = self._stored_size(tensor.first_chunk, tensor.chunk_count)
            yield (
                tensor.name,
                tensor.dtype,
                "x".join(map(str, tensor.shape)) or "scalar",
                size(tensor.extent.size),
                size(stored),
                saved(tensor.extent.size, stored),
                tensor.pipeline.name,
                *self._scheme_cell(tensor),
                *self._file_cell(tensor.member),
            )

    def _chunk_rows(self) -> Iterator[tuple[str, ...]]:
        tensors = self._container.tensors
        for ordinal, entry in enumerate(self._container.chunks):
            original, stored, tensor = (int(entry[key]) for key in ("decoded_size", "stored_size", "tensor"))
            yield (
                str(ordinal),
                str(int(entry["offset"])),
                f"{original:,}",
                f"{stored:,}",
                saved(original, stored),
                _layout(entry) or _transform(entry),
                "-" if tensor == NO_TENSOR else tensors[tensor].name,
                *self._file_cell(self._index.member_of(ordinal)),
            )

    def _stored_size(self, first_chunk: int, chunk_count: int) -> int:
        return int(self._stored[first_chunk + chunk_count]) - int(self._stored[first_chunk])

    # --- JSON -------------------------------------------------------------------------------------

    def record(self, view: str | None) -> dict[str, Any]:
        """Everything as JSON data, or only the list that ``view`` names."""
        container, catalog = self._container, self._index.catalog
        lists = {
            "members": self._member_records,
            "tensors": self._tensor_records,
            "chunks": self._chunk_records,
        }
        return {
            "file": container.reader.source.name,
            "container_size": container.reader.source.size,
            "original_size": sum(member.size for member in container.members),
            "digest": container.digest,
            "format_version": _version(self._index.head.version),
            "generator": catalog.generator,
            "level": catalog.level,
            "chunk_size": catalog.chunk_size,
            **{name: list(records()) for name, records in lists.items() if view in (None, name)},
        }

    def _member_records(self) -> Iterator[dict[str, Any]]:
        for ordinal, member in enumerate(self._container.members):
            yield {
                "name": member.name,
                "kind": member.kind,
                "original_size": member.size,
                "stored_size": self._stored_size(member.first_chunk, member.chunk_count),
                "sha256": member.sha256,
                "tensors": int(self._tensor_counts[ordinal]),
                "first_chunk": member.first_chunk,
                "chunk_count": member.chunk_count,
                "metadata": dict(member.metadata),
            }

    def _tensor_records(self) -> Iterator[dict[str, Any]]:
        for key, tensor in zip(self._container.keys(), self._container.tensors, strict=True):
            yield {
                "key": key,
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "member": self._container.members[tensor.member].name,
                "offset": tensor.extent.offset,
                "original_size": tensor.extent.size,
                "stored_size": self._stored_size(tensor.first_chunk, tensor.chunk_count),
                "row_size": tensor.row_size,
                "first_chunk": tensor.first_chunk,
                "chunk_count": tensor.chunk_count,
                "pipeline": tensor.pipeline.name,
                "transform": tensor.pipeline.transform,
                "layout": tensor.pipeline.layout,
                "codecs": list(tensor.pipeline.codecs),
                "scheme": tensor.scheme,
            }

    def _chunk_records(self) -> Iterator[dict[str, Any]]:
        for ordinal, entry in enumerate(self._container.chunks):
            tensor = int(entry["tensor"])
            yield {
                "chunk": ordinal,
                "offset": int(entry["offset"]),
                "original_size": int(entry["decoded_size"]),
                "stored_size": int(entry["stored_size"]),
                "transform": _transform(entry),
                "layout": _layout(entry),
                "tensor": None if tensor == NO_TENSOR else self._container.tensors[tensor].name,
                "member": self._container.members[self._index.member_of(ordinal)].name,
                "member_offset": self._index.member_offset(ordinal),
                "stored_xxh3": f"{int(entry['stored_xxh3']):016x}",
                "decoded_xxh3": f"{int(entry['decoded_xxh3']):016x}",
                "digest": entry["digest"].tobytes().hex(),
            }


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _transform(entry: Any) -> str:
    """The name of a chunk's transform; its number where this version does not know it."""
    number = int(entry["transform"])
    return Transform(number).name.lower() if number in list(Transform) else str(number)


def _layout(entry: Any) -> str | None:
    """The name of a chunk's layout, None where its transform has none."""
    number = int(entry["layout"])
    if not number:
        return None
    return BY_ID[number].name if number in BY_ID else str(number)
