"""``qzf cat``: one tensor to standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qzf.cli.params import digest_option
from qzf.cli.screen import current
from qzf.errors import NotFoundError

if TYPE_CHECKING:
    from qzf.access import Container

__all__ = ["command"]


@click.command("cat", short_help="Write one tensor to standard output.")
@click.argument("container", metavar="FILE")
@click.argument("tensor", metavar="TENSOR")
@click.option(
    "--raw", "form", flag_value="raw", default=True, help="Its bytes as in the original.  [default]"
)
@click.option("--npy", "form", flag_value="npy", help="As a .npy file.")
@digest_option
def command(container: str, tensor: str, form: str, digest: str | None) -> None:
    """Write TENSOR to standard output; of FILE only the index and the tensor's chunks are read.

    A name that several files have is given as MEMBER:TENSOR, with the name of the file it is from. With
    --npy quantized types come as bytes, one row of blocks each, and types that numpy lacks (BF16, F8) as
    raw items of their width.
    """
    import qzf

    out = current().binary_stdout("a tensor")
    with qzf.open(container, digest=digest) as opened:
        key = _key(opened, tensor)
        if form == "npy":
            out.write(_npy_header(opened, key))
        for part in opened.iter_bytes(key):
            out.write(part)


def _key(container: Container, name: str) -> str:
    """``name`` if the container has it; else an error that names what could be meant."""
    if name in container:
        return name
    meant = [key for key in container if key.endswith(f":{name}")]
    if not meant:
        from difflib import get_close_matches

        meant = get_close_matches(name, container.keys())
    hint = f"; did you mean {' or '.join(repr(key) for key in meant)}?" if meant else ""
    raise NotFoundError(f"there is no tensor {name!r}{hint}", file=container.reader.source.name)


def _npy_header(container: Container, key: str) -> bytes:
    """What precedes the data in a .npy file (format version 1.0), made without reading the tensor."""
    import io

    import numpy as np

    dtype, shape = container.array_spec(key)
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()
