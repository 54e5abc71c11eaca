"""Files whose content is not looked into: one verbatim extent."""

from __future__ import annotations

from qzf.adapters.base import OPAQUE
from qzf.model import MemberSpec
from qzf.storage import ByteSource

__all__ = ["describe_opaque"]


def describe_opaque(source: ByteSource, name: str) -> MemberSpec:
    """Describe ``source`` as a member without tensors."""
    return MemberSpec(name=name, kind=OPAQUE, size=source.size)
