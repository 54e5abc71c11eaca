"""``qzf mount``: containers as a file system."""

from __future__ import annotations

import errno
import logging
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qzf.cli import human, signals
from qzf.cli.exits import Exit
from qzf.cli.params import digest_option, json_option, quiet_option, read_size, threads_option
from qzf.cli.screen import Screen, current
from qzf.errors import OptionError

if TYPE_CHECKING:
    from qzf.integrations.tree import Tree

__all__ = ["command"]


@click.command("mount", short_help="Show the files in containers as a read-only file system.")
@click.argument("source", metavar="FILE|DIR")
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.option("-f", "--foreground", is_flag=True, help="Stay, and report damage on stderr, until unmounted.")
@threads_option
@click.option(
    "--cache-size",
    "cache_bytes",
    callback=read_size,
    default="64M",
    show_default=True,
    metavar="SIZE",
    help="Decoded bytes to keep while files are open.",
)
@click.option("--allow-other", is_flag=True, help="Let other users read it, too.")
@click.option(
    "--log", "log_file", metavar="PATH", help="Report damage to this file.  [default: the system's log]"
)
@digest_option
@json_option
@quiet_option
def command(
    source: str,
    mountpoint: str,
    foreground: bool,
    log_file: str | None,
    digest: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Show the files in FILE, or in all *.qzf below DIR, in the folder MOUNTPOINT, which must be empty.

    They can be read, or mapped, by any program, as if they were unpacked; what is read is decoded, checked,
    and kept by the system as it keeps parts of other files. A read that meets damage fails.

    Of containers below DIR, each where it lies, one with a single file appears as that file, and one with
    several as a folder that is called after the container.

    Returns when the files are there. End it by 'fusermount3 -u MOUNTPOINT' or 'umount MOUNTPOINT'; with
    --foreground by Ctrl-C, too.
    """
    screen = current()
    screen.quiet = quiet
    folder = _mountpoint(mountpoint)
    if digest is not None and Path(source).is_dir():
        raise click.UsageError("--digest is for one container, not for a folder of them.")
    from qzf.integrations.mount import LOGGERS, serve  # before a process is made in which it cannot fail
    from qzf.integrations.tree import Tree

    skipped: list[str] = []
    tree = Tree(source, digest=digest, skipped=skipped.append)
    try:
        for what in skipped:
            screen.warn(f"skipped: {human.printable(what)}")
        for logger in LOGGERS:
            logger.addHandler(_handler(log_file, foreground))
            logger.propagate = False

        def work(ready: Callable[[], None]) -> None:
            signals.release()  # libfuse takes them over
            serve(tree, folder, ready=ready, **options)

        if foreground:
            work(lambda: _report(screen, tree, folder, skipped, os.getpid()))
        elif process := _in_background(work, folder):
            _report(screen, tree, folder, skipped, process)
    finally:
        tree.close()


def _mountpoint(path: str) -> str:
    """The absolute path of an empty folder."""
    folder = Path(path).resolve(strict=True)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if any(folder.iterdir()):
        raise OptionError("the mount point is not empty", file=path)
    return str(folder)


def _report(screen: Screen, tree: Tree, folder: str, skipped: list[str], process: int) -> None:
    size = sum(file.size for file in tree.files.values())

    def summary() -> str:
        files = human.count(len(tree.files), "file")
        end = human.printable(shlex.quote(folder))
        return f"{human.printable(folder)}: {files}, {human.size(size)}; end it by: umount {end}"

    def record() -> dict[str, Any]:
        return {
            "mountpoint": folder,
            "files": len(tree.files),
            "size": size,
            "skipped": skipped,
            "process": process,
        }

    screen.done(record, summary)


# --- in the background ----------------------------------------------------------------------------


def _in_background(work: Callable[[Callable[[], None]], None], folder: str) -> int:
    """Do ``work`` in a process of its own. Returns its id when it calls what ``work`` is given; in it, 0.

    If it ends before that, this process ends with its exit code.
    """
    hear, tell = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(hear)
        os.setsid()
        os.chdir("/")
        work(lambda: _let_go(tell))
        return 0
    os.close(tell)
    try:
        if os.read(hear, 1):
            Path(folder).stat()  # the first question to the new file system
            return process
    except BaseException:
        os.kill(process, signals.SIGTERM)
        raise
    finally:
        os.close(hear)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    click.get_current_context().exit(code if code > 0 else Exit.IO)
    raise AssertionError("exit returned")


def _let_go(tell: int) -> None:
    """Say that all is well, and leave the terminal."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    os.write(tell, b"1")
    os.close(tell)


def _handler(log_file: str | None, foreground: bool) -> logging.Handler:
    if log_file is not None:
        handler: logging.Handler = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        return handler
    if foreground:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("qzf: %(message)s"))
        return handler
    return _SystemLog()


class _SystemLog(logging.Handler):
    """The system's log, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        import syslog

        syslog.syslog(syslog.LOG_ERR, f"qzf mount: {human.printable(self.format(record))}")
