"""Models of Hugging Face transformers out of folders that hold containers in place of their weights.

transformers takes weights as a ``state_dict`` beside a ``config`` when it is given no name of a model. That
is a documented part of its interface, so nothing of it has to be replaced here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from qzf.access.frameworks import imported
from qzf.access.safe import safe_open
from qzf.adapters import SAFETENSORS, SHARD, model_stems, read_weight_map
from qzf.container.member import MemberSource
from qzf.errors import OptionError, SourceError
from qzf.storage import FileSource, StrPath

__all__ = ["from_pretrained", "load_weights"]

transformers: Final = imported("transformers", "hf", "qzf.hf")
torch: Final = imported("torch", "hf", "qzf.hf")

#: What belongs to the model, and would be taken for a part of its configuration.
_OF_THE_MODEL: Final = ("dtype", "torch_dtype", "quantization_config", "trust_remote_code")
#: What AutoModel classes take for both.
_OF_BOTH: Final = ("dtype", "torch_dtype", "trust_remote_code")
#: Where files come from: a local folder has no use for it.
_OF_THE_HUB: Final = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "code_revision",
    "token",
    "use_safetensors",
)


def from_pretrained(model_class: Any, repo_dir: StrPath, *model_args: Any, **options: Any) -> Any:
    """``model_class.from_pretrained(repo_dir)`` for a folder whose weights are packed.

    ``model_class`` is a model of transformers or one of its ``AutoModel`` classes. The folder has
    ``config.json`` and all else as it comes from the hub, and in place of the weights one of

    - ``model.qzf`` or ``model.safetensors.qzf``: in it ``model.safetensors``, or its index and shards, beside
      whatever else was packed;
    - ``model.safetensors.index.json.qzf``: what `qzf.pack` makes of the index and its shards;
    - ``model-00001-of-00003.qzf`` (or ``.safetensors.qzf``) and so on: the shards, each on its own.

    ``weights`` names another container. ``variant`` and ``subfolder`` are what they are to transformers;
    other options go to it (``dtype``, ``device_map``, ``attn_implementation``, ``output_loading_info``,
    changes of the configuration ...). Nothing is written to disk; the weights are in memory once, and for a
    moment twice where they change dtype or device. Adapters (PEFT) in the folder are left alone.

    Raises ``OptionError`` where there are no weights, ``SourceError`` where shards or tensors are missing,
    ``DamageError``; what transformers raises passes through.
    """
    folder = Path(repo_dir, options.pop("subfolder", None) or "")
    if not folder.is_dir():
        raise OptionError("there is no such folder", file=str(folder))
    variant, weights = options.pop("variant", None), options.pop("weights", None)
    options = {name: value for name, value in options.items() if name not in _OF_THE_HUB}
    config, options = _config(model_class, folder, options)
    model_class, config = _concrete(model_class, config, options)
    state = load_weights(folder, variant=variant, weights=weights)
    generation = options.get("generation_config")
    loaded = model_class.from_pretrained(None, *model_args, config=config, state_dict=state, **options)
    model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info
    model.config.name_or_path = model.name_or_path = str(repo_dir)
    if generation is None and getattr(model, "can_generate", bool)():
        model.generation_config = _generation_config(folder) or model.generation_config
    return loaded


class _Names(NamedTuple):
    """What the files of a model are called: its shards' stem, its one file, and its index of shards."""

    stem: str
    whole: str
    shards: str

    @classmethod
    def of(cls, variant: str | None) -> _Names:
        dotted = "" if variant is None else f".{variant}"
        return cls(f"model{dotted}", f"model{dotted}.safetensors", f"model.safetensors.index{dotted}.json")


def load_weights(
    folder: StrPath, *, variant: str | None = None, weights: StrPath | None = None
) -> dict[str, Any]:
    """The tensors of a model whose folder holds containers, for torch; names are sorted.

    Which containers those are, and what is raised, see ``from_pretrained``.
    """
    state: dict[str, Any] = {}
    expected: dict[str, str] = {}
    folder, names = Path(folder), _Names.of(variant)
    for path in [folder / weights] if weights is not None else _containers(folder, names):
        with safe_open(path, "pt") as file:
            expected |= _load(file, names, str(path), state)
    if (folder / names.shards).is_file():
        with FileSource(folder / names.shards) as source:
            expected |= read_weight_map(source)
    for name, shard in expected.items():
        if name not in state:
            raise SourceError(f"the index has it in {shard}, where it is not", file=str(folder), tensor=name)
    return {name: state[name] for name in sorted(state)}


