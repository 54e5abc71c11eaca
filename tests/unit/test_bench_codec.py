"""``tools/bench/codec.py`` and what belongs to it, on small made-up tensors; no speed is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from qzf.adapters import describe
from qzf.model import MemberSpec
from qzf.storage import MemorySource
from qzf.transforms.layouts import BY_NAME
from tests.helpers import SOURCES as FIXTURES
from tools.bench import (
    codebooks,
    codec,
    codec_bits,
    codec_loads,
    codec_report,
    codec_samples,
    codec_worker,
    flavours,
)
from tools.bench.codec_bits import Bits
from tools.bench.codec_report import Cell, Load, Report, Size
from tools.bench.codec_samples import Sample
from tools.sources.ggml import quantize

_CHUNK = 64 << 10


def _rows(rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights whose scale differs from row to row, as bfloat16 has them."""
    random = np.random.default_rng(rows)
    values = random.standard_normal((rows, columns)) * random.uniform(0.01, 0.1, (rows, 1))
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _quantized(dtype: str) -> Sample:
    member, source = codec_samples.quantized(dtype, {"a": _rows(1024, 512), "b": _rows(512, 512)})
    (sample,) = codec_samples.of_member(member, source, [dtype], "made up", _CHUNK)
    return sample


@pytest.fixture(scope="module")
def q4_k() -> Sample:
    return _quantized("Q4_K")


@pytest.fixture(scope="module")
def bf16() -> Sample:
    source = MemorySource(flavours.make("BF16", {"a.weight": _rows(512, 512), "bias": _rows(1, 512)[0]}))
    samples = codec_samples.of_member(
        describe(source, "m.safetensors"), source, ["BF16", "I8"], "made up", _CHUNK
    )
    (sample,) = samples  # there is no I8
    return sample


@pytest.fixture
def report() -> Report:
    facts = {
        "date": "2026-01-02",
        "machine": "a machine, 2 cores",
        "load_before": 0.0,
        "seconds": 0.3,
        "rounds": 3,
        "active_isa": "avx2",
        "versions": {"qzf": "0.1.0"},
    }
    cells = [
        Cell("Q4_K", "qzf avx2", 1000, 900.5, "", {"decode 1": [10.0, 30.0, 20.0], "encode 1": [5.0]}),
        Cell("Q4_K", "qzf scalar", 1000, 900.5, "", {"decode 1": [7.0]}),
        Cell("Q4_K", "zipnn", 1000, None, "n/a"),
        Cell("Q4_K", "memcpy", 1000, 1000, "", {"decode 1": [99.0]}),
    ]
    return Report(
        facts,
        {"Q4_K": "a model"},
        cells,
        [Size("F32", 2_000_000, {"zstd -1": 1_900_000, "lmzip": None})],
        [Bits("Q4_K", "code", 1, 4, 3.75), Bits("Q4_K", "overhead: states, headers, tables", 1, None, 0.5)],
        [Load("qzf", [10.0, 30.0, 20.0]), Load("lmzip", note="not installed")],
    )


def test_a_sample_has_whole_blocks_and_a_model(q4_k: Sample) -> None:
    assert q4_k.size == 1536 * 512 // 256 * 144
    assert q4_k.block == 144
    assert all(chunk.tables and len(chunk.data) % 144 == 0 for chunk in q4_k.chunks)
    assert 0 < q4_k.table_bytes < q4_k.size
    pieces = q4_k.pieces(100_000)
    assert b"".join(pieces) == b"".join(chunk.data for chunk in q4_k.chunks)
    assert len(pieces) == 4 and all(len(piece) % 144 == 0 for piece in pieces)


def test_a_sample_is_a_part_of_a_large_type(monkeypatch: pytest.MonkeyPatch, q4_k: Sample) -> None:
    monkeypatch.setattr(codec_samples, "_MOST", 200_000)
    part = _quantized("Q4_K")
    assert 200_000 <= part.size < 200_000 + 2 * _CHUNK
    assert part.table_bytes == pytest.approx(q4_k.table_bytes * part.size / q4_k.size)


