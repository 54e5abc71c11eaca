"""``qzf.hf.from_pretrained`` beside ``from_pretrained`` of transformers: the same models and outputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qzf
import qzf.numpy
from qzf.errors import DamageError, OptionError, SourceError
from tests.helpers import SOURCES
from tests.interop.beside import run_python
from tools.fetch_models import default_cache

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import qzf.hf  # noqa: E402 - it needs them
import qzf.torch  # noqa: E402

MINILM = default_cache() / "minilm"
IDS = [[2, 9, 4, 31, 7, 3], [2, 5, 6, 3, 0, 0]]


def _bert(**changes: Any) -> Any:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(3)
    return transformers.BertModel(transformers.BertConfig(vocab_size=64, **shape, **changes))


def _gpt2() -> Any:
    """A model that generates, whose output embedding is its input embedding."""
    torch.manual_seed(4)
    config = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    model = transformers.GPT2LMHeadModel(config)
    model.generation_config = transformers.GenerationConfig(max_new_tokens=7, repetition_penalty=1.5)
    return model


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small BERT as transformers saves it."""
    folder = tmp_path_factory.mktemp("bert")
    _bert().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in several files with an index."""
    folder = tmp_path_factory.mktemp("shards")
    _bert().save_pretrained(folder, max_shard_size="25KB")
    assert len(list(folder.glob("model-*.safetensors"))) >= 3
    return folder


def _copied(source: Path, folder: Path) -> Path:
    """A folder with all but the weights of another one."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    return folder


def _outputs(model: Any) -> Any:
    assert not model.training
    with torch.no_grad():
        return model(torch.tensor(IDS))[0]


