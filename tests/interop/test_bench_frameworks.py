"""``tools/bench/frameworks.py`` on a model that is made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("torch")

from tools.bench import frameworks


def test_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedding = np.random.default_rng(1).standard_normal((1200, 8)).astype(np.float32)
    save_file({"embeddings.word_embeddings.weight": embedding}, tmp_path / "small.safetensors")
    arguments = ["--runs", "2", "--model", tmp_path / "small.safetensors", "--json", tmp_path / "out.json"]
    frameworks.main([str(argument) for argument in arguments])
    table = capsys.readouterr().out.splitlines()
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [(row["job"], row["dtype"]) for row in rows] == [
        (job, dtype)
        for dtype in ("F32", "BF16")
        for job in ("load_file, called", "load_file, loaded", "rows 1000:1100", "save_file")
    ]
    assert all(len(row[side]) == 2 and min(row[side]) > 0 for row in rows for side in ("theirs", "ours"))
    assert len(table) == 3 + len(rows) and "safetensors" in table[0]
