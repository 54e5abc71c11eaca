"""The use cases: pack, unpack, verify. Here adapters and container meet.

Each is loaded when it is first used: unpacking needs neither adapters nor writer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qzf.container.verify import Damage
    from qzf.ops.packing import default_output, pack
    from qzf.ops.reports import PackReport, UnpackReport, VerifyReport
    from qzf.ops.unpacking import unpack
    from qzf.ops.verifying import verify
    from qzf.parallel import Progress

__all__ = [
    "Damage",
    "PackReport",
    "Progress",
    "UnpackReport",
    "VerifyReport",
    "default_output",
    "pack",
    "unpack",
    "verify",
]

_HOMES = {
    "Damage": "qzf.container.verify",
    "PackReport": "qzf.ops.reports",
    "Progress": "qzf.parallel",
    "UnpackReport": "qzf.ops.reports",
    "VerifyReport": "qzf.ops.reports",
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
