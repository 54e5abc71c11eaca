"""The compiled core's Python face: instruction sets, hostile arguments, the committed stub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qzf import _core
from qzf.quant import BY_NAME

ROOT = Path(__file__).parents[2]


def byte_pair() -> _core.Layout:
    """Blocks of 3 bytes, split into streams of 1 and 2 bytes a block."""
    return _core.Layout(3).copy(0, 1).copy(1, 2).freeze()


def active_isa_with(**env: str) -> subprocess.CompletedProcess[str]:
    code = "from qzf import _core; print(_core.active_isa())"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env, cwd=ROOT
    )


def test_scalar_is_always_there_and_the_widest_is_active() -> None:
    assert _core.available_isas()[0] == "scalar"
    done = active_isa_with(QZF_FORCE_ISA="")
    assert done.stdout.strip() == _core.available_isas()[-1]


@pytest.mark.parametrize("isa", _core.available_isas())
def test_environment_forces_an_isa(isa: str) -> None:
    assert active_isa_with(QZF_FORCE_ISA=isa).stdout.strip() == isa


def test_environment_forcing_an_unknown_isa_is_an_error_at_first_use() -> None:
    done = active_isa_with(QZF_FORCE_ISA="mmx")
    assert done.returncode == 1
    assert "ValueError: QZF_FORCE_ISA: instruction set 'mmx' is not available here" in done.stderr


def test_unknown_isa_argument() -> None:
    with pytest.raises(ValueError, match="'mmx' is not available here; there are: scalar"):
        byte_pair().split(b"", bytearray(), "mmx")


def test_attributes() -> None:
    layout = byte_pair()
    assert layout.block == 3
    assert layout.widths == (1, 2)


def test_methods_chain_on_the_same_object() -> None:
    layout = _core.Layout(1)
    assert layout.copy(0, 1) is layout
    assert layout.freeze() is layout


def test_unused_bit() -> None:
    with pytest.raises(ValueError, match="a bit of byte 2 of the block is not used"):
        _core.Layout(3).copy(0, 2).freeze()
    with pytest.raises(ValueError, match="a bit of byte 0 of the block is not used"):
        _core.Layout(1).codes(1, 3, 4, [(0, 0, 0, 3)]).freeze()


def test_bit_used_twice_leaves_the_layout_as_it_was() -> None:
    layout = _core.Layout(4).copy(2, 2)
    with pytest.raises(ValueError, match="a bit of byte 2 of the block is used twice"):
        layout.copy(0, 3)
    with pytest.raises(ValueError, match="a bit of byte 0 of the block is used twice"):
        layout.codes(2, 4, 4, [(0, 0, 0, 3)])
    assert layout.copy(0, 2).freeze().widths == (2, 2)


@pytest.mark.parametrize("block", [0, 65537, 2**63])
def test_block_size(block: int) -> None:
    with pytest.raises(ValueError, match="a block has 1 to 65536 bytes"):
        _core.Layout(block)


def test_steps_outside_of_the_block_or_byte() -> None:
    layout = _core.Layout(8)
    for offset, width in [(0, 9), (8, 1), (2**63, 2**63), (1, 2**64 - 1), (0, 0)]:
        with pytest.raises(ValueError, match="outside of the block"):
            layout.copy(offset, width)
    with pytest.raises(ValueError, match="outside of the block"):
        layout.codes(4, 4, 4, [(0, 0, 5, 0)])
    with pytest.raises(ValueError, match="outside of the block"):
        layout.mask_codes(8, 4, [(0, 0, 8)])
    with pytest.raises(ValueError, match="outside of a byte"):
        layout.codes(4, 4, 4, [(0, 5, 4, 0)])
    with pytest.raises(ValueError, match="outside of a byte"):
        layout.codes(4, 0, 4, [(0, 0, 4, 0)])
    with pytest.raises(ValueError, match="outside of a byte"):
        layout.codes(4, 1, 1, [(0, 2**64 - 1, 4, 0)])


def test_step_parameters() -> None:
    layout = _core.Layout(8)
    with pytest.raises(ValueError, match="2, 4 or 8 bytes"):
        layout.planes(3, False)
    with pytest.raises(ValueError, match="one number"):
        layout.planes(4, False)
    with pytest.raises(ValueError, match="at most 8 bits"):
        layout.codes(4, 4, 5, [(0, 0, 4, 0)])
    with pytest.raises(ValueError, match="at most 8 bits"):
        layout.mask_codes(8, 8, [(0, 0, 4)])
    with pytest.raises(ValueError, match="multiple of 8"):
        layout.mask_codes(4, 4, [(0, 0, 4)])
    with pytest.raises(ValueError, match="need a plane"):
        layout.codes(4, 4, 4, [])
    with pytest.raises(TypeError):
        layout.copy(-1, 1)


def test_frozen_and_not_frozen() -> None:
    with pytest.raises(ValueError, match="not frozen"):
        _core.Layout(1).copy(0, 1).split(b"", bytearray())
    with pytest.raises(ValueError, match="not frozen"):
        _core.Layout(1).copy(0, 1).merge([b""], bytearray())
    with pytest.raises(ValueError, match="is frozen"):
        byte_pair().copy(0, 1)
    with pytest.raises(ValueError, match="is frozen"):
        byte_pair().freeze()


def test_wrong_sizes() -> None:
    layout = byte_pair()
    with pytest.raises(ValueError, match="whole number of blocks"):
        layout.split(bytes(4), bytearray(3))
    for size in (0, 3, 5, 7, 9):
        with pytest.raises(ValueError, match="size of all streams"):
            layout.split(bytes(6), bytearray(size))
    with pytest.raises(ValueError, match="whole number of blocks"):
        layout.merge([bytes(1), bytes(2)], bytearray(4))
    with pytest.raises(ValueError, match="another number of streams"):
        layout.merge([bytes(3)], bytearray(3))
    with pytest.raises(ValueError, match="a stream has not the size"):
        layout.merge([bytes(1), bytes(2)], bytearray(6))


def test_overlap() -> None:
    layout = byte_pair()
    memory = memoryview(bytearray(20))
    for at in (0, 2, 4):
        with pytest.raises(ValueError, match="overlap"):
            layout.split(memory[2:5], memory[at : at + 3])
    layout.split(memory[2:5], memory[5:8])
    with pytest.raises(ValueError, match="overlap"):
        layout.merge([bytes(1), memory[4:6]], memory[5:8])
    layout.merge([memory[4:5], memory[8:10]], memory[5:8])


def test_buffers_must_be_contiguous_and_output_writable() -> None:
    layout = byte_pair()
    with pytest.raises(ValueError, match="contiguous"):
        layout.split(memoryview(bytes(6))[::2], bytearray(3))
    with pytest.raises(ValueError, match="contiguous"):
        layout.split(np.zeros((3, 2), np.uint8).T, bytearray(6))  # type: ignore[arg-type] # numpy's own error
    with pytest.raises(ValueError, match="writable"):
        layout.split(bytes(3), bytes(3))
    frozen = np.zeros(3, np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        layout.merge([bytes(1), bytes(2)], frozen.data)
    layout.split(frozen.data, bytearray(3))
    with pytest.raises(TypeError):
        layout.split("abc", bytearray(3))  # type: ignore[arg-type]


def test_any_element_type_will_do() -> None:
    out = np.zeros(3, "<u4")
    byte_pair().split(np.arange(6, dtype="<u2").data, out.data)
    assert out.tobytes() == bytes([0, 0, 3, 0, 0, 1, 2, 0, 0, 4, 5, 0])
    back = np.zeros(6, "<u2")
    raw = out.tobytes()
    byte_pair().merge([raw[:4], raw[4:]], back.data)
    assert back.tolist() == list(range(6))


def test_dequantized_blocks_have_the_sizes_of_the_quant_package() -> None:
    for name, weights, size in _core.dequant_types():
        assert (BY_NAME[name].block, BY_NAME[name].size) == (weights, size)


def test_stub_is_what_nanobind_generates() -> None:
    stubgen = pytest.importorskip("nanobind.stubgen", reason="nanobind is not installed")
    generator = stubgen.StubGen(_core)
    generator.put(_core)
    assert (ROOT / "qzf/_core.pyi").read_text() == generator.get(), (
        "run: python -m nanobind.stubgen -m qzf._core -o qzf/_core.pyi"
    )
