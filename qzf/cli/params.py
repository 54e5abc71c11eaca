"""Parameter types and options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

__all__ = [
    "digest_option",
    "force_option",
    "json_option",
    "quiet_option",
    "read_digest",
    "read_size",
    "threads_option",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(i?b)?", re.IGNORECASE)
_DIGEST: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)


def read_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """A click callback for a number of bytes.

    ``262144``; ``256K`` and ``256KiB`` in units of 1024; ``250kB`` in units of 1000.
    """
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size such as 256K, 512KiB or 1M.")
    number, prefix, suffix = match.groups()
    base = 1000 if (suffix or "").lower() == "b" else 1024
    factor: int = base ** " kmg".index(prefix.lower() or " ")
    return round(float(number) * factor)


def read_digest(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A click callback for a container digest: 64 hexadecimal digits, as ``qzf pack`` prints them."""
    if value is None:
        return None
    match = _DIGEST.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is not a digest of 64 hexadecimal digits.")
    return match[1].lower()


def json_option(command: _F) -> _F:
    """``--json``. The screen knows it already, from before the command line was parsed."""
    option = click.option(
        "--json", is_flag=True, expose_value=False, help="Print one JSON object instead of text."
    )
    return option(command)


def quiet_option(command: _F) -> _F:
    return click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")(command)


def threads_option(command: _F) -> _F:
    option = click.option(
        "-j",
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Worker threads.  [default: one per CPU]",
    )
    return option(command)


def force_option(command: _F) -> _F:
    return click.option("-f", "--force", is_flag=True, help="Overwrite existing files.")(command)


def digest_option(command: _F) -> _F:
    option = click.option(
        "--digest",
        callback=read_digest,
        metavar="HEX",
        help="Stop unless the container has this digest, and check all against it.",
    )
    return option(command)
