"""A whole trial on real process groups: the same numbers however many workers ran it."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study.config.load import StudyConfig
from study.protocol.plan import Cell, ModelFacts, plan_trials
from study.protocol.records import Stage, TrialOutcome
from study.protocol.state_bytes import state_bytes
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.workers import run_workers

BLOCKS = 4


def make_config(folder: Path, **training: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "loop",
            "model": {"path": str(folder / "tiny-llama-0"), "dropout": 0.0},
            "data": {
                "train": str(folder / "mine.jsonl"),
                "prompt": "{question}",
                "response": "{answer}",
                "retention_size": 10,
            },
            "dataset_sizes": [24],
            "arms": {"full": {}, "lift": {"group_size": 1}},
            "comparison": "tokens",
            "search": {
                "space": {
                    "shared": {"learning_rate": 5e-3, "warmup_ratio": 0.1, "max_grad_norm": 0.5}
                },
                "trials": 1,
                "replicates": 1,
            },
            "training": {
                "steps": 12,
                "global_batch_size": 8,
                "micro_batch_size_per_worker": 2,
                "sequence_length": 48,
                "evaluations": 3,
                **training,
            },
            "zero": {"stage": 2},
            "storage": {"results": str(folder / "results")},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from study.training.data.prepare import prepare_data
    from study.training.data.tokenised import use_data
    from study.training.model.load import load_tokenizer

    folder = tmp_path_factory.mktemp("loop")
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(120))
    config = make_config(folder)
    data = prepare_data(config, folder / "data", load_tokenizer(config.model))
    use_data(folder / "data", data.fingerprint)
    return folder


@dataclass(frozen=True)
class Job:
    """One trial to run: configuration, arm, stage, whether the prefix cache pays."""

    config: dict[str, Any]
    arm: str
    stage: Stage = Stage.CONFIRM
    keep_prefix: bool = True


def train(rank: int, world_size: int, jobs: dict[str, Job], folder: Path) -> dict[str, Any]:
    """Each job's trial on this worker: what it reported and its outcome."""
    import torch

    from study.training.baseline import measure_baseline
    from study.training.data.tokenised import StudyData
    from study.training.loop import run_trial
    from study.training.placement import Placement

    data = StudyData.open(folder / "data")
    placement = Placement(torch.device("cpu"), rank, world_size)
    answers: dict[str, Any] = {}
    for name, job in jobs.items():
        config = StudyConfig.from_dict(job.config)
        if job.arm == "baseline":
            baseline = measure_baseline(config, data, placement)
            answers[name] = {"base": baseline.base.to_dict(), "ratio": baseline.probe.cost_ratio}
            continue
        plan = plan_trials(config, ModelFacts(BLOCKS))
        spec = next(s for s in plan.search if s.arm == job.arm)
        if job.stage is Stage.CONFIRM:
            spec = plan.confirm(Cell(job.arm, spec.size, 0), spec.hyperparameters)[0]
        reported: list[dict[str, Any]] = []
        outcome = run_trial(
            config, spec, data, placement, lambda m, found=reported: found.append(m.to_dict()),
            keep_prefix=job.keep_prefix,
        )  # fmt: skip
        answers[name] = {"reported": reported, "outcome": outcome.to_dict()}
    return answers


def changed(config: StudyConfig, **sections: dict[str, Any]) -> dict[str, Any]:
    """`config` with single keys of sections replaced."""
    data = config.to_dict()
    for section, values in sections.items():
        data[section] |= values
    return data


def fixed(learning_rate: float, max_grad_norm: float = 1.0, warmup: float = 0.0) -> dict[str, Any]:
    shared = {"learning_rate": learning_rate, "warmup_ratio": warmup}
    return {"space": {"shared": shared | {"max_grad_norm": max_grad_norm}}}


