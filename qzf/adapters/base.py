"""What the adapters share.

An adapter turns a file into a `MemberSpec`: where its tensors lie and what they are. It reads the file's
header only, never the data of a tensor, and checks every number against the file's size before it
allocates or loops by it.
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["GGUF", "INT64_MAX", "KINDS", "OPAQUE", "SAFETENSORS", "Kind"]

Kind = Literal["gguf", "safetensors", "opaque"]

GGUF: Final = "gguf"
SAFETENSORS: Final = "safetensors"
OPAQUE: Final = "opaque"
KINDS: Final[tuple[Kind, ...]] = (GGUF, SAFETENSORS, OPAQUE)

#: Elements and bytes of a tensor stay below 2**63, so that they fit signed 64-bit sizes everywhere.
INT64_MAX: Final = (1 << 63) - 1
