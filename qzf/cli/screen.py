"""Where a command's words go: results, summaries and errors, as text or as JSON.

Text results go to stdout and errors to stderr. With ``--json`` exactly one object is printed, on stdout:
the result, or ``{"error": {...}}``. When stdout carries the container itself (``-o -``), summary and JSON
go to stderr.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import click

from qzf.cli.exits import Exit
from qzf.cli.human import printable
from qzf.cli.signals import Terminated
from qzf.errors import QzfError

__all__ = ["Screen", "current"]


class Screen:
    """One run's output. Commands get theirs from ``current()`` and set ``quiet``."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.quiet = False
        self._stdout_is_data = False

    def binary_stdout(self, what: str) -> BinaryIO:
        """Standard output for ``what``; a usage error where that is a terminal."""
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")
        if sys.stdout.isatty():
            raise click.UsageError(f"will not write {what} to a terminal; redirect it to a file or a pipe.")
        self._stdout_is_data = True
        return sys.stdout.buffer

    def line(self, text: str = "") -> None:
        """A line of the result, which the command was asked for."""
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")
        sys.stdout.write(f"{text}\n")  # click.echo would flush each of a million lines

    def done(self, record: Callable[[], Mapping[str, Any]], summary: Callable[[], str]) -> None:
        """Say what was done: as JSON, as text, or with ``quiet`` not at all."""
        if self.as_json:
            self.json(record())
        elif not self.quiet:
            click.echo(summary(), err=self._stdout_is_data)

    def warn(self, text: str) -> None:
        """Something to know beside the result, on stderr; with ``--json`` it is in the object."""
        if not (self.quiet or self.as_json):
            click.echo(text, err=True)

    def json(self, value: Mapping[str, Any]) -> None:
        """The result as the run's one JSON object. ASCII only: no name in it can act on a terminal."""
        import json

        text = json.dumps(value, indent=2)
        if self._stdout_is_data:
            click.echo(text, err=True)
        else:
            self.line(text)

    def error(self, error: BaseException, code: int) -> None:
        """Report what ended the run. Never fails: there is nowhere left to report that to."""
        with contextlib.suppress(OSError, ValueError):
            if code == Exit.BROKEN_PIPE:
                _drop_stdout()
                return
            if os.environ.get("QZF_TRACEBACK"):
                import traceback

                traceback.print_exception(error)
            if not (self.as_json and self._stdout_is_data):
                click.echo(f"qzf: {_sentence(error, code)}", err=True)
            if self.as_json:
                self.json({"error": _record(error, code)})
            if sys.stdout is not None:
                sys.stdout.flush()


def current() -> Screen:
    """The screen of the running command."""
    return click.get_current_context().ensure_object(Screen)


def _sentence(error: BaseException, code: int) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Terminated):
        return "terminated"
    if code == Exit.BUG:
        hint = "please report this (QZF_TRACEBACK=1 shows where it happened)"
        return f"internal error: {printable(_describe(error))}; {hint}"
    return f"error: {printable(_describe(error))}"


def _describe(error: BaseException) -> str:
    """One line on an error, with file and offset as far as they are known."""
    if isinstance(error, QzfError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        names = [
            os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
        ]
        return ": ".join([*names[:1], error.strerror])
    if isinstance(error, click.UsageError):
        where = "" if error.ctx is None else f" (see '{error.ctx.command_path} --help')"
        return f"{error.format_message().rstrip('.')}{where}"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"{type(error).__name__}: {error}"


def _record(error: BaseException, code: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "type": type(error).__name__,
        "message": _describe(error),
        "exit_code": int(code),
    }
    if isinstance(error, QzfError):
        record["message"] = error.message
        places = {name: getattr(error, name) for name in ("file", "offset", "member", "tensor", "chunk")}
        record.update({name: value for name, value in places.items() if value is not None})
    elif isinstance(error, OSError) and error.errno is not None:
        record["errno"] = errno.errorcode.get(error.errno, str(error.errno))
        if isinstance(error.filename, str | bytes):
            record["file"] = os.fsdecode(error.filename)
    return record


def _drop_stdout() -> None:
    """Nobody reads our output any more: spare the interpreter a second complaint when it exits."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