@pytest.mark.parametrize("engine", ["qzf", "zstd -1", "memcpy"])
def test_an_engine_gives_back_what_was_saved(engine: str, q4_k: Sample, bf16: Sample, tmp_path: Path) -> None:
    bench = codec_worker.Bench(codec_worker.ENGINES[engine])
    for sample in (q4_k, bf16):
        sample.save(tmp_path / "sample")
        loaded = Sample.load(tmp_path / "sample")
        assert loaded == sample
        packed, note = bench.load(loaded)
        assert note == "" and packed is not None
        assert packed == sample.size if engine == "memcpy" else packed < sample.size
        assert all(bench.speed(way, threads, 0) > 0 for way in codec.WAYS for threads in codec.THREADS)


@pytest.mark.parametrize("engine", ["lmzip", "zipnn", "openzl"])
def test_a_peer_that_is_there_takes_numbers(engine: str, bf16: Sample) -> None:
    packed, note = codec_worker.Bench(codec_worker.ENGINES[engine]).load(bf16)
    assert note == "not installed" if packed is None else packed < bf16.size


class _Absent(codec_worker.Engine):
    module = "no_such_module"


class _Wrong(codec_worker.Engine):
    def coder(self, threads: int) -> codec_worker.Coder:
        return codec_worker.Coder(lambda i: b"x", lambda i, packed, out: packed)


def test_what_is_missing_or_wrong_is_said(q4_k: Sample) -> None:
    assert codec_worker.Bench(_Absent).load(q4_k) == (None, "not installed")
    assert codec_worker.Bench(_Wrong).load(q4_k) == (None, "failed: the output is not the input")
    assert codec_worker.ENGINES["zipnn"].refuses(q4_k) == "n/a"


def test_workers_take_turns_and_measure(q4_k: Sample, tmp_path: Path) -> None:
    with codec.workers(["scalar"], ["memcpy"]) as engines:
        cells = codec.measure(q4_k, engines, 0.0, 2, tmp_path)
    assert [cell.engine for cell in cells] == ["qzf scalar", "memcpy"]
    assert [(cell.note, len(cell.speeds)) for cell in cells] == [("", 4), ("", 2)]
    assert cells[0].saved is not None and 0 < cells[0].saved < 30
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_has_ended_is_noted(q4_k: Sample, tmp_path: Path) -> None:
    with codec.workers([], ["no such engine"]) as engines:
        (cell,) = codec.measure(q4_k, engines, 0.0, 1, tmp_path)
    assert cell.note == "failed: its process has ended"
    assert Report({}, cells=[cell]).failed == ["Q4_K, no such engine: failed: its process has ended"]


@pytest.mark.parametrize("dtype", ["Q4_0", "Q4_1", "Q8_0", "Q2_K", "Q4_K", "Q6_K", "MXFP4"])
def test_fields_add_up_to_what_is_stored(dtype: str) -> None:
    sample = _quantized(dtype)
    rows = codec_bits.bits_of(sample)
    assert {row.field for row in rows if row.field != "code: coded"} <= set(codec_report._COLUMNS)
    *fields, overhead, whole = (
        row for row in rows if ": " not in row.field or (row.before is None and "overhead" in row.field)
    )
    assert all(row.before is not None and 0 < row.after < row.before for row in fields)
    assert whole.before == pytest.approx(8 * sample.block / (sample.block * 1536 * 512 / sample.size))
    assert whole.after == pytest.approx(sum(row.per_weight * row.after for row in fields) + overhead.after)
    parts = [row.after for row in rows if row.field.startswith("code: ")]
    assert not parts or sum(parts) == pytest.approx(next(r.after for r in fields if r.field == "code"))
    # States, headers, padding and tables: a model of the fields that were off would show here.
    known = 8 * (sample.table_bytes + len(sample.chunks) * (64 + 32 + 4 + 5 * 12 + 128 + 512 + 64 + 12))
    assert 0 < overhead.after < known / (1536 * 512)


def test_fields_of_numbers(bf16: Sample) -> None:
    key, *parts, rest, _, whole = codec_bits.bits_of(bf16)
    assert (key.before, rest.before, whole.before) == (12, 4, 16)
    assert key.after == pytest.approx(sum(part.after for part in parts))
    assert codec_bits.bits_of(Sample("BF16", "safetensors", "", bf16.chunks[:0], {}, 0)) == []


