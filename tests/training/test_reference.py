"""LIFT on two real DeepSpeed workers against LIFT written by hand in plain torch.

Every structure on every ZeRO stage, then every architecture with every kind of head: losses, the
weights at the end, and each phase's audit.
"""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from study.config.load import ModelConfig, TrainingConfig
from study.strategies.base import Phase
from study.strategies.lift import LiftStrategy
from study.training.engine.audit import PhaseAudit
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from study.training.model.load import load_model, new_head
from study.training.schedule import learning_rate
from tests.helpers.models import CAUSAL, ENCODERS, tiny_model_folder
from tests.helpers.whole_weights import full_state
from tests.helpers.workers import (
    GLOBAL_BATCH,
    difference,
    global_batches,
    phase_engine,
    run_workers,
    share,
)
from tests.tiers import tiered, wanted
from tests.training.reference import (
    BETAS,
    EPSILON,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Course,
    HandPhase,
    train_plainly,
)

TOLERANCE = 1e-5
STAGES = (0, 1, 2, 3)
CLASSES = 3
SEED = 4
MICRO_BATCH = 4  # a worker's share; accumulation is test_engine's matter
PEAK, WARMUP_RATIO, SCHEDULE = 2e-3, 0.5, "linear"
ENVELOPE = (1 / 2, 1, 1, 1 / 2)
STEPS = len(ENVELOPE)


