"""Tensors grouped by the number of the layer (block) that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["Layer", "Named", "families", "layers_of", "main_family"]

#: The first part of a name that is a number, with what stands before it: ``blk.3.``, ``model.layers.3.``,
#: ``encoder.layer.3.``, ``h.3.``. At most nine digits: nobody has more layers, and int() stays cheap.
_NUMBERED: Final = re.compile(r"(?P<family>.*?)\.(?P<number>[0-9]{1,9})\.")
#: Families that an error names.
_MOST_NAMED: Final = 8


class Named(NamedTuple):
    """A tensor: the container's name for it and its bytes, its own name and its member's."""

    key: str
    size: int
    name: str
    member: str


class Layer(NamedTuple):
    """Tensors that are used together.

    ``family`` is what stands before the layer's number in their names (``blk``, ``model.layers``), ``number``
    that number; both are None for tensors that belong to no layer, such as embeddings. Where several members
    have tensors of the same names, each has its own layers, and its name stands before the family as in the
    container's names (``a.gguf:blk``). ``names`` are in the container's order; ``size`` counts their
    original bytes.
    """

    family: str | None
    number: int | None
    names: tuple[str, ...]
    size: int

    @property
    def name(self) -> str:
        """``blk.3``; for tensors that belong to no layer the name of the first of them."""
        return self.names[0] if self.family is None else f"{self.family}.{self.number}"


def layers_of(tensors: Iterable[Named]) -> list[Layer]:
    """Layers of tensors, given in the container's order.

    Families come in the order in which they begin, layers in that of their numbers. Tensors of no layer that
    stand before the first layer make up one group, which comes first; all others another, which comes last.
    """
    numbered = [(tensor, _NUMBERED.match(tensor.name)) for tensor in tensors]
    # Shards have parts of one model, so that a layer's tensors may be in two of them; but where members have
    # tensors of the same names, they are models of their own.
    shared = {found["family"] for tensor, found in numbered if found and tensor.key != tensor.name}
    families: dict[str, dict[int, list[Named]]] = {}
    before: list[Named] = []
    after: list[Named] = []
    for tensor, found in numbered:
        if found is not None:
            family = found["family"]
            numbers = families.setdefault(f"{tensor.member}:{family}" if family in shared else family, {})
            numbers.setdefault(int(found["number"]), []).append(tensor)
        else:
            (after if families else before).append(tensor)
    groups: list[tuple[str | None, int | None, list[Named]]] = []
    for family, numbers in families.items():
        groups += [(family, number, numbers[number]) for number in sorted(numbers)]
    ordered = [(None, None, before), *groups, (None, None, after)]
    return [
        Layer(family, number, tuple(one.key for one in some), sum(one.size for one in some))
        for family, number, some in ordered
        if some
    ]


def main_family(layers: Iterable[Layer]) -> str | None:
    """The family that has the most bytes: what a number alone means. None where there are no layers."""
    sizes: dict[str, int] = {}
    for layer in layers:
        if layer.family is not None:
            sizes[layer.family] = sizes.get(layer.family, 0) + layer.size
    return max(sizes, key=lambda family: sizes[family], default=None)


def families(layers: Iterable[Layer]) -> str:
    """Which layers there are, in words."""
    numbers: dict[str, list[int]] = {}
    for layer in layers:
        if layer.family is not None and layer.number is not None:
            numbers.setdefault(layer.family, []).append(layer.number)
    if not numbers:
        return "no tensor has a layer in its name"
    words = [f"{family!r} has {len(some)}, {some[0]} to {some[-1]}" for family, some in numbers.items()]
    return ", ".join(words[:_MOST_NAMED]) + (", and others" if len(words) > _MOST_NAMED else "")
