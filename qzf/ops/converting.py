"""convert: between GGUF, safetensors and containers, in the direction that suffixes say."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from qzf.adapters import (
    GGUF,
    SAFETENSORS,
    describe,
    gguf_part,
    model_stems,
    read_metadata,
    read_shard_index,
    read_weight_map,
    split_gguf_parts,
)
from qzf.container.member import MemberSource
from qzf.container.opening import open_reader
from qzf.container.reader import ContainerReader
from qzf.errors import NotFoundError, OptionError, SourceError
from qzf.ops.convert_gguf import DEQUANTIZED, HEADER_KEY, plan_floats, plan_raw, plan_restored
from qzf.ops.convert_plan import Plan, listed, write_plan
from qzf.ops.convert_safetensors import QUANTIZED, StSource, plan_gguf
from qzf.ops.output import check_free
from qzf.ops.reports import ConvertReport
from qzf.parallel import Progress, default_threads
from qzf.storage import ByteSource, FileSource, StrPath, is_url

__all__ = ["DEQUANTIZED", "QUANTIZED", "convert"]

#: Called with what the output will lack, before it is begun.
Notice = Callable[[Sequence[str]], None]

_QZF: Final = "qzf"
_FILES: Final = "files"
_INDEX: Final = ".safetensors.index.json"


class _Wishes(NamedTuple):
    """The options that say what to make."""

    dequantize: str | None
    quantize: str | None
    arch: str | None
    member: str | None


def convert(
    source: StrPath,
    out: StrPath,
    *,
    dequantize: str | None = None,
    quantize: str | None = None,
    arch: str | None = None,
    member: str | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> ConvertReport:
    """Convert ``source`` to ``out``; what they are is said by ``.gguf``, ``.safetensors`` and ``.qzf``.

    - To ``.qzf``: as :func:`qzf.pack`. From ``.qzf``: as :func:`qzf.unpack`, or where ``out`` is of the other
      kind than the one model in it (``member`` where there are several), that one converted.
    - GGUF to safetensors: types of GGML's own become U8 of shape (..., rows, bytes per row), and the GGUF
      header is kept, so that the way back gives the same bytes. Or all of them become ``dequantize``:
      ``f32``, ``f16`` or ``bf16``, as the ``gguf`` package dequantizes, rounded to the nearest, ties to even;
      the first part of a split model then brings the others along.
    - safetensors (a file, its ``.index.json``, or a folder with either) to GGUF: the file that it was made
      from, or its floats and integers as they are under their names, with a header of ``arch`` (default
      ``unknown``) and the source's name. ``quantize`` (``QUANTIZED``; needs libgguf) is what 2-D floats
      become whose rows are whole blocks.

    ``notice`` is told what is lost before anything is written; it is in the report too. Memory is bounded
    whatever the size of tensors. Raises ``OptionError`` for directions and options that make no sense,
    ``SourceError`` for input that breaks its format or that the output cannot hold, what reading a container
    raises, and ``OutputExistsError``; ``OSError`` passes through.
    """
    started = time.perf_counter()
    wishes, workers = _Wishes(dequantize, quantize, arch, member), default_threads(threads)
    _check(wishes)
    _check_places(source, out)
    given, path = Path(source), Path(out)
    shared: dict[str, Any] = {"threads": threads, "force": force, "progress": progress}
    kinds = _kind(given, os.fspath(source)), _kind(path, os.fspath(out))
    if given.name.lower().endswith(_INDEX):
        kinds = SAFETENSORS, kinds[1]
    if path.exists() and given.exists() and path.samefile(given):
        raise OptionError("source and output are the same", file=str(path))
    if kinds[1] == _QZF and kinds[0] != _QZF:
        return _packed(given, path, wishes, shared, started)
    with ExitStack() as stack:
        if kinds[0] == _QZF:
            files = _members(stack, given, kinds[1], wishes)
            if files is None or files[0][0] == kinds[1]:
                return _unpacked(
                    given, out, None if files is None else files[0][1].name, wishes, shared, started
                )
        else:
            _no_wishes(_Wishes(None, None, None, member), "only a container has members")
            files = _opened(stack, given, kinds, wishes)
        plan = _plan(files, kinds, given, wishes)
        _check_free(path, files, force)
        if notice is not None and plan.notices:
            notice(plan.notices)
        write_plan(plan, path, force=force, threads=workers, progress=progress)
    return ConvertReport(
        files=(str(path),),
        tensors=plan.tensors,
        changed=plan.changed,
        input_size=plan.input_size,
        output_size=plan.size,
        notices=plan.notices,
        seconds=time.perf_counter() - started,
    )


def _check(wishes: _Wishes) -> None:
    for name, value, allowed in (
        ("dequantize", wishes.dequantize, tuple(DEQUANTIZED)),
        ("quantize", wishes.quantize, QUANTIZED),
    ):
        if value is not None and value not in allowed:
            raise OptionError(f"{name} is {value!r}; it can be {', '.join(allowed)}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in wishes.arch or ""):
        raise OptionError(f"arch is {wishes.arch!r}; it cannot have control characters or what is no text")


def _check_places(source: StrPath, out: StrPath) -> None:
    if not os.fspath(source) or not os.fspath(out):
        raise OptionError("source or output is an empty text")
    if is_url(source):
        raise OptionError("converting reads all of it: download the file first", file=os.fspath(source))
    if is_url(out):
        raise OptionError("the output must be a file, not a URL", file=os.fspath(out))


def _kind(path: Path, text: str) -> str:
    """What a path stands for: gguf, safetensors, qzf, or files of any kind."""
    suffix = path.suffix.lower().removeprefix(".")
    folder = text.endswith(("/", os.sep)) or path.is_dir()
    return suffix if suffix in (GGUF, SAFETENSORS, _QZF) and not folder else _FILES


def _packed(
    source: Path, out: Path, wishes: _Wishes, shared: dict[str, Any], started: float
) -> ConvertReport:
    from qzf.ops.packing import pack

    _no_wishes(wishes, "packing takes files as they are")
    done = pack(source, out, **shared)
    return ConvertReport(
        (str(done.out),),
        done.tensors,
        0,
        done.original_size,
        done.container_size,
        (),
        time.perf_counter() - started,
    )


def _unpacked(
    source: Path, out: StrPath, member: str | None, wishes: _Wishes, shared: dict[str, Any], started: float
) -> ConvertReport:
    from qzf.ops.unpacking import unpack

    _no_wishes(wishes._replace(member=None), "unpacking gives files as they were")
    name = wishes.member or member
    done = unpack(source, out, members=() if name is None else (name,), **shared)
    size = source.stat().st_size
    seconds = time.perf_counter() - started
    return ConvertReport(done.files, 0, 0, size, done.bytes_written, (), seconds)


def _no_wishes(wishes: _Wishes, why: str) -> None:
    for name, value in wishes._asdict().items():
        if value is not None:
            raise OptionError(f"{why}; {name} has no meaning there")


#: A file to convert: its kind, and its bytes.
_File = tuple[str, ByteSource]


def _members(stack: ExitStack, container: Path, wanted: str, wishes: _Wishes) -> list[_File] | None:
    """The members that ``wanted`` is to be made of; None where all are to be unpacked.

    One member of that kind is taken as it is, where no option says that the other kind is meant.
    """
    source = stack.enter_context(FileSource(container))
    reader = open_reader(source)
    members = reader.index.members
    if wishes.member is not None:
        members = tuple(member for member in members if member.name == wishes.member)
        if not members:
            raise NotFoundError(f"there is no member {wishes.member!r}", file=source.name)
    if wanted == _QZF:
        raise OptionError("a container cannot be converted to a container", file=source.name)
    if wanted == _FILES:
        return None
    other = SAFETENSORS if wanted == GGUF else GGUF
    found = {kind: [member.name for member in members if member.kind == kind] for kind in (wanted, other)}
    changed = any((wishes.dequantize, wishes.quantize, wishes.arch))
    kind = other if found[other] and (changed or not found[wanted]) else wanted
    names = sorted(found[kind])
    if not names:
        raise SourceError("has no GGUF or safetensors member to convert", file=source.name)
    shards = (wanted, kind) == (GGUF, SAFETENSORS)  # become one file, as parts do that are dequantized
    if shards:
        one = wishes.member is not None or _is_one_model(reader, names)
    else:
        one = len(names) == 1 or bool(kind != wanted and wishes.dequantize and _is_split(names))
    if not one:
        few = listed([repr(name) for name in names])
        raise OptionError(f"it has {len(names)} members of that kind; name one: {few}", file=source.name)
    return [(kind, MemberSource(reader, name)) for name in names]


def _is_one_model(reader: ContainerReader, names: list[str]) -> bool:
    """Whether safetensors members are one model: a file, shards of one name, or what an index lists."""
    if len(model_stems(names)) == 1:
        return True
    found = [member.name for member in reader.index.members if member.name.lower().endswith(_INDEX)]
    if len(found) != 1:
        return False
    folder = found[0][: found[0].rfind("/") + 1]
    return set(names) <= {folder + name for name in read_weight_map(MemberSource(reader, found[0])).values()}


def _is_split(names: list[str]) -> bool:
    """Whether these, in order, are all parts of one split model."""
    first = gguf_part(names[0])
    if first is None:
        return False
    total = len(names)
    return [gguf_part(name) for name in names] == [(first.stem, n, total) for n in range(1, total + 1)]


def _opened(stack: ExitStack, path: Path, kinds: tuple[str, str], wishes: _Wishes) -> list[_File]:
    """The files that ``path`` stands for."""
    if _FILES in kinds and path.is_dir() and kinds[1] == GGUF:
        path = _model_in(path)
        kinds = SAFETENSORS, GGUF
    if set(kinds) != {GGUF, SAFETENSORS}:
        raise OptionError(
            "it can be .gguf to .safetensors, .safetensors to .gguf, anything to .qzf, .qzf to anything",
            file=str(path),
        )
    if path.name.lower().endswith(_INDEX):
        paths = [path.parent / name for name in read_shard_index(path)]
    elif wishes.dequantize is not None and (part := gguf_part(path.name)) is not None and part.number == 1:
        paths = split_gguf_parts(path)
    else:
        paths = [path]
    return [(kinds[0], stack.enter_context(FileSource(each))) for each in paths]


def _model_in(folder: Path) -> Path:
    """The index file or the one safetensors file in a folder."""
    names = sorted(entry.name for entry in folder.iterdir())
    found = [name for name in names if name.endswith(_INDEX)] or [
        name for name in names if name.endswith(".safetensors")
    ]
    if len(found) != 1:
        raise OptionError(f"{len(found)} safetensors models in the folder; name the file", file=str(folder))
    return folder / found[0]


def _plan(files: Sequence[_File], kinds: tuple[str, str], given: Path, wishes: _Wishes) -> Plan:
    if files[0][0] == GGUF:
        _no_wishes(wishes._replace(dequantize=None, member=None), "this makes safetensors of GGUF")
        described = [(source, describe(source, f"x.{GGUF}")) for _, source in files]
        if wishes.dequantize is None:
            plan = plan_raw(*described[0])
        else:
            plan = plan_floats(described, wishes.dequantize)
        part = gguf_part(Path(files[0][1].name).name)
        if part is None or len(files) == part.total:
            return plan
        alone = f"this is part {part.number} of {part.total} alone; each is converted on its own"
        return plan._replace(notices=(*plan.notices, alone))
    _no_wishes(wishes._replace(quantize=None, arch=None, member=None), "this makes GGUF of safetensors")
    sources = []
    for _, source in files:
        metadata = read_metadata(source, f"x.{SAFETENSORS}")
        sources.append(StSource(source, describe(source, f"x.{SAFETENSORS}"), metadata))
    if len(sources) == 1 and HEADER_KEY in sources[0].metadata:
        _no_wishes(wishes._replace(member=None), "the GGUF file it was made of is restored")
        return plan_restored(sources[0].source, sources[0].spec, dict(sources[0].metadata))
    return plan_gguf(sources, _model_name(given), wishes.arch, wishes.quantize)


def _model_name(path: Path) -> str:
    """The name of a model by its path: that of a folder or file, without suffixes."""
    name = path.resolve().name
    for suffix in (_INDEX, ".qzf", f".{SAFETENSORS}"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)] or name
    return name.encode("utf-8", errors="replace").decode("utf-8")


def _check_free(path: Path, files: Sequence[_File], force: bool) -> None:
    for _, source in files:
        if isinstance(source, FileSource) and path.exists() and path.samefile(source.name):
            raise OptionError("the output is one of the sources", file=str(path))
    check_free(path, force)