def test_flavours_convert_matrices_only() -> None:
    rows, bias, places = _rows(4, 256), np.ones(4, np.float32), np.arange(4).reshape(1, 4)
    for flavour in flavours.FLAVOURS:
        source = MemorySource(flavours.make(flavour, {"a.weight": rows, "a.bias": bias, "places": places}))
        member: MemberSpec = describe(source, "m.safetensors")
        dtypes = {tensor.name: tensor.dtype for tensor in member.tensors}
        assert (dtypes["a.bias"], dtypes["places"]) == ("F32", "I64")
        assert "scale" in flavour or dtypes["a.weight"] == flavour


def test_int4_groups_are_what_compressed_tensors_has() -> None:
    rows = _rows(4, 256)
    stored = flavours.int4_groups("a", rows)
    words = np.frombuffer(stored["a.weight_packed"].data, "<u4").reshape(4, 32, 1)
    scales = np.frombuffer(stored["a.weight_scale"].data, "<f2").reshape(4, 2, 1).astype(np.float32)
    codes = (words >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(np.int32).reshape(4, 2, 128) - 8
    assert np.abs(codes * scales - rows.reshape(4, 2, 128)).max() <= 0.51 * scales.max()
    assert np.abs(codes).max() == 7


def test_sizes_of_a_whole_file(tmp_path: Path) -> None:
    size = codec.measure_sizes("BF16", flavours.make("BF16", {"a.weight": _rows(256, 256)}), tmp_path)
    assert list(size.packed) == ["zstd -1", "zstd -19", "lmzip", "qzf"]
    assert all(packed is None or packed < size.original for packed in size.packed.values())
    assert list(tmp_path.iterdir()) == []


def test_loads_fill_buffers(tmp_path: Path) -> None:
    loads = codec_loads.measure(FIXTURES / "gguf" / "smollm2-slice.gguf", 2, 1, tmp_path)
    assert len(loads) == 4
    assert all(len(load.speeds) == 1 or load.note == "not installed" for load in loads)


def test_tables(report: Report) -> None:
    text = codec_report.as_text(report)
    assert "Q4_K  9.95    n/a  a model" in text
    assert "Q4_K        20           7    n/a      99" in text
    assert "Decode, 2 threads" not in text
    assert "Q4_K  4 → 3.750     0.500" in text
    report.cells[0].packed = 1000.01
    assert "-0.00" not in codec_report.as_text(report)
    assert "F32      2.0     5.00      -" in text
    assert text.splitlines()[-2].split() == ["qzf", "20"]


def test_json_comes_back_as_it_was(report: Report) -> None:
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_documents_are_filled_with_what_was_measured(report: Report, tmp_path: Path) -> None:
    earlier, document = tmp_path / "run.json", tmp_path / "doc.md"
    report.sizes = []
    earlier.write_text(json.dumps(report.to_json()))
    parts = (f"<!-- codec:begin {name} -->\nold {name}\n<!-- codec:end -->\n" for name in codec.PARTS)
    document.write_text("# T\n" + "kept\n".join(parts))
    assert codec.main(["--from-json", str(earlier), "--write-docs", str(document)]) == 0
    filled = document.read_text()
    assert "old sizes" in filled and "old speed" not in filled and filled.count("kept") == 3
    assert "Measured 2026-01-02 on a machine, 2 cores." in filled
    assert "| Q4_K | 20 | 7 | n/a | 99 |" in filled
    assert codec_report.fill(filled, report) == filled
    with pytest.raises(ValueError, match="codec:begin"):
        codec_report.fill("no markers", report)


@pytest.mark.parametrize("dtype", [name for name, fields in codebooks.FIELDS.items() if fields])
def test_fields_of_codebook_types_are_all_of_a_block(dtype: str) -> None:
    parts = [part for field in codebooks.FIELDS[dtype] for part in field]
    bits = [int(start) + bit for part in parts for start in part.starts for bit in range(part.bits)]
    assert sorted(bits) == list(range(8 * BY_NAME[dtype].block))


@pytest.mark.parametrize("dtype", ["IQ3_XXS", "Q1_0"])
def test_codebooks_are_measured(dtype: str) -> None:
    rows = quantize(GGMLQuantizationType[dtype], _rows(256, 512), np.ones(512, np.float32))
    name, *_, now, alone, _ = codebooks.measure(dtype, [rows])
    assert name == dtype and 0 < float(now) < 10
    assert not alone or 0 < float(alone) < 10
