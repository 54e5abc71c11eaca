"""Models in several files: safetensors with an index file, GGUF split into numbered parts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from qzf import limits
from qzf.errors import GgufError, SafetensorsError
from qzf.storage import ByteSource, FileSource

__all__ = [
    "SHARD",
    "GgufPart",
    "gguf_part",
    "model_stems",
    "read_shard_index",
    "read_weight_map",
    "split_gguf_parts",
]

#: The name of a part as gguf-split writes it (SPLIT_PREFIX format ``%s-%05d-of-%05d.gguf`` in llama.cpp).
_PART: Final = re.compile(r"(?P<stem>.*)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)


#: A shard's name, without what its format adds to it.
SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})", re.DOTALL)


class GgufPart(NamedTuple):
    """Which part of a split model a file is, by its name: ``number`` of ``total``, from 1 on."""

    stem: str
    number: int
    total: int


def gguf_part(name: str) -> GgufPart | None:
    """Which part of a split model a file of this name is; None where it is none."""
    match = _PART.fullmatch(name)
    return None if match is None else GgufPart(match["stem"], int(match["number"]), int(match["count"]))


def model_stems(names: Iterable[str]) -> set[str]:
    """The models that safetensors files are of, by their names: a file alone, or the stem of its shards."""
    return {shard["stem"] if (shard := SHARD.match(name)) else name for name in names}


def read_shard_index(path: str | os.PathLike[str]) -> list[str]:
    """Return the file names that ``model.safetensors.index.json`` at ``path`` refers to, sorted, each once.

    They are plain names in the index file's folder. Raises SafetensorsError for anything else; whether the
    files exist is not looked at.
    """
    with FileSource(path) as source:
        files = set(read_weight_map(source).values())
    if len(files) > limits.MAX_PARTS:
        _fail(f"{len(files)} files, the limit is {limits.MAX_PARTS}", source.name)
    return sorted(files)


def read_weight_map(source: ByteSource) -> dict[str, str]:
    """Return what an index of shards says: which file each tensor is in. Raises SafetensorsError."""
    weight_map = _read_index(source).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        _fail("weight_map is no map, or an empty one", source.name)
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not _is_plain(file):
            _fail(f"{file!r} is no plain file name", source.name, tensor)
    return weight_map


def split_gguf_parts(path: str | os.PathLike[str]) -> list[Path]:
    """Return all parts of the split model that ``path`` is any part of, in order.

    A name that is not of the form ``stem-00001-of-00003.gguf`` is a model in one file: just that path.
    Raises GgufError for numbers that cannot be and for a part that is missing.
    """
    given = Path(path)
    part = gguf_part(given.name)
    if part is None:
        return [given]
    stem, number, count = part
    if not 1 <= number <= count <= limits.MAX_PARTS:
        raise GgufError(f"part {number} of {count} cannot be", file=os.fspath(path))
    # One look into the folder instead of one for each part that the name claims to exist.
    present = {entry.name for entry in given.parent.iterdir()}
    parts = []
    for each in range(1, count + 1):
        name = f"{stem}-{each:05d}-of-{count:05d}.gguf"
        if name not in present:
            raise GgufError(f"part {each} of {count} is missing: {name}", file=os.fspath(path))
        parts.append(given.with_name(name))
    return parts


def _read_index(source: ByteSource) -> dict[str, Any]:
    name = source.name
    if source.size > limits.MAX_SHARD_INDEX:
        _fail(f"the index has {source.size} bytes, the limit is {limits.MAX_SHARD_INDEX}", name)
    raw = source.read(0, source.size)
    if sum(map(raw.count, (b"{", b"[", b","))) > limits.SAFETENSORS_MAX_VALUES:
        _fail(f"the index holds more than {limits.SAFETENSORS_MAX_VALUES} JSON values", name)
    try:
        parsed = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        _fail(f"the index is not JSON: {error}", name)
    if not isinstance(parsed, dict):
        _fail("the index is no JSON object", name)
    return parsed


def _is_plain(file: str) -> bool:
    """Tell whether ``file`` names a file of the same folder, on every system."""
    if file in ("", ".", "..") or any(char in "/\\:" or not char.isprintable() for char in file):
        return False
    # Not printable are lone surrogates too, so it can be encoded.
    return len(file.encode("utf-8")) <= limits.MAX_PATH_COMPONENT


def _fail(message: str, name: str, tensor: str | None = None) -> NoReturn:
    raise SafetensorsError(message, file=name, tensor=tensor)
