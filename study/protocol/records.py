"""Immutable records that travel between planner, workers, store and report.

They hold plain values only (numbers, strings, dicts, tuples), so that each goes through
JSON unchanged: `X.from_dict(json.loads(json.dumps(x.to_dict()))) == x`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self


class Stage(StrEnum):
    """`search` picks a winner per replicate; `confirm` retrains it with fresh seeds."""

    SEARCH = "search"
    CONFIRM = "confirm"


class TrialState(StrEnum):
    """Optuna's trial states, plus WAITING for what the plan holds and nobody started, and PAUSED
    for what is RUNNING there though its driver is gone: it goes on when the study is run again."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"

    @property
    def has_ended(self) -> bool:
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class OutcomeStatus(StrEnum):
    """How a trial ended on its workers."""

    FINISHED = "finished"
    STOPPED_EARLY = "stopped_early"
    """Patience; complete all the same."""
    DIVERGED = "diverged"
    """A loss that is not finite."""
    PRUNED = "pruned"
    STOPPED = "stopped"
    """By hand."""
    ERROR = "error"
    INTERRUPTED = "interrupted"
    """Told by workers only: the trial goes on later."""

    @property
    def is_complete(self) -> bool:
        return self in (OutcomeStatus.FINISHED, OutcomeStatus.STOPPED_EARLY)