def _containers(folder: Path, names: _Names) -> list[Path]:
    """The containers in a folder that hold a model's weights."""
    for name in (names.stem, names.whole, names.shards):
        if (folder / f"{name}.qzf").is_file():
            return [folder / f"{name}.qzf"]
    shards: dict[int, Path] = {}
    counts = set()
    for path in sorted(folder.glob("*.qzf")):
        shard = SHARD.fullmatch(path.name.removesuffix(".qzf").removesuffix(".safetensors"))
        if shard is not None and shard["stem"] == names.stem:
            shards[int(shard["number"])] = path
            counts.add(int(shard["count"]))
    if not shards:
        raise OptionError(f"there is no {names.stem}.qzf, nor any other container of it", file=str(folder))
    most = max(counts)
    if len(counts) > 1 or set(shards) != set(range(1, most + 1)):
        raise SourceError(f"{len(shards)} of {most} shards of {names.stem} are there", file=str(folder))
    return [shards[number] for number in sorted(shards)]


def _load(file: safe_open, names: _Names, path: str, state: dict[str, Any]) -> dict[str, str]:
    """Add the tensors of a container to ``state``; what an index in it says of where they are."""
    container = file.container
    kinds = {member.name: member.kind for member in container.members}
    whole = next((name for name in kinds if _is_called(name, names.whole)), None)
    index = next((name for name in kinds if _is_called(name, names.shards)), None)
    expected: dict[str, str] = {}
    if whole is not None:
        taken = {whole}
    elif index is not None:
        expected = read_weight_map(MemberSource(container.reader, index))
        taken = {index.removesuffix(names.shards) + shard for shard in expected.values()}
    else:
        taken = _alone([name for name, kind in kinds.items() if kind == SAFETENSORS], path)
    keys = {
        tensor.name: key
        for key, tensor in zip(container, container.tensors, strict=True)
        if container.members[tensor.member].name in taken
    }
    loaded = file.get_tensors(keys.values())
    state.update((name, loaded[key]) for name, key in keys.items())
    return expected


def _is_called(name: str, wanted: str) -> bool:
    """Whether a member has a name, in a folder or not."""
    return name == wanted or (name.count("/") == 1 and name.endswith(f"/{wanted}"))


def _alone(members: list[str], path: str) -> set[str]:
    """The safetensors members of a container, where they are one model: a file, or shards of one."""
    stems = model_stems(members)
    if len(stems) != 1:
        what = f"{len(stems)} models are in it, one is due" if stems else "there is no safetensors file in it"
        raise OptionError(what, file=path)
    return set(members)


# --- what transformers reads beside the weights ---------------------------------------------------


def _config(model_class: Any, folder: Path, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The configuration, and the options that are none of it."""
    config = options.pop("config", None)
    if config is not None and not isinstance(config, str | Path):
        return config, options
    held = {name: options.pop(name) for name in _OF_THE_MODEL if name in options}
    source = getattr(model_class, "config_class", None)
    if source is None:  # what AutoModel classes hand on to it
        source = transformers.AutoConfig
        options |= {name: value for name, value in held.items() if name in _OF_BOTH and value != "auto"}
    found, rest = source.from_pretrained(config or folder, return_unused_kwargs=True, **options)
    return found, {**rest, **held}


def _concrete(model_class: Any, config: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """The model that an ``AutoModel`` class stands for, and the part of the configuration that is its.

    Such classes load by name only. What they make of a configuration they tell by making it, on a device
    where that costs no memory; code of the folder's own, if it is trusted, is loaded there.
    """
    if issubclass(model_class, transformers.PreTrainedModel):
        return model_class, config
    own_code = {name: options[name] for name in ("trust_remote_code",) if name in options}
    with torch.device("meta"):
        found = type(model_class.from_config(config, **own_code))
    if not isinstance(config, found.config_class):
        config = config.get_text_config()  # of a model of texts and images, say
    return found, config


def _generation_config(folder: Path) -> Any:
    """How to generate: as the folder's file says, or as older ones say in ``config.json``."""
    load = transformers.GenerationConfig.from_pretrained
    if (folder / "generation_config.json").is_file():
        return load(folder)
    if (folder / "config.json").is_file():
        return load(folder, config_file_name="config.json", _from_model_config=True)
    return None
