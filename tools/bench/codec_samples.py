"""Chunks of real tensors of one type, with the models that qzf codes them by: what ``codec.py`` measures on.

Models are made from the whole file, as packing does; the sample is a part of its chunks.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType
from safetensors import safe_open

from qzf.adapters import describe
from qzf.container import payload
from qzf.container.payload import Effort
from qzf.limits import DEFAULT_CHUNK, MAX_TABLES
from qzf.model import Extent, MemberSpec, TensorSpec
from qzf.ops.modeling import build_models
from qzf.ops.recipe import LEVELS, Cut, cuts
from qzf.ops.sampling import RECORD, Models
from qzf.storage import ByteSource, FileSource, MemorySource
from qzf.transforms.layouts import BY_ID, BY_NAME
from qzf.transforms.modeled import SCHEMAS, ChunkModel, QuantChunks, SharedTable, ValuesChunks
from tools import fetch_models
from tools.bench import flavours
from tools.sources.ggml import quantize
from tools.sources.source import Floats

__all__ = ["EFFORT", "SOURCES", "Chunk", "Sample", "all_samples", "of_member", "quantized"]

EFFORT: Final = LEVELS["default"]
_TABLE_EFFORT: Final = Effort(scales=(), codes=(), whole=(9,))  # as the writer codes tables
_MOST: Final = 16 << 20
"""Bytes of a sample."""

_MPNET_LAYERS: Final = 2
_MPNET_TYPES: Final = (
    *("Q4_0", "Q5_1", "Q2_K", "Q3_K", "Q5_K", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "TQ2_0"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
)

SOURCES: Final[Mapping[str, tuple[str, str]]] = {
    "Q4_1": ("smollm2", ""),
    "Q8_0": ("gemma", ""),
    "Q5_0": ("gemma", ""),
    "Q4_K": ("gemma", ""),
    "Q6_K": ("gemma", ""),
    "F32": ("minilm", "F32"),
    "BF16": ("minilm", "BF16"),
    "F16": ("minilm", "F16"),
    "F8_E4M3": ("minilm", "FP8 E4M3, F32 scale per row"),
    "I8": ("minilm", "INT8, F32 scale per row"),
    "I32": ("minilm", "INT4 in I32, F16 scale per 128"),
    **{name: ("mpnet", name) for name in _MPNET_TYPES},
}
"""Where the tensors of a type come from: a model, and what its matrices are converted to."""


@dataclass(frozen=True)
class Chunk:
    """A chunk: its bytes, the layout that suits it without a model, and how a model codes it.

    ``tables`` are ids of the sample's tables, none without a model; ``run`` is blocks of a row or numbers of
    a segment.
    """

    data: bytes
    layout: str | None
    tables: tuple[int, ...] = ()
    model_layout: int = 0
    run: int = 0


@dataclass(frozen=True)
class Sample:
    """Chunks of one type; ``table_bytes`` is the share of the tables' stored bytes that falls to them."""

    dtype: str
    kind: str
    origin: str
    chunks: tuple[Chunk, ...]
    tables: Mapping[int, bytes]
    table_bytes: float

    @property
    def size(self) -> int:
        """Bytes of all chunks."""
        return sum(len(chunk.data) for chunk in self.chunks)

    @property
    def block(self) -> int:
        """Bytes of what must not be divided."""
        name = self.dtype if self.kind == "gguf" else self.chunks[0].layout
        layout = BY_NAME.get(name or "")
        return 1 if layout is None else layout.block

    def shared(self) -> dict[int, SharedTable]:
        """The tables, by id."""
        return {ident: SharedTable(content) for ident, content in self.tables.items()}

    def models(self) -> list[ChunkModel | None]:
        """How each chunk is coded; None without a model."""
        shared = self.shared()
        return [self._model(chunk, shared) for chunk in self.chunks]

    def _model(self, chunk: Chunk, shared: Mapping[int, SharedTable]) -> ChunkModel | None:
        if not chunk.tables:
            return None
        table, layout = shared[chunk.tables[0]], chunk.model_layout
        if self.kind == "gguf" and self.dtype in SCHEMAS:
            columns = shared[chunk.tables[1]].content if len(chunk.tables) > 1 else None
            model = table.quant(self.dtype)
            return QuantChunks(SCHEMAS[self.dtype], layout, chunk.tables, model, columns, chunk.run)
        return ValuesChunks(layout, chunk.tables, table.values(), chunk.run)

    def pieces(self, size: int) -> list[bytes]:
        """All bytes in pieces of about ``size``, at least two, at block boundaries."""
        whole = b"".join(chunk.data for chunk in self.chunks)
        count = max(2, round(len(whole) / size))
        step = -(-len(whole) // self.block // count) * self.block
        return [whole[at : at + step] for at in range(0, len(whole), step)]

    def save(self, path: Path) -> None:
        """Write it where another process of this run can ``load`` it."""
        path.write_bytes(pickle.dumps(self))

    @staticmethod
    def load(path: Path) -> Sample:
        """What ``save`` wrote; only for files of this run."""
        sample = pickle.loads(path.read_bytes())
        assert isinstance(sample, Sample)
        return sample


def _spread(found: Sequence[Cut]) -> list[Cut]:
    """Evenly spread ones of these, ``_MOST`` bytes of them or a little more."""
    total = sum(cut.size for cut in found)
    count = min(len(found), max(1, -(-_MOST * len(found) // total)))
    return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]


def of_member(
    member: MemberSpec,
    source: ByteSource,
    dtypes: Sequence[str],
    origin: str,
    chunk_size: int = DEFAULT_CHUNK,
) -> Iterator[Sample]:
    """A sample of each of these types in ``member``."""
    pieces = list(cuts(member, chunk_size))
    models = build_models(member, pieces, source, EFFORT, 2, first_id=0, room=MAX_TABLES)
    costs = [payload.encode(table, None, _TABLE_EFFORT).size + RECORD for table in models.tables]
    for dtype in dtypes:
        ours = [cut for cut in pieces if cut.tensor is not None and member.tensors[cut.tensor].dtype == dtype]
        if not ours:
            continue
        chosen = _spread(ours)
        used = {i for cut in ours for i in _tables(models, cut)}
        share = sum(cut.size for cut in chosen) / sum(cut.size for cut in ours)
        yield Sample(
            dtype,
            member.kind,
            origin,
            tuple(_chunk(models, cut, source.read(cut.offset, cut.size)) for cut in chosen),
            {ident: models.tables[ident] for ident in used},
            share * sum(costs[ident] for ident in used),
        )


def _tables(models: Models, cut: Cut) -> tuple[int, ...]:
    model = None if cut.tensor is None else models.by_tensor.get(cut.tensor)
    return () if model is None else model.tables


def _chunk(models: Models, cut: Cut, data: bytes) -> Chunk:
    layout = None if cut.layout is None else cut.layout.name
    model = None if cut.tensor is None else models.by_tensor.get(cut.tensor)
    if model is None:
        return Chunk(data, layout)
    assert isinstance(model, QuantChunks | ValuesChunks) and model.layout in BY_ID
    run = model.row_blocks if isinstance(model, QuantChunks) else model.segment
    return Chunk(data, layout, model.tables, model.layout, run)


def quantized(dtype: str, matrices: Mapping[str, Floats]) -> tuple[MemberSpec, MemorySource]:
    """A GGUF member (tensors only) of float32 ``[rows, columns]`` matrices, quantized to a GGML type."""
    tensors, parts, at = [], [], 0
    for name, rows in matrices.items():
        data = quantize(GGMLQuantizationType[dtype], rows, np.ones(rows.shape[1], np.float32))
        tensors.append(TensorSpec(name, dtype, rows.shape, Extent(at, data.nbytes), data.shape[1]))
        parts.append(data.tobytes())
        at += data.nbytes
    return MemberSpec(f"{dtype}.gguf", "gguf", at, tuple(tensors)), MemorySource(b"".join(parts))


def matrices(path: Path, prefixes: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """The matrices of a safetensors file whose names start with one of ``prefixes``."""
    with safe_open(path, framework="numpy") as file:
        names = [name for name in sorted(file.keys()) if name.startswith(prefixes)]
        found = {name: file.get_tensor(name) for name in names}
    return {name: values for name, values in found.items() if values.ndim == 2}


def tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a safetensors file."""
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict


def all_samples(dtypes: Sequence[str]) -> Iterator[Sample]:
    """Samples of these types, which are keys of ``SOURCES``."""
    for model in dict.fromkeys(SOURCES[dtype][0] for dtype in dtypes):
        path = fetch_models.fetch(model)
        ours = [dtype for dtype in dtypes if SOURCES[dtype][0] == model]
        if model in ("smollm2", "gemma"):
            with FileSource(path) as source:
                yield from of_member(describe(source, path.name), source, ours, model)
        elif model == "minilm":
            loaded = tensors(path)
            for dtype in ours:
                memory = MemorySource(flavours.make(SOURCES[dtype][1], loaded))
                member = describe(memory, f"{dtype}.safetensors")
                yield from of_member(member, memory, [dtype], f"{model}, {SOURCES[dtype][1]}")
        else:
            loaded = matrices(path, tuple(f"encoder.layer.{layer}." for layer in range(_MPNET_LAYERS)))
            for dtype in ours:
                yield from of_member(*quantized(dtype, loaded), [dtype], f"{model}, quantized by libgguf")
