"""The golden containers: together they use every transform, layout, codec and freedom of the format."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import zstandard

from qzf import quant
from qzf.transforms import fields as transform
from qzf.transforms.layouts import BY_ID, BY_NAME, Layout
from tools.vectors.builder import (
    Builder,
    Coded,
    Tensor,
    Verbatim,
    fields,
    noise,
    skewed,
    stored,
    sync_manifests,
    whole,
)
from tools.vectors.good_strings import strings_parts, strings_tensor_parts
from tools.vectors.modeled import QuantCase, cases, quant_parts, values_parts
from tools.vectors.parts import CHUNK, Parts, raw, seal, streams_payload, zstd

__all__ = ["Vector", "vectors"]


@dataclass(frozen=True)
class Vector:
    """A container that every decoder must decode."""

    name: str
    about: str
    make: Callable[[], Parts]


_PLAIN: Final = {
    "planes2": "U16",
    "planes4": "U32",
    "planes8": "U64",
    "float2": "F16",
    "float4": "F32",
    "float8": "F64",
    "bytes": "U8",
}


def _smallest(layout: Layout) -> Coded:
    """A chunk of as few blocks as can be coded without growing; one block, where blocks are large enough."""
    for count in range(1, 200):
        coded = fields(b"\x5a" * (layout.block * count), layout.name)
        if len(coded.payload) <= len(coded.data):
            return coded
    raise AssertionError(layout)


def _layout(layout: Layout) -> Parts:
    """A tensor of three chunks: the smallest that can be coded, 67 blocks or more, and 3 blocks stored."""
    many = max(67, 2000 // layout.block)
    chunks = [
        _smallest(layout),
        fields(skewed(layout.name, many * layout.block), layout.name),
        stored(noise(layout.name, 3 * layout.block)),
    ]
    blocks = sum(len(chunk.data) for chunk in chunks) // layout.block
    ggml = quant.BY_NAME.get(layout.name)
    builder = Builder(chunk_size=many * layout.block)
    dtype, shape = (layout.name, [blocks, ggml.block]) if ggml else (_PLAIN[layout.name], [blocks])
    pieces: list[Verbatim | Tensor] = [
        Verbatim([stored(b"head")]),
        Tensor("t", dtype, shape, layout.block, chunks),
    ]
    builder.member("layout.bin", pieces, "gguf" if ggml else "safetensors")
    return builder.parts()


def _layouts() -> Iterator[Vector]:
    for wire_id, layout in sorted(BY_ID.items()):
        about = f"layout {wire_id}, {layout.name}: chunks of few, many and stored blocks"
        yield Vector(f"layout-{wire_id:03}-{layout.name.lower()}", about, partial(_layout, layout))


def _modeled() -> Iterator[Vector]:
    for name, about, case in cases():
        make = partial(quant_parts, case) if isinstance(case, QuantCase) else partial(values_parts, *case)
        yield Vector(name, about, make)


def _one(*chunks: Coded, name: str = "file.bin") -> Parts:
    builder = Builder()
    builder.member(name, [Verbatim(chunks)])
    return builder.parts()


def _stored() -> Parts:
    return _one(stored(noise("stored", 1000)), stored(b"x"), stored(noise("aligned", 128)))


def _zstd() -> Parts:
    return _one(whole(skewed("zstd", 5000)), whole(skewed("high", 5000), zstd(skewed("high", 5000), 19)))


def _frames() -> Parts:
    """Frames of every shape: checksum, several blocks, content beyond the window, stored and RLE blocks."""
    data, text, long = skewed("frames", 3000), b"qzf " * 700, skewed("blocks", 300) * 700
    return _one(
        whole(data, zstd(data, write_checksum=True)),
        whole(text, zstd(text, 19)),
        whole(bytes(4000), zstd(bytes(4000))),
        whole(long, zstd(long, 3)),
        whole(long, zstd(long, 3, window_log=10)),
        whole(noise("p", 2000) + bytes(2000)),
    )


def _raw_streams() -> Parts:
    """Floats with random mantissas: raw and zstd streams in one payload."""
    values = [struct.pack("<f", (-1) ** i * (1 + i / 7)) for i in range(500)]
    low = noise("mantissa", 2 * len(values))
    data = b"".join(low[2 * i : 2 * i + 2] + value[2:] for i, value in enumerate(values))
    first, second, third, last = (bytes(s) for s in transform.split(BY_NAME["float4"], data))
    coded = fields(data, "float4", [raw(first), raw(second), zstd(third), zstd(last)])
    builder = Builder()
    builder.member("w.bin", [Tensor("w", "F32", [len(values)], len(data), [coded])])
    return builder.parts()


def _unused_bits() -> Parts:
    """The bits above the codes are set in a Q6_K and a Q5_0 chunk; a decoder ignores them."""
    builder = Builder()
    for name, used in (("Q6_K", 6), ("Q5_0", 5)):
        layout, count = BY_NAME[name], 40
        data = skewed(name, layout.block * count)
        *others, codes = (bytes(stream) for stream in transform.split(layout, data))
        marked = bytes(code | (0xFF << used & 0xFF) for code in codes)
        coded = fields(data, name, [*(zstd(stream) for stream in others), zstd(marked, 19)])
        columns = quant.BY_NAME[name].block
        tensor = Tensor("t", name, [count, columns], layout.block, [coded])
        builder.member(f"{name}.bin", [tensor], "gguf")
    return builder.parts()


def _mixed_tensor() -> Parts:
    """Stored, whole and split chunks in one tensor, whose rows are larger than the chunk size."""
    data = skewed("mixed", 3072)
    chunks = [stored(data[:1024]), whole(data[1024:2048]), fields(data[2048:], "planes4")]
    builder = Builder(chunk_size=1024)
    builder.member("mixed.bin", [Tensor("rows", "I32", [1, 768], 3072, chunks)])
    return builder.parts()


def _dictionary_chunks(ident: int, dictionary: zstandard.ZstdCompressionDict, places: int = 1) -> Verbatim:
    """Chunks that are alike and name table ``ident``; with several ``places`` the last of them is used."""
    chunks = []
    for i in range(4):
        data = skewed("shared", 400) + noise(str(i), 20)
        stream = replace(zstd(data, 3, dictionary=dictionary), table=places - 1)
        chunks.append(whole(data, stream, [ident] * places))
    return Verbatim(chunks)


def _tables() -> Parts:
    """Dictionaries of both kinds, one of them coded itself, under ids that do not follow each other."""
    content = skewed("shared", 400)
    samples: list[bytes | bytearray | memoryview] = [
        content[i : i + 100] + noise(str(i), 30) for i in range(300)
    ]
    trained = zstandard.train_dictionary(2000, samples, dict_id=0x51A46)
    builder = Builder()
    builder.table(7, content)
    builder.table(4_000_000_000, trained.as_bytes(), streams_payload([zstd(trained.as_bytes(), 19)]))
    builder.member("raw-content", [_dictionary_chunks(7, zstandard.ZstdCompressionDict(content))])
    builder.member("rfc8878", [_dictionary_chunks(4_000_000_000, trained)])
    builder.member("many", [_dictionary_chunks(7, zstandard.ZstdCompressionDict(content), 64)])
    return builder.parts()


def _table_in_fields() -> Parts:
    """Streams of one chunk with and without tables; one table is named and not used, one not even named."""
    layout, data = BY_NAME["Q4_0"], skewed("table", 18 * 60)
    first, second, codes = (bytes(stream) for stream in transform.split(layout, data))
    dictionary = zstandard.ZstdCompressionDict(codes)
    builder = Builder()
    for ident, content in enumerate((noise("unused", 64), codes, b"!")):
        builder.table(ident, content)
    streams = [raw(first), zstd(second), replace(zstd(codes, dictionary=dictionary), table=1)]
    chunk = Coded(data, streams_payload(streams, [0, 1]), 2, layout.wire_id, (0, 1, 1))
    builder.member("w.gguf", [Tensor("w", "Q4_0", [60, 32], 18, [chunk])], "gguf")
    return builder.parts()


def _empty_member() -> Parts:
    builder = Builder()
    for name in ("empty-first", "empty-second"):
        builder.member(name, [])
    builder.member("data", [Verbatim([stored(b"data")])])
    builder.member("empty-last", [])
    return builder.parts()


def _empty_tensors() -> Parts:
    """Tensors without elements at the start, between others at one offset, and at the end; a scalar."""
    builder = Builder()
    pieces: list[Verbatim | Tensor] = [
        Tensor("first", "F32", [0], 0, []),
        Tensor("scalar", "F64", [], 8, [stored(struct.pack("<d", 0.1))]),
        Tensor("between", "I8", [3, 0], 0, []),
        Tensor("too", "I8", [0, 3], 3, []),
        Tensor("some", "U8", [2, 3], 3, [stored(b"qzfqzf")]),
        Tensor("last", "BOOL", [5, 0, 5], 0, []),
    ]
    builder.member("tensors.bin", pieces, "safetensors")
    builder.member("none.bin", [Tensor("first", "F32", [0], 0, [])], "safetensors")
    return builder.parts()


def _folders() -> Parts:
    """Names that the rules allow, however odd, and the same tensor name in two members."""
    builder = Builder()
    names = [
        "config.json",
        "a/b/c/d.txt",
        "a/b/c/.hidden",
        "a/b-c",
        "a.b/..c",
        "...x",
        " space",
        "gr\u00f6\u00dfe/\u6a21\u578b.bin",
        "x" * 255,
        "/".join(["y" * 240] * 8),
        "\u6a21" * 85,
        "CON",
    ]
    for i, name in enumerate(names):
        pieces: list[Verbatim | Tensor] = [
            Verbatim([stored(name.encode())]),
            Tensor("t", "U8", [i + 1], i + 1, [stored(bytes(i + 1))]),
        ]
        builder.member(name, pieces, "kind-of-a-later-version" if i % 2 else "opaque")
    return builder.parts()


def _verbatim() -> Parts:
    """Verbatim extents before, between and after tensors, of several chunks each."""
    builder = Builder(chunk_size=256)
    gap = [stored(noise("gap", 31)), whole(bytes(300)), stored(b"\0")]
    rows = skewed("rows", 1024)
    pieces: list[Verbatim | Tensor] = [
        Verbatim(gap),
        Tensor("a", "I16", [4, 128], 256, [fields(rows[at : at + 512], "planes2") for at in (0, 512)]),
        Verbatim(gap),
        Tensor("b", "GGML_777", [100], 1000, [stored(noise("b", 999)), stored(b"b")]),
        Verbatim(gap),
    ]
    metadata = {"general.name": "vector", "n": 2**64 - 1, "low": -(2**63), "f": 1.5, "nan": "nan", "l": [1]}
    metadata["tokens"] = {"type": "array", "of": "string", "length": 49152}
    builder.member("model.gguf", pieces, "gguf", metadata)
    return builder.parts()


def _tiny_chunks() -> Parts:
    return _one(*(stored(noise(str(i), 1 + i % 5)) for i in range(400)))


def _optional_sections() -> Parts:
    """Sections of unknown kinds at any place, with header fields of their own meaning."""
    builder = Builder()
    builder.section(255, b"", member=1, tensor=2, offset=3)
    builder.member("a", [Verbatim([stored(b"a")])])
    builder.section(200, noise("section", 500), transform=77, offset=2**63 - 1)
    builder.section(200, b"again", member=2**32 - 1, tensor=9)
    builder.member("b", [Verbatim([stored(b"b")])])
    builder.section(128, b"last")
    return builder.parts()


def _later_minor() -> Parts:
    """Format version 1.77: catalog keys, manifest keys and a section that this version does not know."""
    builder = Builder()
    builder.member("a", [Tensor("t", "U8", [4], 4, [stored(b"abcd")])])
    builder.section(201, b"of version 1.77")
    builder.members[0]["mode"] = 0o644
    builder.tensors[0] |= {"scheme": "gptq", "references": [], "later": None}
    parts = builder.parts(later={"a": [1, {"b": True}]})
    parts.header, parts.head = {"version_minor": 77}, {"version_minor": 77}
    sync_manifests(parts)
    return parts


def _optional_keys() -> Parts:
    """Schemes that are no text, and manifests that know nothing of the catalog's optional keys."""
    builder = Builder()
    builder.member("a", [Tensor(name, "U8", [4], 4, [stored(b"abcd")]) for name in "tuvw"])
    parts = builder.parts()
    values: list[object] = ["int8-row", 4, ["int8-row"], None]
    for tensor, scheme in zip(parts.catalog["tensors"], values, strict=True):
        tensor |= {"scheme": scheme, "references": scheme}
    return parts


