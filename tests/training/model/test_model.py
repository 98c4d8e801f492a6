from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from study.basics.errors import ModelError
from study.config.load import ModelConfig
from study.training.model.layout import meta_layout
from study.training.model.load import load_model, load_tokenizer, meta_model, new_head
from tests.helpers.models import tiny_model, tiny_model_folder, tiny_tokenizer

CLASSIFICATION = "sequence-classification"


def load(folder: Path, task: str = "causal-lm", seed: int = 0, **options: object):  # type: ignore[no-untyped-def]
    return load_model(ModelConfig(path=str(folder), **options), task, 3, torch.float32, seed)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models"))


def test_weights_are_those_of_the_folder(llama: Path) -> None:
    model = load(llama)
    expected = dict(tiny_model().named_parameters())
    assert all(torch.equal(p, expected[n]) for n, p in model.named_parameters())
    assert new_head(model) == ()
    assert model.config.use_cache is False


def test_bf16_is_loaded_as_bf16(llama: Path) -> None:
    model = load_model(ModelConfig(path=str(llama)), "causal-lm", 0, torch.bfloat16, 0)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_new_head_depends_on_the_seed_alone(llama: Path) -> None:
    heads = []
    for seed, noise in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(noise)
        model = load(llama, CLASSIFICATION, seed)
        assert new_head(model) == ("score.weight",)
        assert torch.initial_seed() == noise
        heads.append(model.score.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_classifier_pads_with_the_tokenizers_token(llama: Path) -> None:
    model = load(llama, CLASSIFICATION)
    assert model.config.pad_token_id == tiny_tokenizer().pad_token_id
    assert model.config.num_labels == 3
    assert model(input_ids=torch.tensor([[5, 6, 7], [5, 6, 0]])).logits.shape == (2, 3)


def test_dropout_overrides_every_probability(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path, "gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "resid_pdrop": 0.1}))
    rates = {m.p for m in load(folder).modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.0, 0.1}
    rates = {m.p for m in load(folder, dropout=0.3).modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.3}


def test_sdpa_falls_back_to_eager_only_where_it_is_missing(llama: Path, tmp_path: Path) -> None:
    deberta = tiny_model_folder(tmp_path, "deberta-v2")
    assert load(llama).config._attn_implementation == "sdpa"
    assert load(llama, attention="eager").config._attn_implementation == "eager"
    assert load(deberta, CLASSIFICATION).config._attn_implementation == "eager"


def test_gradient_checkpointing_gives_the_same_gradients(llama: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load(llama, gradient_checkpointing=checkpointing).train()
        assert model.is_gradient_checkpointing is checkpointing
        model(input_ids=torch.arange(5, 15)[None]).logits.sum().backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    assert torch.equal(*gradients)


def test_a_tokenizer_without_padding_pads_with_end_of_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(ModelConfig(path="elsewhere", tokenizer=str(tmp_path)))
    assert loaded.pad_token_id == tokenizer.eos_token_id


def test_a_padding_token_without_a_row_in_the_model_is_not_used(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<added>"})
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(ModelConfig(path=str(folder)))
    assert tokenizer.pad_token_id == 261 and loaded.pad_token_id == loaded.eos_token_id == 3


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the folder .*/nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_a_folder_without_weights_says_how_to_mend_it(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"has neither model\.safetensors nor .* Save the model with"
    ):
        load(folder)


def test_a_folder_without_config_is_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load(tmp_path)


def test_damaged_weights_are_one_line(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ModelError, match=r"is a damaged safetensors file.*again\.$") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_an_unknown_architecture_is_one_line(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    (folder / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(ModelError, match=r"cannot load .*abacus") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_causal_lm_without_head_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"has no weights for lm_head\.weight"):
        load(folder)


def test_an_encoder_cannot_be_a_causal_lm(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"bidirectional encoder \(bert\)"):
        load(tiny_model_folder(tmp_path, "bert"))


def test_a_tokenizer_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        load_tokenizer(ModelConfig(path=str(tmp_path)))


def test_splittable_is_checked_without_reading_weights(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(weights[:8], "little")
    # Numbers that nobody reads, behind a header that is as it was.
    (folder / "model.safetensors").write_bytes(weights[:start] + b"\xff" * (len(weights) - start))
    meta_layout(meta_model(ModelConfig(path=str(folder)), "causal-lm"))
    folder = tiny_model_folder(tmp_path, "opt")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layerdrop": 0.5}))
    with pytest.raises(ModelError, match=r"OPTForCausalLM.*layerdrop"):
        meta_layout(meta_model(ModelConfig(path=str(folder)), "causal-lm"))
