"""The package's version: the one place where it stands. The format has a version of its own."""

__version__ = "0.1.0"
