"""File names for tensors that are written to files of their own."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

__all__ = ["tensor_file"]

#: Characters of tensor names that stay as they are.
_PLAIN: Final = " !#$&'()+,;=@[]^`{}~"


def tensor_file(name: str) -> str:
    """The file name for a tensor's bytes: its name, with ``/``, ``%`` and the like percent-encoded."""
    return quote(name, safe=_PLAIN) + ".bin"