class _Record:
    """JSON round trip for the dataclasses below; unknown keys are ignored, so that a store
    written by a later minor version can still be read."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: v for k, v in data.items() if k in names})


@dataclass(frozen=True)
class TrialSpec(_Record):
    """One training run, as the plan wants it.

    Attributes:
        trial_id: stable name, e.g. ``lift-n512-r0-s3`` (search) or ``full-n64-r1-c0`` (confirm).
        arm: a name of `study.strategies.STRATEGIES`.
        size: training examples in the subset.
        replicate: 0-based repetition of the whole tuning procedure in this cell.
        stage: search or confirm.
        index: 0-based position among the cell's trials of this replicate and stage.
        seed: seeds dropout and a randomly initialised head.
        subset_seed: draws the training subset; equal in all arms and in all trials of a
            replicate.
        order_seed: draws the order of the examples; equal in all arms. Search trials of a
            replicate share one, each confirm seed has its own: without it a model that has no
            dropout and no new head would repeat one and the same run for every seed.
        steps: optimizer steps in all.
        evaluation_steps: optimizer steps after which validation loss is measured, ascending;
            the last one is `steps`.
        hyperparameters: what the search space decides, e.g. ``learning_rate``, ``warmup_ratio``,
            ``max_grad_norm``; empty until a sampler that depends on results has spoken.
    """

    trial_id: str
    arm: str
    size: int
    replicate: int
    stage: Stage
    index: int
    seed: int
    subset_seed: int
    order_seed: int
    steps: int
    evaluation_steps: tuple[int, ...]
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", Stage(self.stage))
        object.__setattr__(self, "evaluation_steps", tuple(self.evaluation_steps))


@dataclass(frozen=True)
class Measurement(_Record):
    """One evaluation inside a trial. Losses are nats per target token (classification: per
    example), weighted by tokens and reduced over ranks.

    Attributes:
        step: optimizer steps done.
        tokens: target and context tokens seen in training so far, padding excluded.
        epoch: passes over the subset so far.
        phase: 0-based phase in which this evaluation fell.
        train_loss: mean over the steps since the previous evaluation.
        validation_loss: over the whole validation split.
        learning_rate: of the last step, the highest of any parameter.
        grad_norm: mean pre-clip gradient norm since the previous evaluation.
        clipped_share: share of those steps whose norm exceeded the clipping norm, 0 to 1.
        tokens_per_second: training throughput over all ranks since the previous evaluation.
        seconds: wall seconds since the trial began, evaluations included, checkpoints not.
        device_seconds: these times devices (GPUs, or CPU workers).
        peak_memory_bytes: largest over ranks and so far; device memory, or resident set on CPU.
        validation_metrics: classification: ``accuracy`` and ``macro_f1``.
    """

    step: int
    tokens: int
    epoch: float
    phase: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    grad_norm: float
    clipped_share: float
    tokens_per_second: float
    seconds: float
    device_seconds: float
    peak_memory_bytes: int
    validation_metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseSummary(_Record):
    """What one phase trained and cost.

    Attributes:
        name: the strategy's name for it, e.g. ``group 3 (blocks 4-5), sweep 1``.
        steps: optimizer steps.
        trainable_parameters: number of scalars.
        switch_seconds: tearing the previous engine down and building this one.
        train_seconds: forward, backward and step, evaluations excluded.
        peak_memory_bytes: largest over ranks during the phase.
        state_bytes: gradients, master weights and optimizer moments held after a backward pass,
            as found in the phase's first steps; largest over ranks, offloaded ones included.
        peak_state_bytes: the most of them found at once, inside a step; 0 in records from before
            it was kept, as is `state_bytes`.
    """

    name: str
    steps: int
    trainable_parameters: int
    switch_seconds: float
    train_seconds: float
    peak_memory_bytes: int
    state_bytes: int = 0
    peak_state_bytes: int = 0


@dataclass(frozen=True)
class PrefixCacheUse(_Record):
    """What kept hidden states of a frozen prefix did for one trial, summed over its ranks.

    Seconds are device seconds (one rank's second is one).

    Attributes:
        status: ``on``, or ``off: `` and why.
        hits, misses: examples, counted each time they were needed, whose hidden states were read,
            or computed.
        bytes_written: by this trial.
        bytes_on_node: disk that all hidden states take on rank 0's node at the trial's end.
        fill_seconds: computing and keeping them.
        seconds_saved: what the hits would have cost to compute, less what reading them did.
        cold_seconds: what the trial would have cost more had nothing been kept at its start.
    """

    status: str
    hits: int = 0
    misses: int = 0
    bytes_written: int = 0
    bytes_on_node: int = 0
    fill_seconds: float = 0.0
    seconds_saved: float = 0.0
    cold_seconds: float = 0.0


OUT_OF_MEMORY = "Out of memory even with one example per pass"
"""Begins the reason of a trial that no micro-batch fits."""


@dataclass(frozen=True)
class TrialOutcome(_Record):
    """How a trial ended on the workers.

    Attributes:
        status: see `OutcomeStatus`.
        reason: one line for people; empty when finished.
        score: lowest validation loss over the evaluations, or None if there is none.
        best_step: the step of that evaluation.
        phases: what each phase trained and cost.
        train_seconds: wall seconds of forward, backward and step.
        device_seconds: wall seconds of the whole trial inside the workers times devices, less
            those that checkpoints took: what training this way costs.
        checkpoint_device_seconds: those; 0 in records from before they were told apart.
        prefix_cache: None in an arm that has no frozen prefix.
        test_loss: at the best evaluation's weights; confirm trials only.
        test_losses: loss of every test example, in test-split order.
        test_metrics: classification: ``accuracy`` and ``macro_f1`` on the test split.
        retention_loss: on the retention text at the same weights; None when not measured.
        notes: what happened to the trial that its result does not depend on: restarts and their
            causes, one sentence each.
        versions: library versions on the worker.
        deepspeed_config: the resolved DeepSpeed configuration of the first phase.
    """

    status: OutcomeStatus
    reason: str = ""
    score: float | None = None
    best_step: int | None = None
    phases: tuple[PhaseSummary, ...] = ()
    train_seconds: float = 0.0
    device_seconds: float = 0.0
    checkpoint_device_seconds: float = 0.0
    prefix_cache: PrefixCacheUse | None = None
    test_loss: float | None = None
    test_losses: tuple[float, ...] = ()
    test_metrics: dict[str, float] = field(default_factory=dict)
    retention_loss: float | None = None
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    deepspeed_config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", OutcomeStatus(self.status))
        phases = tuple(
            p if isinstance(p, PhaseSummary) else PhaseSummary.from_dict(p) for p in self.phases
        )
        object.__setattr__(self, "phases", phases)
        if isinstance(self.prefix_cache, Mapping):
            use = PrefixCacheUse.from_dict(self.prefix_cache)
            object.__setattr__(self, "prefix_cache", use)
        object.__setattr__(self, "test_losses", tuple(self.test_losses))
        object.__setattr__(self, "notes", tuple(self.notes))


@dataclass(frozen=True)
class TrialRecord(_Record):
    """A trial as the store knows it.

    Attributes:
        spec: what was to be run (with its hyperparameters once they are known).
        state: see `TrialState`.
        measurements: one per evaluation, by ascending step.
        outcome: None while the trial waits or runs.
        ray_train_job: name of the Ray Train run that trained it.
        started, finished: seconds since the epoch (UTC), None when it has not.
    """

    spec: TrialSpec
    state: TrialState
    measurements: tuple[Measurement, ...] = ()
    outcome: TrialOutcome | None = None
    ray_train_job: str | None = None
    started: float | None = None
    finished: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", TrialState(self.state))
        if isinstance(self.spec, Mapping):
            object.__setattr__(self, "spec", TrialSpec.from_dict(self.spec))
        measurements = tuple(
            m if isinstance(m, Measurement) else Measurement.from_dict(m) for m in self.measurements
        )
        object.__setattr__(self, "measurements", measurements)
        if isinstance(self.outcome, Mapping):
            object.__setattr__(self, "outcome", TrialOutcome.from_dict(self.outcome))

    @property
    def best(self) -> Measurement | None:
        """The evaluation with the lowest validation loss, or None if nothing was measured."""
        return min(self.measurements, key=lambda m: m.validation_loss, default=None)

    @property
    def score(self) -> float | None:
        """Lowest validation loss, or None if nothing was measured."""
        return None if self.best is None else self.best.validation_loss


@dataclass(frozen=True)
class BaseModelRecord(_Record):
    """The untouched base model's losses, measured once per study.

    Attributes:
        validation_loss, test_loss: on the task's splits (causal-lm: nats per target token;
            classification with a new head, which is random: the class prior's entropy on that
            split).
        retention_loss: on the retention text, or None when not measured.
        test_losses: per test example, same order as `TrialOutcome.test_losses`.
        test_targets: targets of each test example (classification: ones); empty in records from
            before they were kept.
        own_head: classification: the model was measured, with the head that it brought.
    """

    validation_loss: float
    test_loss: float
    retention_loss: float | None
    test_losses: tuple[float, ...] = ()
    test_targets: tuple[int, ...] = ()
    own_head: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "test_losses", tuple(self.test_losses))
        object.__setattr__(self, "test_targets", tuple(self.test_targets))


def base_name(task: str, base: BaseModelRecord | None) -> str:
    """What a trial's loss must get below, in words: what `base` is the loss of."""
    prior = task == "sequence-classification" and not (base and base.own_head)
    return "class prior" if prior else "base model"


