"""``qzf convert``: between GGUF, safetensors and containers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qzf.cli import human
from qzf.cli.params import force_option, json_option, quiet_option, threads_option
from qzf.cli.progress import reporting
from qzf.cli.screen import Screen, current

if TYPE_CHECKING:
    from qzf.ops import ConvertReport

__all__ = ["command"]


@click.command("convert", short_help="Convert between GGUF, safetensors and containers.")
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option(
    "--dequantize",
    metavar="FLOATS",
    help="From GGUF: make the blocks f16, bf16 or f32 instead of keeping them.",
)
@click.option(
    "--quantize",
    metavar="TYPE",
    help="To GGUF: quantize 2-D floats, as in q8_0 or q4_k (needs qzf[convert]).",
)
@click.option(
    "--arch", metavar="NAME", help="To GGUF: general.architecture of the header.  [default: unknown]"
)
@click.option("--member", metavar="NAME", help="The file in the container IN, where it has several.")
@threads_option
@force_option
@json_option
@quiet_option
def command(source: str, output: str, quiet: bool, **options: Any) -> None:
    """Convert IN to OUT, by their suffixes .gguf, .safetensors and .qzf.

    To .qzf is qzf pack. From .qzf is qzf unpack, or the one model in it converted to OUT's kind. GGUF becomes
    safetensors that keep its blocks as bytes, and all else that it takes to get the same GGUF file back.
    safetensors (also an .index.json, or a folder) become GGUF with a minimal header. What is lost on the way
    is said first.
    """
    screen = current()
    screen.quiet = quiet
    if "-" in (source, output):
        raise click.UsageError("cannot convert from or to a pipe: IN and OUT must be files.")

    def notice(notices: Sequence[str]) -> None:
        _warn(screen, notices)

    with reporting("converting", Path(source).name, quiet=quiet) as progress:
        report = _convert(source, output, progress=progress, notice=notice, **options)
    screen.done(report.to_dict, lambda: _summary(report))


def _convert(source: str, output: str, **options: Any) -> ConvertReport:
    from qzf import ops

    return ops.convert(source, output, **options)


def _warn(screen: Screen, notices: Sequence[str]) -> None:
    for text in notices:
        screen.warn(human.printable(text))


def _summary(report: ConvertReport) -> str:
    names = [human.printable(name) for name in report.files]
    parts = [
        f"{human.size(report.input_size)} -> {human.size(report.output_size)}",
        *([human.count(report.tensors, "tensor")] if report.tensors else []),
        *([f"{report.changed} of them changed"] if report.changed else []),
        human.rate(report.input_size, report.seconds),
    ]
    head = names[0] if len(names) == 1 else human.count(len(names), "file")
    return f"{head}: {', '.join(parts)}"
