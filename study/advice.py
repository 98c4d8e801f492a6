"""What a plan cannot show, said before it runs."""

from __future__ import annotations

from study.config import StudyConfig
from study.lift_options import read_always_active
from study.plan import StudyPlan, full_steps
from study.records import DataSummary


def plan_warnings(plan: StudyPlan, data: DataSummary) -> list[str]:
    """What a reader of the results should know beforehand, one sentence each."""
    config = plan.config
    warnings = list(data.notes)
    for size in config.dataset_sizes:
        if size > data.pool / 2 and config.search.replicates > 1:
            share = size / data.pool
            warnings.append(
                f"Subsets of {size} examples overlap by about {share:.0%} between replicates "
                f"(pool: {data.pool}); results there are about this pool, not about new data."
            )
    for size in config.dataset_sizes:
        full = full_steps(config, size)
        if config.training.steps is None and full == config.training.min_steps:
            passes = full * config.training.global_batch_size / size
            warnings.append(
                f"At {size} examples the floor of {full} optimizer steps means {passes:.3g} epochs."
            )
    if plan.model.tied and _head_is_always_active(config):
        warnings.append(
            "always_active has head, and this model's head is tied to its embeddings: every LIFT "
            "step goes back through all blocks, and no hidden states can be cached."
        )
    if config.search.pruner != "none" and plan.first_rung >= config.training.evaluations:
        warnings.append(
            "The longest warmup reaches past the last evaluation a pruner could act on: nothing "
            "will be pruned. Raise training.evaluations or lower warmup_ratio."
        )
    return warnings


def _head_is_always_active(config: StudyConfig) -> bool:
    if config.arms.lift is None:
        return False
    domain = config.space().for_arm("lift").get("always_active")
    values = [config.arms.lift.always_active] if domain is None else domain.values()
    return any("head" in read_always_active(value) for value in values)  # type: ignore[arg-type]
