"""Valid containers, put together piece by piece: how things are coded is chosen here, not by qzf's writer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import Any, Final

from xxhash import xxh3_64_intdigest as xxh3

from qzf.transforms import fields as transform
from qzf.transforms.layouts import BY_NAME
from tools.vectors.parts import (
    CHUNK,
    MEMBER,
    NO_TENSOR,
    TABLE,
    Parts,
    Record,
    Stream,
    json_bytes,
    raw,
    salt_of,
    streams_payload,
    zstd,
)

__all__ = [
    "Builder",
    "Coded",
    "Tensor",
    "Verbatim",
    "fields",
    "leb128",
    "noise",
    "skewed",
    "stored",
    "strings",
    "sync_manifests",
    "whole",
]

_CODECS: Final = ("raw", "zstd", "rans", "lanes")
_TRANSFORMS: Final = ("stored", "none", "fields", "quant", "values", "strings")


def noise(seed: str, size: int) -> bytes:
    """Bytes that nothing compresses, the same everywhere."""
    return hashlib.shake_128(seed.encode()).digest(size)


def skewed(seed: str, size: int) -> bytes:
    """Bytes of which an eighth of the bits are set, which an entropy coder makes smaller."""
    numbers = (int.from_bytes(noise(f"{seed}-{i}", size), "little") for i in range(3))
    return reduce(and_, numbers).to_bytes(size, "little")


@dataclass(frozen=True)
class Coded:
    """A chunk as it is to be written."""

    data: bytes
    payload: bytes
    transform: int = 0
    layout: int = 0
    codecs: tuple[int, ...] = ()


def stored(data: bytes) -> Coded:
    return Coded(data, data)


def whole(data: bytes, stream: Stream | None = None, tables: Sequence[int] = ()) -> Coded:
    """Transform ``none``: one stream."""
    stream = zstd(data) if stream is None else stream
    return Coded(data, streams_payload([stream], tables), 1, 0, (stream.codec,))


def fields(data: bytes, layout: str, streams: Sequence[Stream] | None = None) -> Coded:
    """Transform ``fields``; by default each stream is coded by whatever makes it smaller."""
    chosen = BY_NAME[layout]
    if streams is None:
        split = [bytes(stream) for stream in transform.split(chosen, data)]
        streams = [min((raw(s), zstd(s)), key=lambda coded: len(coded.body)) for s in split]
    codecs = tuple(stream.codec for stream in streams)
    return Coded(data, streams_payload(streams), 2, chosen.wire_id, codecs)


def strings(items: Sequence[bytes], lengths: Stream | None = None, text: Stream | None = None) -> Coded:
    """Transform ``strings``; lengths are stored raw and the text by zstd unless said otherwise."""
    data = b"".join(len(item).to_bytes(8, "little") + item for item in items)
    lengths = raw(b"".join(leb128(len(item)) for item in items)) if lengths is None else lengths
    text = zstd(b"".join(items)) if text is None else text
    return Coded(data, streams_payload([lengths, text]), 5, 0, (lengths.codec, text.codec))


def leb128(number: int) -> bytes:
    """Section 4.6's form of a length."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


@dataclass(frozen=True)
class Verbatim:
    chunks: Sequence[Coded]


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: Sequence[int]
    row_size: int
    chunks: Sequence[Coded]

    @property
    def size(self) -> int:
        return sum(len(chunk.data) for chunk in self.chunks)

    def pipeline(self) -> dict[str, Any]:
        used = max(self.chunks, key=lambda chunk: chunk.transform, default=None)
        if used is None or not used.transform:
            return {"transform": "stored", "layout": None, "codecs": []}
        alike = [chunk.codecs for chunk in self.chunks if chunk.transform == used.transform]
        names = {layout.wire_id: name for name, layout in BY_NAME.items()}
        return {
            "transform": _TRANSFORMS[used.transform],
            "layout": names.get(used.layout),
            "codecs": [_CODECS[max(codecs)] for codecs in zip(*alike, strict=True)],
        }


