"""The fixed-size structures as the spec's tables have them (section 2), declared for construct.

`qzf.format.wire` packs and parses them by ``struct``, as loading construct takes 10 ms. The two are held
against each other, and against the spec, by ``test_spec_in_step``.
"""

from __future__ import annotations

from typing import Final

from construct import Bytes, Const, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from qzf.format.ids import END_MAGIC, FILE_MAGIC, RECORD_MAGIC

__all__ = ["HEADER", "INDEX_HEAD", "RECORD_HEADER", "TRAILER"]

HEADER: Final = Struct(
    "magic" / Const(FILE_MAGIC),
    "version_major" / Int16ul,
    "version_minor" / Int16ul,
    "salt" / Int32ul,
    "required_features" / Int64ul,
    "reserved1" / Bytes(32),
    "header_xxh3" / Int64ul,
)

RECORD_HEADER: Final = Struct(
    "magic" / Const(RECORD_MAGIC),
    "kind" / Int8ul,
    "transform" / Int8ul,
    "layout" / Int16ul,
    "member" / Int32ul,
    "tensor" / Int32ul,
    "offset" / Int64ul,
    "stored_size" / Int64ul,
    "decoded_size" / Int32ul,
    "salt" / Int32ul,
    "stored_xxh3" / Int64ul,
    "decoded_xxh3" / Int64ul,
    "header_xxh3" / Int64ul,
)

INDEX_HEAD: Final = Struct(
    "version_major" / Int16ul,
    "version_minor" / Int16ul,
    "salt" / Int32ul,
    "required_features" / Int64ul,
    "chunk_count" / Int64ul,
    "section_count" / Int64ul,
    "catalog_stored_size" / Int64ul,
    "catalog_decoded_size" / Int64ul,
    "reserved1" / Bytes(16),
)

TRAILER: Final = Struct(
    "index_offset" / Int64ul,
    "index_size" / Int64ul,
    "file_size" / Int64ul,
    "reserved" / Int64ul,
    "container_digest" / Bytes(32),
    "trailer_xxh3" / Int64ul,
    "magic" / Const(END_MAGIC),
)
