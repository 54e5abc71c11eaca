"""What the use cases return: named tuples that turn into JSON data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from qzf.container.verify import Damage

__all__ = ["ConvertReport", "PackReport", "UnpackReport", "VerifyReport"]


class PackReport(NamedTuple):
    """What ``pack`` wrote. Sizes in bytes; ``digest`` is the container digest in hexadecimal.

    ``skipped`` are paths below a packed folder that were passed over.
    """

    out: str | None
    members: int
    tensors: int
    chunks: int
    original_size: int
    container_size: int
    digest: str
    skipped: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return self._asdict()


class ConvertReport(NamedTuple):
    """What ``convert`` wrote. Sizes in bytes.

    ``changed`` of ``tensors`` were dequantized or quantized; of files that are only unpacked they are not
    counted. ``notices`` say in words what the output lacks.
    """

    files: tuple[str, ...]
    tensors: int
    changed: int
    input_size: int
    output_size: int
    notices: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return self._asdict()


class UnpackReport(NamedTuple):
    """The files that ``unpack`` wrote, in the container's order, and their bytes in all.

    ``lost`` says in words what a recovery could not save; otherwise it is empty.
    """

    files: tuple[str, ...]
    bytes_written: int
    lost: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return self._asdict()


class VerifyReport(NamedTuple):
    """What ``verify`` found. ``ok`` is that ``damage`` is empty; ``quick`` that nothing was decoded."""

    file: str
    ok: bool
    quick: bool
    digest: str
    original_size: int
    container_size: int
    members: tuple[str, ...]
    tensors: int
    chunks: int
    damage: tuple[Damage, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return self._asdict() | {"damage": tuple(damage.to_dict() for damage in self.damage)}
