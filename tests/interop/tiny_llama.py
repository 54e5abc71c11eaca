"""A model that llama.cpp loads, of 0.5 MB and with random weights, as one GGUF file or split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

_WIDTH, _HIDDEN, _HEADS, _LAYERS = 64, 128, 2, 3
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_tiny_llama(path: Path, *, parts: int = 1) -> list[Path]:
    """Write the model; the files it is in, in order. ``path`` ends in ``.gguf``."""
    tensors = _tensors()
    split: dict[str, Any] = {} if parts == 1 else {"split_max_tensors": -(-len(tensors) // parts)}
    writer = gguf.GGUFWriter(path, "llama", **split)
    writer.add_name("tiny")
    writer.add_context_length(256)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens, kinds = _tokens()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, data in tensors.items():
        if data.ndim == 1:
            writer.add_tensor(name, data)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = sorted(path.parent.glob(f"{path.stem}*.gguf"))
    assert len(found) == parts
    return found


def _tokens() -> tuple[list[str], list[int]]:
    kind = gguf.TokenType
    tokens = [("<unk>", kind.UNKNOWN), ("<s>", kind.CONTROL), ("</s>", kind.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kind.BYTE) for byte in range(256)]
    tokens += [(text, kind.NORMAL) for text in ("▁", *_LETTERS)]
    tokens += [(one + other, kind.NORMAL) for one in _LETTERS for other in _LETTERS]
    return [text for text, _ in tokens], [int(number) for _, number in tokens]


def _tensors() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    draw, vocabulary = np.random.default_rng(4), len(_tokens()[0])
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, _WIDTH)}
    for layer in range(_LAYERS):
        block = f"blk.{layer}."
        shapes |= {f"{block}attn_{one}.weight": (_WIDTH, _WIDTH) for one in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_{one}.weight": (_HIDDEN, _WIDTH) for one in ("gate", "up")}
        shapes[f"{block}ffn_down.weight"] = (_WIDTH, _HIDDEN)
        shapes |= {f"{block}{one}_norm.weight": (_WIDTH,) for one in ("attn", "ffn")}
    shapes |= {"output_norm.weight": (_WIDTH,), "output.weight": (vocabulary, _WIDTH)}
    numbers = {
        name: draw.standard_normal(shape) / 4 if shape[1:] else np.ones(shape)
        for name, shape in shapes.items()
    }
    return {name: array.astype(np.float32) for name, array in numbers.items()}
