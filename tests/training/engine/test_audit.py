"""The audit against real engines that are tampered with."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch

from study.basics.errors import AuditError
from study.config.load import TrainingConfig
from study.training.engine.audit import PhaseAudit
from study.training.engine.engine import PhaseEngine
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from tests.helpers.models import tiny_model
from tests.helpers.workers import global_batches, group_phases, phase_engine, run_workers, share
from tests.tiers import thinned, wanted

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


TAMPERS = {
    "nothing": (None, "passed, 11 of 11 had to move"),
    "one bit of one frozen weight on one rank": (
        _nudge_one, f"1 frozen parameters moved: {FROZEN}"
    ),
    "equal weights, equally": (_decay_all, f"1 frozen parameters moved: {NORM}"),
    "an active weight, back to its start": (
        _undo_active, f"1 active parameters did not move: {ACTIVE}"
    ),
}  # fmt: skip
"""What is done to a phase, and what its audit says."""


def cases() -> list[Any]:
    """An honest phase in every precision on every stage, a tampered one in half of them."""

    def usual(tamper: str, precision: str, stage: int) -> bool:
        return (
            tamper == "nothing"
            or ([*TAMPERS].index(tamper) + (precision == "bf16") + stage) % 2 == 0
        )

    return thinned(itertools.product(TAMPERS, ("fp32", "bf16"), range(4)), usual)


def two_workers(
    jobs: list[tuple[str, str, int]], rank: int, world_size: int
) -> dict[tuple[str, str, int], str]:
    return {
        (tamper, precision, stage): _audit(
            precision, stage, rank, world_size, TAMPERS[tamper][0], 1e-3
        )
        for tamper, precision, stage in jobs
    }


def special_rates(rank: int, world_size: int) -> dict[str, str]:
    found = {
        f"slowed, {stage}": _audit("fp32", stage, rank, world_size, None, 1e-3, (ACTIVE, HEAD))
        for stage in range(4)
    }
    return found | {"tiny": _audit("fp32", 2, rank, world_size, None, 1e-12)}


@pytest.fixture(scope="module")
def audits(request: pytest.FixtureRequest) -> list[dict[tuple[str, str, int], str]]:
    jobs = wanted(request, "tamper", "precision", "stage")
    return run_workers(functools.partial(two_workers, jobs), 2)


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return run_workers(special_rates, 2)[0]


@pytest.mark.parametrize(("tamper", "precision", "stage"), cases())
def test_what_was_tampered_with_is_told_on_every_rank(
    audits: list[dict[tuple[str, str, int], str]], tamper: str, precision: str, stage: int
) -> None:
    for worker in audits:
        assert worker[tamper, precision, stage] == TAMPERS[tamper][1]


def test_updates_too_small_for_fp32_are_not_demanded(
    found: dict[str, str],
) -> None:
    assert found["tiny"] == "passed, 0 of 11 had to move"


@pytest.mark.parametrize("stage", range(4))
def test_a_parameters_own_rate_says_whether_it_must_move(found: dict[str, str], stage: int) -> None:
    assert found[f"slowed, {stage}"] == "passed, 9 of 11 had to move"


def test_adam_step_is_bounded_by_the_rate_and_sgd_by_rate_times_gradient() -> None:
    engine = type("E", (), {"learning_rate": 0.1})()
    audit = object.__new__(PhaseAudit)
    audit._engine = engine
    engine.training = TrainingConfig()
    assert audit._update(1.0) == pytest.approx(0.1)
    assert audit._update(1e-8) == pytest.approx(0.05)
    engine.training = TrainingConfig(optimizer="sgd")
    assert audit._update(0.5) == pytest.approx(0.05)
