"""A trained model as a Hugging Face folder that `from_pretrained` loads."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from study.basics.errors import TrialError
from study.basics.owned import is_ours
from study.basics.text_files import as_new_file
from study.config.load import StudyConfig
from study.training.data.tokenised import StudyData
from study.training.model.load import CLASSIFICATION, load_tokenizer, published_config
from study.training.placement import Placement

log = logging.getLogger(__name__)


def save_model(
    folder: Path, model: PreTrainedModel, config: StudyConfig, data: StudyData, placement: Placement
) -> None:
    """Write weights (safetensors), configuration, generation configuration and tokenizer.

    Every rank calls it, between engines; rank 0 gathers ZeRO-3's shards one parameter at a time
    and writes. The folder is complete or absent; one of ours that is there is replaced.

    Raises:
        TrialError: it cannot be written, on every rank.
    """
    state = whole_state(model, placement)
    reason = ""
    if placement.rank == 0:
        try:
            _write(folder, model, state, config, data)
        except (OSError, SafetensorError, ValueError) as error:
            reason = f"{folder}: the model cannot be saved ({error})."
            log.error("%s", reason)
    if placement.max(bool(reason)):
        raise TrialError(reason or f"{folder}: the model cannot be saved; see rank 0's log.")


@torch.no_grad()
def whole_state(model: PreTrainedModel, placement: Placement) -> dict[str, Tensor]:
    """On rank 0 CPU copies of all parameters and persistent buffers, whole, by name; elsewhere
    nothing. On ZeRO-3 every rank must call it."""
    state: dict[str, Tensor] = {}
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if hasattr(parameter, "ds_id"):
            from deepspeed import zero

            with zero.GatheredParameters([parameter]):
                if placement.rank == 0:
                    state[name] = parameter.detach().to("cpu", copy=True)
        elif placement.rank == 0:
            state[name] = parameter.detach().to("cpu", copy=True)
    if placement.rank == 0:
        buffers = {name for name, _ in model.named_buffers()}
        # A state dictionary leaves out what is not persistent.
        kept = {k: v for k, v in model.state_dict().items() if k in buffers}
        state |= {name: buffer.detach().to("cpu", copy=True) for name, buffer in kept.items()}
    return state


def _write(
    folder: Path,
    model: PreTrainedModel,
    state: dict[str, Tensor],
    config: StudyConfig,
    data: StudyData,
) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    if (folder.exists() or partial.exists()) and not is_ours(folder.parent):
        raise FileExistsError(errno.EEXIST, "something else is there", str(folder))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _as_published(model.config, config, data)
        _stop_at(model, data.summary.end_token_ids)
        model.save_pretrained(partial, state_dict=state)
        load_tokenizer(config.model).save_pretrained(partial)
        for path in partial.rglob("*"):
            if path.is_file():
                as_new_file(path)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(partial)
        raise


def _stop_at(model: PreTrainedModel, trained: tuple[int, ...]) -> None:
    """Have `generate` stop where the model was taught to: a chat template's end mark need not be
    the base model's end token."""
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    known = generation.eos_token_id
    known = [] if known is None else [known] if isinstance(known, int) else list(known)
    ends = [*known, *(token for token in trained if token not in known)]
    if len(ends) > len(known):
        generation.eos_token_id = ends if len(ends) > 1 else ends[0]


def _as_published(hf_config: PretrainedConfig, config: StudyConfig, data: StudyData) -> None:
    """Take back what was set for training alone, and name the classes."""
    original = published_config(config.model)
    hf_config.use_cache = getattr(original, "use_cache", True)
    if config.model.dropout is not None:
        for name, value in original.to_dict().items():
            if "dropout" in name or "pdrop" in name:
                setattr(hf_config, name, value)
    if config.task == CLASSIFICATION:
        names = dict(enumerate(data.summary.label_names))
        hf_config.id2label = names
        hf_config.label2id = {name: number for number, name in names.items()}