@pytest.fixture(scope="module")
def two_workers(folder: Path) -> dict[str, Any]:
    """Every job below, run once by the same two processes: starting them takes longest."""
    config = make_config(folder)
    plain = config.to_dict()
    # A warmup to a rate that is far too large: the loss falls at first and rises ever after.
    rising = changed(
        config, search=fixed(3.0, warmup=0.9), training={"evaluations": 6, "patience": 2}
    )
    jobs = {
        "full": Job(plain, "full"),
        "lift": Job(plain, "lift"),
        "lift, computed": Job(plain, "lift", keep_prefix=False),
        "stage 0": Job(changed(config, zero={"stage": 0}), "lift"),
        "stage 3": Job(changed(config, zero={"stage": 3}), "lift"),
        "full, search": Job(plain, "full", Stage.SEARCH),
        "one group, search": Job(
            changed(config, arms={"lift": {"group_size": BLOCKS}}), "lift", Stage.SEARCH
        ),
        "diverging": Job(changed(config, search=fixed(1e30, 1e30)), "full"),
        "rising, search": Job(rising, "full", Stage.SEARCH),
        "rising, confirm": Job(rising, "full"),
        "baseline": Job(plain | {"comparison": "device_seconds"}, "baseline"),
    }
    answers = run_workers(functools.partial(train, jobs=jobs, folder=folder), 2)
    for name in jobs.keys() - {"baseline"}:
        losses = [[m["validation_loss"] for m in a[name]["reported"]] for a in answers]
        assert losses[0] == losses[1], f"{name}: the ranks disagree"
    assert answers[0]["baseline"] == answers[1]["baseline"]
    return answers[0]


@pytest.fixture(scope="module")
def one_worker(folder: Path) -> dict[str, Any]:
    plain = make_config(folder).to_dict()
    jobs = {"full": Job(plain, "full"), "lift": Job(plain, "lift")}
    return run_workers(functools.partial(train, jobs=jobs, folder=folder), 1)[0]


@pytest.fixture(scope="module")
def lift(two_workers: dict[str, Any]) -> dict[str, Any]:
    return two_workers["lift"]


def test_a_confirm_trial_measures_what_a_record_promises(lift: dict[str, Any]) -> None:
    outcome = TrialOutcome.from_dict(lift["outcome"])
    assert outcome.status == "finished"
    assert [m["step"] for m in lift["reported"]] == [4, 8, 12]
    assert [p.steps for p in outcome.phases] == [3, 3, 3, 3]
    assert [m["phase"] for m in lift["reported"]] == [1, 2, 3]
    assert outcome.score == min(m["validation_loss"] for m in lift["reported"])
    assert outcome.test_loss is not None and outcome.retention_loss is not None
    assert len(outcome.test_losses) == 12
    assert min(outcome.test_losses) < outcome.test_loss < max(outcome.test_losses)
    last = lift["reported"][-1]
    assert last["epoch"] == 12 * 8 / 24
    assert last["device_seconds"] == pytest.approx(2 * last["seconds"])
    assert last["peak_memory_bytes"] > 0 and last["tokens_per_second"] > 0
    assert json.dumps(lift)  # plain values only


def test_where_the_cache_does_not_pay_the_prefix_is_computed(
    two_workers: dict[str, Any], lift: dict[str, Any]
) -> None:
    computed = two_workers["lift, computed"]
    assert computed["outcome"]["prefix_cache"]["status"].startswith("off: computing costs less")
    assert lift["outcome"]["prefix_cache"]["status"] == "on"
    for a, b in zip(computed["reported"], lift["reported"], strict=True):
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-5)


