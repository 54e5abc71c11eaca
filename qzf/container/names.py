"""Names: of members (spec, section 3.1), and of files that tensors are written to on their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final
from urllib.parse import quote

from qzf.errors import FormatError
from qzf.limits import MAX_PATH, MAX_PATH_COMPONENT

__all__ = ["check_names", "name_fault", "tensor_file"]

#: Characters of tensor names that stay as they are.
_PLAIN: Final = " !#$&'()+,;=@[]^`{}~"


def tensor_file(name: str) -> str:
    """The file name for a tensor's bytes: its name, with ``/``, ``%`` and the like percent-encoded."""
    return quote(name, safe=_PLAIN) + ".bin"


def name_fault(name: str) -> str | None:
    """The rule of spec section 3.1 that a member name breaks, or None."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if size > MAX_PATH:
        return f"is longer than {MAX_PATH} bytes"
    if any(ord(c) < 0x20 or ord(c) == 0x7F or c in "\\:" for c in name):
        return "holds a control character, a backslash or a colon"
    for component in name.split("/"):
        if not component or component[-1] in ". " or len(component.encode()) > MAX_PATH_COMPONENT:
            return "has a component that is empty, overlong or ends in a dot or a space"
    return None


def check_names(names: Sequence[str]) -> None:
    """Raise ``FormatError`` for a bad name, a name given twice, or one that is another's folder."""
    for name in names:
        fault = name_fault(name)
        if fault:
            raise FormatError(f"the member name {name!r} {fault}")
    # With "/" sorted before all else, what is below a folder directly follows the folder's own name.
    for one, other in pairwise(sorted(names, key=lambda name: name.replace("/", "\0"))):
        if one == other:
            raise FormatError(f"two members have the name {one!r}")
        if other.startswith(one + "/"):
            raise FormatError(f"the member name {one!r} is the folder of {other!r}")
