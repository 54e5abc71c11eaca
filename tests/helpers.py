"""Small builders of input files, byte by byte, so that tests can break any rule of a format."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import numpy as np

from qzf.quant import BY_NUMBER
from qzf.storage import SourceBase
from qzf.transforms import quant_stats
from qzf.transforms.layouts import BY_NAME
from qzf.transforms.modeled import SCHEMAS, QuantChunks, SharedTable, ValuesChunks
from qzf.transforms.quant_table import QuantTable, Tally, column_classes, zeros
from qzf.transforms.values_table import FORMS, Form, Symbols, count_keys, histograms, make_table

SOURCES = Path(__file__).resolve().parents[1] / "fixtures" / "sources"

#: Runs a command line in an empty folder; arguments may be paths.
Run = Callable[..., click.testing.Result]

F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
UINT8, UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, FLOAT64 = 0, 4, 6, 7, 8, 9, 10, 12


def open_files(collect: bool = True) -> int:
    """Descriptors of this process on regular files; sockets that other tests left may go at any time."""
    if collect:
        gc.collect()  # what was left to it before closes its files now, and not in between
    found = 0
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - what this opens itself is closed again
        with contextlib.suppress(OSError):
            found += stat.S_ISREG(os.fstat(int(entry)).st_mode)
    return found


class CountingSource(SourceBase):
    """Bytes that remember which ranges were asked for, as a remote file would be asked."""

    def __init__(self, data: bytes) -> None:
        super().__init__("counting", len(data))
        self._data = data
        self.reads: list[tuple[int, int]] = []

    def _fill(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, len(buffer)))
        buffer[:] = self._data[offset : offset + len(buffer)]

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class GgufTensor:
    """A tensor to be: ``ne`` innermost first; ``data`` None is counted bytes of the right size.

    ``offset`` None places it behind the one before, aligned.
    """

    name: str | bytes
    ne: tuple[int, ...]
    type_number: int = F32
    data: bytes | None = None
    offset: int | None = None

    def content(self) -> bytes:
        if self.data is not None:
            return self.data
        size = BY_NUMBER[self.type_number].row_size(self.ne[0] if self.ne else 1)
        assert size is not None
        for count in self.ne[1:]:
            size *= count
        return bytes(index % 251 for index in range(size))


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def gguf_string(text: str | bytes) -> bytes:
    raw = text.encode("utf-8") if isinstance(text, str) else text
    return u64(len(raw)) + raw


def gguf_array(of: int, elements: Sequence[bytes], count: int | None = None) -> bytes:
    """An array's payload: element type, length (``count`` to lie about it), elements."""
    return u32(of) + u64(len(elements) if count is None else count) + b"".join(elements)


def gguf_pair(key: str | bytes, number: int, payload: bytes) -> bytes:
    return gguf_string(key) + u32(number) + payload


