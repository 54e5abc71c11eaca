"""Which records one request should fetch, for sources where a request costs more than bytes do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

from qzf.limits import KIB, MIB

__all__ = ["MAX_SPAN", "MIN_SPAN", "Record", "extent", "group", "runs"]

_T = TypeVar("_T")

#: Bytes between two records that are rather fetched along than left out: a request takes some 10 to 100 ms
#: until its first byte, in which the 100 Mbit/s of a slow line bring 128 KiB to 1.2 MB.
GAP: Final = 128 * KIB
#: Below this a request is not divided for the sake of parallel ones: what it takes is mostly the time to its
#: first byte.
MIN_SPAN: Final = 4 * MIB
#: Most bytes of a request among several. Some file systems hold them in memory as a whole.
MAX_SPAN: Final = 32 * MIB


class Record(NamedTuple):
    """A record to fetch: where it is, what the caller calls it, and the bytes that it decodes to."""

    offset: int
    size: int
    key: int
    decoded: int = 0


def group(records: Iterable[Record], limit: int) -> list[list[Record]]:
    """Records by place, in groups that lie close together and reach over ``limit`` bytes at most each.

    A record that is larger than that is a group of its own.
    """
    groups: list[list[Record]] = []
    start = end = 0
    for record in sorted(records):
        near = groups and record.offset - end <= GAP
        if near and record.offset + record.size - start <= limit:
            groups[-1].append(record)
        else:
            groups.append([record])
            start = record.offset
        end = record.offset + record.size
    return groups


def runs(items: Iterable[_T], record: Callable[[_T], Record | None], limit: int) -> Iterator[list[_T]]:
    """Items in their order, in lists whose records lie close one behind the other.

    The records of a list decode to ``limit`` bytes at most, if it has several. An item that has no record is
    a list of its own.
    """
    some: list[_T] = []
    last: Record | None = None
    room = limit
    for item in items:
        here = record(item)
        if some and not (_follows(last, here) and here and here.decoded <= room):
            yield some
            some, room = [], limit
        some.append(item)
        last, room = here, room - (here.decoded if here else 0)
    if some:
        yield some


def _follows(last: Record | None, here: Record | None) -> bool:
    return last is not None and here is not None and 0 <= here.offset - last.offset - last.size <= GAP


def extent(records: list[Record]) -> tuple[int, int]:
    """Where a group begins, and the bytes that it reaches over."""
    return records[0].offset, records[-1].offset + records[-1].size - records[0].offset
