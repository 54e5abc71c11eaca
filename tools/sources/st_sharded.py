"""A sharded safetensors model: MiniLM with its first two layers, narrowed until it is small.

Every weight is the leading corner of the real one, so shapes fit together and the directory loads as a BERT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tools.sources.source import MINILM, Source, Weights
from tools.sources.st_writer import Tensor, of_array, serialize

FOLDER = "safetensors/sharded"
HIDDEN = 48
INTERMEDIATE = 192
LAYERS = 2
POSITIONS = 64
TOKEN_IDS = (0, 100, 101, 102, 103, *range(999, 1506))
"""Kept rows of the vocabulary: the special tokens, and the first ones in use (1..998 are mostly unused)."""

_SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
_RECIPE = f"leading corner: {LAYERS} layers, {HIDDEN} hidden and {INTERMEDIATE} intermediate columns"


def sharded_model(cache: Path | None) -> Iterator[Source]:
    """Yield the shards, their index, the configuration and the tokenizer."""
    minilm = Weights("minilm", cache)
    shards: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for name in minilm.names():
        if (shard := _shard(name)) is not None:
            shards[shard][name] = of_array(_cut(minilm, name))
    for filename, tensors in zip(_SHARDS, shards, strict=True):
        yield _source(filename, serialize(tensors, {"format": "pt"}))
    total = sum(len(tensor.data) for tensors in shards for tensor in tensors.values())
    places = {name: filename for filename, tensors in zip(_SHARDS, shards, strict=True) for name in tensors}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    yield _source("model.safetensors.index.json", _pretty(index))
    yield _source("config.json", _pretty(_config(minilm)))
    yield from _tokenizer(minilm)


def _shard(name: str) -> int | None:
    """Return the shard (0 or 1) of a tensor, or None for those of dropped layers."""
    if name.startswith("encoder.layer."):
        layer = int(name.split(".")[2])
        return layer if layer < LAYERS else None
    return 1 if name.startswith("pooler.") else 0


def _cut(minilm: Weights, name: str) -> npt.NDArray[Any]:
    """Return the corner of a tensor in its own dtype, C order."""
    if name == "embeddings.word_embeddings.weight":
        return minilm.corner(name, None, HIDDEN)[list(TOKEN_IDS)]
    sizes: tuple[int | None, ...]
    match name.split("."):
        case ["embeddings", "position_ids"]:
            sizes = (None, POSITIONS)
        case ["embeddings", "position_embeddings", _]:
            sizes = (POSITIONS, HIDDEN)
        case ["embeddings", "token_type_embeddings", _]:
            sizes = (None, HIDDEN)
        case ["encoder", "layer", _, "intermediate", "dense", "weight"]:
            sizes = (INTERMEDIATE, HIDDEN)
        case ["encoder", "layer", _, "intermediate", "dense", "bias"]:
            sizes = (INTERMEDIATE,)
        case ["encoder", "layer", _, "output", "dense", "weight"]:
            sizes = (HIDDEN, INTERMEDIATE)
        case [*_, "LayerNorm", _] | [*_, "bias"]:
            sizes = (HIDDEN,)
        case _:
            sizes = (HIDDEN, HIDDEN)
    return minilm.corner(name, *sizes)


def _config(minilm: Weights) -> dict[str, Any]:
    config: dict[str, Any] = minilm.json("config.json")
    return config | {
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
        "vocab_size": len(TOKEN_IDS),
    }


def _tokenizer(minilm: Weights) -> Iterator[Source]:
    """Yield the tokenizer files with the vocabulary cut to `TOKEN_IDS` and numbered anew."""
    words = minilm.text("vocab.txt").split("\n")
    kept = {words[old]: new for new, old in enumerate(TOKEN_IDS)}
    tokenizer: dict[str, Any] = minilm.json("tokenizer.json")
    tokenizer["model"]["vocab"] = kept
    for token in tokenizer["added_tokens"]:
        token["id"] = kept[token["content"]]
    for name, special in tokenizer["post_processor"]["special_tokens"].items():
        special["ids"] = [kept[name]]
    yield _source("tokenizer.json", json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode())
    yield _source("vocab.txt", "".join(f"{word}\n" for word in kept).encode())
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        yield _source(name, minilm.text(name).encode())


def _pretty(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _source(filename: str, data: bytes) -> Source:
    return Source(path=f"{FOLDER}/{filename}", data=data, origin=MINILM, recipe=_RECIPE)
