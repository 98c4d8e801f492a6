"""What a worker does before it trains: seeds, the model on its device, versions."""

from __future__ import annotations

import platform
import random
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from transformers import PreTrainedModel

from study.config import StudyConfig
from study.training.model import load_model
from study.training.placement import Placement
from study.training.tokenised import StudyData

_LIBRARIES = ("torch", "deepspeed", "transformers", "datasets", "ray", "optuna", "numpy")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on this worker (dropout; a random head has its own seed)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def prepare_model(
    config: StudyConfig, data: StudyData, placement: Placement, seed: int
) -> PreTrainedModel:
    """The base model on the worker's device, in the study's precision.

    Raises:
        ModelError: it cannot be loaded.
    """
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[
        placement.precision(config.training.precision)
    ]
    model = load_model(config.model, config.task, data.num_labels or 0, dtype, seed)
    return model.to(placement.device)


def library_versions() -> dict[str, str]:
    """Versions of Python and of every library a result may depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
