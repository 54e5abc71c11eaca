"""The fields transform against a slow model, written from the definitions in qzf/transforms/layouts.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qzf.transforms import fields
from qzf.transforms.layouts import BY_ID, Codes, Copy, Layout, MaskCodes, Planes, Step

Bytes = npt.NDArray[np.uint8]

ALL = pytest.mark.parametrize("layout", BY_ID.values(), ids=lambda layout: layout.name)
ISAS = pytest.mark.parametrize("isa", fields.isas())

#: No real layout, but allowed: rows of codes that overlap in part, and bytes shared by steps.
OVERLAPPING = Layout(
    0,
    "overlapping",
    100,
    (Codes(40, 4, 4, ((0, 0, 60, 0), (20, 4, 60, 4))), Codes(20, 4, 4, ((40, 0, 0, 4),))),
)
BESIDE_MASK = Layout(
    0, "beside mask", 45, (MaskCodes(40, 7, ((0, 1, 40),)), Codes(20, 1, 1, ((0, 0, 20, 0),)))
)


def low_and_high(step: Codes | MaskCodes, blocks: Bytes) -> list[tuple[Bytes, Bytes]]:
    """The low and the high parts of the codes of each plane: arrays (block, lane)."""
    lane = np.arange(step.lanes)
    parts = []
    if isinstance(step, Codes):
        for low, low_shift, high, high_shift in step.planes:
            top = blocks[:, high + lane] // 2**high_shift % 2**step.high_bits
            parts.append((blocks[:, low + lane] // 2**low_shift % 2**step.low_bits, top))
    else:
        for low, low_shift, mask in step.planes:
            top = blocks[:, mask + lane // 8] // (2 ** (lane % 8)).astype(np.uint8) % 2
            parts.append((blocks[:, low + lane] // 2**low_shift % 2**step.low_bits, top))
    return parts


def model_step(step: Step, blocks: Bytes) -> list[Bytes]:
    match step:
        case Copy():
            return [blocks[:, step.offset : step.offset + step.width]]
        case Planes():
            numbers = [int.from_bytes(block.tobytes(), "little") for block in blocks]
            if step.rotate:
                bits = 8 * step.size
                numbers = [x * 2 % 2**bits + x // 2 ** (bits - 1) for x in numbers]
            return [np.array([x // 256**k % 256 for x in numbers], np.uint8) for k in range(step.size)]
        case Codes() | MaskCodes():
            codes = [low + top * 2**step.low_bits for low, top in low_and_high(step, blocks)]
            return [np.concatenate(codes, axis=1)]


def model(layout: Layout, src: bytes) -> list[bytes]:
    """The streams of ``src``, slowly."""
    blocks = np.frombuffer(src, np.uint8).reshape(-1, layout.block)
    return [stream.tobytes() for step in layout.steps for stream in model_step(step, blocks)]


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def check(layout: Layout, src: bytes, isa: str | None = None) -> None:
    streams = fields.split(layout, src, isa=isa)
    assert [bytes(stream) for stream in streams] == model(layout, src)
    out = bytearray(b"\xa5" * len(src))  # what was there must not show through
    fields.merge(layout, streams, out, isa=isa)
    assert out == src


@ALL
@ISAS
def test_every_layout_equals_the_model(layout: Layout, isa: str) -> None:
    for n in range(71):
        check(layout, noise(n * layout.block, seed=n), isa)


@ALL
@ISAS
def test_many_blocks_equal_the_model(layout: Layout, isa: str) -> None:
    for n in (1023, 6151):
        check(layout, noise(n * layout.block), isa)


@pytest.mark.parametrize("layout", [OVERLAPPING, BESIDE_MASK], ids=lambda layout: layout.name)
@ISAS
def test_bytes_shared_by_rows(layout: Layout, isa: str) -> None:
    for n in (*range(20), 200):
        check(layout, noise(n * layout.block, seed=n), isa)


@ALL
@ISAS
def test_merge_ignores_bits_above_the_codes(layout: Layout, isa: str) -> None:
    src = noise(65 * layout.block)
    streams: list[bytes] = []
    for step in layout.steps:
        part = [bytes(s) for s in model_step(step, np.frombuffer(src, np.uint8).reshape(-1, layout.block))]
        if isinstance(step, Codes | MaskCodes):
            bits = step.low_bits + (step.high_bits if isinstance(step, Codes) else 1)
            above = np.frombuffer(noise(len(part[0])), np.uint8) & np.uint8(256 - 2**bits)
            part = [(np.frombuffer(part[0], np.uint8) | above).tobytes()]
        streams += part
    out = bytearray(len(src))
    fields.merge(layout, streams, out, isa=isa)
    assert out == src


@ALL
def test_round_trip_of_any_bytes(layout: Layout) -> None:
    @given(st.binary(max_size=70 * 8), st.integers(0, 31))
    def round_trip(seed: bytes, skew: int) -> None:
        src = memoryview(seed * (1 + layout.block // 8))
        src = src[: len(src) // layout.block * layout.block]
        held = bytearray(skew + len(src))  # any alignment
        out = memoryview(held)[skew:]
        fields.merge(layout, fields.split(layout, src), out)
        assert out == src
        assert held[:skew] == bytes(skew)

    round_trip()


def test_streams_lie_one_after_another_and_are_writable() -> None:
    layout = next(layout for layout in BY_ID.values() if layout.name == "Q4_K")
    streams = fields.split(layout, noise(5 * layout.block))
    assert [len(stream) for stream in streams] == [5 * width for width in layout.widths]
    whole = streams[0].obj
    assert all(stream.obj is whole and not stream.readonly for stream in streams)


def test_no_blocks() -> None:
    for layout in BY_ID.values():
        streams = fields.split(layout, b"")
        assert [bytes(stream) for stream in streams] == [b""] * len(layout.widths)
        fields.merge(layout, streams, bytearray())


def test_native_layout_is_made_once_and_shared_by_threads() -> None:
    layout = Layout(0, "fresh", 5, (Copy(0, 5),))
    with ThreadPoolExecutor(8) as pool:
        sources = [noise(5 * n, seed=n) for n in range(200)]
        results = list(pool.map(lambda src: bytes(fields.split(layout, src)[0]), sources))
    assert results == sources
    assert fields.native(layout) is fields.native(layout)


def test_layout_that_uses_a_bit_twice_or_never() -> None:
    with pytest.raises(ValueError, match="used twice"):
        fields.split(Layout(0, "twice", 2, (Copy(0, 2), Copy(1, 1))), b"")
    with pytest.raises(ValueError, match="not used"):
        fields.split(Layout(0, "never", 2, (Copy(0, 1),)), b"")


def test_every_layout_uses_each_bit_once() -> None:
    for layout in BY_ID.values():
        native = fields.native(layout)
        assert (native.block, native.widths) == (layout.block, layout.widths)


def test_source_that_is_no_whole_number_of_blocks() -> None:
    layout = BY_ID[1]
    with pytest.raises(ValueError, match="whole number of blocks"):
        fields.split(layout, b"abc")


def test_hostile_merge_arguments() -> None:
    layout = BY_ID[1]
    with pytest.raises(ValueError, match="another number of streams"):
        fields.merge(layout, [b"a", b"b", b"c"], bytearray(2))
    with pytest.raises(ValueError, match="size"):
        fields.merge(layout, [b"a", b"bc"], bytearray(2))
    with pytest.raises(ValueError, match="writable"):
        fields.merge(layout, [b"a", b"b"], bytes(2))
    memory = memoryview(bytearray(4))
    with pytest.raises(ValueError, match="overlap"):
        fields.merge(layout, [memory[1:2], b"b"], memory[0:2])
    with pytest.raises(ValueError, match="contiguous"):
        fields.merge(layout, [memory[::2], bytes(2)], bytearray(4))
