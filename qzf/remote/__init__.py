"""Sources that are reached by URL, through fsspec; loaded only when a URL is given."""

from qzf.remote.source import RemoteSource, open_url

__all__ = ["RemoteSource", "open_url"]
