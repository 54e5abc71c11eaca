"""``qzf exec``: a program that gets the original file, from memory."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import Final, NoReturn

import click

from qzf import cli
from qzf.cli.params import digest_option, quiet_option, threads_option
from qzf.cli.progress import reporting
from qzf.cli.screen import current
from qzf.errors import OptionError

__all__ = ["command"]

#: What shells return for a command that is there but cannot be run, and for one that is not there.
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127

_PLACE: Final = "{}"


@click.command("exec", short_help="Run a program on a file in a container, without unpacking it to disk.")
@click.argument("container", metavar="FILE")
@click.argument("line", metavar="-- CMD [ARG]...", nargs=-1, type=click.UNPROCESSED, required=True)
@click.option("--member", "members", multiple=True, metavar="NAME", help="Only this file; repeatable.")
@click.option("--named", is_flag=True, help="Give even a single file a path that ends in its name.")
@threads_option
@digest_option
@quiet_option
def command(
    container: str,
    line: tuple[str, ...],
    members: tuple[str, ...],
    named: bool,
    threads: int | None,
    digest: str | None,
    quiet: bool,
) -> None:
    """Unpack the file in FILE to memory and run CMD, with its path in place of each {} in the arguments:

    \b
        qzf exec model.gguf.qzf -- llama-cli -m {} -p Hello
        qzf exec model.qzf --member a.gguf -- sh -c 'sha256sum <{}'

    Nothing is written to disk. The file cannot be changed, its bytes are checked, and its memory is free
    again when CMD has ended. CMD takes the place of qzf: signals go to it, and its exit code is what the
    caller sees; 127 if it is not there, 126 if it cannot be run.

    Of several files, {} is a folder that has them under their names. If they are the parts of a split GGUF,
    {} is the first part there. With --named a single file is there, too, and {} is its path.
    """
    screen = current()
    screen.quiet = quiet
    if not any(_PLACE in argument for argument in line[1:]):
        raise click.UsageError("the arguments of the command have no {}, where the file's path is due.")
    if shutil.which(line[0]) is None:
        there = shutil.which(line[0], os.F_OK) is not None or ("/" in line[0] and Path(line[0]).exists())
        _refuse(errno.EACCES if there else errno.ENOENT, line[0])

    from qzf.container.opening import open_reader
    from qzf.integrations.memory import first_of_split, link_folder, path_of, select, unpack_to_memory
    from qzf.storage import FileSource

    with FileSource(container) as source:
        reader = open_reader(source, digest)
        chosen = select(reader, members)
        with reporting("unpacking", Path(container).name, quiet=quiet) as progress:
            files = unpack_to_memory(reader, chosen, threads=threads, progress=progress)
    if len(files) == 1 and not named:
        path = path_of(next(iter(files.values())))
    else:
        only = next(iter(files)) if len(files) == 1 else first_of_split(files)
        path = str(link_folder(files) / (only or ""))
        _check_safe(path, line[1:])
    for file in files.values():
        os.set_inheritable(file, True)
    _become([line[0], *(argument.replace(_PLACE, path) for argument in line[1:])])


def _check_safe(path: str, arguments: tuple[str, ...]) -> None:
    """Raise ``OptionError`` if a shell could take a name from the container for more than a name."""
    inside = [argument for argument in arguments if _PLACE in argument and argument != _PLACE]
    if inside and shlex.quote(path) != path:
        raise OptionError(
            f"the name of {path!r} has characters that mean something to a shell: it is only given as an"
            f" argument of its own, and not within {inside[0]!r}"
        )


def _become(line: list[str]) -> NoReturn:
    """Be the program that ``line`` names, as if it had been started in our place."""
    environment = {name: value for name, value in os.environ.items() if name not in cli.added_environment}
    for name in ("SIGPIPE", "SIGXFSZ"):  # which Python ignores
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvpe(line[0], line, environment)
    except OSError as error:
        _refuse(error.errno or errno.EACCES, line[0])


def _refuse(number: int, name: str) -> NoReturn:
    code = NOT_FOUND if number == errno.ENOENT else NOT_EXECUTABLE
    current().error(OSError(number, os.strerror(number), name), code)
    click.get_current_context().exit(code)
    raise AssertionError("exit returned")
