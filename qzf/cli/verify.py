"""``qzf verify``: is every byte of a container what it was when it was packed?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qzf.cli import human
from qzf.cli.exits import Exit
from qzf.cli.params import digest_option, json_option, quiet_option, threads_option
from qzf.cli.progress import reporting
from qzf.cli.screen import Screen, current

if TYPE_CHECKING:
    from qzf.ops import Damage, VerifyReport

__all__ = ["command"]


@click.command("verify", short_help="Check a container, or compare it with its source.")
@click.argument("container", metavar="FILE")
@click.option("--quick", is_flag=True, help="Check stored bytes only, without decoding them.")
@click.option(
    "--against", multiple=True, metavar="SRC", help="Compare with the original file or directory; repeatable."
)
@threads_option
@digest_option
@json_option
@quiet_option
def command(container: str, quiet: bool, **options: Any) -> None:
    """Check every checksum in FILE, decode every chunk, and compare every file's SHA-256.

    Lists all damage that it finds, each with tensor, file and byte range, and exits with 1 if there is any.
    """
    screen = current()
    screen.quiet = quiet
    with reporting("verifying", Path(container).name, quiet=quiet) as progress:
        options["against"] = options["against"] or None
        report = _verify(container, progress=progress, **options)
    if not (report.ok or screen.as_json):
        _show_damage(screen, container, report)
    else:
        screen.done(report.to_dict, lambda: _summary(container, report, quick=options["quick"]))
    click.get_current_context().exit(Exit.OK if report.ok else Exit.DAMAGE)


def _verify(container: str, **options: Any) -> VerifyReport:
    from qzf import ops

    return ops.verify(container, **options)


def _summary(container: str, report: VerifyReport, *, quick: bool) -> str:
    checked = "stored bytes intact, not decoded" if quick else human.count(len(report.members), "file")
    parts = [checked, human.count(report.chunks, "chunk"), human.size(report.original_size)]
    parts.append(human.rate(report.container_size if quick else report.original_size, report.seconds))
    return f"{human.printable(container)}: OK, {', '.join(parts)}\ndigest {report.digest}"


def _show_damage(screen: Screen, container: str, report: VerifyReport) -> None:
    screen.line(f"{human.printable(container)}: DAMAGED, {human.count(len(report.damage), 'problem')}")
    for damage in report.damage:
        screen.line(f"  {_place(damage)}: {human.printable(damage.message)}")


def _place(damage: Damage) -> str:
    """Where it is, as in ``chunk 17, offset 9344, tensor a.b, bytes 4096-528383 of model.gguf``."""
    parts = [damage.what if damage.chunk is None else f"chunk {damage.chunk}"]
    if damage.offset is not None:
        parts.append(f"offset {damage.offset}")
    if damage.tensor is not None:
        parts.append(f"tensor {damage.tensor}")
    if damage.member is not None:
        parts.append(f"{_range(damage.member_offset, damage.member_size)}{damage.member}")
    return human.printable(", ".join(parts))


def _range(offset: int | None, size: int | None) -> str:
    if offset is None or not size:
        return ""
    return f"bytes {offset}-{offset + size - 1} of "
