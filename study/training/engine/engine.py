"""One DeepSpeed engine per phase, over the phase's parameters only.

ZeRO lays out its partitions when an engine is built. Switching `requires_grad` inside a live one
makes frozen layers drift on stages 1 and 2 and new ones stand still on stage 3, so each phase
builds its own engine and takes it down completely.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from study.config.load import TrainingConfig, ZeroConfig
from study.training.engine.initialise import initialise
from study.training.engine.memory import StateWatch
from study.training.engine.optimizer import make_optimizer, parameter_numel, set_learning_rate
from study.training.engine.teardown import tear_down
from study.training.engine.weights import leave_buffers
from study.training.engine.zero import bucket_numel, deepspeed_config
from study.training.losses import TaskLoss
from study.training.model.bypass import PREFIX_HIDDEN, BlockBypass

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, the same on every rank.

    Attributes:
        loss_sum: summed loss over the global batch's targets, in nats, before the step.
        targets: targets in the global batch.
        grad_norm: of the active parameters' mean gradient, before clipping; nan if not finite.
        clipped: whether the norm exceeded the clipping norm.
    """

    loss_sum: float
    targets: int
    grad_norm: float
    clipped: bool

    @property
    def loss(self) -> float:
        """Nats per target."""
        return self.loss_sum / self.targets

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss_sum) and math.isfinite(self.grad_norm)


