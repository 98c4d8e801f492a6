"""A third strategy is one module and one line in the registry: the rest of the program follows."""

from __future__ import annotations

import functools
import math
import random
from pathlib import Path
from typing import Any, Self

import pytest

from study.basics.errors import ConfigError
from study.basics.section import PositiveInt
from study.config.load import StudyConfig, parse_config
from study.protocol.plan import ModelFacts, plan_trials, trial_steps
from study.protocol.records import ArmCosts, DataSummary, StepCosts
from study.strategies import STRATEGIES
from study.strategies.base import BlockLayout, Phase, Strategy, split_steps
from tests.strategies.conformance import StrategyConformance

STUDY: dict[str, Any] = {
    "name": "three",
    "model": {"path": "./model"},
    "data": {"train": "./train.jsonl", "text": "text"},
    "dataset_sizes": [64],
    "arms": {"full": {}, "lift": {"group_size": 1}, "sampled": {"blocks": 2}},
    "search": {"trials": 2, "replicates": 1},
    "training": {"steps": 24, "global_batch_size": 8},
}
BLOCKS = 4
DATA = DataSummary("f", 100, 10, 10, 0, 0, 0, 0, 20.0, 10.0)


class SampledStrategy(Strategy):
    """Blocks drawn at random train with what is above and below them, others every few steps."""

    label = "sampled layers"
    method = "layers drawn at random"
    summary = "Blocks drawn at random train, others every few steps."
    colour, shape, dash = "#117733", "square", (2, 2)
    structure = ("blocks",)

    blocks: PositiveInt = 1
    """Transformer blocks that train at a time."""
    every: PositiveInt = 5
    """Steps after which others are drawn."""

    def phases(self, layout: BlockLayout, total_steps: int, *, seed: int = 0) -> tuple[Phase, ...]:
        generator, outside = random.Random(seed), {*layout.embeddings, *layout.top}
        count = min(self.blocks, len(layout.blocks))
        turns = range(math.ceil(max(1, total_steps) / self.every))
        drawn = [generator.sample(layout.blocks, count) for _ in turns]
        return tuple(
            Phase(f"draw {turn + 1}", layout.ordered(outside.union(*drawn[turn])), steps)
            for turn, steps in enumerate(split_steps(total_steps, len(turns)))
        )

    def steps_per_round(self, blocks: int) -> int:
        return math.ceil(blocks / min(self.blocks, blocks))

    @property
    def draws(self) -> bool:
        return True

    def as_probed(self) -> Self:
        return self.model_copy(update={"every": 10**6})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "sampled", SampledStrategy)


def config_with(**changes: Any) -> StudyConfig:
    return parse_config(STUDY | changes)


class TestSampled(StrategyConformance):
    strategy = SampledStrategy(blocks=1, every=2)


def test_its_section_is_validated_and_survives_the_store() -> None:
    config = config_with()
    assert config.arms.names == ("full", "lift", "sampled")
    assert config.arms.strategy("sampled") == SampledStrategy(blocks=2)
    assert StudyConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"arms\.sampled\.blocks.*at least 1"):
        config_with(arms={"full": {}, "sampled": {"blocks": 0}})


def test_its_options_can_be_searched_in_its_own_section() -> None:
    shared = {"learning_rate": 1e-3, "warmup_ratio": 0.1, "max_grad_norm": 1.0}
    search = STUDY["search"] | {
        "space": {"shared": shared, "sampled": {"every": {"low": 2, "high": 8}}}
    }
    plan = plan_trials(config_with(search=search), ModelFacts(BLOCKS))
    chosen = {s.arm: set(s.hyperparameters) for s in plan.search}
    assert chosen["sampled"] == {*shared, "every"} and chosen["lift"] == set(shared)
    wrong = {"space": {"shared": shared, "lift": {"every": 2}}}
    with pytest.raises(ConfigError, match="only sampled layers has this parameter"):
        config_with(search=wrong)


@pytest.mark.parametrize(
    ("basis", "steps"), [("tokens", 24), ("updates_per_parameter", 48), ("device_seconds", 24)]
)
def test_it_gets_its_steps_on_every_basis(basis: str, steps: int) -> None:
    config = config_with(comparison=basis)
    found = trial_steps(config, ModelFacts(BLOCKS), "sampled", 64, {})
    assert found >= 24 if basis == "device_seconds" else found == steps


def test_two_arms_need_not_have_full_among_them() -> None:
    config = config_with(arms={"lift": {"group_size": 1}, "sampled": {"blocks": 2}})
    steps = {s.arm: s.steps for s in plan_trials(config, ModelFacts(BLOCKS)).search}
    assert steps["lift"] == 24 and steps["sampled"] > 1