@dataclass
class Builder:
    """Collects records and catalog; ``parts`` are the container."""

    chunk_size: int = 4096
    records: list[Record] = field(default_factory=list)
    members: list[dict[str, Any]] = field(default_factory=list)
    tensors: list[dict[str, Any]] = field(default_factory=list)
    chunk_count: int = 0

    def table(self, ident: int, content: bytes, payload: bytes | None = None) -> None:
        """A shared table, stored unless there is a ``payload`` with one stream."""
        self._add(TABLE, Coded(content, payload or content, int(payload is not None)), tensor=ident)

    def section(self, kind: int, content: bytes, **header: int) -> None:
        """An optional section."""
        self._add(kind, stored(content), **{"decoded_size": 0, **header})

    def member(
        self,
        name: str,
        pieces: Iterable[Verbatim | Tensor],
        kind: str = "opaque",
        metadata: dict[str, Any] | None = None,
        manifest: bool = True,
    ) -> None:
        """A member in the order of its bytes; its manifest stands before its chunks."""
        pieces, ordinal, offset, hasher = list(pieces), len(self.members), 0, hashlib.sha256()
        first, at = self.chunk_count, len(self.records)
        for piece in pieces:
            tensor = NO_TENSOR if isinstance(piece, Verbatim) else len(self.tensors)
            if isinstance(piece, Tensor):
                self.tensors.append(self._tensor(piece, ordinal, offset))
            for chunk in piece.chunks:
                self._add(CHUNK, chunk, member=ordinal, tensor=tensor, offset=offset)
                hasher.update(chunk.data)
                self.chunk_count, offset = self.chunk_count + 1, offset + len(chunk.data)
        self.members.append(
            {
                "name": name,
                "kind": kind,
                "size": offset,
                "sha256": hasher.hexdigest(),
                "first_chunk": first,
                "chunk_count": self.chunk_count - first,
                "metadata": metadata or {},
            }
        )
        if manifest:
            content = _manifest(self.members[ordinal], [t for t in self.tensors if t["member"] == ordinal])
            self.records.insert(at, _record(MEMBER, stored(content), member=ordinal))

    def _tensor(self, tensor: Tensor, member: int, offset: int) -> dict[str, Any]:
        return {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "offset": offset,
            "size": tensor.size,
            "row_size": tensor.row_size,
            "member": member,
            "first_chunk": self.chunk_count,
            "chunk_count": len(tensor.chunks),
            "pipeline": tensor.pipeline(),
        }

    def _add(self, kind: int, coded: Coded, **header: int) -> None:
        self.records.append(_record(kind, coded, **header))

    def parts(self, **catalog: Any) -> Parts:
        """The container so far; ``catalog`` are further keys."""
        values = {"generator": "make_vectors", "chunk_size": self.chunk_size, "level": "default"}
        salt = salt_of((member["name"], member["size"]) for member in self.members)
        values |= {"members": self.members, "tensors": self.tensors}
        return Parts(self.records, values | catalog, salt=salt)


def _record(kind: int, coded: Coded, **header: int) -> Record:
    values = {"kind": kind, "transform": coded.transform, "layout": coded.layout}
    values |= {"member": 0, "tensor": 0, "offset": 0}
    values |= {"decoded_size": len(coded.data), "decoded_xxh3": xxh3(coded.data)} | header
    return Record(values, coded.payload)


def _manifest(member: dict[str, Any], tensors: Sequence[dict[str, Any]]) -> bytes:
    places = ("sha256", "first_chunk", "chunk_count")
    ours = {key: value for key, value in member.items() if key not in places}
    drop = ("first_chunk", "chunk_count", "pipeline", "member")
    return json_bytes(
        ours | {"tensors": [{k: v for k, v in tensor.items() if k not in drop} for tensor in tensors]}
    )


def sync_manifests(parts: Parts) -> None:
    """Make the manifests say again what the catalog says, stored."""
    for record in parts.of_kind(MEMBER):
        ordinal = record.fields["member"]
        if ordinal >= len(parts.catalog["members"]):
            continue
        tensors = [t for t in parts.catalog["tensors"] if t["member"] == ordinal]
        record.payload = _manifest(parts.catalog["members"][ordinal], tensors)
        record.fields |= {
            "transform": 0,
            "decoded_size": len(record.payload),
            "decoded_xxh3": xxh3(record.payload),
        }
