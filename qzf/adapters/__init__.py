"""Input formats: which kind a file is, and what it consists of."""

from __future__ import annotations

from typing import Any

from qzf.adapters.base import GGUF, KINDS, OPAQUE, SAFETENSORS, Kind
from qzf.adapters.gguf import describe_gguf, looks_like_gguf, read_gguf_metadata
from qzf.adapters.opaque import describe_opaque
from qzf.adapters.safetensors import describe_safetensors, read_safetensors_metadata
from qzf.adapters.shards import (
    SHARD,
    GgufPart,
    gguf_part,
    model_stems,
    read_shard_index,
    read_weight_map,
    split_gguf_parts,
)
from qzf.errors import GgufError, SafetensorsError
from qzf.model import MemberSpec
from qzf.storage import ByteSource

__all__ = [
    "GGUF",
    "KINDS",
    "OPAQUE",
    "SAFETENSORS",
    "SHARD",
    "GgufPart",
    "Kind",
    "describe",
    "detect",
    "gguf_part",
    "model_stems",
    "read_metadata",
    "read_safetensors_metadata",
    "read_shard_index",
    "read_weight_map",
    "split_gguf_parts",
]


def detect(source: ByteSource, name: str | None = None) -> Kind:
    """Tell what kind of file ``source`` is, by its content and by ``name`` (default: the source's own).

    A name that ends in ``.safetensors`` says that it is one, since the format has no magic; a GGUF file is
    known by its first 8 bytes whatever its name. Raises GgufError for a name that ends in ``.gguf`` without
    the magic, SafetensorsError for a ``.safetensors`` file that is GGUF.
    """
    suffix = (source.name if name is None else name).lower()
    head = source.read(0, min(8, source.size))
    if suffix.endswith(".safetensors"):
        if looks_like_gguf(head):
            raise SafetensorsError("is named .safetensors but is a GGUF file", file=source.name, offset=0)
        return SAFETENSORS
    if suffix.endswith(".gguf"):
        if head[:4] != b"GGUF":
            raise GgufError("does not start with the magic 'GGUF'", file=source.name, offset=0)
        return GGUF
    return GGUF if looks_like_gguf(head) else OPAQUE


def describe(source: ByteSource, name: str, *, opaque: bool = False) -> MemberSpec:
    """Describe ``source`` as the member ``name``; ``opaque`` takes it as bytes whatever it is.

    Raises GgufError or SafetensorsError, with offset and broken rule, for a file that is not what it says.
    """
    kind = OPAQUE if opaque else detect(source, name)
    if kind == GGUF:
        return describe_gguf(source, name)
    if kind == SAFETENSORS:
        return describe_safetensors(source, name)
    return describe_opaque(source, name)


def read_metadata(source: ByteSource, name: str | None = None) -> dict[str, Any]:
    """Return all metadata of ``source`` in full: GGUF's values, safetensors' ``__metadata__``, else none."""
    kind = detect(source, name)
    if kind == GGUF:
        return read_gguf_metadata(source)
    if kind == SAFETENSORS:
        return dict(read_safetensors_metadata(source) or {})
    return {}
