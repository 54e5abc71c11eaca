"""The one tree of typed errors. Every error can say where: file, byte offset, member, tensor, chunk.

The command line maps the branches to exit codes (see ``qzf.cli.exits``): ``DamageError`` is 1,
``OptionError`` 2, ``SourceError`` and ``FormatError`` 3, ``SourceChangedError``, ``RemoteError`` and
``OSError`` 4.
"""

from __future__ import annotations

__all__ = [
    "ChecksumError",
    "ChunkError",
    "DamageError",
    "FormatError",
    "GgufError",
    "MissingPackageError",
    "NotFoundError",
    "OptionError",
    "OutputExistsError",
    "QzfError",
    "RemoteError",
    "SafetensorsError",
    "SourceChangedError",
    "SourceError",
    "StateDictError",
    "TruncatedError",
    "UnsupportedError",
]


class QzfError(Exception):
    """Root of all errors that QZF raises itself.

    ``message`` says what is wrong; the keyword arguments say where, each only as far as it is known:
    ``file`` (path as the caller gave it), ``offset`` (byte offset in that file), ``member``, ``tensor``
    (names), ``chunk`` (ordinal in the container's chunk table).
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        offset: int | None = None,
        member: str | None = None,
        tensor: str | None = None,
        chunk: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.offset = offset
        self.member = member
        self.tensor = tensor
        self.chunk = chunk

    def where(self) -> str:
        """The known coordinates, as in ``model.qzf, offset 4096, tensor 'a.b', chunk 3``."""
        parts = [] if self.file is None else [self.file]
        parts += [] if self.offset is None else [f"offset {self.offset}"]
        parts += [] if self.member is None else [f"member {self.member!r}"]
        parts += [] if self.tensor is None else [f"tensor {self.tensor!r}"]
        parts += [] if self.chunk is None else [f"chunk {self.chunk}"]
        return ", ".join(parts)

    def __str__(self) -> str:
        where = self.where()
        return f"{where}: {self.message}" if where else self.message


class OptionError(QzfError, ValueError):
    """The caller asked for something that cannot be: an option out of range, clashing arguments."""


class OutputExistsError(OptionError):
    """The output is there already and ``force`` was not given."""


class MissingPackageError(OptionError, ModuleNotFoundError):
    """What was asked for needs an optional package that is not installed; the message says how to get it."""

    __str__ = QzfError.__str__


class StateDictError(OptionError, RuntimeError):
    """Tensors that cannot be saved as they are, or that do not fit a model: as torch, a ``RuntimeError``."""


class NotFoundError(OptionError, KeyError):
    """No such member or tensor in the container."""

    __str__ = QzfError.__str__


class SourceError(QzfError):
    """An input file is malformed or of a kind that cannot be packed."""


class GgufError(SourceError):
    """A GGUF file breaks a rule of its format; the message names the rule."""


class SafetensorsError(SourceError):
    """A safetensors file breaks a rule of its format; the message names the rule."""


class SourceChangedError(SourceError):
    """An input file changed, shrank or vanished while it was being read."""


class RemoteError(SourceError):
    """A remote source does not answer, or not as it should, after all tries; the cause is attached."""


class FormatError(QzfError):
    """The file is not a QZF container, or its structure breaks the specification."""


class TruncatedError(FormatError):
    """The file ends before the structure it announces."""


class UnsupportedError(FormatError):
    """The file needs a format version, feature, transform or codec that this reader does not know."""


class DamageError(QzfError):
    """Content does not match its checksum or digest."""


class ChecksumError(DamageError):
    """A stored checksum or digest does not match the bytes it covers."""


class ChunkError(DamageError):
    """A chunk's payload cannot be decoded."""
