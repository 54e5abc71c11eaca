"""Numbers and names as people read them. Sizes are decimal (1 MB = 1,000,000 bytes), as on model hubs."""

from __future__ import annotations

__all__ = ["count", "duration", "printable", "rate", "saved", "shorten", "size"]

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def size(nbytes: float) -> str:
    """``999 B``, ``12.3 kB``, ``253.1 MB``."""
    return _scaled(nbytes, digits=1)


def rate(nbytes: float, seconds: float) -> str:
    """``412 MB/s``, ``1.4 GB/s``; ``-`` where no time has passed."""
    if seconds <= 0:
        return "-"
    speed = nbytes / seconds
    return f"{_scaled(speed, digits=1 if speed >= 1e9 else 0)}/s"


def saved(original: int, stored: int) -> str:
    """How much smaller, as in ``8.3 %``; negative where it grew, ``-`` of nothing."""
    if original == 0:
        return "-"
    return f"{100 * (1 - stored / original):.1f} %"


def duration(seconds: float) -> str:
    """``0:07``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    """``1 tensor``, ``1,236 tensors``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """``text`` with every character that could act on a terminal, or hide, written as an escape.

    Names come out of files that anyone may have made: control characters could rewrite the screen,
    line breaks fake a line, and direction marks reorder what is read.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters; the middle gives way, since ends tell names apart."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def _scaled(number: float, digits: int) -> str:
    if number < 999.5:
        return f"{number:.0f} B"
    place = 0
    number /= 1000
    while number >= 1000 - 0.5 * 10**-digits and place < len(_UNITS) - 1:
        number /= 1000
        place += 1
    return f"{number:.{digits}f} {_UNITS[place]}"
