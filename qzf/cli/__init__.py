"""The ``qzf`` command: one file per subcommand, everything heavy imported only when it is needed.

``main`` is the entry point of the process: it takes over the signals before it imports anything else, so
that an early interrupt ends in the documented exit code, too.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Final, NoReturn

__all__ = ["added_environment", "main"]

#: Variables that ``main`` sets for this process only, and not for programs that it runs.
added_environment: Final[set[str]] = set()


def main() -> NoReturn:
    """Run the command line in ``sys.argv`` and exit the process with its code (see ``qzf.cli.exits``)."""
    from qzf.cli import signals

    signals.install()
    # A command makes no cyclic garbage to speak of, and each collection walks all that the imports have made.
    gc.disable()
    # numpy starts a thread per processor for linear algebra, which no command does: half its start-up time.
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        added_environment.add("OPENBLAS_NUM_THREADS")
    try:
        from qzf.cli.root import cli

        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by the caller, as in `qzf ... >&-`
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        cli.main(prog_name="qzf")
    except KeyboardInterrupt:
        sys.exit(signals.exit_status(signals.SIGINT))
    except signals.Terminated as stop:
        sys.exit(signals.exit_status(stop.signum))
    finally:
        signals.release()
        gc.freeze()  # else the interpreter collects all of it once more before it ends
    raise AssertionError("cli.main() returned")