def test_its_costs_are_on_record_and_price_its_trials() -> None:
    probe = StepCosts({"full": ArmCosts(0.3), "lift": ArmCosts(0.2), "sampled": ArmCosts(0.15)})
    assert StepCosts.from_dict(probe.to_dict()) == probe
    assert probe.to_dict()["sampled_step"] == 0.15
    found = trial_steps(config_with(), ModelFacts(BLOCKS, probe), "sampled", 64, {})
    assert 24 < found <= 48


def test_costs_of_an_earlier_version_are_read() -> None:
    old = {"full_step": 0.3, "lift_step": 0.2, "lift_step_cached": None, "full_evaluation": 2.0,
           "lift_evaluation": 1.0, "lift_phase_switch": 0.5, "lift_fill": None}  # fmt: skip
    full, lift = ArmCosts(0.3, None, 2.0, 0.5), ArmCosts(0.2, None, 1.0, 0.5)
    assert StepCosts.from_dict(old) == StepCosts({"full": full, "lift": lift})


def test_what_it_needs_and_costs_is_foreseen(tmp_path: Path) -> None:
    from study.orchestration.ledger.budget import Predictor
    from study.orchestration.preflight.footprint import possible_phases
    from study.orchestration.preflight.forecast import trial_cost
    from study.training.model.shape import model_shape
    from tests.helpers.models import tiny_model_folder

    folder = tiny_model_folder(tmp_path)
    config = config_with(model={"path": str(folder)})
    probe = StepCosts({a: ArmCosts(s) for a, s in [("full", 0.3), ("lift", 0.2), ("sampled", 0.1)]})
    plan = plan_trials(config, ModelFacts(BLOCKS, probe))
    (phase,) = possible_phases(plan, model_shape(config.model, config.task), "sampled")
    assert phase.name == "draw 1"
    spec = next(s for s in plan.search if s.arm == "sampled")
    seconds = pytest.approx(0.1 * spec.steps)
    assert Predictor(plan).predict(spec).wall_seconds == seconds
    assert trial_cost(plan, DATA, spec) == seconds


def trained(rank: int, world_size: int, folder: Path, study: dict[str, Any]) -> dict[str, Any]:
    """What a worker made of a trial, and what the probe measured."""
    import torch

    from study.training.baseline import measure_baseline
    from study.training.data.tokenised import StudyData
    from study.training.loop import run_trial
    from study.training.placement import Placement

    STRATEGIES["sampled"] = SampledStrategy  # this is another process
    config, data = StudyConfig.model_validate(study), StudyData.open(folder / "data")
    placement = Placement(torch.device("cpu"), rank, world_size)
    baseline = measure_baseline(config, data, placement)
    (spec,) = (s for s in plan_trials(config, ModelFacts(BLOCKS)).search if s.arm == "sampled")
    outcome = run_trial(config, spec, data, placement, lambda _: None)
    costs = baseline.probe.to_dict() if baseline.probe else {}
    return {"outcome": outcome.to_dict(), "costs": costs}


def test_it_is_probed_and_trained(tmp_path: Path) -> None:
    from study.training.data.prepare import prepare_data
    from study.training.data.tokenised import use_data
    from study.training.model.load import load_tokenizer
    from tests.helpers.data import task_rows, write_jsonl
    from tests.helpers.models import tiny_model_folder
    from tests.helpers.workers import run_workers

    write_jsonl(tmp_path / "mine.jsonl", task_rows(120))
    study = STUDY | {
        "model": {"path": str(tiny_model_folder(tmp_path)), "dropout": 0.0},
        "data": {
            "train": str(tmp_path / "mine.jsonl"),
            "prompt": "{question}",
            "response": "{answer}",
        },
        "dataset_sizes": [24],
        "search": {"trials": 1, "replicates": 1},
        "training": {"steps": 12, "global_batch_size": 8, "sequence_length": 48, "evaluations": 2},
        "storage": {"results": str(tmp_path / "results")},
    }
    config = StudyConfig.model_validate(study)
    data = prepare_data(config, tmp_path / "data", load_tokenizer(config.model))
    use_data(tmp_path / "data", data.fingerprint)
    (found,) = run_workers(functools.partial(trained, folder=tmp_path, study=study), 1)
    phases = found["outcome"]["phases"]
    assert found["outcome"]["status"] == "finished" and len(phases) > 1
    assert len({p["trainable_parameters"] for p in phases}) == 1
    assert set(StepCosts.from_dict(found["costs"]).arms) == set(STRATEGIES)
