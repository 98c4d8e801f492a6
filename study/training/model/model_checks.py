"""Model folders that cannot be trained as they are: refused before anything runs, with the reason.

The weights' names and shapes are compared by whoever loads them, also onto the meta device, which
reads none: what a plan refuses is what a worker would refuse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

from study.basics.errors import ModelError
from study.config.load import ModelConfig
from study.training.model.layout import is_tied
from study.training.transformers_internals import is_encoder

CLASSIFICATION = "sequence-classification"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_DEQUANTISED = ("fp8", "fbgemm_fp8")
"""What transformers turns back into weights that can be trained."""
_WRAPPERS = {
    "_orig_mod.": "a compiled model: save model._orig_mod instead",
    "module.": "a model wrapped for data parallel training: save model.module instead",
    "base_model.model.": "a PEFT model: save model.merge_and_unload() instead",
}
"""What the names of weights begin with that were saved from another object than the model."""
_OTHER_SENSES = ("vision_config", "audio_config", "speech_config")


def check_folder(config: ModelConfig) -> None:
    """Refuse a local folder that is no whole model; a hub id's files are looked at when loaded.

    Raises:
        ModelError: with what is missing.
    """
    folder = Path(config.path).expanduser()
    if not folder.exists():
        if config.path.startswith((".", "/", "~")) or config.path.count("/") > 1:
            raise ModelError(f"model.path: the folder {config.path} does not exist.")
        return
    if not folder.is_dir():
        raise ModelError(f"model.path: {config.path} is a file. Give the folder it is in.")
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"model.path: {config.path} holds an adapter (adapter_config.json), not a model. Merge "
            "it into its base model first: merge_and_unload(), then save_pretrained(). If it is "
            "merged already, remove that file."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.path: {config.path} has no config.json; it is no model folder.")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise ModelError(
            f"model.path: {config.path} has neither {' nor '.join(_WEIGHTS)}. Save the model with "
            "save_pretrained(), which writes one of them; pickled weights are not read."
        )
    _check_generation(config, folder)


def _check_generation(config: ModelConfig, folder: Path) -> None:
    """Saving a model refuses what its folder should not have had; after training is too late."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return
    try:
        GenerationConfig.from_dict(json.loads(path.read_text(encoding="utf-8"))).validate()
    except (ValueError, TypeError, AttributeError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"model.path: {config.path} has an invalid generation_config.json ({first_line}). "
            "Correct or remove it."
        ) from error


def check_hf_config(config: ModelConfig, task: str, hf_config: PretrainedConfig) -> None:
    """Refuse a kind of model.

    Raises:
        ModelError: quantised weights, a model for more than text, or one that does not fit the
            task.
    """
    quantised: Any = getattr(hf_config, "quantization_config", None)
    if quantised:
        given = quantised if isinstance(quantised, dict) else quantised.to_dict()
        method = str(given.get("quant_method", "unknown")).rpartition(".")[2]
        if method.lower() not in _DEQUANTISED:
            raise ModelError(
                f"model.path: {config.path} has quantised weights ({method}), which cannot be "
                "trained. Use the model that they were made from."
            )
    other = [name for name in _OTHER_SENSES if getattr(hf_config, name, None) is not None]
    if other:
        raise ModelError(
            f"model.path: {config.path} is a model for more than text ({hf_config.model_type} has "
            f"{other[0]}), which cannot be trained here. Take a text-only one of its family."
        )
    if task == CLASSIFICATION:
        return
    if getattr(hf_config, "is_encoder_decoder", False):
        raise ModelError(
            f"model.path: {config.path} is an encoder-decoder ({hf_config.model_type}); task "
            "causal-lm needs a decoder-only model, such as Llama, Qwen or Mistral."
        )
    if is_encoder(hf_config.model_type) and not getattr(hf_config, "is_decoder", False):
        raise ModelError(
            f"model.path: {config.path} is a bidirectional encoder ({hf_config.model_type}), which "
            "sees the tokens it should predict. Use task: sequence-classification, or a causal LM."
        )


def check_weights(
    config: ModelConfig, task: str, model: PreTrainedModel, info: dict[str, Any]
) -> set[str]:
    """Compare a model with the checkpoint that was loaded into it.

    Args:
        info: `from_pretrained`'s, by ``output_loading_info``.

    Returns:
        Names of the parameters that the checkpoint lacks, or has in another shape; only those of a
        classifier's head may be.

    Raises:
        ModelError: others are.
    """
    for start, what in _WRAPPERS.items():
        if info["missing_keys"] and any(k.startswith(start) for k in info["unexpected_keys"]):
            raise ModelError(
                f"model.path: {config.path}: the names of its weights begin with '{start}', as "
                f"those of {what}."
            )
    wrong = {key for key, *_ in info["mismatched_keys"]}
    new = {*info["missing_keys"], *wrong}
    body = f"{model.base_model_prefix}."
    lacking = {n for n in new if task != CLASSIFICATION or n.startswith(body)}
    if task == CLASSIFICATION:
        # A pooler above the body is a head's first layer, and new where the checkpoint has none.
        lacking = {n for n in lacking if not n.startswith(f"{body}pooler.")}
    if lacking & wrong:
        names = ", ".join(sorted(lacking & wrong)[:3])
        raise ModelError(f"model.path: {config.path}: wrong shapes in the weights: {names}.")
    if lacking:
        names = ", ".join(sorted(lacking)[:3])
        complete = "model" if task == CLASSIFICATION else "causal LM"
        raise ModelError(
            f"model.path: {config.path} has no weights for {names}. Use a complete {complete}."
        )
    # transformers keeps weights apart that the configuration ties, if the checkpoint's differ.
    ties = getattr(model.config, "tie_word_embeddings", False)
    if ties and model.get_output_embeddings() is not None and not is_tied(model):
        model.config.tie_word_embeddings = False
    return new
