"""safetensors files as members.

Source: the format section of the README and ``safetensors/src/tensor.rs`` (read_metadata, validate, Dtype)
in huggingface/safetensors. Stricter than that implementation where the README is: the header starts with
``{``, and no key occurs twice.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from qzf import limits
from qzf.adapters.base import INT64_MAX, SAFETENSORS
from qzf.errors import SafetensorsError
from qzf.model import Extent, MemberSpec, TensorSpec
from qzf.storage import ByteSource

__all__ = ["DTYPE_BITS", "describe_safetensors", "read_safetensors_metadata"]

METADATA_KEY: Final = "__metadata__"

#: Bits of an element, for every ``Dtype`` of safetensors 0.8, in the order of that enumeration.
DTYPE_BITS: Final = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

_LENGTH_BYTES: Final = 8
_FIELDS: Final = ("dtype", "shape", "data_offsets")


def describe_safetensors(source: ByteSource, name: str) -> MemberSpec:
    """Describe ``source`` as the member ``name``. Raises SafetensorsError naming the broken rule."""
    header = _Header(source)
    tensors = header.tensors()
    metadata = _shortened(header.metadata() or {})
    return MemberSpec(name=name, kind=SAFETENSORS, size=source.size, tensors=tensors, metadata=metadata)


def read_safetensors_metadata(source: ByteSource) -> dict[str, str] | None:
    """Return ``__metadata__`` in full, None where there is none. Raises SafetensorsError."""
    return _Header(source).metadata()


class _Header:
    """The parsed header; ``data_offset`` is where in the file the byte buffer starts."""

    def __init__(self, source: ByteSource) -> None:
        self._file = source.name
        self._size = source.size
        if source.size < _LENGTH_BYTES:
            self._fail(f"the file has {source.size} bytes, a header length takes 8", 0)
        length = int.from_bytes(source.read(0, _LENGTH_BYTES), "little")
        if length > limits.SAFETENSORS_MAX_HEADER:
            self._fail(
                f"the header length is {length}, the limit is {limits.SAFETENSORS_MAX_HEADER} bytes", 0
            )
        if length > source.size - _LENGTH_BYTES:
            more = source.size - _LENGTH_BYTES
            self._fail(f"the header is {length} bytes long, the file has {more} more", 0)
        self.data_offset = _LENGTH_BYTES + length
        self._text = self._decode(source.read(_LENGTH_BYTES, length))
        self._entries = self._parse()

    def metadata(self) -> dict[str, str] | None:
        """Return ``__metadata__``, a map of strings to strings (null is none, as in the Rust code)."""
        found = self._entries.get(METADATA_KEY)
        if found is None:
            return None
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            self._fail("__metadata__ is no map of strings to strings", self._offset_of(METADATA_KEY))
        if not all(map(_is_unicode, (*found, *found.values()))):
            self._fail("__metadata__ holds half of a surrogate pair", self._offset_of(METADATA_KEY))
        return found

    def tensors(self) -> tuple[TensorSpec, ...]:
        """Return the tensors by offset and check that they cover the byte buffer without holes."""
        self.metadata()
        tensors = [self._tensor(name, info) for name, info in self._entries.items() if name != METADATA_KEY]
        tensors.sort(key=lambda tensor: (tensor.extent.offset, tensor.extent.end))
        at = self.data_offset
        for tensor in tensors:
            begin = tensor.extent.offset
            if begin != at:
                what = "overlaps the tensor before it" if begin < at else "leaves a hole before it"
                self._fail_tensor(
                    tensor.name,
                    f"begins at {begin - self.data_offset} of the byte buffer and {what}, "
                    f"which ends at {at - self.data_offset}",
                )
            at = tensor.extent.end
        if at != self._size:
            self._fail(f"the tensors end at {at}, the file has {self._size} bytes", min(at, self._size))
        return tuple(tensors)

    def _decode(self, raw: bytes) -> str:
        if raw[:1] != b"{":
            self._fail("the header does not begin with '{'", _LENGTH_BYTES)
        values = sum(map(raw.count, (b"{", b"[", b",")))
        if values > limits.SAFETENSORS_MAX_VALUES:
            self._fail(
                f"the header holds {values} JSON values, the limit is {limits.SAFETENSORS_MAX_VALUES}",
                _LENGTH_BYTES,
            )
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            self._fail("the header is not UTF-8", _LENGTH_BYTES + error.start)

    def _parse(self) -> dict[str, Any]:
        try:
            parsed = json.loads(self._text, object_pairs_hook=self._unique, parse_constant=self._no_constant)
        except json.JSONDecodeError as error:
            self._fail(f"the header is not JSON: {error.msg}", self._byte_offset(error.pos))
        except RecursionError:
            self._fail("the header nests JSON too deeply", _LENGTH_BYTES)
        except ValueError as error:
            # Python refuses to convert integers of more than 4300 digits.
            self._fail(f"the header holds a number that cannot be: {error}", _LENGTH_BYTES)
        assert isinstance(parsed, dict)
        return parsed

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                self._fail(f"the key {key!r} occurs twice", self._offset_of(key))
            found[key] = value
        return found

    def _no_constant(self, constant: str) -> NoReturn:
        self._fail(f"the header is not JSON: {constant} is no JSON value", _LENGTH_BYTES)

    def _tensor(self, name: str, info: Any) -> TensorSpec:
        if not _is_unicode(name):
            self._fail_tensor(name, "its name holds half of a surrogate pair")
        if not isinstance(info, dict):
            self._fail_tensor(name, "its entry is no JSON object")
        missing = [field for field in _FIELDS if field not in info]
        if missing:
            self._fail_tensor(name, f"its entry has no {missing[0]!r}")
        dtype, shape = info["dtype"], self._shape(name, info["shape"])
        bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
        if bits is None:
            self._fail_tensor(
                name, f"the dtype {dtype!r} is unknown; --opaque packs the file without looking into it"
            )
        total = bits * math.prod(shape)
        if total % 8:
            self._fail_tensor(name, f"{total} bits of {dtype} are no whole number of bytes")
        begin, end = self._offsets(name, info["data_offsets"])
        if end - begin != total // 8:
            self._fail_tensor(
                name, f"data_offsets span {end - begin} bytes, its dtype and shape need {total // 8}"
            )
        row_bits = bits * shape[-1] if shape else total
        row_size = total // 8 if row_bits % 8 else row_bits // 8
        return TensorSpec(name, dtype, shape, Extent(self.data_offset + begin, end - begin), row_size)

    def _shape(self, name: str, shape: Any) -> tuple[int, ...]:
        if not isinstance(shape, list) or not all(map(_is_size, shape)):
            self._fail_tensor(name, "its shape is no list of sizes")
        if len(shape) > limits.SAFETENSORS_MAX_DIMS:
            self._fail_tensor(name, f"{len(shape)} dimensions, the limit is {limits.SAFETENSORS_MAX_DIMS}")
        # Zero sizes are left out: a tensor without elements can still have a shape that fits nowhere. 64
        # bits are the widest element.
        if math.prod(size for size in shape if size) > INT64_MAX // 64:
            self._fail_tensor(name, "the product of its shape overflows")
        return tuple(shape)

    def _offsets(self, name: str, offsets: Any) -> tuple[int, int]:
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
            self._fail_tensor(name, "its data_offsets are no pair of offsets")
        begin, end = offsets
        if end < begin:
            self._fail_tensor(name, f"its data_offsets {begin} and {end} are out of order")
        if end > self._size - self.data_offset:
            self._fail_tensor(
                name,
                f"its data_offsets end at {end}, the byte buffer has {self._size - self.data_offset} bytes",
            )
        return begin, end

    def _byte_offset(self, position: int) -> int:
        """Turn a position in the header's text into an offset in the file."""
        return _LENGTH_BYTES + len(self._text[:position].encode("utf-8"))

    def _offset_of(self, key: str) -> int:
        """Return where ``key`` last stands in the header; its start where it is written with escapes."""
        return self._byte_offset(max(self._text.rfind(json.dumps(key, ensure_ascii=False)), 0))

    def _fail_tensor(self, name: str, message: str) -> NoReturn:
        raise SafetensorsError(message, file=self._file, offset=self._offset_of(name), tensor=name)

    def _fail(self, message: str, offset: int) -> NoReturn:
        raise SafetensorsError(message, file=self._file, offset=offset)


def _shortened(metadata: dict[str, str]) -> dict[str, Any]:
    """Replace strings too long for the catalog by their length in bytes, as for GGUF."""
    short: dict[str, Any] = {}
    budget = limits.METADATA_MAX_TOTAL
    for key, value in metadata.items():
        length = len(value.encode("utf-8"))
        if length <= min(limits.METADATA_MAX_STRING, budget):
            short[key] = value
            budget -= length
        else:
            short[key] = {"type": "string", "length": length}
    return short


def _is_size(value: Any) -> bool:
    """Tell whether ``value`` is an integer of a signed 64-bit size; JSON's true and 1.0 are none."""
    return type(value) is int and 0 <= value <= INT64_MAX


def _is_unicode(text: str) -> bool:
    """Tell whether ``text`` is free of lone surrogates, which JSON can escape but UTF-8 cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
