"""Signals as exceptions, in the command's process only: so that temporary files are removed.

An exception that a signal handler raises may come up between any two steps of the program: after a file
was made and before anything knows of it, or in a finalizer, where Python drops it. So during a long operation
(``deferred``) a signal waits for the next progress report, which calls ``check`` where nothing is half done.
Only an operation that does not report for ``GRACE`` seconds is interrupted wherever it is.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["SIGINT", "SIGTERM", "Terminated", "check", "deferred", "exit_status", "install", "release"]

SIGINT: Final = signal.SIGINT
SIGTERM: Final = signal.SIGTERM
#: What ends the command in an orderly way. SIGHUP is what a closing terminal sends; Windows has none.
_HANDLED: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
#: Seconds that a signal waits for a progress report.
GRACE: Final = 1.0


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. No ``Exception``: nothing but clean-up may stand in its way."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class _State:
    """The signal that came first, and whether it is to wait for ``check``."""

    arrived: int | None = None
    deferring = False


def exit_status(signum: int) -> int:
    """The exit code that shells give to a process ended by this signal."""
    return 128 + signum


def install() -> None:
    """Take over the signals. One that the parent told us to ignore stays ignored, as under nohup."""
    for signum in _HANDLED:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _on_signal)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _on_alarm)


def release() -> None:
    """The work is done: a signal from now on ends the process at once, a repeated one does nothing more."""
    action = signal.SIG_DFL if _State.arrived is None else signal.SIG_IGN
    for signum in _HANDLED:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, action)


def check() -> None:
    """Raise ``KeyboardInterrupt`` or ``Terminated`` if a signal has arrived."""
    if _State.arrived is not None:
        _set_alarm(0)  # from here on it is clean-up, which must not be cut short
        raise _exception(_State.arrived)


@contextmanager
def deferred() -> Iterator[None]:
    """A block in which ``check`` is called often, and in which signals wait for that."""
    _State.deferring = hasattr(signal, "setitimer")
    try:
        yield
        check()
    finally:
        _State.deferring = False
        _set_alarm(0)


def _exception(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else Terminated(signum)


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _on_signal(signum: int, _frame: FrameType | None) -> None:
    if _State.arrived is None:
        _State.arrived = signum
    if not _State.deferring:
        raise _exception(_State.arrived)
    _set_alarm(GRACE)  # a repeated signal, too: it ends a clean-up that hangs


def _on_alarm(_signum: int, _frame: FrameType | None) -> None:
    if _State.arrived is not None:
        raise _exception(_State.arrived)