class PhaseEngine(AbstractContextManager["PhaseEngine"]):
    """Trains exactly the `active` parameters of `model`; a context manager.

    The process group must exist, and every rank must make the same calls in the same order. After
    `close` the model holds the trained weights. On stage 3 its parameters stay partitioned, so
    that the next phase need not gather and cut them again.

    Attributes:
        model: as given.
        active: names that train, as given.
        factors: of their learning rates, by name.
        config: the DeepSpeed configuration in use.
        world_size, device, precision: as given.
        learning_rate: of the step in progress or made last, before factors.
        watch: what its first steps were seen to hold of training state.
        bypass: first block to run, and how to leave out those below it, for batches that bring
            their hidden states; None: there are none.
    """

    def __init__(
        self,
        model: nn.Module,
        active: Sequence[str],
        *,
        factors: Sequence[float] | None = None,
        training: TrainingConfig,
        zero: ZeroConfig,
        hyperparameters: Mapping[str, Any],
        precision: str,
        device: torch.device,
        micro_batch_size: int,
        world_size: int,
    ) -> None:
        """
        Args:
            active: names from `model.named_parameters()`.
            factors: of each one's learning rate; None: 1 for all.
            hyperparameters: of the trial; ``max_grad_norm`` and ``weight_decay`` are used.
            precision: ``bf16`` (fp32 master weights on every stage) or ``fp32``.
            micro_batch_size: examples per forward pass on one worker.
        """
        self.model = model
        self.active = tuple(active)
        self.factors = dict(zip(active, factors or [1.0] * len(active), strict=True))
        self.precision = precision
        self.device = device
        self.world_size = world_size
        self.learning_rate = 0.0
        self.bypass: tuple[int, BlockBypass] | None = None
        self.training = training
        self.zero = zero
        parameters = _activate(model, self.active)
        active_numel = sum(parameter_numel(p) for p in parameters)
        self.config = deepspeed_config(
            training,
            zero,
            hyperparameters,
            world_size,
            micro_batch_size,
            precision,
            active_numel,
            sum(parameter_numel(p) for p in model.parameters()),
            device.type,
        )
        factors = tuple(self.factors.values())
        optimizer = make_optimizer(parameters, factors, training, hyperparameters)
        self._engine: DeepSpeedEngine | None = initialise(
            model, optimizer, self.config, device, bucket_numel(active_numel)
        )
        self.watch = StateWatch(self)

    @property
    def engine(self) -> DeepSpeedEngine:
        """The live DeepSpeed engine."""
        if self._engine is None:
            raise RuntimeError("this phase's engine is closed")
        return self._engine

    @property
    def stage(self) -> int:
        """ZeRO stage, 0 to 3."""
        return int(self.engine.zero_optimization_stage())

    @property
    def max_grad_norm(self) -> float:
        """Clipping norm; 0 clips nothing."""
        return float(self.engine.gradient_clipping())

    def train_step(
        self,
        micro_batches: Sequence[Mapping[str, Tensor]],
        loss: TaskLoss,
        learning_rate: float,
    ) -> StepResult:
        """One optimizer step on this rank's share of the global batch.

        Each micro-batch's loss is weighted so that the gradient is that of the mean over the
        *global* batch's targets: the step does not depend on the number of workers or on how the
        batch is cut, beyond floating-point order.

        Args:
            micro_batches: the same number on every rank; every key but ``labels`` goes to the
                model.
            learning_rate: of this step, before factors.
        """
        engine = self.engine
        self.learning_rate = learning_rate
        set_learning_rate(engine.optimizer.param_groups, learning_rate)
        targets = int(self._summed(float(sum(loss.count(b) for b in micro_batches))))
        engine.train()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        for index, batch in enumerate(micro_batches):
            with self._forward(batch) as logits:
                total = loss.total(logits, {"labels": batch["labels"].to(self.device)})
                loss_sum += total.detach()
                # DeepSpeed reduces at the boundary and divides the sum over ranks by their number.
                engine.set_gradient_accumulation_boundary(index == len(micro_batches) - 1)
                engine.backward(total * (self.world_size / max(targets, 1)), scale_wrt_gas=False)
                self.watch.after_backward()
        grad_norm = self._step()
        return StepResult(
            loss_sum=self._summed(float(loss_sum)),
            targets=targets,
            grad_norm=grad_norm,
            clipped=0 < self.max_grad_norm < grad_norm,
        )

    @torch.no_grad()
    def evaluate(self, batch: Mapping[str, Tensor], **options: Any) -> Tensor:
        """Logits of one batch, dropout off. On stage 3 all ranks must call equally often.

        Args:
            options: more keywords for the model's forward.
        """
        self.engine.eval()
        with self._forward(batch, **options) as logits:
            return logits

    def close(self) -> None:
        """Take the engine down; a second call does nothing."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        tear_down(engine)
        del engine
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _forward(self, batch: Mapping[str, Tensor], **options: Any) -> Iterator[Tensor]:
        """Logits; keep it open until the backward pass has ended."""
        inputs = {k: v for k, v in batch_to(batch, self.device).items() if k != "labels"}
        hidden = inputs.pop(PREFIX_HIDDEN, None)
        if hidden is None:
            yield self.engine(**inputs, **options).logits
            return
        assert self.bypass is not None  # who makes such batches hands it over
        first, bypass = self.bypass
        with bypass.from_block(first, hidden):
            yield self.engine(**inputs, **options).logits

    def _step(self) -> float:
        engine = self.engine
        # Stage 0 in fp32 clips in place and keeps no norm: take it before the step.
        own = self.stage == 0 and self.precision == "fp32"
        norm = _grad_norm(engine.module) if own else None
        engine.step()
        self.watch.after_step()
        value = float(engine.get_global_grad_norm() if norm is None else norm)
        # DeepSpeed reports an overflowing norm as -1.
        return value if math.isfinite(value) and value >= 0 else math.nan

    def _summed(self, value: float) -> float:
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)


def batch_to(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch's tensors on `device`."""
    return {k: v.to(device, non_blocking=True) for k, v in batch.items()}


def _activate(model: nn.Module, active: Sequence[str]) -> list[nn.Parameter]:
    by_name = dict(model.named_parameters())
    missing = [name for name in active if name not in by_name]
    if missing or not active:
        raise ValueError(f"no such parameters to train: {missing or 'none given'}")
    # With gradient checkpointing transformers makes the embeddings' output require a gradient,
    # for the re-entrant kind: the backward pass would go on to the bottom of the model.
    if isinstance(model, PreTrainedModel):
        model.disable_input_require_grads()
    wanted = set(active)
    leave_buffers(model, wanted)
    for name, parameter in by_name.items():
        parameter.requires_grad_(name in wanted)
        parameter.grad = None
    return [by_name[name] for name in active]


def _grad_norm(module: nn.Module) -> float:
    norms = [p.grad.norm() for p in module.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0
