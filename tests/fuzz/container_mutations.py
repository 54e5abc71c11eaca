"""Structure-aware mutations of containers: parts change at random, checksums and digests are made right."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qzf
from qzf.container.payload import decode, no_table
from qzf.errors import QzfError
from tools.make_vectors import folders
from tools.vectors.builder import sync_manifests
from tools.vectors.parts import CHUNK, TABLE, Parts, Record, seal, take_apart, xxh3

VECTORS = folders()["vectors"]
#: Small vectors that together have all kinds of records, transforms, codecs and catalog entries.
SEEDS = [
    (VECTORS / f"{name}.qzf").read_bytes()
    for name in (
        "tables",
        "table-in-fields",
        "mixed-tensor",
        "empty-tensors",
        "verbatim",
        "optional-sections",
        "record-order",
        "nested",
        "layout-078-q6_k",
        "layout-001-planes2",
        "zstd-frames",
        "no-members",
        "quant-columns",
        "quant-one-group",
        "quant-no-extrema",
        "quant-nvfp4",
        "quant-q4_1",
        "quant-tq2_0",
        "values-bf16",
        "values-f32",
        "values-i8",
        "strings-tensor",
    )
]
#: Widths of the fields that are changed, in bits.
RECORD_FIELDS = {
    "kind": 8,
    "transform": 8,
    "layout": 16,
    "member": 32,
    "tensor": 32,
    "offset": 64,
    "decoded_size": 32,
    "decoded_xxh3": 64,
    "stored_size": 32,
    "stored_xxh3": 64,
    "salt": 32,
}
ENTRY_FIELDS = {"transform": 8, "layout": 16, "offset": 64, "decoded_size": 32, "stored_size": 32}
HEAD_FIELDS = {"chunk_count": 64, "section_count": 64, "catalog_stored_size": 64, "catalog_decoded_size": 64}
VALUES = [None, True, -1, 0, 1, 2, 63, 64, 2**26, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 1.5, "", "../x", "w"]


@dataclass
class _Stream:
    """A stream of a chunk, and the fields of its entry."""

    codec: int
    slot: int
    reserved: int
    body: bytearray
    size: int

    def entry(self) -> bytes:
        return _ENTRY.pack(self.codec, self.slot, self.reserved, len(self.body), self.size)


_ENTRY = struct.Struct("<BBHII")


def _streams(payload: bytes) -> tuple[bytes, list[_Stream]]:
    """What stands before the stream entries, and the streams."""
    first = 4 + 4 * payload[1]
    at = first + _ENTRY.size * payload[0]
    streams = []
    for codec, slot, reserved, stored, size in _ENTRY.iter_unpack(payload[first:at]):
        streams.append(_Stream(codec, slot, reserved, bytearray(payload[at : at + stored]), size))
        at += stored
    return payload[:first], streams


def _content(record: Record) -> bytearray:
    """What a shared table holds; its payload, where that cannot be decoded any more."""
    values, size = record.fields, min(record.fields["decoded_size"], 1 << 20)
    try:
        content = decode(values["transform"], values["layout"], memoryview(record.payload), size, no_table)
    except QzfError:
        return bytearray(record.payload)
    return bytearray(content)


@dataclass
class Mutator:
    """Applies changes that ``random`` draws."""

    random: random.Random

    def number(self, bits: int, near: int = 0) -> int:
        """A number of at most ``bits`` bits: at an edge, near a value, or any."""
        draw = self.random
        choices: list[int] = [
            near + draw.randint(-3, 3),
            near ^ 1 << draw.randrange(bits),
            draw.choice([0, 1, 2**bits - 1, 2 ** (bits - 1)]),
            draw.getrandbits(draw.randint(1, bits)),
            64 * draw.randint(0, 100),
        ]
        return int(draw.choice(choices) % 2**bits)

    def mutate(self, parts: Parts) -> None:
        """Change something, once to three times."""
        changes: list[Callable[[Parts], None]] = [
            self._catalog,
            self._catalog,
            self._payload,
            self._payload,
            self._field,
            self._entry,
            self._records,
            self._head,
            self._table,
            self._stream,
        ]
        for _ in range(self.random.choice([1, 1, 2, 3])):
            self.random.choice(changes)(parts)

    def damage(self, parts: Parts) -> None:
        """Change what chunks are decoded from, and nothing else, once to three times."""
        for _ in range(self.random.choice([1, 1, 2, 3])):
            self.random.choice([self._table, self._stream, self._payload])(parts)

    def _record(self, parts: Parts) -> Record | None:
        return self.random.choice(parts.records) if parts.records else None

    def _field(self, parts: Parts) -> None:
        record = self._record(parts)
        if record is not None:
            name = self.random.choice(sorted(RECORD_FIELDS))
            record.fields[name] = self.number(RECORD_FIELDS[name], record.header()[name])

    def _entry(self, parts: Parts) -> None:
        record = self._record(parts)
        if record is not None:
            name = self.random.choice(sorted(ENTRY_FIELDS))
            near = 64 if name == "offset" else record.header()[name]
            record.entry[name] = self.number(ENTRY_FIELDS[name], near)

    def _payload(self, parts: Parts) -> None:
        """Mostly in the first bytes, where prelude, stream entries and frame headers are."""
        record = self._record(parts)
        if record is None or not record.payload:
            return
        data = bytearray(record.payload)
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(min(len(data), self.random.choice([8, 40, len(data)])))
            data[at] = self.number(8, data[at])
        if self.random.random() < 0.2:
            del data[self.random.randrange(len(data)) :]
        record.payload = bytes(data)

    def _bytes(self, data: bytearray) -> None:
        """Change some bytes in place, or cut them short, or add some."""
        for _ in range(self.random.randint(1, 3)):
            near = min(len(data), self.random.choice([4, 16, 64, len(data)]))
            at = self.random.randrange(near) if near else 0
            if self.random.random() < 0.2 or not near:
                data[at:] = data[at:][: self.random.choice([0, 1, 100])]
            else:
                data[at] = self.number(8, data[at])
        if self.random.random() < 0.1:
            data += self.random.randbytes(self.random.choice([1, 2, 64, 1000]))

    def _table(self, parts: Parts) -> None:
        """The content of a shared table, which is then stored as it is; or another's content."""
        tables = parts.of_kind(TABLE)
        if not tables:
            return
        record = self.random.choice(tables)
        content = _content(self.random.choice(tables) if self.random.random() < 0.2 else record)
        if self.random.random() < 0.9:
            self._bytes(content)
        record.payload = bytes(content)
        record.fields |= {"transform": 0, "layout": 0}
        record.fields |= {"decoded_size": len(content), "decoded_xxh3": xxh3(content)}

    def _stream(self, parts: Parts) -> None:
        """The bytes of one coded stream; its entry follows, mostly its decoded size too."""
        chunks = [record for record in parts.of_kind(CHUNK) if record.fields["transform"] and record.payload]
        if not chunks:
            return
        record = self.random.choice(chunks)
        try:
            head, streams = _streams(record.payload)
        except (IndexError, struct.error):  # changed before
            return
        chosen = self.random.choice(streams) if streams else None
        if chosen is None:
            return
        self._bytes(chosen.body)
        if chosen.codec == 0 and self.random.random() < 0.8:
            chosen.size = len(chosen.body)
        record.payload = head + b"".join(each.entry() for each in streams)
        record.payload += b"".join(bytes(each.body) for each in streams)

    def _records(self, parts: Parts) -> None:
        record = self._record(parts)
        if record is None:
            return
        parts.chunk_order = None
        match self.random.randrange(4):
            case 0:
                parts.records.remove(record)
            case 1:
                parts.records.append(Record(dict(record.fields), record.payload))
            case 2:
                self.random.shuffle(parts.records)
            case 3:
                record.listed = False

    def _head(self, parts: Parts) -> None:
        name = self.random.choice(sorted(HEAD_FIELDS))
        parts.head[name] = self.number(HEAD_FIELDS[name])

    def _catalog(self, parts: Parts) -> None:
        """A value anywhere in the catalog is replaced, removed, or one more; manifests follow or do not."""
        found: Any = parts.catalog
        while True:
            keys = sorted(found) if isinstance(found, dict) else list(range(len(found)))
            if not keys:
                return
            key = self.random.choice(keys)
            if isinstance(found[key], dict | list) and found[key] and self.random.random() < 0.9:
                found = found[key]
                continue
            break
        value = found[key]
        match self.random.randrange(8):
            case 0:
                del found[key]
            case 1 if isinstance(found, list):
                found.append(json.loads(json.dumps(value)))
            case 2 | 3 | 4 if type(value) is int:
                found[key] = value + self.random.choice([-1, 1, 2, 64, -64])
            case _:
                found[key] = self.random.choice(VALUES)
        if self.random.random() < 0.7:
            try:
                sync_manifests(parts)
            except (AttributeError, LookupError, TypeError, ValueError):
                return


def mutated(seed: int) -> bytes:
    """The container that ``seed`` stands for."""
    draw = random.Random(seed)
    parts = take_apart(draw.choice(SEEDS))
    Mutator(draw).mutate(parts)
    return seal(parts)


def exercise(path: Path, out: Path) -> bool:
    """Do all with the file that can be done; only typed errors may come out. Returns whether it is valid."""
    try:
        valid = qzf.verify(path, threads=1).ok
    except QzfError:
        valid = False
    for recover in (False, True):
        try:
            qzf.unpack(path, f"{out}/", threads=1, force=True, recover=recover)
        except QzfError:
            assert recover or not valid
        except OSError as error:
            if error.errno not in (20, 21, 36):  # a name too long, or in the way of what a mutation left
                raise
        try:
            with qzf.open(path, threads=1, recover=recover) as container:
                _read_all(container)
        except QzfError:
            assert recover or not valid
    return valid


def _read_all(container: qzf.Container) -> None:
    assert container.metadata is not None
    for name in container:
        try:
            container.tensor(name, copy=False)
            for _ in container.iter_bytes(name):
                pass
        except QzfError as error:
            str(error)
