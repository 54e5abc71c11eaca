"""The GGUF sources: one per GGML type, a slice of a real quantized file, and a split model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType

from tools.fetch_models import fetch
from tools.sources.ggml import quantize, type_sizes
from tools.sources.source import MPNET, SMOLLM2, Bytes, Floats, Source, Weights, mean_square

Type = GGMLQuantizationType

WEIGHT_BYTES = 100_000
"""Bytes of quantized weights in a file of a rare type."""

COMMON_WEIGHT_BYTES = 220_000
"""The same for the types that most published checkpoints hold."""

COMMON = {Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.MXFP4}

WIDE_ROWS_LIMIT = 31
"""Most rows of 3,072 columns in one file. It also keeps gguf 0.19 able to open Q8_1, whose blocks it takes
for 4 bytes longer than they are: what it reads too much of the last matrix still lies within the file."""

TOKENS = 64
SMOLLM2_TOKENS = 96
SPLIT_COUNT = 3

_LAYER = "encoder.layer.0."
_NARROW = (f"{_LAYER}attention.attn.q.weight", "blk.0.attn_q.weight")
_WIDE = (f"{_LAYER}output.dense.weight", "blk.0.ffn_down.weight")
_PLAIN = (
    (f"{_LAYER}output.LayerNorm.weight", "blk.0.layer_output_norm.weight"),
    (f"{_LAYER}intermediate.dense.bias", "blk.0.ffn_up.bias"),
)


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a GGUF to be: its GGML type, logical shape (numpy order) and encoded bytes (uint8)."""

    name: str
    qtype: Type
    shape: tuple[int, ...]
    data: Bytes

    def add_to(self, writer: GGUFWriter) -> None:
        """Register it. The int8 view keeps the writer from working the shape out of its own block sizes."""
        writer.add_tensor(self.name, self.data.view(np.int8), raw_shape=self.shape, raw_dtype=self.qtype)


def all_ggufs(cache: Path | None) -> Iterator[Source]:
    """Yield every GGUF source, one per GGML type first."""
    mpnet = Weights("mpnet", cache)
    for qtype in Type:
        yield _one_type(mpnet, qtype)
    yield _smollm2_slice(cache)
    yield from _split(mpnet)


def _one_type(mpnet: Weights, qtype: Type) -> Source:
    tensors = [*_matrices(mpnet, qtype), *(_plain(mpnet, *names) for names in _PLAIN)]
    writer = GGUFWriter(path=None, arch="mpnet")
    _add_mpnet_metadata(writer, mpnet, _file_type(qtype))
    return Source(
        path=f"gguf/{qtype.name.lower()}.gguf",
        data=_written(writer, tensors, "one.gguf")["one.gguf"],
        origin=MPNET,
        recipe=f"first rows of layer 0's query and output weights as {qtype.name}; a norm and a bias as F32",
    )


def _matrices(mpnet: Weights, qtype: Type) -> Iterator[_Tensor]:
    """Yield a matrix of 768 and one of 3,072 columns, with odd row counts and about equally many bytes."""
    elements, size = type_sizes(qtype)
    budget = (COMMON_WEIGHT_BYTES if qtype in COMMON else WEIGHT_BYTES) // 2
    for source, name in (_NARROW, _WIDE):
        whole = mpnet.rows(source)
        columns = whole.shape[1]
        fitting = budget // (columns // elements * size)
        limit = WIDE_ROWS_LIMIT * 3072 // columns
        rows = whole[: (min(fitting, limit) - 1) | 1]
        yield _quantized(name, qtype, rows, mean_square(whole))


def _quantized(name: str, qtype: Type, rows: Floats, importance: Floats) -> _Tensor:
    return _Tensor(name, qtype, rows.shape, quantize(qtype, rows, importance))


def _plain(mpnet: Weights, source: str, name: str) -> _Tensor:
    values = mpnet.rows(source)
    return _Tensor(name, Type.F32, values.shape, values.view(np.uint8))


def _file_type(qtype: Type) -> int | None:
    """Return the LlamaFileType that llama.cpp would write for a file of mostly `qtype`, if it has one."""
    names = {member.name: int(member) for member in LlamaFileType}
    candidates = (f"ALL_{qtype.name}", f"MOSTLY_{qtype.name}", f"MOSTLY_{qtype.name}_M")
    return next((names[name] for name in candidates if name in names), None)


