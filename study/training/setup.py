"""What a worker does before it trains: seeds, a phase's engine, versions."""

from __future__ import annotations

import platform
import random
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from study.config.load import StudyConfig
from study.strategies.base import Phase
from study.training.engine.engine import PhaseEngine
from study.training.engine.zero import resolve_micro_batch_size
from study.training.placement import Placement

_LIBRARIES = ("torch", "deepspeed", "transformers", "datasets", "ray", "optuna", "numpy")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on this worker (dropout; a random head has its own seed)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def open_engine(
    config: StudyConfig,
    placement: Placement,
    model: PreTrainedModel,
    phase: Phase,
    hyperparameters: Mapping[str, Any],
) -> PhaseEngine:
    """The engine of one phase on the study's settings; see `PhaseEngine`."""
    return PhaseEngine(
        model,
        phase.parameters,
        factors=phase.learning_rate_factors,
        training=config.training,
        zero=config.zero,
        hyperparameters=hyperparameters,
        precision=placement.precision(config.training.precision),
        device=placement.device,
        micro_batch_size=resolve_micro_batch_size(config.training, placement.world_size),
        world_size=placement.world_size,
    )


def library_versions() -> dict[str, str]:
    """Versions of Python and of every library a result may depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