def _large_index() -> Parts:
    """An index above 64 KiB, most of it a key that this version does not know: opening takes two reads."""
    builder = Builder()
    builder.member("a", [Verbatim([stored(b"abcd"), whole(bytes(500))])])
    return builder.parts(filler=noise("filler", 66_000).hex())


def _order() -> Parts:
    """Chunks do not stand in the order of the chunk table, nor manifests in that of the members."""
    builder = Builder()
    for name in ("a", "b"):
        builder.member(name, [Verbatim([stored(f"{name}{i}".encode()) for i in range(3)])])
    parts = builder.parts()
    parts.records = [parts.records[i] for i in (4, 7, 0, 3, 6, 2, 5, 1)]
    chunks = [i for i, record in enumerate(parts.records) if record.kind == CHUNK]
    parts.chunk_order = sorted(
        chunks, key=lambda i: (parts.records[i].fields["member"], parts.records[i].fields["offset"])
    )
    return parts


def _nested() -> Parts:
    """A whole container as a stored chunk: its records stand at multiples of 64, with another salt."""
    return _one(stored(seal(_stored())), stored(b"after it"), name="inner.qzf")


def _salt() -> Parts:
    parts = _stored()
    parts.salt = 0x12345678
    return parts


def _no_members() -> Parts:
    return Builder().parts()


