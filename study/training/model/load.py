"""Loads models and tokenizers; every failure is one clear line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from study.basics.errors import ModelError
from study.config.load import ModelConfig
from study.training.data.labels import SINGLE_LABEL, Head
from study.training.model.model_checks import (
    CLASSIFICATION,
    check_folder,
    check_hf_config,
    check_weights,
    refuse_pointers,
)
from study.training.transformers_internals import draw_anew


def load_model(
    config: ModelConfig, task: str, classes: int | Sequence[str], dtype: torch.dtype, seed: int
) -> PreTrainedModel:
    """A model ready to train, on the CPU.

    Args:
        task: ``causal-lm`` or ``sequence-classification``.
        classes: their names by id, or how many where the names do not matter; ignored for a causal
            LM. A trained head stays only with the classes that it was trained for.
        dtype: of the parameters, bf16 or fp32.
        seed: initialises a new head, whatever was drawn before.

    Returns:
        The model; `new_head(model)` names the parameters that were initialised at random.

    Raises:
        ModelError: no such folder, no weights, damaged weights, an unknown architecture, an
            unreachable hub, or an architecture that does not fit the task.
    """
    names = None if isinstance(classes, int) else tuple(classes)
    own = own_head(config, task)
    count = classes if isinstance(classes, int) else len(classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, new = _loaded(config, task, count, dtype)
        if own is not None and names is not None and own != Head(names, SINGLE_LABEL):
            new |= _initialise_head(model)
    if config.gradient_checkpointing:
        _enable_checkpointing(config, model)
    model.study_new_head = tuple(sorted(new))
    return model


def _loaded(
    config: ModelConfig, task: str, num_labels: int, dtype: torch.dtype, **more: Any
) -> tuple[PreTrainedModel, set[str]]:
    """A model with the checkpoint's weights, and the names of those of its head that are new."""
    options: dict[str, Any] = {
        "config": _read_config(config, task, num_labels),
        "dtype": dtype,
        "use_safetensors": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
        **_source(config),
        **more,
    }
    with _explained(config):
        model, info = _with_attention(config, _auto_class(task).from_pretrained, options)
    return model, check_weights(config, task, model, info)


def own_head(config: ModelConfig, task: str) -> Head | None:
    """The head for classification that the checkpoint's configuration shows; None where it has
    none, and for a causal LM.

    Raises:
        ModelError: as `load_model` for what the configuration shows.
    """
    if task != CLASSIFICATION:
        return None
    found = published_config(config)
    if not (found.architectures or [""])[0].endswith("ForSequenceClassification"):
        return None
    kind = found.problem_type or ("regression" if found.num_labels == 1 else SINGLE_LABEL)
    return Head(tuple(str(found.id2label[i]) for i in range(found.num_labels)), kind)