@dataclass(frozen=True)
class ArmCosts(_Record):
    """What the probe measured of one arm, in seconds of a trial's workers: means over the phases
    of what it timed, see `Strategy.as_probed`; no phase weighs more than another.

    Attributes:
        step: one optimizer step, with no prefix read from the cache.
        step_cached: the same with every frozen prefix read from the cache; None when the cache is
            off or cannot be used.
        evaluation: one pass over the validation split, prefixes read where they can be.
        phase_switch: changing from one phase to the next. The same in every arm: what it was in
            the one with most phases.
        fill: what the hidden states of a step's batch cost to compute and keep, all blocks being
            left out; where fewer are, their share of it. None: there was nothing to fill.
        evaluation_fill: the same of all batches of the validation split.
    """

    step: float
    step_cached: float | None = None
    evaluation: float = 0.0
    phase_switch: float = 0.0
    fill: float | None = None
    evaluation_fill: float | None = None


_COSTS = sorted((f.name for f in dataclasses.fields(ArmCosts)), key=len, reverse=True)


@dataclass(frozen=True)
class StepCosts:
    """What the probe measured.

    Attributes:
        arms: of each of the study's arms, in their order.
    """

    arms: dict[str, ArmCosts]

    @property
    def cost_ratio(self) -> float:
        """Steps of the second arm, nothing cached, that cost what one of the first costs."""
        reference, challenger = list(self.arms.values())[:2]
        return reference.step / challenger.step

    def to_dict(self) -> dict[str, Any]:
        """Each cost behind its arm's name, e.g. ``lift_step_cached``."""
        return {
            f"{arm}_{name}": value
            for arm, costs in self.arms.items()
            for name, value in costs.to_dict().items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave; or an earlier version, which kept the one `phase_switch` under one
        arm, and an arm that the study lacked as costing nothing."""
        arms: dict[str, dict[str, Any]] = {}
        for key, value in data.items():
            name = next((name for name in _COSTS if key.endswith(f"_{name}")), None)
            if name is not None:
                arms.setdefault(key.removesuffix(f"_{name}"), {})[name] = value
        switch = next((c["phase_switch"] for c in arms.values() if "phase_switch" in c), 0.0)
        shared = {"phase_switch": switch}
        return cls({arm: ArmCosts(**shared | c) for arm, c in arms.items() if c.get("step")})


@dataclass(frozen=True)
class WarmStart(_Record):
    """Points that every replicate's search tries first: winners of earlier studies.

    Attributes:
        points: by arm, the hyperparameters of each, equally many in every arm; one that lacks a
            parameter gets the design's.
        sources: by arm, where each comes from, e.g. ``first-study: lift-n64-r0-s3``.
        notes: what had to be changed or left out, one sentence each.
        space: the search space with its ranges moved by earlier winners; None where it is the
            study file's.
    """

    points: dict[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    space: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("points", "sources"):
            tuples = {arm: tuple(values) for arm, values in getattr(self, name).items()}
            object.__setattr__(self, name, tuples)
        object.__setattr__(self, "notes", tuple(self.notes))

    @property
    def trials(self) -> int:
        """How many of a replicate's search trials they are, the first ones."""
        return min((len(points) for points in self.points.values()), default=0)


KEPT_HEAD = "kept"


@dataclass(frozen=True)
class DataSummary(_Record):
    """What preparing the data found. Counts are examples.

    Attributes:
        fingerprint: hash of the tokenised data and of everything that shaped it.
        pool, validation, test, retention: examples in each split (retention 0: not measured).
        duplicates_removed: exact duplicates dropped so that none straddles two splits.
        truncated: examples cut to the sequence length, all splits together.
        empty_removed: examples dropped because no target token was left.
        mean_tokens: mean tokens per pool example.
        mean_target_tokens: mean tokens per pool example that carry loss.
        label_names: classification: label names by id, else empty.
        class_counts: classification: pool examples by class id, else empty.
        head: classification: `KEPT_HEAD` where training goes on with the base model's own head,
            else why there is a new one.
        dropped: examples without anything to learn, by the reason; `empty_removed` in all.
        cut: examples that lost ``messages`` from the middle of a conversation, the beginning of
            their ``prompt``, the end of their ``answer`` or ``text``, by what they lost; those of
            the retention split, which lose their end, as ``retention``.
        end_token_ids: tokens that the answers of the pool end with: a model that learned them says
            by them that it has finished. Classification: none.
        chat_date: ``YYYY-MM-DD`` that the chat template prints as today's; None: it prints none.
        notes: what else a reader of the results should know of the data.
        highest_token: the highest token id; -1 in records from before it was kept.
        longest: tokens of the longest example in any split; 0 in records from before it was kept.
        rows: rows that were taken, by the source's name (``train``, ``retention``); empty in old
            records.
        not_drawn: rows that were read besides, where there are more than are needed.
        max_train_samples: so many rows of train were taken at most; 0 in records from before there
            was a limit.
        uncut_lengths: median, 95th percentile and largest number of tokens of a pool example
            before any was cut; empty in old records.
        lengths: the same of the examples as they are stored.
    """

    fingerprint: str
    pool: int
    validation: int
    test: int
    retention: int
    duplicates_removed: int
    truncated: int
    empty_removed: int
    mean_tokens: float
    mean_target_tokens: float
    label_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    head: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    end_token_ids: tuple[int, ...] = ()
    chat_date: str | None = None
    notes: tuple[str, ...] = ()
    highest_token: int = -1
    longest: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    not_drawn: dict[str, int] = field(default_factory=dict)
    max_train_samples: int = 0
    uncut_lengths: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in (
            "label_names", "class_counts", "end_token_ids", "notes", "uncut_lengths", "lengths"
        ):  # fmt: skip
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def kept(self) -> int:
        """Examples in all splits."""
        return self.pool + self.validation + self.test + self.retention
