"""Decode all vectors with random damage by a core that sanitizers watch.

``python -m tests.fuzz.run_sanitized CORE ROUNDS``: CORE is the compiled module. Each stream gets memory of
its own and of exactly its size, and so does what is decoded, so that a byte too many is seen. A finding ends
the process.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer

ROOT = Path(__file__).resolve().parents[2]


def _load(core: str) -> None:
    """Let this be the package's compiled core."""
    spec = importlib.util.spec_from_file_location("qzf._core", core)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


def _exact(data: Buffer) -> memoryview:
    """A copy in memory of exactly its size: behind bytes there is a zero, behind other arrays room."""
    source = memoryview(data).cast("B")
    copy = memoryview(array("B", [0]) * len(source))
    copy[:] = source
    return copy


def _separate_streams() -> None:
    """Copy what the core is given, where it lies in a larger buffer, and use no buffer twice."""
    from qzf import scratch
    from qzf.transforms import fields, modeled

    core: Any = sys.modules["qzf._core"]
    decode, merge, merge_strings = modeled.decode, fields.merge, core.strings_merge

    def decode_copies(transform, layout, streams, tables, out):  # type: ignore[no-untyped-def]
        decode(transform, layout, [each._replace(body=_exact(each.body)) for each in streams], tables, out)

    def merge_copies(layout, streams, out, **options):  # type: ignore[no-untyped-def]
        merge(layout, [_exact(stream) for stream in streams], out, **options)

    def merge_string_copies(lengths, text, out):  # type: ignore[no-untyped-def]
        merge_strings(_exact(lengths), _exact(text), out)

    modeled.decode, fields.merge = decode_copies, merge_copies
    core.strings_merge = merge_string_copies
    scratch._KEEP = -1  # type: ignore[misc]
    scratch.bytearray = lambda size: _exact(bytes(size))  # type: ignore[attr-defined]


def _decode(data: bytes) -> int:
    """Decode all chunks of a container, or as many as can be; how many can."""
    from qzf.container.reader import ContainerReader
    from qzf.errors import QzfError
    from qzf.storage import MemorySource

    decoded = 0
    with suppress(QzfError):
        reader = ContainerReader(MemorySource(data))
        for chunk in range(len(reader.index.chunks)):
            with suppress(QzfError):
                reader.read_chunk(chunk, _exact(bytes(reader.index.chunks[chunk].decoded_size)))
                decoded += 1
    return decoded


def main(arguments: Sequence[str]) -> None:
    _load(arguments[0])
    _separate_streams()
    import qzf
    from tests.fuzz.container_mutations import Mutator
    from tools.vectors.parts import seal, take_apart

    whole = damaged = 0
    for path in sorted((ROOT / "fixtures/vectors/v1").glob("*.qzf")):
        data = path.read_bytes()
        whole += _decode(data)
        parts = take_apart(data)
        for number in range(int(arguments[1])):
            changed = deepcopy(parts)
            Mutator(random.Random(f"{path.name} {number}")).damage(changed)
            damaged += _decode(seal(changed))
    for path in sorted((ROOT / "fixtures/errors").glob("*.qzf")):
        _decode(path.read_bytes())
    print(f"{qzf.active_isa()}: {whole} chunks, of damaged ones {damaged}")


if __name__ == "__main__":
    main(sys.argv[1:])
