"""QZF: losslessly compressed quantized LLM checkpoints.

``open`` reads tensors out of a container; ``pack``, ``unpack`` and ``verify`` are the tools' use cases. Names
are loaded when they are first used, so that ``import qzf`` costs next to nothing and starts nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qzf._version import __version__

if TYPE_CHECKING:
    from qzf._core import active_isa
    from qzf.access import Container, Layer, Part, QuantArray, TensorSlice
    from qzf.access import dequantize_array as dequantize
    from qzf.access import open_container as open  # noqa: A004
    from qzf.access.safe import safe_open
    from qzf.errors import (
        ChecksumError,
        ChunkError,
        DamageError,
        FormatError,
        MissingPackageError,
        NotFoundError,
        OptionError,
        OutputExistsError,
        QzfError,
        RemoteError,
        SourceChangedError,
        SourceError,
        StateDictError,
        TruncatedError,
        UnsupportedError,
    )
    from qzf.ops.converting import convert
    from qzf.ops.packing import pack
    from qzf.ops.reports import ConvertReport, PackReport, UnpackReport, VerifyReport
    from qzf.ops.unpacking import unpack
    from qzf.ops.verifying import verify

__all__ = [
    "ChecksumError",
    "ChunkError",
    "Container",
    "ConvertReport",
    "DamageError",
    "FormatError",
    "Layer",
    "MissingPackageError",
    "NotFoundError",
    "OptionError",
    "OutputExistsError",
    "PackReport",
    "Part",
    "QuantArray",
    "QzfError",
    "RemoteError",
    "SourceChangedError",
    "SourceError",
    "StateDictError",
    "TensorSlice",
    "TruncatedError",
    "UnpackReport",
    "UnsupportedError",
    "VerifyReport",
    "__version__",
    "active_isa",
    "convert",
    "dequantize",
    "open",
    "pack",
    "safe_open",
    "unpack",
    "verify",
]

_HOMES = {
    "active_isa": ("qzf._core", "active_isa"),
    "open": ("qzf.access", "open_container"),
    "Container": ("qzf.access", "Container"),
    "Layer": ("qzf.access", "Layer"),
    "Part": ("qzf.access", "Part"),
    "QuantArray": ("qzf.access", "QuantArray"),
    "TensorSlice": ("qzf.access", "TensorSlice"),
    "dequantize": ("qzf.access", "dequantize_array"),
    "convert": ("qzf.ops.converting", "convert"),
    "safe_open": ("qzf.access.safe", "safe_open"),
    "pack": ("qzf.ops.packing", "pack"),
    "unpack": ("qzf.ops.unpacking", "unpack"),
    "verify": ("qzf.ops.verifying", "verify"),
    "ConvertReport": ("qzf.ops.reports", "ConvertReport"),
    "PackReport": ("qzf.ops.reports", "PackReport"),
    "UnpackReport": ("qzf.ops.reports", "UnpackReport"),
    "VerifyReport": ("qzf.ops.reports", "VerifyReport"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'qzf' has no attribute {name!r}")
    module, attribute = _HOMES.get(name, ("qzf.errors", name))
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
