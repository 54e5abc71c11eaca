"""Tables: a rich one on a terminal, aligned plain text into pipes and files, where nothing is cut off."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from qzf.cli.human import printable
from qzf.cli.screen import Screen

__all__ = ["Column", "show"]

#: rich lays out about 5,000 rows a second; longer tables are printed plain on terminals, too.
RICH_ROWS: Final = 400


@dataclass(frozen=True, slots=True)
class Column:
    """``number`` columns are right-aligned and never wrapped; ``spare`` ones give way on narrow terminals."""

    title: str
    number: bool = False
    spare: bool = False


def show(screen: Screen, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout. Cells may be any text: what could act on a terminal is escaped."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty() and len(cells) <= RICH_ROWS:
        _show_rich(columns, cells)
    else:
        for line in plain_lines(columns, cells):
            screen.line(line)


def plain_lines(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """The table as lines without styles, two spaces between the columns."""
    widths = _widths(columns, cells)
    for row in ([column.title for column in columns], *cells):
        parts = [
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        yield "  ".join(parts).rstrip()


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    return [
        max([len(column.title), *(len(row[place]) for row in cells)]) for place, column in enumerate(columns)
    ]


def _show_rich(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    fits = sum(_widths(columns, cells)) + 2 * (len(columns) - 1) <= console.width
    kept = [place for place, column in enumerate(columns) if fits or not column.spare]
    # One space of padding and one that the box draws between columns.
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
    )
    for column in (columns[place] for place in kept):
        table.add_column(
            column.title,
            justify="right" if column.number else "left",
            no_wrap=column.number,
            overflow="fold",
        )
    for row in cells:
        table.add_row(*(Text(row[place]) for place in kept))  # Text, so that no cell is read as markup
    console.print(table)