def gguf_file(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[GgufTensor] = (),
    *,
    version: int = 3,
    alignment: int = 32,
    counts: tuple[int | None, int | None] = (None, None),
    tail: bytes = b"",
) -> bytes:
    """A whole file; ``counts`` are the tensor and key-value counts to announce instead of the true ones."""
    out = bytearray(b"GGUF" + u32(version))
    out += u64(len(tensors) if counts[0] is None else counts[0])
    out += u64(len(pairs) if counts[1] is None else counts[1])
    out += b"".join(pairs)
    data = bytearray()
    for tensor in tensors:
        offset = -(-len(data) // alignment) * alignment if tensor.offset is None else tensor.offset
        out += gguf_string(tensor.name) + u32(len(tensor.ne)) + b"".join(map(u64, tensor.ne))
        out += u32(tensor.type_number) + u64(offset)
        content = tensor.content()
        # What a hostile offset points to cannot be there.
        if tensor.offset is None or offset <= 1 << 20:
            data += bytes(max(0, offset + len(content) - len(data)))
            data[offset : offset + len(content)] = content
    if tensors:
        out += bytes(-len(out) % alignment)
    return bytes(out + data + tail)


def small_gguf() -> bytes:
    """A valid file with every kind of metadata value and three tensors; ends with the last one's data."""
    pairs = [
        gguf_pair("general.architecture", STRING, gguf_string("llama")),
        gguf_pair("general.alignment", UINT32, u32(32)),
        gguf_pair("a.float", FLOAT32, struct.pack("<f", 1e-5)),
        gguf_pair("a.bool", BOOL, b"\1"),
        gguf_pair("a.list", ARRAY, gguf_array(UINT32, [u32(7), u32(8)])),
        gguf_pair("a.nested", ARRAY, gguf_array(ARRAY, [gguf_array(UINT8, [b"\5"])])),
        gguf_pair(
            "tokenizer.ggml.tokens", ARRAY, gguf_array(STRING, [gguf_string(f"t{i}") for i in range(70)])
        ),
    ]
    tensors = [
        GgufTensor("token_embd.weight", (32, 5), Q4_0),
        GgufTensor("norm.weight", (7,), F32),
        GgufTensor("output.weight", (64, 3), Q8_0),
    ]
    return gguf_file(pairs, tensors)


def safetensors_file(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A whole file; ``header`` is JSON data, or the raw header as str or bytes."""
    if not isinstance(header, str | bytes):
        header = json.dumps(header)
    raw = header.encode("utf-8") if isinstance(header, str) else header
    return u64(len(raw) if length is None else length) + raw + data


def entry(dtype: str, shape: Iterable[int], begin: int, end: int) -> dict[str, Any]:
    """A tensor's entry in a safetensors header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def small_safetensors() -> bytes:
    """A valid file with metadata, three tensors, one of them empty, and padding."""
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry("BF16", (3, 4), 24, 48),
        "a": entry("F32", (2, 3), 0, 24),
        "empty": entry("I8", (0, 5), 24, 24),
    }
    return safetensors_file(json.dumps(header) + "   ", bytes(range(48)))


def flip(container: Path, *places: int) -> Path:
    """A copy of the container in the current folder, with a bit flipped in each of these bytes."""
    data = bytearray(container.read_bytes())
    for place in places:
        data[place] ^= 0x10
    copy = Path("damaged.qzf")
    copy.write_bytes(data)
    return copy


# --- chunks that are coded by models --------------------------------------------------------------

#: Ids of the tables that the chunks below name: the model, and classes of columns.
MODEL, COLUMNS = 5, 6


def weights(rows: int, columns: int, seed: int = 1, spread: float = 0.0) -> np.ndarray[Any, np.dtype[Any]]:
    """Heavy-tailed float32 numbers, (rows, columns); with ``spread`` columns have different scales."""
    draw = np.random.default_rng(seed)
    scales = np.exp(spread * draw.standard_normal(columns)) / 50
    return (draw.standard_t(3, (rows, columns)) * scales).astype(np.float32)


def quantized(dtype: str, rows: int, columns: int, seed: int = 1, spread: float = 0.0) -> bytes:
    """``weights`` as blocks of a GGML type, by llama.cpp's own quantizer."""
    from gguf import GGMLQuantizationType

    from tools.sources.ggml import quantize

    numbers = weights(rows, columns, seed, spread)
    return quantize(GGMLQuantizationType[dtype], numbers, np.ones(columns, np.float32)).tobytes()


def counted(table: QuantTable, columns: bytes | None, data: bytes, row_blocks: int) -> Tally:
    """What blocks that the table can express count for it."""
    model, tally = SharedTable(table.dump()).quant(table.schema.name), table.tally()
    assert quant_stats.count(model, columns, data, row_blocks, tally)
    return tally


def values_table(form: Form, data: bytes, segment: int, contexts: int) -> bytes:
    """A shared table made from these numbers alone."""
    counts = zeros(1 << form.key_bits)
    count_keys(form, data, counts)
    symbols = Symbols.of(form, counts)
    return make_table(form, symbols, histograms(form, symbols.map(form), data, segment), contexts)


def quant_chunks(
    dtype: str, data: bytes, row_blocks: int, classes: int = 1
) -> tuple[QuantChunks, dict[int, SharedTable]]:
    """How ``data``, blocks of this type, may be coded by a model made from them; and its tables by id."""
    schema = SCHEMAS[dtype]
    columns = None
    if classes > 1:
        columns = column_classes(quant_stats.deviations(schema, data, row_blocks), classes)
    table = QuantTable.plan(schema, *quant_stats.look(schema, data), classes)
    tables = {MODEL: SharedTable(table.finish(counted(table, columns, data, row_blocks)))}
    if columns is not None:
        tables[COLUMNS] = SharedTable(columns)
    model = tables[MODEL].quant(dtype)
    chunks = QuantChunks(schema, BY_NAME[dtype].wire_id, tuple(tables), model, columns, row_blocks)
    return chunks, tables


def values_chunks(
    dtype: str, data: bytes, segment: int = 64, contexts: int = 3
) -> tuple[ValuesChunks, dict[int, SharedTable]]:
    """How ``data``, numbers of this dtype, may be coded by a model made from them; and its table by id."""
    form = FORMS[dtype]
    table = SharedTable(values_table(form, data, segment, contexts))
    return ValuesChunks(form.layout, (MODEL,), table.values(), segment), {MODEL: table}