def _add_mpnet_metadata(writer: GGUFWriter, mpnet: Weights, file_type: int | None) -> None:
    """Add what mpnet's own config.json and vocabulary say; the token arrays are cut to `TOKENS`."""
    config: Mapping[str, Any] = mpnet.json("config.json")
    writer.add_type("model")
    writer.add_name("All Mpnet Base v2")
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(mpnet.text("vocab.txt").split("\n")[:TOKENS])
    writer.add_token_types([3 if token < 4 else 1 for token in range(TOKENS)])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_quantization_version(2)
    if file_type is not None:
        writer.add_file_type(file_type)


def _smollm2_slice(cache: Path | None) -> Source:
    """Copy rows of the original quantized tensors, and all metadata with the token arrays cut short."""
    reader = GGUFReader(fetch("smollm2", cache))
    writer = GGUFWriter(path=None, arch=reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value, kinds = field.contents(), field.types
        if kinds[0] is GGUFValueType.ARRAY:
            value = value[:SMOLLM2_TOKENS]
        writer.add_key_value(name, value, kinds[0], kinds[-1] if len(kinds) > 1 else None)
    tensors = []
    for tensor in reader.tensors:
        if not tensor.name.startswith(("token_embd.", "blk.0.", "blk.1.")):
            continue
        shape = [int(size) for size in reversed(tensor.shape)]
        shape[0] = min(shape[0], _smollm2_rows(tensor.name, shape[0]))
        data = np.ascontiguousarray(tensor.data[: shape[0]]).view(np.uint8)
        tensors.append(_Tensor(tensor.name, tensor.tensor_type, tuple(shape), data))
    return Source(
        path="gguf/smollm2-slice.gguf",
        data=_written(writer, tensors, "slice.gguf")["slice.gguf"],
        origin=SMOLLM2,
        recipe="rows of token_embd, blk.0 and blk.1, bit for bit from the Q4_1 file; token arrays cut short",
    )


def _smollm2_rows(name: str, rows: int) -> int:
    """Return how many rows to keep: whole norms, the kept tokens' embeddings, 37 of each weight."""
    if name.endswith("_norm.weight"):
        return rows
    return SMOLLM2_TOKENS if name.startswith("token_embd.") else 37


def _split(mpnet: Weights) -> Iterator[Source]:
    """Yield a Q4_K_M-like mixture in three shards, as llama.cpp's own splitter lays it out."""
    plan = (
        ("attention.attn.q.weight", "attn_q.weight", Type.Q4_K, 61),
        ("attention.attn.k.weight", "attn_k.weight", Type.Q4_K, 61),
        ("attention.attn.v.weight", "attn_v.weight", Type.Q6_K, 61),
        ("attention.attn.o.weight", "attn_output.weight", Type.Q4_K, 61),
        ("attention.LayerNorm.weight", "attn_output_norm.weight", Type.F32, None),
        ("intermediate.dense.weight", "ffn_up.weight", Type.Q4_K, 61),
        ("intermediate.dense.bias", "ffn_up.bias", Type.F32, None),
        ("output.dense.weight", "ffn_down.weight", Type.Q6_K, 23),
        ("output.LayerNorm.weight", "layer_output_norm.weight", Type.F32, None),
    )
    tensors = []
    for source, name, qtype, count in plan:
        rows = mpnet.rows(_LAYER + source, count)
        encoded = rows.view(np.uint8) if qtype is Type.F32 else quantize(qtype, rows, mean_square(rows))
        tensors.append(_Tensor(f"blk.0.{name}", qtype, rows.shape, encoded))
    writer = GGUFWriter(path=None, arch="mpnet", split_max_tensors=len(tensors) // SPLIT_COUNT)
    _add_mpnet_metadata(writer, mpnet, int(LlamaFileType.MOSTLY_Q4_K_M))
    for name, data in _written(writer, tensors, "split.gguf").items():
        yield Source(
            path=f"gguf/{name}",
            data=data,
            origin=MPNET,
            recipe="layer 0 as a Q4_K and Q6_K mixture, three tensors a shard, with split.* metadata",
        )


def _written(writer: GGUFWriter, tensors: list[_Tensor], name: str) -> dict[str, bytes]:
    """Let the gguf package write the file or its shards; return them by name."""
    for tensor in tensors:
        tensor.add_to(writer)
    with tempfile.TemporaryDirectory() as folder:
        writer.write_header_to_file(Path(folder) / name)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
