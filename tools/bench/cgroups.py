"""Slow storage and little memory, by the kernel's control groups (version 1).

``blkio.throttle.read_bps_device`` limits what a group's processes read from a block device, and
``memory.limit_in_bytes`` the memory they have, page cache included. Both need root and a kernel that has
version 1 mounted below ``/sys/fs/cgroup`` (see cgroups(7), and admin-guide/cgroup-v1 in Linux's documents).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["device_of", "drop", "limits", "missing"]

_ROOT: Final = Path("/sys/fs/cgroup")
_READ: Final = "blkio.throttle.read_bps_device"
_MEMORY: Final = "memory.limit_in_bytes"
#: Enters the groups named before ``--``, then becomes the command behind it.
_ENTER: Final = (
    'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'
)


def missing() -> str:
    """Why limits cannot be set here, in words; empty where they can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root may limit reads"
    if not (_ROOT / "blkio" / _READ).exists():
        return f"there is no {_READ} below {_ROOT}/blkio (cgroup version 1)"
    if not (_ROOT / "memory" / "cgroup.procs").exists():
        return f"there is no {_ROOT}/memory (cgroup version 1)"
    return ""


def device_of(path: Path) -> str:
    """The disk that ``path`` is on, as ``MAJOR:MINOR``. Raises ``OSError`` where it is on none."""
    number = path.stat().st_dev
    entry = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(strict=True)
    whole = entry.parent if (entry / "partition").exists() else entry
    return (whole / "dev").read_text().strip()


def drop(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def limits(device: str, read_bps: int | None, memory: int | None = None) -> Iterator[list[str]]:
    """Limits for processes: reads in bytes a second, memory in bytes; None is no limit.

    Yields what is to stand before a command, so that it runs below them.
    """
    groups: list[Path] = []
    settings = [
        ("blkio", _READ, read_bps and f"{device} {read_bps}"),
        ("memory", _MEMORY, memory and str(memory)),
    ]
    try:
        for controller, file, text in settings:
            if text:
                group = _ROOT / controller / f"qzf-bench-{os.getpid()}"
                group.mkdir()
                groups.append(group)
                (group / file).write_text(text)
        yield ["sh", "-c", _ENTER, "sh", *map(str, groups), "--"] if groups else []
    finally:
        for group in groups:
            _remove(group)


def _remove(group: Path) -> None:
    """A group goes once its last process has ended, which the kernel may take a moment to see."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.02)
