"""Tiny models with random weights and a byte-level tokenizer, saved as real model folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.tiers import thinned

BLOCKS = 4
_SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
_COMMON: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
_ROTARY = {**_COMMON, "num_key_value_heads": 2, "tie_word_embeddings": False}
CAUSAL: dict[str, dict[str, Any]] = {
    "llama": _ROTARY,
    "qwen3": {**_ROTARY, "head_dim": 8, "tie_word_embeddings": True},
    "mistral": {**_ROTARY, "sliding_window": 64},
    "gemma": {**_ROTARY, "head_dim": 8, "tie_word_embeddings": True},
    "gpt2": {"n_embd": 16, "n_layer": BLOCKS, "n_head": 2, "n_positions": 128},
    "gpt_neox": _COMMON,
    "opt": {**_COMMON, "ffn_dim": 32, "word_embed_proj_dim": 8},
    "phi": {**_COMMON, "tie_word_embeddings": False},
    "mixtral": {**_ROTARY, "num_local_experts": 4, "num_experts_per_tok": 2},
}
MORE_CAUSAL: dict[str, dict[str, Any]] = {
    "gemma4_text": {
        **_ROTARY,
        "head_dim": 8,
        "global_head_dim": 8,
        "hidden_size_per_layer_input": 4,
        "vocab_size_per_layer_input": 261,
        "layer_types": ["sliding_attention", "full_attention"] * (BLOCKS // 2),
        "tie_word_embeddings": True,
    },
}
"""Without a sequence classifier, and with too steep losses to be compared with other code."""
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _COMMON,
    "roberta": _COMMON,
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": BLOCKS, "n_heads": 2},
    "deberta-v2": {**_COMMON, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {**_COMMON, "global_attn_every_n_layers": 2, "local_attention": 16},
}
ALL_ARCHITECTURES = (*CAUSAL, *MORE_CAUSAL, *ENCODERS)
TELLING = ("llama", "mixtral", "gemma4_text", "deberta-v2")
"""Blocks that return a tensor, that route tokens, that take inputs of their own, and that return
tuples and share embeddings of positions."""


def telling(architectures: Iterable[str]) -> list[Any]:
    """Parameters of a test: what is not `TELLING` is exhaustive."""
    return thinned(architectures, lambda architecture: architecture in TELLING)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte and five special tokens (261 in all): pad 0, unk 1, bos 2, eos 3."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        mask_token="<mask>",
    )


def sentencepiece_like_tokenizer() -> PreTrainedTokenizerFast:
    """Marks a text's beginning with a dummy space and adds a start token, as Llama 2's does."""
    characters = ["\u2581", "\n", *map(chr, range(33, 127)), *"üï中文🙂"]
    vocabulary = {t: i for i, t in enumerate(["<unk>", "<s>", "</s>", *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def tiny_model(architecture: str = "llama", seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A model with random weights, dropout off: a causal LM, or a masked LM for an encoder."""
    causal = architecture not in ENCODERS
    options = {**(CAUSAL | MORE_CAUSAL | ENCODERS)[architecture], **overrides}
    tokenizer = tiny_tokenizer()
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )
    for name, value in config.to_dict().items():
        if ("dropout" in name or "pdrop" in name) and isinstance(value, float):
            setattr(config, name, 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto = AutoModelForCausalLM if causal else AutoModelForMaskedLM
        return auto.from_config(config)


def tiny_model_folder(
    tmp_path: Path, architecture: str = "llama", seed: int = 0, **overrides: Any
) -> Path:
    """`tiny_model` and `tiny_tokenizer` saved under `tmp_path`; overrides go to its config."""
    folder = Path(tmp_path) / f"tiny-{architecture}-{seed}"
    tiny_model(architecture, seed, **overrides).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_model(folder: Path, *, seed: int = 0, shards: int = 1, **config: object) -> Path:
    folder.mkdir(parents=True)
    settings = {"model_type": "llama", "hidden_size": 8, "_name_or_path": "x", **config}
    (folder / "config.json").write_text(json.dumps(settings))
    random = np.random.default_rng(seed)
    tensors = {f"layer.{k}": random.normal(size=(40, 20)).astype("float32") for k in range(6)}
    for shard in range(shards):
        part = {name: t for k, (name, t) in enumerate(tensors.items()) if k % shards == shard}
        save_file(part, folder / f"model-{shard}.safetensors")
    return folder
