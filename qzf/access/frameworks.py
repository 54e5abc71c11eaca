"""From numpy arrays to the arrays of the framework that was asked for.

A framework's package is imported when it is first asked for, never before.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from qzf.errors import MissingPackageError, OptionError

__all__ = ["Framework", "by_name", "canonical", "imported"]

#: What frameworks are called, with the other names that safetensors has for them.
_ALIASES: Final = {
    "numpy": "numpy",
    "np": "numpy",
    "raw": "raw",
    "pt": "pt",
    "torch": "pt",
    "pytorch": "pt",
    "jax": "jax",
    "flax": "jax",
    "mlx": "mlx",
}


class Framework(Protocol):
    """Makes arrays of a framework."""

    def wrap(self, array: npt.NDArray[Any]) -> Any:
        """The framework's array of a numpy array, which nothing else refers to but views of it."""


def canonical(name: str) -> str:
    """The one name of a framework: ``numpy``, ``pt``, ``jax``, ``mlx`` or ``raw``. Raises ``OptionError``."""
    found = _ALIASES.get(name) if isinstance(name, str) else None
    if found is None:
        raise OptionError(f"there is no framework {name!r}; those there are: {', '.join(_ALIASES)}")
    return found


def by_name(name: str, device: Any = None) -> Framework:
    """The framework ``name``, making arrays on ``device``.

    - ``numpy``, ``np``: arrays of numpy's, as `Container.tensor` tells of them.
    - ``pt``, ``torch``, ``pytorch``: tensors that share the decoded memory, or are moved to ``device`` (as
      torch names devices, a number, or a ``torch.device``). What memory a tensor may not write to, and what
      has negative strides, is copied.
    - ``jax``, ``flax``: arrays on ``device`` (a platform such as ``cpu`` or ``cuda:1``, or a ``jax.Device``).
      As ever with jax, numbers of 64 bits become such of 32, unless ``jax_enable_x64`` is set.
    - ``mlx``: arrays, which have no device. 64-bit floats become such of 32 bits; 8-bit floats, which mlx
      does not have, are their bytes.
    - ``raw``: the bytes, as uint8 of one dimension, in numpy arrays.

    Raw blocks of quantized types are uint8 of shape (rows, bytes per row) in each of them. Raises
    ``OptionError``, ``MissingPackageError`` where the framework's package is not installed.
    """
    found = canonical(name)
    if found == "pt":
        return _Torch(device)
    if found == "jax":
        return _Jax(device)
    if device is not None and device != "cpu":
        raise OptionError(f"framework {name!r} has no device {device!r}")
    if found == "mlx":
        return _Mlx()
    return _Raw() if found == "raw" else _Numpy()


def imported(module: str, extra: str, what: str) -> Any:
    """An optional module, which ``what`` needs and the extra ``extra`` installs.

    Raises ``MissingPackageError`` where it is not there; other faults in it pass through.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # it is there, and lacks something itself
        message = f"{what} needs the package {package}: pip install 'qzf[{extra}]'"
        raise MissingPackageError(message) from None


class _Numpy:
    def wrap(self, array: npt.NDArray[Any]) -> Any:
        return array


class _Raw:
    def wrap(self, array: npt.NDArray[Any]) -> Any:
        return np.ascontiguousarray(array).view(np.ndarray).reshape(-1).view(np.uint8)


class _Torch:
    def __init__(self, device: Any) -> None:
        self._torch = imported("torch", "torch", "framework 'pt'")
        self._device = _torch_device(self._torch, device)

    def wrap(self, array: npt.NDArray[Any]) -> Any:
        plain = _plain(array)
        if not plain.flags.writeable or _runs_back(plain):
            plain = plain.copy()  # torch has neither
        if plain.dtype.isbuiltin == 1:
            tensor = self._torch.from_numpy(plain)
        else:  # of ml_dtypes, which names them as torch does
            dtype = getattr(self._torch, plain.dtype.name, None)
            if dtype is None:
                version = self._torch.__version__
                raise OptionError(f"torch {version} has no dtype {plain.dtype.name}")
            bits = np.int16 if plain.dtype.itemsize == 2 else np.uint8
            tensor = self._torch.from_numpy(plain.view(bits)).view(dtype)
        return tensor if self._device is None else tensor.to(self._device)


def _torch_device(torch: Any, device: Any) -> Any:
    """A device as torch takes it, None for the processor. Whether it is there shows when it is used."""
    if device is None or (isinstance(device, int) and device >= 0):
        return device  # numbers are those of the accelerator that there is
    if not isinstance(device, str | torch.device):
        raise OptionError(f"{device!r} is no device")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"{device!r} is no device: {str(error).splitlines()[0]}") from None
    if found.type == "meta":
        raise OptionError("device 'meta' holds no data, so nothing can be loaded to it")
    return None if found.type == "cpu" else found


class _Jax:
    def __init__(self, device: Any) -> None:
        self._jax = imported("jax", "jax", "framework 'jax'")
        self._device = _jax_device(self._jax, device)

    def wrap(self, array: npt.NDArray[Any]) -> Any:
        # jax may go on using the memory that it is given, which is not to change under it: streams and
        # callers use theirs again.
        plain = _plain(array).copy()
        try:
            return self._jax.device_put(plain, self._device)
        except TypeError:
            version = self._jax.__version__
            raise OptionError(f"jax {version} has no dtype {plain.dtype.name}") from None


def _jax_device(jax: Any, device: Any) -> Any:
    """A device of jax's, None for its default."""
    if device is None or isinstance(device, jax.Device):
        return device
    if not isinstance(device, str):
        raise OptionError(f"{device!r} is no device")
    platform, colon, number = device.partition(":")
    try:
        return jax.devices(platform)[int(number) if colon else 0]
    except (RuntimeError, ValueError, IndexError) as error:
        raise OptionError(f"jax has no device {device!r}: {error}") from None


class _Mlx:
    def __init__(self) -> None:
        self._mlx = imported("mlx.core", "mlx", "framework 'mlx'")

    def wrap(self, array: npt.NDArray[Any]) -> Any:
        plain = _plain(array)
        if _runs_back(plain):
            plain = plain.copy()
        if plain.dtype.isbuiltin == 1:
            return self._mlx.array(plain)  # a copy
        if plain.dtype.name == "bfloat16":
            return self._mlx.array(plain.view(np.uint16)).view(self._mlx.bfloat16)
        return self._mlx.array(plain.view(np.uint8))


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Without the subclass for raw blocks; what indexing made a scalar of is an array again."""
    return np.asarray(array).view(np.ndarray)


def _runs_back(array: npt.NDArray[Any]) -> bool:
    return any(stride < 0 for stride in array.strides)
