"""The use cases: pack, unpack, verify, convert. Here adapters and container meet.

Each is loaded when it is first used: unpacking needs neither adapters nor writer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qzf.container.verify import Damage
    from qzf.ops.converting import convert
    from qzf.ops.packing import default_output, pack
    from qzf.ops.reports import ConvertReport, PackReport, UnpackReport, VerifyReport
    from qzf.ops.unpacking import unpack
    from qzf.ops.verifying import verify
    from qzf.parallel import Progress

__all__ = [
    "ConvertReport",
    "Damage",
    "PackReport",
    "Progress",
    "UnpackReport",
    "VerifyReport",
    "convert",
    "default_output",
    "pack",
    "unpack",
    "verify",
]

_HOMES = {
    "ConvertReport": "qzf.ops.reports",
    "Damage": "qzf.container.verify",
    "PackReport": "qzf.ops.reports",
    "Progress": "qzf.parallel",
    "UnpackReport": "qzf.ops.reports",
    "VerifyReport": "qzf.ops.reports",
    "convert": "qzf.ops.converting",
    "default_output": "qzf.ops.packing",
    "pack": "qzf.ops.packing",
    "unpack": "qzf.ops.unpacking",
    "verify": "qzf.ops.verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qzf.ops' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
