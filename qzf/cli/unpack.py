"""``qzf unpack``: the original files out of a container."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qzf.cli import human
from qzf.cli.exits import Exit
from qzf.cli.params import digest_option, force_option, json_option, quiet_option, threads_option
from qzf.cli.progress import reporting
from qzf.cli.screen import current

if TYPE_CHECKING:
    from qzf.ops import UnpackReport

__all__ = ["command"]

#: Files that the summary names.
MAX_LISTED: Final = 20


@click.command("unpack", short_help="Get the original files back.")
@click.argument("container", metavar="FILE")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="A folder (one that exists, or with a / at the end, or for several files), else the file's name."
    "  [default: beside FILE]",
)
@click.option("--member", "members", multiple=True, metavar="NAME", help="Only this file; repeatable.")
@click.option(
    "--tensor", "tensors", multiple=True, metavar="GLOB", help="Only tensors of matching name; repeatable."
)
@threads_option
@force_option
@click.option(
    "--recover",
    is_flag=True,
    help="Save what is whole in a damaged or truncated container; exit 1 if anything is lost.",
)
@digest_option
@json_option
@quiet_option
def command(container: str, output: str | None, quiet: bool, **options: Any) -> None:
    """Unpack the files in FILE, each byte for byte as it was packed, and checked on the way.

    Files that exist are kept unless --force is given.
    """
    screen = current()
    screen.quiet = quiet
    if output == "-":
        raise click.UsageError("cannot unpack to standard output; 'qzf cat' writes one tensor there.")
    with reporting("unpacking", Path(container).name, quiet=quiet) as progress:
        report = _unpack(container, output, progress=progress, **options)
    screen.done(report.to_dict, lambda: _summary(report))
    if report.lost:
        for what in report.lost:
            screen.warn(f"lost: {human.printable(what)}")
        click.get_current_context().exit(Exit.DAMAGE)


def _unpack(container: str, out: str | None, **options: Any) -> UnpackReport:
    from qzf import ops

    return ops.unpack(container, out, **options)


def _summary(report: UnpackReport) -> str:
    done = f"{human.size(report.bytes_written)}, {human.rate(report.bytes_written, report.seconds)}"
    names = [human.printable(str(name)) for name in report.files]
    if len(names) == 1:
        return f"{names[0]}: {done}"
    listed = (
        names
        if len(names) <= MAX_LISTED
        else [*names[:MAX_LISTED], f"... and {len(names) - MAX_LISTED} more"]
    )
    return "\n".join([*listed, f"{human.count(len(names), 'file')}, {done}"])