@pytest.mark.parametrize(("job", "stage"), [("stage 0", 0), ("stage 3", 3)])
def test_a_trial_records_what_each_phase_was_seen_to_hold(
    two_workers: dict[str, Any], job: str, stage: int
) -> None:
    (full,) = TrialOutcome.from_dict(two_workers["full"]["outcome"]).phases
    for phase in TrialOutcome.from_dict(two_workers[job]["outcome"]).phases:
        active = phase.trainable_parameters
        formula = state_bytes(full.trainable_parameters, active, 2, stage, "fp32")
        assert phase.state_bytes == pytest.approx(formula.steady, rel=0.1)
        # All of so small a group is one sub-group, which has fp32 gradients at once.
        most = max(formula.peak, formula.steady + 4 * active // 2 if stage == 3 else 0)
        assert phase.peak_state_bytes == pytest.approx(most, rel=0.1)


def test_training_learns(two_workers: dict[str, Any]) -> None:
    base = two_workers["baseline"]["base"]["validation_loss"]
    for arm in ("full", "lift"):
        losses = [base, *(m["validation_loss"] for m in two_workers[arm]["reported"])]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < base - 0.1


@pytest.mark.parametrize("arm", ["full", "lift"])
def test_the_numbers_do_not_depend_on_how_many_workers_ran_it(
    one_worker: dict[str, Any], two_workers: dict[str, Any], arm: str
) -> None:
    one, two = one_worker[arm], two_workers[arm]
    for a, b in zip(one["reported"], two["reported"], strict=True):
        for name in ("train_loss", "validation_loss", "grad_norm"):
            assert a[name] == pytest.approx(b[name], abs=1e-5, rel=1e-5), name
        assert (a["tokens"], a["clipped_share"]) == (b["tokens"], b["clipped_share"])
    for name in ("test_loss", "retention_loss"):
        assert one["outcome"][name] == pytest.approx(two["outcome"][name], abs=1e-5)
    assert one["outcome"]["test_losses"] == pytest.approx(two["outcome"]["test_losses"], abs=1e-4)


@pytest.mark.parametrize("stage", ["stage 0", "stage 3"])
def test_the_numbers_do_not_depend_on_the_zero_stage(
    two_workers: dict[str, Any], lift: dict[str, Any], stage: str
) -> None:
    found = two_workers[stage]
    for a, b in zip(found["reported"], lift["reported"], strict=True):
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], abs=1e-5)
    # Scored at the best evaluation's weights, put back into a partitioned model on stage 3.
    assert found["outcome"]["test_loss"] == pytest.approx(lift["outcome"]["test_loss"], abs=1e-5)


def test_lift_with_one_group_equals_full_to_the_last_digit(two_workers: dict[str, Any]) -> None:
    names = ("train_loss", "validation_loss", "grad_norm", "learning_rate", "tokens")
    full, lift = (
        [[m[n] for n in names] for m in two_workers[job]["reported"]]
        for job in ("full, search", "one group, search")
    )
    assert full == lift


def test_the_test_loss_is_measured_at_the_best_evaluation(two_workers: dict[str, Any]) -> None:
    # On a rising loss the best evaluation is an early one; its weights score far better than
    # the last ones would.
    found = two_workers["rising, confirm"]
    outcome = TrialOutcome.from_dict(found["outcome"])
    last = found["reported"][-1]["validation_loss"]
    assert outcome.best_step != 12 and outcome.score is not None
    assert outcome.test_loss is not None
    assert abs(outcome.test_loss - outcome.score) < abs(outcome.test_loss - last)


def test_a_diverging_trial_ends_at_once_with_step_and_learning_rate(
    two_workers: dict[str, Any],
) -> None:
    outcome = TrialOutcome.from_dict(two_workers["diverging"]["outcome"])
    assert outcome.status == "diverged"
    assert "step" in outcome.reason and "learning rate 9.83e+29" in outcome.reason
    assert outcome.test_loss is None


def test_patience_ends_a_search_trial_and_never_a_confirm_trial(
    two_workers: dict[str, Any],
) -> None:
    search, confirm = two_workers["rising, search"], two_workers["rising, confirm"]
    assert search["outcome"]["status"] == "stopped_early"
    assert len(search["reported"]) < 6
    assert confirm["outcome"]["status"] == "finished"
    assert len(confirm["reported"]) == 6


def test_the_baseline_measures_the_untouched_model_and_the_cost_ratio(
    two_workers: dict[str, Any], lift: dict[str, Any]
) -> None:
    found = two_workers["baseline"]
    assert found["base"]["validation_loss"] > lift["reported"][0]["validation_loss"]
    assert len(found["base"]["test_losses"]) == 12
    assert 0.3 < found["ratio"] < 4
