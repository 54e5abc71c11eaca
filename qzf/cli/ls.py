"""``qzf ls``: what a container holds, and what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qzf.cli.params import json_option
from qzf.cli.screen import Screen, current
from qzf.cli.tables import show

if TYPE_CHECKING:
    from qzf.cli.listing import Listing

__all__ = ["command"]


@click.command("ls", short_help="List files, tensors or chunks, and what each saves.")
@click.argument("container", metavar="FILE")
@click.option("--members", "view", flag_value="members", help="The files, with their SHA-256.")
@click.option("--tensors", "view", flag_value="tensors", help="Every tensor, and how it is coded.")
@click.option("--chunks", "view", flag_value="chunks", help="Every chunk, and where it is.")
@json_option
def command(container: str, view: str | None) -> None:
    """Show what is in FILE: a summary, or one of the tables.

    Reads the index only. Stored sizes are those of the coded bytes, without index and padding.
    --json has everything, or with --members, --tensors or --chunks that list only.
    """
    import qzf
    from qzf.cli.listing import Listing

    screen = current()
    with qzf.open(container) as opened:
        listing = Listing(opened)
        if screen.as_json:
            screen.json(listing.record(view))
        elif view == "tensors":
            show(screen, *listing.tensor_table())
        elif view == "chunks":
            show(screen, *listing.chunk_table())
        else:
            _show_files(screen, listing, summary=view is None)


def _show_files(screen: Screen, listing: Listing, *, summary: bool) -> None:
    if summary:
        _show_facts(screen, listing)
        screen.line()
    show(screen, *listing.member_table())
    if not summary:
        screen.line()
        for line in listing.hashes():
            screen.line(line)


def _show_facts(screen: Screen, listing: Listing) -> None:
    facts = listing.facts()
    width = max(len(label) for label, _ in facts)
    for label, value in facts:
        screen.line(f"{label.ljust(width)}  {value}")
