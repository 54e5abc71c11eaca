"""GGUF to safetensors, with raw blocks or with floats, and from raw blocks back.

With raw blocks a tensor of a quantized type is U8 of shape (..., rows, bytes per row), and all bytes of the
file that are in no tensor are one more U8 tensor, so that the way back needs nothing else. Two keys of
``__metadata__`` tell of it:

- ``qzf.gguf_header``: the name of that tensor;
- ``qzf.ggml_types``: a JSON object, the GGML type of each tensor that is not of a type of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from qzf.adapters import SAFETENSORS, describe
from qzf.adapters.safetensors import METADATA_KEY
from qzf.adapters.safetensors_writing import SafetensorsTensor, lay_out_safetensors
from qzf.errors import GgufError, SafetensorsError
from qzf.limits import SAFETENSORS_MAX_HEADER
from qzf.model import Extent, MemberSpec, TensorSpec
from qzf.ops.convert_plan import HeadSource, Part, Plan, Step, check_readable, listed
from qzf.quant import BY_NAME, PLAIN
from qzf.storage import ByteSource
from qzf.transforms.dequant import DEQUANTIZABLE, FLOATS, dequantize

__all__ = ["DEQUANTIZED", "HEADER_KEY", "plan_floats", "plan_raw", "plan_restored"]

HEADER_KEY: Final = "qzf.gguf_header"
_TYPES_KEY: Final = "qzf.ggml_types"
#: What quantized tensors can become: the safetensors dtype, and its name in ``transforms.dequant``.
DEQUANTIZED: Final = {
    "f32": ("F32", "float32"),
    "f16": ("F16", "float16"),
    "bf16": ("BF16", "bfloat16"),
}


class _Target(NamedTuple):
    """A tensor of the safetensors file, and what of the GGUF file it is made of."""

    tensor: SafetensorsTensor
    source: ByteSource
    extents: Sequence[Extent]
    unit: int = 1
    made: int = 1
    step: Step | None = None


def plan_raw(source: ByteSource, spec: MemberSpec) -> Plan:
    """Plan the safetensors file that keeps all of a GGUF file.

    Raises ``GgufError`` for what no safetensors file can hold.
    """
    metadata = _raw_metadata(spec)
    raw = [_raw(tensor, source) for tensor in spec.tensors]
    return _plan(metadata, [_verbatim(spec, source, metadata[HEADER_KEY]), *raw], source.name)


def plan_floats(files: Sequence[tuple[ByteSource, MemberSpec]], floats: str) -> Plan:
    """Plan the safetensors file of a GGUF file or all parts of a split one; blocks become ``floats``.

    ``floats`` is of ``DEQUANTIZED``. Raises ``GgufError`` for what no safetensors file can hold and for types
    that cannot be dequantized.
    """
    targets, seen = [], set[str]()
    for source, spec in files:
        for tensor in spec.tensors:
            if tensor.name in seen:
                raise GgufError(
                    "another part has a tensor of this name", file=source.name, tensor=tensor.name
                )
            seen.add(tensor.name)
            targets.append(_floats(tensor, source, floats))
    metadata, lost = _values(files[0][1])
    types = {tensor.dtype for _, spec in files for tensor in spec.tensors} - PLAIN
    plan = _plan(metadata, targets, files[0][0].name)
    return plan._replace(notices=_lost(sorted(types), floats, lost))


def _plan(metadata: dict[str, str], targets: list[_Target], name: str) -> Plan:
    # As safetensors itself writes them: by the width of numbers, so that each lies at a multiple of it.
    targets.sort(key=lambda target: -_width(target.tensor.dtype))
    tensors = [target.tensor for target in targets]
    if any(tensor.name == METADATA_KEY for tensor in tensors):
        raise GgufError("no tensor of a safetensors file can have this name", file=name, tensor=METADATA_KEY)
    layout = lay_out_safetensors(metadata, tensors)
    if len(layout.header) - 8 > SAFETENSORS_MAX_HEADER:
        size = len(layout.header) - 8
        raise GgufError(f"the header of a safetensors file cannot have {size} bytes", file=name)
    check_readable(layout.header, layout.size, name, SAFETENSORS)
    parts = []
    for target, at in zip(targets, layout.offsets, strict=True):
        for extent in target.extents:
            parts.append(Part(target.source, extent, at, target.unit, target.made, target.step))
            at += extent.size // target.unit * target.made
    changed = sum(target.step is not None for target in targets)
    count = len(targets) - (HEADER_KEY in metadata)
    return Plan(layout.header, parts, layout.size, count, changed, ())


def _raw_form(tensor: TensorSpec) -> tuple[str, tuple[int, ...]]:
    """dtype and shape of a GGUF tensor whose bytes are kept."""
    if tensor.dtype in PLAIN:
        return tensor.dtype, tensor.shape
    if tensor.dtype in BY_NAME:
        return "U8", (*tensor.shape[:-1], tensor.row_size)
    return "U8", (tensor.extent.size,)  # a type that QZF does not know: where its rows end is unknown, too


def _raw(tensor: TensorSpec, source: ByteSource) -> _Target:
    made = SafetensorsTensor(tensor.name, *_raw_form(tensor), tensor.extent.size)
    return _Target(made, source, [tensor.extent])


def _verbatim(spec: MemberSpec, source: ByteSource, name: str) -> _Target:
    extents = spec.verbatim()
    size = sum(extent.size for extent in extents)
    return _Target(SafetensorsTensor(name, "U8", (size,), size), source, extents)


def _raw_metadata(spec: MemberSpec) -> dict[str, str]:
    names = {tensor.name for tensor in spec.tensors}
    header = HEADER_KEY
    while header in names:
        header += "_"
    types = {tensor.name: tensor.dtype for tensor in spec.tensors if tensor.dtype not in PLAIN}
    return {HEADER_KEY: header, _TYPES_KEY: json.dumps(types, ensure_ascii=False, separators=(",", ":"))}


def _floats(tensor: TensorSpec, source: ByteSource, floats: str) -> _Target:
    if tensor.dtype in PLAIN:
        return _raw(tensor, source)
    if tensor.dtype not in DEQUANTIZABLE:
        raise GgufError(f"{tensor.dtype} cannot be dequantized", file=source.name, tensor=tensor.name)
    (dtype, name), layout = DEQUANTIZED[floats], BY_NAME[tensor.dtype]
    made = layout.block * FLOATS[name]
    size = tensor.extent.size // layout.size * made
    return _Target(
        SafetensorsTensor(tensor.name, dtype, tensor.shape, size),
        source,
        [tensor.extent],
        layout.size,
        made,
        partial(dequantize, tensor.dtype, dtype=name),
    )


def _values(spec: MemberSpec) -> tuple[dict[str, str], list[str]]:
    """The short values of the header as texts (JSON where they are none), and the keys of the others."""
    # transformers loads files that say so.
    metadata, lost = {"format": "pt"}, []
    for key, value in spec.metadata.items():
        if isinstance(value, dict):
            lost.append(key)
        else:
            metadata[f"gguf.{key}"] = _text(value)
    return metadata, lost


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _lost(types: list[str], floats: str, lost: list[str]) -> tuple[str, ...]:
    notices = []
    if types:
        rounded = "" if floats == "f32" else ", and the weights are rounded to it"
        notices.append(f"lost: block formats; {', '.join(types)} become {DEQUANTIZED[floats][0]}{rounded}")
    if lost:
        notices.append(f"lost: long values of the GGUF header, {listed(lost)}")
    notices.append("lost: the types of the GGUF header's values, its order of tensors, its alignment")
    return tuple(notices)


def _width(dtype: str) -> int:
    return BY_NAME[dtype].size if dtype in BY_NAME else 1


def plan_restored(source: ByteSource, spec: MemberSpec, metadata: dict[str, str]) -> Plan:
    """Plan the GGUF file that a safetensors file with raw blocks was made of.

    Raises ``SafetensorsError`` where tensors and header do not fit each other, or there is no header.
    """
    tensors = {tensor.name: tensor for tensor in spec.tensors}
    kept = tensors.pop(metadata[HEADER_KEY], None)
    if kept is None or kept.dtype != "U8" or len(kept.shape) != 1:
        raise SafetensorsError(
            f"the tensor that {HEADER_KEY} names is missing or not of bytes", file=source.name
        )
    size = sum(tensor.extent.size for tensor in spec.tensors)
    head = HeadSource(source.name, source, kept.extent, size)
    try:
        gguf = describe(head, "x.gguf")
    except GgufError as error:
        message = f"the kept GGUF header does not fit: {error.message}"
        raise SafetensorsError(message, file=source.name, tensor=error.tensor) from None
    parts = []
    for tensor in gguf.tensors:
        found = tensors.pop(tensor.name, None)
        if found is None or (found.dtype, found.shape) != _raw_form(tensor):
            raise SafetensorsError(
                "is missing, or not what the kept GGUF header says", file=source.name, tensor=tensor.name
            )
        parts.append(Part(source, found.extent, tensor.extent.offset))
    if tensors:
        raise SafetensorsError("the kept GGUF header does not have it", file=source.name, tensor=min(tensors))
    taken = kept.extent.offset
    for gap in gguf.verbatim():
        parts.append(Part(source, Extent(taken, gap.size), gap.offset))
        taken += gap.size
    return Plan(b"", sorted(parts, key=lambda part: part.at), size, len(gguf.tensors), 0, ())