_SINGLE: Final = (
    ("stored", "one opaque member in stored chunks", _stored),
    ("zstd", "transform none, one zstd stream a chunk, low and high level", _zstd),
    ("zstd-frames", "frames with checksum, many blocks, a small window, RLE and raw blocks", _frames),
    ("raw-streams", "a split chunk with raw and zstd streams", _raw_streams),
    ("unused-bits", "code streams whose unused bits are set", _unused_bits),
    ("mixed-tensor", "all three transforms in a tensor whose one row is larger than a chunk", _mixed_tensor),
    ("tables", "zstd dictionaries as shared tables, raw content and RFC 8878; 64 tables in a chunk", _tables),
    ("table-in-fields", "streams with and without a table in one split chunk", _table_in_fields),
    ("empty-members", "members of no bytes, and so of no chunks", _empty_member),
    ("empty-tensors", "tensors of no bytes, and a scalar", _empty_tensors),
    ("folders", "members in folders, with all sorts of names", _folders),
    ("verbatim", "verbatim extents around tensors, metadata, an unknown GGML type", _verbatim),
    ("tiny-chunks", "400 chunks of 1 to 5 bytes", _tiny_chunks),
    ("optional-sections", "optional sections of unknown kinds", _optional_sections),
    ("optional-keys", "optional keys of other types, and manifests without them", _optional_keys),
    ("minor-version", "format version 1.77 with unknown keys and an unknown section", _later_minor),
    ("large-index", "an index above 64 KiB", _large_index),
    ("record-order", "records in another order than the chunk table", _order),
    ("nested", "a container stored in a container", _nested),
    ("strings", "transform strings: lengths and text, raw and coded", strings_parts),
    ("strings-tensor", "a tensor of strings and of stored bytes", strings_tensor_parts),
    ("salt", "a salt that is not the members'", _salt),
    ("no-members", "no members at all", _no_members),
)


def vectors() -> list[Vector]:
    """All golden vectors, in the order of the manifest."""
    return [Vector(*entry) for entry in _SINGLE] + list(_layouts()) + list(_modeled())
