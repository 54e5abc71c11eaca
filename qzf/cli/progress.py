"""A progress bar on stderr: bytes, speed, saving so far and time left. Silent where nobody watches.

``Meter`` does the arithmetic and knows no terminal; ``Bar`` draws with rich, which is imported only once
an operation has taken long enough for a bar to be worth it.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from qzf.cli import human, signals

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Bar", "Meter", "reporting", "watched"]

#: Seconds of reports before a bar appears, so that short runs neither flash one nor pay for rich (60 ms).
DELAY: Final = 0.3
#: Seconds between two drawings.
INTERVAL: Final = 0.1
#: Seconds that the shown speed looks back, in steps of ``INTERVAL``.
WINDOW: Final = 3.0


@contextmanager
def reporting(
    verb: str, name: str, *, quiet: bool, saving: bool = False
) -> Iterator[Callable[[int, int, int], None]]:
    """The progress callback for an operation: it obeys signals, and draws a bar where one is wanted.

    ``saving`` tells whether the operation's output is to be compared with its input.
    """
    bar = Bar(verb, name, saving=saving) if watched(quiet=quiet) else None

    def report(done: int, total: int, output: int) -> None:
        if bar is not None:
            bar(done, total, output)
        signals.check()  # last, as files may get their names next

    with signals.deferred(), bar or nullcontext():
        yield report


def watched(*, quiet: bool) -> bool:
    """Whether a bar is wanted: stderr is a terminal that can redraw a line."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Meter:
    """Speed, saving and time left, from the counts that an operation reports.

    The clock starts at the first report, when whatever precedes the work is over. Time left goes by the
    average since then, which jumps less than the speed of the moment.
    """

    def __init__(self) -> None:
        self._start = (0.0, 0)
        self._samples: deque[tuple[float, int]] = deque()
        self.done = self.total = self.output = 0

    def update(self, done: int, total: int, output: int, now: float) -> None:
        self.done, self.total, self.output = done, total, output
        if not self._samples:
            self._start = (now, done)
        if not self._samples or now - self._samples[-1][0] >= INTERVAL:
            self._samples.append((now, done))
            while now - self._samples[0][0] > WINDOW and len(self._samples) > 2:
                self._samples.popleft()

    def speed(self, now: float) -> str:
        then, before = self._samples[0]
        return human.rate(self.done - before, now - then)

    def saved(self) -> str:
        """Of the input so far."""
        return f"{human.saved(self.done, self.output)} saved"

    def left(self, now: float) -> str:
        then, before = self._start
        if self.done <= before or now <= then:
            return "-:--"
        return human.duration((now - then) * (self.total - self.done) / (self.done - before))


class Bar:
    """The bar itself: called with each report, and a context manager that takes it away at the end."""

    def __init__(self, verb: str, name: str, *, saving: bool = False) -> None:
        self._label = (verb, name)
        self._saving = saving
        self._meter = Meter()
        self._due: float | None = None
        self._rich: Progress | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def __call__(self, done: int, total: int, output: int) -> None:
        now = time.monotonic()
        self._meter.update(done, total, output, now)
        if self._due is None:
            self._due = now + DELAY
        if now >= self._due or (self._rich is not None and done == total):
            self._due = now + INTERVAL
            self._draw(now)

    def _draw(self, now: float) -> None:
        if self._rich is None:
            self._rich = _prepare(*self._label, saving=self._saving)
        meter = self._meter
        self._rich.update(
            self._rich.task_ids[0],
            completed=meter.done,
            total=meter.total,
            bytes=f"{human.size(meter.done)} of {human.size(meter.total)}",
            speed=meter.speed(now),
            saved=meter.saved(),
            left=meter.left(now),
        )
        self._rich.start()  # does nothing from the second time on
        self._rich.refresh()


def _prepare(verb: str, name: str, *, saving: bool) -> Progress:
    """A bar that is not on the screen yet, laid out for the terminal's width."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    def text(template: str, **style: Any) -> TextColumn:
        return TextColumn(template, markup=False, **style)  # names are data: "[bold]" is one, too

    console = Console(file=sys.stderr, highlight=False)
    columns = [
        text("{task.description}"),
        BarColumn(bar_width=None),
        text("{task.percentage:>3.0f}%"),
        *([text("{task.fields[bytes]:>20}")] if console.width >= 100 else []),
        text("{task.fields[speed]:>8}", style="cyan"),
        *([text("{task.fields[saved]:>12}", style="green")] if saving and console.width >= 76 else []),
        text("{task.fields[left]} left", style="dim"),
    ]
    progress = Progress(*columns, console=console, auto_refresh=False, transient=True, expand=True)
    label = f"{verb} {human.shorten(human.printable(name), max(12, console.width // 4))}"
    progress.add_task(label, total=None, bytes="", speed="", saved="", left="")
    return progress
