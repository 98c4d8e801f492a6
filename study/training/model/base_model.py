"""The base model of one worker: read once, handed out untouched to trial after trial."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from study.config.load import StudyConfig
from study.training.model.load import load_model, new_head
from study.training.placement import Placement

Share = Callable[[dict[str, Tensor]], dict[str, Tensor]]


class BaseModel:
    """Gives each trial a model of its own with the base weights, on the worker's device and in
    the study's precision.

    Args:
        classes: as `load_model` takes them; None for a causal LM.
        keep: hold the weights in host memory from the first call on, so that the next ones copy
            them instead of reading files.
        share: gives back tensors equal to those it gets, by name, from memory that the node's
            workers share; None: every worker holds its own.
    """

    def __init__(
        self,
        config: StudyConfig,
        classes: int | Sequence[str] | None,
        placement: Placement,
        keep: bool = False,
        share: Share | None = None,
    ) -> None:
        self._config, self._classes = config, classes or 0
        self._placement, self._keep, self._share = placement, keep, share
        self._kept: PreTrainedModel | None = None

    def fresh(self, seed: int) -> PreTrainedModel:
        """A model that nobody has trained.

        Args:
            seed: initialises a head that the checkpoint lacks.

        Raises:
            ModelError: it cannot be loaded.
        """
        if self._kept is not None:
            return _copied(self._kept, self._placement.device)
        config = self._config
        is_half = self._placement.precision(config.training.precision) == "bf16"
        dtype = torch.bfloat16 if is_half else torch.float32
        model = load_model(config.model, config.task, self._classes, dtype, seed)
        # A new head is another one for every seed.
        if self._keep and not new_head(model):
            self._kept = model
            # With it came more of transformers. Each phase ends with a garbage collection, which
            # need not walk what stays anyway: a third of a second on a GPU worker.
            gc.collect()
            gc.freeze()
            if self._share is not None:
                parameters = dict(model.named_parameters())
                for name, tensor in self._share({n: p.data for n, p in parameters.items()}).items():
                    parameters[name].data = tensor
            return _copied(model, self._placement.device)
        return model.to(self._placement.device)


def _copied(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """A copy on `device`, made there: no second one in host memory on the way."""
    copies: dict[int, object] = {
        id(p): nn.Parameter(p.detach().to(device, copy=True), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    copies |= {id(b): b.to(device, copy=True) for b in model.buffers()}
    return copy.deepcopy(model, copies)
