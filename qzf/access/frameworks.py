"""From numpy arrays to the arrays of the framework that was asked for."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qzf.errors import OptionError

__all__ = ["Framework", "by_name"]


class Framework(Protocol):
    """Makes arrays of a framework."""

    def wrap(self, array: npt.NDArray[Any]) -> Any:
        """The framework's array of a numpy array, which nothing else refers to but views of it."""


class _Numpy:
    def wrap(self, array: npt.NDArray[Any]) -> Any:
        return array


class _Raw:
    def wrap(self, array: npt.NDArray[Any]) -> Any:
        return np.ascontiguousarray(array).view(np.ndarray).reshape(-1).view(np.uint8)


def by_name(name: str, device: str | None = None) -> Framework:
    """The framework ``name``: "numpy", or "raw" (bytes, as uint8 of one dimension).

    Raises ``OptionError``.
    """
    if name in ("numpy", "np", "raw"):
        if device not in (None, "cpu"):
            raise OptionError(f"framework {name!r} has no device {device!r}")
        return _Raw() if name == "raw" else _Numpy()
    raise OptionError(f"there is no framework {name!r}")
