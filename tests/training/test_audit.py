"""The audit against real engines that are tampered with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from study.config import TrainingConfig
from study.errors import AuditError
from study.training.audit import PhaseAudit
from study.training.engine import PhaseEngine
from study.training.layout import find_layout
from study.training.losses import make_loss
from tests.models import tiny_model
from tests.training.workers import global_batches, group_phases, phase_engine, run_workers, share

CASES = {
    f"{precision}-{stage}": (precision, stage)
    for precision in ("fp32", "bf16")
    for stage in range(4)
}
FROZEN = "model.layers.0.mlp.up_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"
ACTIVE = "model.layers.3.mlp.up_proj.weight"
HEAD = "lm_head.weight"


def _nudge_one(engine: PhaseEngine, rank: int) -> None:
    """The smallest change of one frozen element, on the last rank only."""
    if rank:
        parameter = dict(engine.model.named_parameters())[FROZEN]
        held = getattr(parameter, "ds_tensor", parameter).detach().view(-1)
        held[0] = torch.nextafter(held[0], torch.tensor(9.0, dtype=held.dtype))


def _decay_all(engine: PhaseEngine, rank: int) -> None:
    """The same change of every element of a norm (all ones), as weight decay would make it."""
    parameter = dict(engine.model.named_parameters())[NORM]
    getattr(parameter, "ds_tensor", parameter).detach().mul_(0.99)


def _undo_active(engine: PhaseEngine, rank: int) -> None:
    """Put the master weights of one active parameter back to their start."""
    parameter = dict(engine.model.named_parameters())[ACTIVE]
    master = PhaseAudit._master(engine.audit, parameter)  # type: ignore[attr-defined]
    if master is not None:
        master.detach().copy_(engine.start)  # type: ignore[attr-defined]


def _audit(
    precision: str,
    stage: int,
    rank: int,
    world_size: int,
    tamper: Any,
    rate: float,
    slowed: tuple[str, ...] = (),
) -> str:
    """What the audit of two steps said; the rates of `slowed` are far too small to show."""
    model = tiny_model()
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    phase, *_ = group_phases(find_layout(model), steps=8)
    loss, batches = make_loss("causal-lm"), global_batches()
    factors = [1e-12 if name in slowed else 1.0 for name in phase.parameters]
    with phase_engine(
        model, phase.parameters, stage, world_size, precision=precision, factors=factors
    ) as engine:
        engine.audit = audit = PhaseAudit(engine)  # type: ignore[attr-defined]
        master = audit._master(dict(model.named_parameters())[ACTIVE])
        engine.start = None if master is None else master.detach().clone()  # type: ignore[attr-defined]
        for _ in range(2):
            audit.observe(engine.train_step(share(next(batches), rank, world_size, 2), loss, rate))
        demanded = len(audit._must_move)
        if tamper is not None:
            tamper(engine, rank)
        try:
            audit.check()
        except AuditError as error:
            return str(error)
        return f"passed, {demanded} of {len(phase.parameters)} had to move"


def two_workers(rank: int, world_size: int) -> dict[str, dict[str, str]]:
    tampers = {"none": None, "one": _nudge_one, "all": _decay_all, "undo": _undo_active}
    found = {
        case: {name: _audit(*CASES[case], rank, world_size, t, 1e-3) for name, t in tampers.items()}
        for case in CASES
    }
    found["slowed"] = {
        str(stage): _audit("fp32", stage, rank, world_size, None, 1e-3, (ACTIVE, HEAD))
        for stage in range(4)
    }
    found["tiny"] = {"rate": _audit("fp32", 2, rank, world_size, None, 1e-12)}
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, dict[str, str]]]:
    return run_workers(two_workers, 2)


@pytest.mark.parametrize("case", CASES)
def test_an_honest_phase_passes_with_movement_demanded_of_every_active_tensor(
    found: list[dict[str, dict[str, str]]], case: str
) -> None:
    assert found[0][case]["none"] == "passed, 11 of 11 had to move"


@pytest.mark.parametrize("case", CASES)
def test_one_bit_of_one_frozen_weight_on_one_rank_is_caught_on_all(
    found: list[dict[str, dict[str, str]]], case: str
) -> None:
    for worker in found:
        assert worker[case]["one"] == f"1 frozen parameters moved: {FROZEN}"


@pytest.mark.parametrize("case", CASES)
def test_equal_drift_of_equal_weights_is_caught(
    found: list[dict[str, dict[str, str]]], case: str
) -> None:
    for worker in found:
        assert worker[case]["all"] == f"1 frozen parameters moved: {NORM}"


@pytest.mark.parametrize("case", CASES)
def test_an_active_weight_that_stands_still_is_caught(
    found: list[dict[str, dict[str, str]]], case: str
) -> None:
    for worker in found:
        assert worker[case]["undo"] == f"1 active parameters did not move: {ACTIVE}"


def test_updates_too_small_for_fp32_are_not_demanded(
    found: list[dict[str, dict[str, str]]],
) -> None:
    assert found[0]["tiny"]["rate"] == "passed, 0 of 11 had to move"


@pytest.mark.parametrize("stage", range(4))
def test_a_parameters_own_rate_says_whether_it_must_move(
    found: list[dict[str, dict[str, str]]], stage: int
) -> None:
    assert found[0]["slowed"][str(stage)] == "passed, 9 of 11 had to move"


def test_adam_step_is_bounded_by_the_rate_and_sgd_by_rate_times_gradient() -> None:
    engine = type("E", (), {"learning_rate": 0.1})()
    audit = object.__new__(PhaseAudit)
    audit._engine = engine
    engine.training = TrainingConfig()
    assert audit._update(1.0) == pytest.approx(0.1)
    assert audit._update(1e-8) == pytest.approx(0.05)
    engine.training = TrainingConfig(optimizer="sgd")
    assert audit._update(0.5) == pytest.approx(0.05)
