"""The ``qzf`` group: loads a command's module when that command is asked for, and maps errors to exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from qzf.cli import exits
from qzf.cli.screen import Screen

__all__ = ["cli"]

#: Each is a module of this package that holds a click command named ``command``.
_COMMANDS: Final = ("pack", "unpack", "verify", "ls", "cat", "convert", "exec", "mount")


class Root(click.Group):
    """A click group with lazily imported commands and with exit codes of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = import_module(f"qzf.cli.{cmd_name}").command
        return found

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl(list(exits.HELP))
        super().format_epilog(ctx, formatter)

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any
    ) -> Any:
        """Run one command line and exit with its code. Never shows a traceback, unless asked to."""
        if "_QZF_COMPLETE" in os.environ:
            super().main(args, prog_name, **extra)  # the shell asks for completions
        line = sys.argv[1:] if args is None else list(args)
        options = line[: line.index("--")] if "--" in line else line
        screen = Screen(as_json="--json" in options)
        sys.exit(int(self._run(line, prog_name or "qzf", screen, extra)))

    def _run(self, line: list[str], prog_name: str, screen: Screen, extra: dict[str, Any]) -> int:
        try:
            code: int = exits.Exit.OK
            try:
                with self.make_context(prog_name, line, obj=screen, **extra) as ctx:
                    self.invoke(ctx)
            except click.exceptions.Exit as stop:
                code = stop.exit_code
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk or a closed pipe still ends in an exit code
        except SystemExit:
            raise
        except BaseException as error:
            code = exits.exit_code(error)
            screen.error(error, code)
        return code


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from qzf import __version__

        click.echo(f"qzf {__version__}")
        ctx.exit()


@click.group(
    cls=Root,
    name="qzf",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='With --json, an error is printed as {"error": {...}} in place of the result.',
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Lossless compression of quantized LLM checkpoints.

    Packs GGUF and safetensors files into a container from which every file comes back byte for byte, and
    every tensor can be read alone.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(exits.Exit.USAGE)