def new_head(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the parameters that `load_model` initialised at random, or would."""
    return model.study_new_head


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer; one without a padding token, or with one that was added after the
    model had its embeddings, pads with its end-of-text token.

    Raises:
        ModelError: no tokenizer there, or neither of the two tokens.
    """
    path = config.tokenizer or config.path
    refuse_pointers(Path(path).expanduser())
    with _explained(config, path):
        tokenizer = AutoTokenizer.from_pretrained(os.path.expanduser(path), **_source(config))
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= vocabulary_size(config):
        if tokenizer.eos_token_id is None:
            raise ModelError(f"model.tokenizer: {path} defines neither a pad nor an eos token.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def vocabulary_size(config: ModelConfig) -> int:
    """Rows of the model's embeddings, by its configuration.

    Raises:
        ModelError: as `load_model` for what the configuration shows.
    """
    text = published_config(config).get_text_config()
    return int(getattr(text, "vocab_size", sys.maxsize))


def meta_model(config: ModelConfig, task: str, num_labels: int = 2) -> PreTrainedModel:
    """The model without its weights, on the meta device; a local folder's are compared with it by
    name and shape, as when they are loaded.

    Raises:
        ModelError: as `load_model`, damaged weights of a hub id aside.
    """
    if Path(config.path).expanduser().is_dir():
        on_meta = {"": "meta"}
        with _quietly():
            model, new = _loaded(config, task, num_labels, torch.bfloat16, device_map=on_meta)
        model.study_new_head = tuple(sorted(new))
        return model
    hf_config = _read_config(config, task, num_labels)
    options = {"dtype": torch.bfloat16, "trust_remote_code": config.trust_remote_code}
    with _explained(config), torch.device("meta"):
        model = _with_attention(config, _auto_class(task).from_config, options, hf_config)
    # Of a checkpoint that is not at hand, all that lies above the body may be new.
    body = {id(p) for p in model.base_model.parameters()}
    outside = [name for name, p in model.named_parameters() if id(p) not in body]
    model.study_new_head = tuple(outside) if task == CLASSIFICATION else ()
    return model


def _auto_class(task: str) -> Any:
    return AutoModelForSequenceClassification if task == CLASSIFICATION else AutoModelForCausalLM


def _source(config: ModelConfig) -> dict[str, Any]:
    source: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.revision is not None:
        source["revision"] = config.revision
    return source


def published_config(config: ModelConfig, **changes: Any) -> PretrainedConfig:
    """The checkpoint's own configuration, with `changes`.

    Raises:
        ModelError: as `load_model` for what the configuration shows.
    """
    check_folder(config)
    with _explained(config):
        path = os.path.expanduser(config.path)
        return AutoConfig.from_pretrained(path, **changes, **_source(config))


def _read_config(config: ModelConfig, task: str, num_labels: int) -> PretrainedConfig:
    labels = {"num_labels": num_labels} if task == CLASSIFICATION else {}
    hf_config = published_config(config, **labels)
    check_hf_config(config, task, hf_config)
    # Every architecture has use_cache in some form; a cache is useless in training.
    hf_config.use_cache = False
    if task == CLASSIFICATION:
        # Decoders classify at the last token that is not padding: the data's padding.
        hf_config.pad_token_id = load_tokenizer(config).pad_token_id
        hf_config.problem_type = SINGLE_LABEL
    if config.dropout is not None:
        _override_dropout(hf_config, config.dropout)
    return hf_config


def _override_dropout(hf_config: PretrainedConfig, dropout: float) -> None:
    for name, value in hf_config.to_dict().items():
        if ("dropout" in name or "pdrop" in name) and isinstance(value, int | float):
            setattr(hf_config, name, dropout)


def _with_attention(config: ModelConfig, build: Any, options: dict[str, Any], *leading: Any) -> Any:
    """Build with the wanted attention; SDPA falls back to eager where it is not implemented."""
    leading = leading or (os.path.expanduser(config.path),)
    try:
        return build(*leading, attn_implementation=config.attention, **options)
    except ValueError as error:
        if config.attention != "sdpa" or "scaled_dot_product_attention" not in str(error):
            raise
        return build(*leading, attn_implementation="eager", **options)


def _initialise_head(model: PreTrainedModel) -> set[str]:
    """Draw anew what stands above the body that all tasks share; the names of the parameters."""
    body = f"{model.base_model_prefix}."
    return {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if name and not f"{name}.".startswith(body) and [*module.parameters(recurse=False)]
        for key in draw_anew(model, module)
    }


def _enable_checkpointing(config: ModelConfig, model: PreTrainedModel) -> None:
    if not model.supports_gradient_checkpointing:
        raise ModelError(
            f"model.gradient_checkpointing: {type(model).__name__} does not support it. Set false."
        )
    # The re-entrant kind loses the gradients of blocks above a frozen prefix.
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' progress bar and its table of what fits: a fault is told in a line."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _damaged(config: ModelConfig) -> str:
    """The file that cannot be read; the model where that cannot be told."""
    for file in sorted(Path(config.path).expanduser().glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return str(file)
    return config.path


@contextmanager
def _explained(config: ModelConfig, path: str | None = None) -> Iterator[None]:
    """Turn whatever transformers, safetensors or the hub raise into one line."""
    try:
        yield
    except ModelError:
        raise
    except SafetensorError as error:
        raise ModelError(
            f"model.path: {_damaged(config)} is a damaged safetensors file ({error}). Download or "
            "save the model again."
        ) from error
    except Exception as error:
        first_line = next((x for x in str(error).splitlines() if x.strip()), type(error).__name__)
        if isinstance(error, KeyError):  # whose text is the key alone
            first_line = (
                f"its files name, or lack, {first_line}, which this version of transformers cannot "
                "do with."
            )
        if "trust_remote_code" in str(error):
            first_line = (
                "it needs code of its own. Read that, and set model.trust_remote_code to true."
            )
        raise ModelError(f"model.path: cannot load {path or config.path}: {first_line}") from error
