"""Tensors grouped by the number of the layer (block) that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["Layer", "layers_of", "main_family"]

#: The first part of a name that is a number, with what stands before it: ``blk.3.``, ``model.layers.3.``,
#: ``encoder.layer.3.``, ``h.3.``. At most nine digits: nobody has more layers, and int() stays cheap.
_NUMBERED: Final = re.compile(r"(?P<family>.*?)\.(?P<number>[0-9]{1,9})\.")


class Layer(NamedTuple):
    """Tensors that are used together.

    ``family`` is what stands before the layer's number in their names (``blk``, ``model.layers``), ``number``
    that number; both are None for tensors that belong to no layer, such as embeddings. ``names`` are in the
    container's order; ``size`` counts their original bytes.
    """

    family: str | None
    number: int | None
    names: tuple[str, ...]
    size: int

    @property
    def name(self) -> str:
        """``blk.3``; for tensors that belong to no layer the name of the first of them."""
        return self.names[0] if self.family is None else f"{self.family}.{self.number}"


def layers_of(tensors: Iterable[tuple[str, int]]) -> list[Layer]:
    """Layers of tensors, given as (name, bytes) in the container's order.

    Families come in the order in which they begin, layers in that of their numbers. Tensors of no layer that
    stand before the first layer make up one group, which comes first; all others another, which comes last.
    """
    families: dict[str, dict[int, list[tuple[str, int]]]] = {}
    before: list[tuple[str, int]] = []
    after: list[tuple[str, int]] = []
    for name, size in tensors:
        found = _NUMBERED.match(name)
        if found is not None:
            numbers = families.setdefault(found["family"], {})
            numbers.setdefault(int(found["number"]), []).append((name, size))
        else:
            (after if families else before).append((name, size))
    groups: list[tuple[str | None, int | None, list[tuple[str, int]]]] = []
    for family, numbers in families.items():
        groups += [(family, number, numbers[number]) for number in sorted(numbers)]
    ordered = [(None, None, before), *groups, (None, None, after)]
    return [
        Layer(family, number, tuple(name for name, _ in found), sum(size for _, size in found))
        for family, number, found in ordered
        if found
    ]


def main_family(layers: Iterable[Layer]) -> str | None:
    """The family that has the most bytes: what a number alone means. None where there are no layers."""
    sizes: dict[str, int] = {}
    for layer in layers:
        if layer.family is not None:
            sizes[layer.family] = sizes.get(layer.family, 0) + layer.size
    return max(sizes, key=lambda family: sizes[family], default=None)
