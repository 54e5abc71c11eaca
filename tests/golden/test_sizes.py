"""Packed sizes of all source fixtures, so that no change makes them larger unseen."""

from __future__ import annotations

import zstandard

from tools import make_vectors

#: Another libzstd may choose other blocks: then sizes must agree up to this.
TOLERANCE = 0.005
AGAIN = "run python tools/make_vectors.py --sizes"


def test_packed_sizes_are_as_recorded() -> None:
    version, recorded = make_vectors.read_sizes()
    now = make_vectors.packed_sizes()
    exact = version == zstandard.ZSTD_VERSION
    assert [row[:3] for row in now] == [row[:3] for row in recorded], (
        "run python tools/make_vectors.py --sizes"
    )
    changed = [
        f"{file} at {level}: {was} -> {packed} bytes"
        for (file, level, _, packed), (*_, was) in zip(now, recorded, strict=True)
        if (packed != was if exact else abs(packed - was) > TOLERANCE * was)
    ]
    assert not changed, (
        f"packed sizes have changed; if that is meant, {AGAIN} and say so in CHANGELOG.md:\n"
        + "\n".join(changed)
    )


def test_higher_levels_are_no_larger() -> None:
    _, recorded = make_vectors.read_sizes()
    sizes = {(file, level): packed for file, level, _, packed in recorded}
    # A larger catalog or frame may cost a unit of padding.
    assert all(sizes[file, "max"] <= sizes[file, "fast"] + 64 for file, _ in sizes)
