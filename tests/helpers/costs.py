"""What a probe may have measured of full and LIFT."""

from __future__ import annotations

from study.protocol.records import ArmCosts, StepCosts


def step_costs(
    full_step: float,
    lift_step: float,
    lift_step_cached: float | None = None,
    full_evaluation: float = 0.0,
    lift_evaluation: float = 0.0,
    phase_switch: float = 0.0,
    lift_fill: float | None = None,
    lift_evaluation_fill: float | None = None,
) -> StepCosts:
    full = ArmCosts(full_step, None, full_evaluation, phase_switch)
    lift = ArmCosts(
        lift_step, lift_step_cached, lift_evaluation, phase_switch, lift_fill, lift_evaluation_fill
    )
    return StepCosts({"full": full, "lift": lift})