def _same_models(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    ours_state, state = ours.state_dict(), theirs.state_dict()
    assert list(ours_state) == list(state)
    for name, tensor in state.items():
        assert ours_state[name].dtype == tensor.dtype and torch.equal(ours_state[name], tensor), name
    assert [p.requires_grad for p in ours.parameters()] == [p.requires_grad for p in theirs.parameters()]
    ours_config, config = ours.config.to_dict(), theirs.config.to_dict()
    assert ours_config.pop("_name_or_path") and config.pop("_name_or_path")
    assert ours_config == config
    assert torch.equal(_outputs(ours), _outputs(theirs))


# --- where the weights are ------------------------------------------------------------------------


def _one(source: Path, folder: Path) -> None:
    qzf.pack(source / "model.safetensors", folder / "model.qzf")


def _by_default(source: Path, folder: Path) -> None:
    shutil.copy(source / "model.safetensors", folder)
    qzf.pack(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()


def _saved(source: Path, folder: Path) -> None:
    qzf.torch.save_file(transformers.BertModel.from_pretrained(source).state_dict(), folder / "model.qzf")


def _another_name(source: Path, folder: Path) -> None:
    shutil.copy(source / "model.safetensors", folder / "weights.safetensors")
    qzf.pack(folder / "weights.safetensors", folder / "model.qzf")
    (folder / "weights.safetensors").unlink()


def _all_of_it(source: Path, folder: Path) -> None:
    """The whole folder, and another model below it."""
    shutil.copytree(source, folder / "all")
    (folder / "all" / "below").mkdir()
    qzf.torch.save_file({"other": torch.zeros(3)}, folder / "all" / "below" / "x.qzf")
    qzf.unpack(folder / "all" / "below" / "x.qzf", folder / "all" / "below" / "model2.safetensors")
    qzf.pack(folder / "all", folder / "model.qzf")
    shutil.rmtree(folder / "all")


ONE_FILE = (_one, _by_default, _saved, _another_name, _all_of_it)


@pytest.mark.parametrize("place", ONE_FILE, ids=lambda place: place.__name__)
def test_weights_in_one_file(bert: Path, place: Callable[[Path, Path], None], tmp_path: Path) -> None:
    folder = _copied(bert, tmp_path / "packed")
    place(bert, folder)
    before = sorted(path.name for path in folder.iterdir())
    ours = qzf.hf.from_pretrained(transformers.AutoModel, folder)
    theirs = transformers.AutoModel.from_pretrained(bert)
    _same_models(ours, theirs)
    assert ours.name_or_path == ours.config.name_or_path == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == before, "nothing is written"


def _index(source: Path, folder: Path) -> None:
    qzf.pack(source / "model.safetensors.index.json", folder / "model.safetensors.index.json.qzf")


def _index_as_model(source: Path, folder: Path) -> None:
    qzf.pack(source / "model.safetensors.index.json", folder / "model.qzf")


def _without_index(source: Path, folder: Path) -> None:
    qzf.pack(sorted(source.glob("*.safetensors")), folder / "model.qzf")


def _each(source: Path, folder: Path) -> None:
    for path in source.glob("*.safetensors"):
        qzf.pack(path, folder / f"{path.stem}.qzf")


def _each_by_default(source: Path, folder: Path) -> None:
    shutil.copy(source / "model.safetensors.index.json", folder)
    for path in source.glob("*.safetensors"):
        qzf.pack(path, folder / f"{path.name}.qzf")


SHARDED = (_index, _index_as_model, _without_index, _each, _each_by_default, _all_of_it)


@pytest.mark.parametrize("place", SHARDED, ids=lambda place: place.__name__)
def test_weights_in_shards(shards: Path, place: Callable[[Path, Path], None], tmp_path: Path) -> None:
    folder = _copied(shards, tmp_path / "packed")
    place(shards, folder)
    theirs = transformers.AutoModel.from_pretrained(shards)
    _same_models(qzf.hf.from_pretrained(transformers.AutoModel, folder), theirs)


def test_a_variant_a_subfolder_and_another_name(bert: Path, tmp_path: Path) -> None:
    theirs = transformers.AutoModel.from_pretrained(bert)
    folder = _copied(bert, tmp_path / "repo" / "inner")
    qzf.pack(bert / "model.safetensors", folder / "model.fp16.qzf")
    load = qzf.hf.from_pretrained
    _same_models(load(transformers.AutoModel, tmp_path / "repo", subfolder="inner", variant="fp16"), theirs)
    (folder / "model.fp16.qzf").rename(folder / "x.qzf")
    _same_models(load(transformers.AutoModel, str(folder), weights="x.qzf"), theirs)
    _same_models(load(transformers.AutoModel, folder, weights=folder / "x.qzf"), theirs)


# --- options --------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "dtype": {"dtype": torch.bfloat16},
    "dtype by name": {"dtype": "float16"},
    "dtype auto": {"dtype": "auto"},
    "torch_dtype": {"torch_dtype": torch.float64},
    "a change of the configuration": {"hidden_act": "relu", "output_attentions": True},
    "attention": {"attn_implementation": "eager"},
    "hub": {"local_files_only": True, "use_safetensors": True, "revision": "main"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("model_class", ["AutoModel", "BertModel"])
def test_options(bert: Path, name: str, model_class: str, tmp_path: Path) -> None:
    folder = _copied(bert, tmp_path / "packed")
    _one(bert, folder)
    kind = getattr(transformers, model_class)
    theirs = kind.from_pretrained(bert, **OPTIONS[name])
    _same_models(qzf.hf.from_pretrained(kind, folder, **OPTIONS[name]), theirs)


def test_a_configuration_of_the_callers(bert: Path, tmp_path: Path) -> None:
    folder = _copied(bert, tmp_path / "packed")
    _one(bert, folder)
    config = transformers.AutoConfig.from_pretrained(bert, hidden_act="relu")
    theirs = transformers.AutoModel.from_pretrained(bert, config=config)
    _same_models(qzf.hf.from_pretrained(transformers.AutoModel, folder, config=config), theirs)
    (folder / "config.json").unlink()
    _same_models(qzf.hf.from_pretrained(transformers.AutoModel, folder, config=config), theirs)
    theirs = transformers.AutoModel.from_pretrained(bert)
    _same_models(qzf.hf.from_pretrained(transformers.AutoModel, folder, config=str(bert)), theirs)


def test_a_dtype_that_only_the_weights_tell(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    _bert().to(torch.bfloat16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))
    packed = _copied(folder, tmp_path / "packed")
    _one(folder, packed)
    ours = qzf.hf.from_pretrained(transformers.AutoModel, packed, dtype="auto")
    assert ours.dtype == torch.bfloat16
    _same_models(ours, transformers.AutoModel.from_pretrained(folder, dtype="auto"))


def test_a_head_that_the_weights_do_not_have(bert: Path, tmp_path: Path) -> None:
    folder = _copied(bert, tmp_path / "packed")
    _one(bert, folder)
    auto = transformers.AutoModelForSequenceClassification
    theirs, their_info = auto.from_pretrained(bert, num_labels=3, output_loading_info=True)
    ours, info = qzf.hf.from_pretrained(auto, folder, num_labels=3, output_loading_info=True)
    assert sorted(info["missing_keys"]) == sorted(their_info["missing_keys"]) != []
    assert sorted(info["unexpected_keys"]) == sorted(their_info["unexpected_keys"])
    assert ours.classifier.weight.shape == theirs.classifier.weight.shape == (3, 32)
    assert torch.equal(
        ours.bert.embeddings.word_embeddings.weight, theirs.bert.embeddings.word_embeddings.weight
    )


@pytest.mark.parametrize("legacy", [False, True], ids=["generation_config.json", "config.json"])
def test_a_model_that_generates(legacy: bool, tmp_path: Path) -> None:
    _gpt2().save_pretrained(tmp_path / "plain")
    if legacy:
        (tmp_path / "plain" / "generation_config.json").unlink()
        config = json.loads((tmp_path / "plain" / "config.json").read_text())
        (tmp_path / "plain" / "config.json").write_text(
            json.dumps({**config, "repetition_penalty": 1.25, "max_length": 13})
        )
    folder = _copied(tmp_path / "plain", tmp_path / "packed")
    _one(tmp_path / "plain", folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    ours = qzf.hf.from_pretrained(transformers.AutoModelForCausalLM, folder)
    _same_models(ours, theirs)
    assert ours.lm_head.weight.data_ptr() == ours.transformer.wte.weight.data_ptr(), "weights are tied"
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()
    assert ours.generation_config.repetition_penalty == (1.25 if legacy else 1.5)
    prompt = torch.tensor([[5, 6, 7]])
    for model in (ours, theirs):
        model.generation_config.pad_token_id = 0
    with torch.no_grad():
        texts = [model.generate(prompt, attention_mask=torch.ones_like(prompt)) for model in (ours, theirs)]
    assert torch.equal(*texts)
    own = transformers.GenerationConfig(repetition_penalty=2.0)
    ours = qzf.hf.from_pretrained(transformers.AutoModelForCausalLM, folder, generation_config=own)
    assert ours.generation_config.repetition_penalty == 2.0


def test_a_part_of_a_model_of_texts_and_images(tmp_path: Path) -> None:
    """The configuration is of both, the model of texts only."""
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    text |= {"vocab_size": 64, "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 4}
    vision |= {"image_size": 28, "patch_size": 14, "vision_output_dim": 32, "intermediate_size": 48}
    config = transformers.MllamaConfig(
        text_config={**text, "cross_attention_layers": [1]},
        vision_config={**vision, "intermediate_layers_indices": [0]},
    )
    transformers.MllamaForCausalLM(config.text_config).save_pretrained(tmp_path / "plain")
    config.save_pretrained(tmp_path / "plain")
    folder = _copied(tmp_path / "plain", tmp_path / "packed")
    _one(tmp_path / "plain", folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert type(theirs.config) is transformers.MllamaConfig.sub_configs["text_config"]
    _same_models(qzf.hf.from_pretrained(transformers.AutoModelForCausalLM, folder), theirs)


_OWN_CODE = """
import os, sys
os.environ["HF_HOME"] = sys.argv[2]
import torch, transformers
import qzf.hf
plain, packed = sys.argv[1] + "/plain", sys.argv[1] + "/packed"
theirs = transformers.AutoModel.from_pretrained(plain, trust_remote_code=True)
ours = qzf.hf.from_pretrained(transformers.AutoModel, packed, trust_remote_code=True)
assert type(ours).__name__ == type(theirs).__name__ == "Own"
assert torch.equal(ours.scale, theirs.scale) and ours.scale.tolist() == [4.0] * 3
print("right")
"""
_OWN_MODEL = """
import torch
from transformers import PretrainedConfig, PreTrainedModel


class OwnConfig(PretrainedConfig):
    model_type = "own"


class Own(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.zeros(3))
        self.post_init()

    def _init_weights(self, module):
        pass
"""


def test_code_of_the_folders_own(tmp_path: Path) -> None:
    for name in ("plain", "packed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own_model.py").write_text(_OWN_MODEL)
        auto = {"AutoConfig": "own_model.OwnConfig", "AutoModel": "own_model.Own"}
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    qzf.torch.save_file({"scale": torch.full((3,), 4.0)}, tmp_path / "packed" / "model.qzf", {"format": "pt"})
    qzf.unpack(tmp_path / "packed" / "model.qzf", tmp_path / "plain" / "model.safetensors")
    assert run_python(_OWN_CODE, tmp_path, tmp_path / "home").split()[-1] == "right"


# --- what goes wrong ------------------------------------------------------------------------------


def test_no_weights(bert: Path, tmp_path: Path) -> None:
    load = qzf.hf.from_pretrained
    with pytest.raises(OptionError, match="no such folder"):
        load(transformers.AutoModel, tmp_path / "nobody")
    folder = _copied(bert, tmp_path / "packed")
    with pytest.raises(OptionError, match=r"no model\.qzf"):
        load(transformers.AutoModel, folder)
    with pytest.raises(FileNotFoundError):
        load(transformers.AutoModel, folder, weights="nobody.qzf")
    qzf.pack(SOURCES / "gguf" / "smollm2-slice.gguf", folder / "model.qzf")
    with pytest.raises(OptionError, match="no safetensors file"):
        load(transformers.AutoModel, folder)
    for name in ("a", "b"):
        (folder / f"{name}.safetensors").write_bytes((bert / "model.safetensors").read_bytes())
    qzf.pack([folder / "a.safetensors", folder / "b.safetensors"], folder / "model.qzf", force=True)
    with pytest.raises(OptionError, match="2 models"):
        load(transformers.AutoModel, folder)


def test_shards_that_are_missing(shards: Path, tmp_path: Path) -> None:
    """transformers would fill in random numbers, with no more than a warning."""
    load = qzf.hf.from_pretrained
    folder = _copied(shards, tmp_path / "packed")
    _each(shards, folder)
    gone = next(folder.glob("model-00002-*"))
    gone.rename(folder / "elsewhere")
    with pytest.raises(SourceError, match="shards of model are there"):
        load(transformers.AutoModel, folder)
    (folder / "elsewhere").rename(gone)
    shutil.copy(shards / "model.safetensors.index.json", folder)
    load(transformers.AutoModel, folder)
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    index["weight_map"]["encoder.more"] = "model-00001-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match="where it is not") as caught:
        load(transformers.AutoModel, folder)
    assert caught.value.tensor == "encoder.more"
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../b"}}')
    with pytest.raises(SourceError, match="no plain file name"):
        load(transformers.AutoModel, folder)


def test_damage(bert: Path, tmp_path: Path) -> None:
    folder = _copied(bert, tmp_path / "packed")
    _one(bert, folder)
    data = bytearray((folder / "model.qzf").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.qzf").write_bytes(data)
    with pytest.raises(DamageError) as caught:
        qzf.hf.from_pretrained(transformers.AutoModel, folder)
    assert caught.value.tensor and caught.value.file == str(folder / "model.qzf")


_NO_TRANSFORMERS = """
import sys
sys.modules["transformers"] = None
try:
    import qzf.hf
except ImportError as error:
    print(error)
"""


def test_transformers_is_missing() -> None:
    assert "pip install 'qzf[hf]'" in run_python(_NO_TRANSFORMERS)


# --- a real model ---------------------------------------------------------------------------------


@pytest.mark.realmodel
def test_minilm(tmp_path: Path) -> None:
    if not (MINILM / "model.safetensors").is_file():
        pytest.skip(f"{MINILM} is not there: python tools/fetch_models.py minilm")
    folder = _copied(MINILM, tmp_path / "minilm")
    qzf.pack(MINILM / "model.safetensors", folder / "model.qzf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["Layers are read while the ones before them run.", "Nothing is written to disk."]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    ours = qzf.hf.from_pretrained(transformers.AutoModel, folder)
    theirs = transformers.AutoModel.from_pretrained(MINILM)
    with torch.no_grad():
        one, other = ours(**inputs), theirs(**inputs)
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)
    assert torch.equal(one.pooler_output, other.pooler_output)
    _same_models(ours, theirs)
