"""The configuration beside a checkpoint: read within bounds, and never relied on.

Sources: ``quantization_config`` in transformers' config.json (``compression_config`` in older files of
compressed-tensors), AutoGPTQ's quantize_config.json and AutoAWQ's quant_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from qzf import limits
from qzf.adapters.schemes.base import NO_CONFIG, QuantConfig
from qzf.errors import QzfError
from qzf.storage import FileSource

__all__ = ["parse_quant_config", "read_quant_config"]

_FILES: Final = ("config.json", "quantize_config.json", "quant_config.json")
_NESTED: Final = ("quantization_config", "compression_config")
#: Models of several parts have a configuration for each.
_PARTS: Final = ("text_config", "llm_config", "language_config")
_BITS: Final = ("bits", "w_bit", "num_bits")
_GROUP: Final = ("group_size", "q_group_size")
_LARGEST: Final = 1 << 31


def read_quant_config(folder: Path) -> QuantConfig:
    """What the configuration in ``folder`` says of quantization; empty where there is none to be had.

    The files may be missing, huge, no JSON or anything else: they are optional, so that nothing of this is an
    error.
    """
    for name in _FILES:
        found = _find(_load(folder / name))
        if found is not None:
            return parse_quant_config(found)
    return NO_CONFIG


def _load(path: Path) -> object:
    try:
        with FileSource(path) as source:
            if source.size > limits.MAX_QUANT_CONFIG:
                return None
            raw = source.read(0, source.size)
        if sum(map(raw.count, (b"{", b"[", b","))) > limits.MAX_QUANT_CONFIG_VALUES:
            return None
        return json.loads(raw.decode("utf-8"))
    except (OSError, QzfError, ValueError, RecursionError):
        return None


def _find(config: object) -> dict[str, Any] | None:
    """The part of a configuration file that is about quantization."""
    if not isinstance(config, dict):
        return None
    parts = [part for part in (config, *map(config.get, _PARTS)) if isinstance(part, dict)]
    for part in parts:
        for key in _NESTED:
            if isinstance(part.get(key), dict):
                found: dict[str, Any] = part[key]
                return found
    return config if any(key in config for key in ("quant_method", *_BITS)) else None


def parse_quant_config(config: dict[str, Any]) -> QuantConfig:
    """What is known in a ``quantization_config``; values of other types count as absent."""
    method = config.get("quant_method")
    weights: dict[tuple[int, int | None], None] = {}
    block = _pair(config.get("weight_block_size"))
    for entry in _entries(config):
        bits = next((entry[key] for key in _BITS if _is_count(entry.get(key))), None)
        group = next((entry[key] for key in _GROUP if _is_count(entry.get(key))), None)
        if bits is not None and len(weights) < limits.MAX_QUANT_CONFIG_GROUPS:
            weights[bits, group] = None
        block = block or _pair(entry.get("block_structure"))
    return QuantConfig(method if isinstance(method, str) else None, tuple(weights), block)


def _entries(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects that describe weights: the configuration itself, and compressed-tensors' groups."""
    yield config
    groups = config.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            yield weights


def _pair(value: object) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(map(_is_count, value)):
        return value[0], value[1]
    return None


def _is_count(value: object) -> bool:
    """Whether this is an integer above zero of a sensible size; -1 stands for no groups."""
    return type(value) is int and 1 <= value <= _LARGEST