@dataclass(frozen=True)
class Structure:
    """Options of `LiftStrategy`, and by hand what they mean for a model of four blocks.

    Attributes:
        options: as a study file has them.
        turns: what each phase trains, in `HandPhase`'s words; of an order drawn at random, the
            group of each phase if it were top-down.
        steps: of each phase; none: evenly many.
        factors: of each step's learning rate, beside the trial's own warmup and decay.
        parts: of single words' learning rates, in all phases.
    """

    options: Mapping[str, Any]
    turns: tuple[str, ...]
    steps: tuple[int, ...] = ()
    factors: tuple[float, ...] = (1.0,) * STEPS
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A model: its architecture, its task, and whether its head is tied (None: as it comes)."""

    architecture: str
    task: str = "causal-lm"
    tied: bool | None = None

    @property
    def classes(self) -> int:
        return CLASSES if self.task == "sequence-classification" else 0


_HALVES = ("3 2 top", "1 0 embeddings")
_SINGLES = ("3 top", "2", "1", "0 embeddings")
STRUCTURES = {
    "default": Structure({}, _SINGLES),
    "sweeps": Structure({"group_size": 2, "sweeps": 2}, _HALVES * 2),
    "cumulative": Structure(
        {"group_size": 1, "cumulative": True},
        ("3 top", "3 2 top", "3 2 1 top", "3 2 1 0 top embeddings"),
    ),
    "cumulative sweeps": Structure(
        {"groups": [2, 2], "cumulative": True, "sweeps": 2},
        ("3 2 top", "3 2 1 0 top embeddings") * 2,
    ),
    "head": Structure(
        {"group_size": 2, "always_active": "head"}, ("3 2 top head", "1 0 embeddings head")
    ),
    "final norm": Structure(
        {"group_size": 2, "always_active": "final_norm"}, ("3 2 top", "1 0 embeddings norm")
    ),
    "last block": Structure(
        {"group_size": 2, "always_active": ["last_1_blocks"]}, ("3 2 top", "1 0 embeddings 3")
    ),
    "head, norm and blocks": Structure(
        {"group_size": 1, "always_active": ["head", "final_norm", "last_2_blocks"]},
        ("3 2 top head", "3 2 norm head", "3 2 1 norm head", "3 2 0 norm head embeddings"),
    ),
    "bottom-up": Structure({"group_size": 3, "order": "bottom-up"}, ("0 embeddings", "3 2 1 top")),
    "bottom-up cumulative": Structure(
        {"group_size": 2, "order": "bottom-up", "cumulative": True},
        ("1 0 embeddings", "1 0 embeddings 3 2 top"),
    ),
    "random": Structure({"group_size": 2, "order": "random", "sweeps": 2}, _HALVES * 2),
    "random cumulative": Structure(
        {"group_size": 1, "order": "random", "cumulative": True}, _SINGLES
    ),
    # Scalars that train: 6784 and 11952; 2608 and 11952 tied; 2656 and 12000 in a classifier.
    "proportional": Structure(
        {"groups": "1, 3", "phase_steps": "proportional"},
        ("3 top", "2 1 0 embeddings"),
        steps=(1, 3),
    ),
    "decay": Structure(
        {"groups": "1, 1, 2", "group_lr_decay": 0.5},
        ("3 top", "2", "1 0 embeddings"),
        steps=(2, 1, 1),
        parts={"2": 1 / 2, "1": 1 / 4, "0": 1 / 4, "embeddings": 1 / 4},
    ),
    "bottom-up decay": Structure(
        {"group_size": 2, "order": "bottom-up", "group_lr_decay": 0.5},
        ("1 0 embeddings", "3 2 top"),
        parts={"1": 1 / 2, "0": 1 / 2, "embeddings": 1 / 2},
    ),
    "cumulative decay": Structure(
        {"groups": "1, 1, 2", "cumulative": True, "group_lr_decay": 0.5},
        ("3 top", "3 2 top", "3 2 1 0 top embeddings"),
        steps=(2, 1, 1),
        parts={"2": 1 / 2, "1": 1 / 4, "0": 1 / 4, "embeddings": 1 / 4},
    ),
    "bottom-up cumulative decay": Structure(
        {"group_size": 2, "order": "bottom-up", "cumulative": True, "group_lr_decay": 0.5},
        ("1 0 embeddings", "1 0 embeddings 3 2 top"),
        parts={"1": 1 / 2, "0": 1 / 2, "embeddings": 1 / 2},
    ),
    "norm and block with decay": Structure(
        {
            "group_size": 2,
            "always_active": ["final_norm", "last_1_blocks"],
            "group_lr_decay": 0.5,
        },
        ("3 2 top", "1 0 embeddings norm 3"),
        parts={"1": 1 / 2, "0": 1 / 2, "embeddings": 1 / 2},
    ),
    "re-warmup": Structure(
        {"group_size": 2, "rewarmup_ratio": 0.9}, _HALVES, factors=(1, 1, 1 / 2, 1)
    ),
}
HEADS: dict[str, dict[str, Any]] = {
    "untied": {"tied": False},
    "tied": {"tied": True},
    "classifier": {"task": "sequence-classification"},
}
CLASSIFIER_STRUCTURES = (
    "default", "cumulative", "head", "random", "proportional", "decay", "cumulative decay",
)  # fmt: skip
KINDS = {
    f"{architecture}, {head}": Kind(architecture, **HEADS[head])
    for architecture in (*CAUSAL, *ENCODERS)
    for head in (HEADS if architecture in CAUSAL else ["classifier"])
}


def structure_runs() -> list[Any]:
    """By default a structure runs on one stage, with `ray` on each with another kind of head."""
    found = []
    for (turn, name), stage in itertools.product(enumerate(STRUCTURES), STAGES):
        heads = [h for h in HEADS if h != "classifier" or name in CLASSIFIER_STRUCTURES]
        usual, first = heads[(turn + stage) % len(heads)], stage == turn % len(STAGES)

        def tier(kind: str, *_: Any, usual: str = usual, first: bool = first) -> str:
            return "exhaustive" if kind != f"llama, {usual}" else "default" if first else "ray"

        found += tiered(((f"llama, {head}", name, stage) for head in heads), tier)
    return found


def architecture_runs() -> list[Any]:
    """By default an architecture has one kind of head, with `ray` all, each on another stage."""
    found = []
    turns = {name: turn for turn, name in enumerate((*CAUSAL, *ENCODERS))}
    for number, (kind, model) in enumerate(KINDS.items()):
        usual = STAGES[number % len(STAGES)]
        turn = [*HEADS][turns[model.architecture] % len(HEADS)]
        first = model.architecture in ENCODERS or kind.endswith(f", {turn}")

        def tier(*case: Any, usual: int = usual, first: bool = first) -> str:
            return "exhaustive" if case[-1] != usual else "default" if first else "ray"

        found += tiered(((kind, "re-warmup", stage) for stage in STAGES), tier)
    return found


Run = tuple[str, str, int]
"""Kind, structure, ZeRO stage."""
SETTINGS: dict[str, Any] = {
    "training": TrainingConfig(global_batch_size=GLOBAL_BATCH, betas=BETAS, epsilon=EPSILON),
    "hyperparameters": {"max_grad_norm": MAX_GRAD_NORM, "weight_decay": WEIGHT_DECAY},
    "micro_batch_size": MICRO_BATCH,
}


def load(folder: Path, kind: str) -> PreTrainedModel:
    path = str(folder / kind / f"tiny-{KINDS[kind].architecture}-0")
    return load_model(ModelConfig(path=path), KINDS[kind].task, CLASSES, torch.float32, 0)


def evaluation_batch(kind: Kind) -> dict[str, Tensor]:
    return next(global_batches(seed=2, classes=kind.classes))


def distributed_course(
    kind: Kind, model: PreTrainedModel, phases: tuple[Phase, ...], stage: int, rank: int, world: int
) -> dict[str, Any]:
    """The program's own training; a `Course` as a dict, and which steps were clipped."""
    loss = make_loss(kind.task)
    batches = enumerate(global_batches(classes=kind.classes))
    course: dict[str, Any] = {"losses": [], "norms": [], "clipped": []}
    for phase in phases:
        factors = phase.learning_rate_factors
        with phase_engine(
            model, phase.parameters, stage, world, factors=factors, **SETTINGS
        ) as engine:
            audit = PhaseAudit(engine)
            for step, batch in itertools.islice(batches, phase.steps):
                rate = learning_rate(step, STEPS, PEAK, WARMUP_RATIO, SCHEDULE, phases)
                result = engine.train_step(share(batch, rank, world, MICRO_BATCH), loss, rate)
                audit.observe(result)
                course["losses"].append(result.loss)
                course["norms"].append(result.grad_norm)
                course["clipped"].append(result.clipped)
            audit.check()
            if phase is phases[-1]:
                batch = evaluation_batch(kind)
                total = float(loss.total(engine.evaluate(batch), batch))
    evaluation = total / loss.count(batch)
    return course | {"evaluation": evaluation, "weights": full_state(model)}


