"""``qzf pack``: files in, one container out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from qzf.cli import human
from qzf.cli.params import force_option, json_option, quiet_option, read_size, threads_option
from qzf.cli.progress import reporting
from qzf.cli.screen import current

if TYPE_CHECKING:
    from qzf.ops import PackReport

__all__ = ["command"]


@click.command("pack", short_help="Pack model files into a container.")
@click.argument("sources", nargs=-1, required=True, metavar="SRC...")
@click.option("-o", "--output", metavar="OUT", help="The container; - writes to stdout.  [default: SRC.qzf]")
@click.option(
    "--level",
    type=click.Choice(["fast", "default", "max"]),
    default="default",
    show_default=True,
    help="Speed against size.",
)
@click.option(
    "--chunk-size",
    callback=read_size,
    metavar="SIZE",
    help="Original bytes per chunk, as in 256K or 1M.  [default: 512K]",
)
@threads_option
@force_option
@click.option("--opaque", is_flag=True, help="Pack any file as plain bytes, without looking for tensors.")
@json_option
@quiet_option
def command(sources: tuple[str, ...], output: str | None, quiet: bool, **options: Any) -> None:
    """Pack SRC into a container that gives every file back byte for byte.

    SRC is a .gguf file (also all parts of a split one), a .safetensors file, the .index.json of a sharded
    checkpoint, a model directory, or any other file. Several SRC go into one container and need -o.
    """
    screen = current()
    screen.quiet = quiet
    if "-" in sources:
        raise click.UsageError("cannot read from standard input: SRC must be a file or a directory.")
    out = screen.binary_stdout("a container") if output == "-" else output
    name = Path(sources[0]).name if len(sources) == 1 else human.count(len(sources), "source")
    with reporting("packing", name, quiet=quiet, saving=True) as progress:
        report = _pack(sources, out, progress=progress, **options)
    screen.done(report.to_dict, lambda: _summary(report))
    if report.skipped:
        names = ", ".join(human.printable(name) for name in report.skipped)
        screen.warn(f"skipped: {names}")


def _pack(sources: tuple[str, ...], out: str | BinaryIO | None, **options: Any) -> PackReport:
    from qzf import ops

    given = {name: value for name, value in options.items() if value is not None}
    return ops.pack(sources, out, **given)


def _summary(report: PackReport) -> str:
    name = "stdout" if report.out is None else human.printable(os.fsdecode(report.out))
    original, stored = report.original_size, report.container_size
    saved = f" ({human.saved(original, stored)} saved)" if original else ""
    parts = [
        f"{human.size(original)} -> {human.size(stored)}{saved}",
        *([human.count(report.members, "file")] if report.members != 1 else []),
        human.count(report.tensors, "tensor"),
        human.count(report.chunks, "chunk"),
        human.rate(original, report.seconds),
    ]
    return f"{name}: {', '.join(parts)}\ndigest {report.digest}"
