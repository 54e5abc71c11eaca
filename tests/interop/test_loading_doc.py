"""Each example of ``docs/loading.md`` runs, and prints what its comments say."""

from __future__ import annotations

import io
import re
import shutil
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import SOURCES

DOCUMENT = SOURCES.parents[1] / "docs" / "loading.md"
#: A line that prints, and what by its comment.
_PRINTS = re.compile(r"^\s*print\(.*?\)\s+# (?P<text>.*)$")


def _examples() -> list[tuple[int, str, str]]:
    """(line, what stands behind the language, code) of each example."""
    text = DOCUMENT.read_text()
    blocks = re.finditer(r"^```python ?(?P<mark>[^\n]*)\n(?P<code>.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: block.start()].count("\n") + 2, block["mark"], block["code"]) for block in blocks]


def _expected(code: str) -> list[str]:
    """What a line prints each time it is reached; several times are parted by ``, then``."""
    found = [match["text"] for line in code.splitlines() if (match := _PRINTS.match(line))]
    return [text for entry in found for text in entry.split(", then ")]


def test_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SOURCES / "gguf" / "smollm2-slice.gguf", tmp_path / "model.gguf")
    shutil.copy(SOURCES / "safetensors" / "bf16.safetensors", tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    examples, space = _examples(), {"__name__": "loading"}
    assert len(examples) > 5
    for line, mark, code in examples:
        if any(find_spec(package) is None for package in mark.split()):
            continue  # needs what is not installed
        printed, names = io.StringIO(), dict[str, Any](space)
        with redirect_stdout(printed):
            exec(compile("\n" * (line - 1) + code, str(DOCUMENT), "exec"), names)
        space = names
        assert printed.getvalue().splitlines() == _expected(code), f"{DOCUMENT.name}:{line}"