def all_runs(
    folder: Path, runs: list[Run], rank: int, world_size: int
) -> dict[Run, dict[str, Any]]:
    import deepspeed  # noqa: F401

    gc.freeze()  # every phase ends with a collection, which need not walk all that is imported
    found = {}
    for kind, name, stage in runs:
        model = load(folder, kind)
        phases = program_phases(model, name)
        found[kind, name, stage] = distributed_course(
            KINDS[kind], model, phases, stage, rank, world_size
        )
    return found


def program_phases(model: PreTrainedModel, name: str) -> tuple[Phase, ...]:
    strategy = LiftStrategy(**STRUCTURES[name].options)
    return strategy.phases(find_layout(model, new_head(model)), STEPS, seed=SEED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models; written here, as among workers transformers lets only rank 0 write."""
    folder = tmp_path_factory.mktemp("models")
    for name, kind in KINDS.items():
        changes = {} if kind.tied is None else {"tie_word_embeddings": kind.tied}
        tiny_model_folder(folder / name, kind.architecture, **changes)
    return folder


@pytest.fixture(scope="module")
def workers(folder: Path, request: pytest.FixtureRequest) -> list[dict[Run, dict[str, Any]]]:
    runs = wanted(request, "kind", "name", "stage")
    return run_workers(functools.partial(all_runs, folder, runs), 2)


@functools.cache
def by_hand(folder: Path, kind: str, name: str) -> Course:
    structure = STRUCTURES[name]
    turns: Sequence[str] = structure.turns
    if structure.options.get("order") == "random":
        turns = [structure.turns[group] for group in drawn_groups(folder, name)]
        if structure.options.get("cumulative"):
            turns = list(itertools.accumulate(turns, "{} {}".format))
    steps = structure.steps or (STEPS // len(turns),) * len(turns)
    rates = iter([PEAK * e * f for e, f in zip(ENVELOPE, structure.factors, strict=True)])
    phases = [
        HandPhase(trains, tuple(itertools.islice(rates, count)), structure.parts)
        for trains, count in zip(turns, steps, strict=True)
    ]
    batches = global_batches(classes=KINDS[kind].classes)
    return train_plainly(load(folder, kind), phases, batches, evaluation_batch(KINDS[kind]))


def drawn_groups(folder: Path, name: str) -> list[int]:
    """Whose turn each phase is, the top group being 0; only the strategy knows what it drew."""
    phases = program_phases(load(folder, "llama, untied"), name)
    return [int(phase.name.split()[1]) - 1 for phase in phases]


def check(folder: Path, workers: list[dict[Run, dict[str, Any]]], run: Run) -> None:
    expected = by_hand(folder, *run[:2])
    for worker in workers:
        found = worker[run]
        for measure in ("losses", "evaluation", "norms"):
            value = getattr(expected, measure)
            assert found[measure] == pytest.approx(value, rel=0, abs=TOLERANCE), measure
        assert found["clipped"] == [norm > MAX_GRAD_NORM for norm in expected.norms]
        assert difference(found["weights"], expected.weights) < TOLERANCE


@pytest.mark.parametrize(("kind", "name", "stage"), structure_runs())
def test_every_structure_trains_as_in_plain_torch(
    folder: Path, workers: list[dict[Run, dict[str, Any]]], kind: str, name: str, stage: int
) -> None:
    check(folder, workers, (kind, name, stage))


@pytest.mark.parametrize(("kind", "name", "stage"), architecture_runs())
def test_every_architecture_trains_as_in_plain_torch(
    folder: Path, workers: list[dict[Run, dict[str, Any]]], kind: str, name: str, stage: int
) -> None:
    check(folder, workers, (kind, name, stage))


@pytest.mark.parametrize("kind", ["llama, untied", "llama, tied"])
def test_no_structure_could_pass_for_another(folder: Path, kind: str) -> None:
    losses = {name: torch.tensor(by_hand(folder, kind, name).losses) for name in STRUCTURES}
    for one, other in itertools.combinations(STRUCTURES, 2):
        apart = float((losses[one] - losses[other]).abs().max())
        assert apart > 2 * TOLERANCE, (one, other)


def test_some_steps_are_clipped_and_some_are_not(folder: Path) -> None:
    norms = [n for name in STRUCTURES for n in by_hand(folder, "llama, untied", name).norms]
    assert 0 < sum(norm > MAX_GRAD_NORM for norm in norms) < len(norms)


def test_a_random_order_gives_each_group_its_turn_in_each_sweep(folder: Path) -> None:
    first, second = drawn_groups(folder, "random")[:2], drawn_groups(folder, "random")[2:]
    assert sorted(first) == sorted(second) == [0, 1]
    assert sorted(drawn_groups(folder, "random cumulative")) == [0, 1, 2, 3]
