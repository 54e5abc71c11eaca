"""safetensors to GGUF: floats and integers as they are, or 2-D floats quantized by libgguf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from qzf.adapters import GGUF
from qzf.adapters.gguf_writing import GgufTensor, lay_out_gguf
from qzf.errors import OptionError, SafetensorsError
from qzf.limits import GGUF_MAX_DIMS, GGUF_MAX_TENSORS
from qzf.model import MemberSpec, TensorSpec
from qzf.ops.convert_plan import Part, Plan, Step, check_readable, listed
from qzf.quant import BY_NAME, PLAIN
from qzf.storage import ByteSource
from qzf.transforms.dequant import dequantize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["QUANTIZED", "StSource", "plan_gguf"]

#: Types that libgguf makes without an importance matrix.
QUANTIZED: Final = (
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"),
    *("iq1_m", "iq2_s", "iq3_xxs", "iq3_s", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4"),
)
_FLOATS: Final = frozenset({"F32", "F16", "BF16"})
#: GGML_MAX_NAME of ggml.h, with the zero at the end.
_GGML_NAME: Final = 64
#: GGML_QNT_VERSION of ggml.h.
_QUANTIZATION_VERSION: Final = 2


class StSource(NamedTuple):
    """A safetensors file: its bytes, its tensors, and its ``__metadata__``."""

    source: ByteSource
    spec: MemberSpec
    metadata: Mapping[str, str]


class _Target(NamedTuple):
    """A tensor of the GGUF file, and what it is made of."""

    tensor: GgufTensor
    source: ByteSource
    spec: TensorSpec
    unit: int = 1
    made: int = 1
    step: Step | None = None


def plan_gguf(files: Sequence[StSource], name: str, arch: str | None, quantize: str | None) -> Plan:
    """Plan the GGUF file of safetensors files, whose tensors keep their names and order.

    ``arch`` and ``name`` go to the header; ``quantize``, of ``QUANTIZED``, is what 2-D floats become whose
    rows are whole blocks. Raises ``SafetensorsError`` for tensors that GGUF cannot hold, ``OptionError``
    where libgguf is needed and missing.
    """
    _refuse(files)
    quantizer = None if quantize is None else _Quantizer(quantize.upper())
    targets = [_target(file.source, spec, quantizer) for file in files for spec in file.spec.tensors]
    changed = [target for target in targets if target.step is not None]
    values: dict[str, str | int] = {"general.architecture": arch or "unknown", "general.name": name}
    if changed:
        values["general.quantization_version"] = _QUANTIZATION_VERSION
    layout = lay_out_gguf(values, [target.tensor for target in targets])
    check_readable(layout.header, layout.size, files[0].source.name, GGUF)
    parts = [
        Part(target.source, target.spec.extent, at, target.unit, target.made, target.step)
        for target, at in zip(targets, layout.offsets, strict=True)
    ]
    notices = _lost(files, [target.spec for target in changed], quantize)
    return Plan(layout.header, parts, layout.size, len(targets), len(changed), notices)


def _refuse(files: Sequence[StSource]) -> None:
    seen: set[str] = set()
    for source, spec, _ in files:
        for tensor in spec.tensors:
            fault = ""
            if tensor.name in seen:
                fault = "another file has a tensor of this name"
            elif tensor.dtype not in PLAIN:
                dtypes = sorted({tensor.dtype for file in files for tensor in file.spec.tensors} - PLAIN)
                fault = f"GGUF has no type for {', '.join(dtypes)}; it has {', '.join(sorted(PLAIN))}"
            elif len(tensor.shape) > GGUF_MAX_DIMS:
                fault = f"{len(tensor.shape)} dimensions, GGUF has up to {GGUF_MAX_DIMS}"
            if fault:
                raise SafetensorsError(fault, file=source.name, tensor=tensor.name)
            seen.add(tensor.name)
    if len(seen) > GGUF_MAX_TENSORS:
        raise SafetensorsError(
            f"{len(seen)} tensors, GGUF has up to {GGUF_MAX_TENSORS}", file=files[0].source.name
        )


def _target(source: ByteSource, spec: TensorSpec, quantizer: _Quantizer | None) -> _Target:
    ne, plain = spec.shape[::-1] or (1,), BY_NAME[spec.dtype]
    if quantizer is None or not quantizer.takes(spec):
        return _Target(GgufTensor(spec.name, ne, plain.number, spec.extent.size), source, spec)
    made = quantizer.type
    unit = made.block * plain.size
    size = spec.extent.size // unit * made.size
    step = partial(quantizer.step, spec, source.name)
    return _Target(GgufTensor(spec.name, ne, made.number, size), source, spec, unit, made.size, step)


class _Quantizer:
    """Quantizes runs of whole blocks, which without an importance matrix do not depend on each other."""

    def __init__(self, name: str) -> None:
        self.type = BY_NAME[name]
        try:
            import libgguf
        except ImportError:
            raise OptionError("quantizing needs libgguf: pip install 'qzf[convert]'") from None
        self._quantize: Any = libgguf.quantize_rows_into_raw
        # Its tables are made by the first call, which no other thread should meet.
        self._quantize(
            self.type.number, bytes(4 * self.type.block), bytearray(self.type.size), 1, self.type.block
        )

    def takes(self, spec: TensorSpec) -> bool:
        """Whether a tensor is quantized: floats in rows of whole blocks."""
        return (
            spec.dtype in _FLOATS
            and len(spec.shape) == 2
            and spec.shape[1] % self.type.block == 0
            and spec.extent.size > 0
        )

    def step(self, spec: TensorSpec, file: str, data: memoryview, out: memoryview) -> None:
        """Quantize blocks of the tensor ``spec``. Raises ``SafetensorsError`` for infinities and NaNs."""
        import numpy as np

        weights: npt.NDArray[np.float32] = np.empty(data.nbytes // BY_NAME[spec.dtype].size, np.float32)
        dequantize(spec.dtype, data, weights.data, "float32")
        if not np.isfinite(weights).all():
            raise SafetensorsError(
                "holds infinities or NaNs, which cannot be quantized", file=file, tensor=spec.name
            )
        self._quantize(self.type.number, weights, out, 1, weights.size)


def _lost(files: Sequence[StSource], changed: Sequence[TensorSpec], quantize: str | None) -> tuple[str, ...]:
    tensors = [tensor for file in files for tensor in file.spec.tensors]
    keys = sorted({key for file in files for key in file.metadata})
    notices = ["llama.cpp cannot run the result: safetensors have neither hyperparameters nor a tokenizer"]
    if keys:
        notices.append(f"lost: __metadata__, {listed(keys)}")
    notices.append(
        "lost: how the safetensors header is written"
        + (", and which file has which tensor" if len(files) > 1 else "")
    )
    if scalars := [tensor.name for tensor in tensors if not tensor.shape]:
        notices.append(f"lost: that these are scalars and not vectors of one: {listed(scalars)}")
    if long := [tensor.name for tensor in tensors if len(tensor.name.encode()) >= _GGML_NAME]:
        notices.append(f"ggml takes names of up to {_GGML_NAME - 1} bytes, not {listed(long)}")
    if quantize is not None:
        notices.append(f"lost: precision; {len(changed)} of {len(tensors)} tensors become {quantize.upper()}")
    return tuple(notices)
