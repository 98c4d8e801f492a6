"""Claims about the shipped base model: its size, its tokenizer, and what it has learned."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from study.cli.examples.demo import BASE_MODEL as FOLDER
from study.cli.examples.demo.text import stdlib_modules
from tests.demo import make_base_model
from tests.demo.make_base_model import Schedule
from tests.demo.measure import evenly_spaced, held_out_sequences, packed_loss

# Nats per token, measured by `python -m tests.demo.make_base_model --evaluate-only` (README.md).
HELD_OUT_LOSS = 2.63
UNIFORM_LOSS = 7.62


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True, dtype=torch.float32)


def test_weights_fit_into_a_repository() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 4_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4_500_000


def test_weights_are_stored_in_bf16_and_finite() -> None:
    stored = AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True, dtype="auto")
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.bfloat16}
    assert all(bool(parameter.isfinite().all()) for parameter in stored.parameters())


def test_model_and_tokenizer_agree(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert model.config.vocab_size == len(tokenizer) == make_base_model.VOCABULARY_SIZE
    for token in ("pad_token_id", "bos_token_id", "eos_token_id"):
        assert getattr(model.config, token) == getattr(tokenizer, token)
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_tokenizer_prefixes_bos_unless_told_not_to(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer("import os")["input_ids"][0] == tokenizer.bos_token_id
    bare = tokenizer("import os", add_special_tokens=False)["input_ids"]
    assert tokenizer.bos_token_id not in bare


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return [x ** 2 for x in range(10)]\n\n\n# comment ; 'quoted' !\n",
        "\tif a :\n\t\tb , c = 1 , 2\n  ",
        "naïve = '日本語 🦙'\r\n",
    ],
)
def test_tokenizer_restores_any_text(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    tokens = tokenizer(source)["input_ids"]
    assert tokenizer.decode(tokens, skip_special_tokens=True) == source


def test_tokenizer_compresses_code_it_was_not_trained_on(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    _, source = next(stdlib_modules("held-out"))
    tokens = tokenizer(source, add_special_tokens=False, verbose=False)["input_ids"]
    assert tokenizer.decode(tokens) == source
    assert len(source) / len(tokens) > 2.5


def test_model_has_learned_code_it_was_not_trained_on(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    few = evenly_spaced(held_out_sequences(tokenizer), 32)
    assert packed_loss(model, few) < HELD_OUT_LOSS + 0.3 < UNIFORM_LOSS


def test_schedule_ends_fully_decayed() -> None:
    schedule = Schedule.of_budget(100.0)
    assert schedule.factor(step=0, elapsed=0.0) < 0.02
    assert schedule.factor(step=1000, elapsed=50.0) == 1.0
    assert schedule.factor(step=1000, elapsed=100.0) == 0.0


def test_a_stalled_run_decays_early() -> None:
    schedule = Schedule.of_budget(100.0)
    schedule.decay_from(35.0)
    assert schedule.seconds == pytest.approx(50.0)
    assert schedule.factor(step=1000, elapsed=35.0) == 1.0
    assert 0.0 < schedule.factor(step=1000, elapsed=45.0) < 1.0
