"""Which quantization schemes the files to pack hold: shards of one checkpoint are looked at together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qzf.adapters import SAFETENSORS
from qzf.adapters.schemes import NO_CONFIG, QuantConfig, read_quant_config, recognise
from qzf.model import MemberSpec
from qzf.ops.sources import SourceFile

__all__ = ["name_schemes"]

#: A shard's name as transformers writes it: ``model-00001-of-00003.safetensors``.
_SHARD: Final = re.compile(r"(.*)-[0-9]+(-of-[0-9]+\.safetensors)", re.DOTALL)


def name_schemes(files: Sequence[SourceFile], specs: Sequence[MemberSpec]) -> list[MemberSpec]:
    """``specs``, those of ``files``, with the scheme of each safetensors tensor that belongs to one.

    The configuration is looked for beside each file, whether it is packed or not; beside what is no file on
    disk there is none.
    """
    named, configs = list(specs), dict[Path, QuantConfig]()
    for ordinals in _checkpoints(files, specs):
        first = files[ordinals[0]]
        config = NO_CONFIG
        if first.given is None:
            folder = first.path.parent
            if folder not in configs:
                configs[folder] = read_quant_config(folder)
            config = configs[folder]
        tensors = [tensor for ordinal in ordinals for tensor in specs[ordinal].tensors]
        count = Counter(tensor.name for tensor in tensors)
        # A name that two shards have says nothing about which of them its partners belong to.
        schemes = recognise({t.name: t for t in tensors if count[t.name] == 1}, config)
        for ordinal in ordinals if schemes else ():
            spec = specs[ordinal]
            marked = tuple(tensor._replace(scheme=schemes.get(tensor.name)) for tensor in spec.tensors)
            named[ordinal] = spec._replace(tensors=marked)
    return named


def _checkpoints(files: Sequence[SourceFile], specs: Sequence[MemberSpec]) -> list[list[int]]:
    """The ordinals of safetensors files that are one checkpoint: all shards of a set, or a single file."""
    sets: dict[tuple[bool, Path, str], list[int]] = {}
    for ordinal, (file, spec) in enumerate(zip(files, specs, strict=True)):
        if spec.kind == SAFETENSORS:
            shard = _SHARD.fullmatch(file.path.name)
            key = f"{shard[1]}{shard[2]}" if shard else file.path.name
            sets.setdefault((file.given is None, file.path.parent, key), []).append(ordinal)
    return list(sets.values())
