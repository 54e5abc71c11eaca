"""Exit codes: the one mapping from exceptions to what the process returns."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import click

from qzf.cli.signals import Terminated, exit_status
from qzf.errors import (
    DamageError,
    FormatError,
    OptionError,
    RemoteError,
    SourceChangedError,
    SourceError,
)

__all__ = ["HELP", "Exit", "exit_code"]


class Exit(IntEnum):
    """What ``qzf`` returns. Signals add 128 + number: 130, 141, 143."""

    OK = 0
    DAMAGE = 1
    USAGE = 2
    INPUT = 3
    IO = 4
    BUG = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130
    BROKEN_PIPE = 141


#: For ``qzf --help``, one entry per code.
HELP: Final = (
    ("0", "done, and verify found everything intact"),
    ("1", "damage: content does not match a checksum, digest or --against"),
    ("2", "usage: wrong options, or an output that exists (see --force)"),
    ("3", "input that is malformed, not understood or not supported"),
    ("4", "input or output failed: missing file, permission, disk full"),
    ("70", "a bug in qzf; please report it"),
    ("130", "interrupted (141: output pipe closed, 143: terminated)"),
)

#: First match wins: a source that changed or does not answer is a SourceError, but the cause is outside of
#: the file's format.
_BY_TYPE: Final[tuple[tuple[type[BaseException], Exit], ...]] = (
    (KeyboardInterrupt, Exit.INTERRUPTED),
    (BrokenPipeError, Exit.BROKEN_PIPE),
    (SourceChangedError, Exit.IO),
    (RemoteError, Exit.IO),
    (SourceError, Exit.INPUT),
    (FormatError, Exit.INPUT),
    (DamageError, Exit.DAMAGE),
    (OptionError, Exit.USAGE),
    (click.ClickException, Exit.USAGE),
    (OSError, Exit.IO),
    (MemoryError, Exit.IO),
)


def exit_code(error: BaseException) -> int:
    """The exit code for an exception that ended the command."""
    if isinstance(error, Terminated):
        return exit_status(error.signum)
    return next((code for kind, code in _BY_TYPE if isinstance(error, kind)), Exit.BUG)
