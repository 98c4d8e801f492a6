"""What a plan cannot show, said before it runs."""

from __future__ import annotations

from study.config import StudyConfig
from study.plan import StudyPlan, full_steps
from study.records import DataSummary


def plan_warnings(plan: StudyPlan, data: DataSummary) -> list[str]:
    """What a reader of the results should know beforehand, one sentence each."""
    config = plan.config
    warnings = _evidence_warnings(config)
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
    if config.search.pruner != "none" and plan.first_rung >= config.training.evaluations:
        warnings.append(
            "The longest warmup reaches past the last evaluation a pruner could act on: nothing "
            "will be pruned. Raise training.evaluations or lower warmup_ratio."
        )
    return warnings


def _evidence_warnings(config: StudyConfig) -> list[str]:
    if len(config.arms.names) < 2:
        return []
    warnings = []
    sizes = sorted(config.dataset_sizes)
    if len(sizes) < 4 or sizes[-1] < 8 * sizes[0]:
        warnings.append(
            "A verdict over dataset sizes needs at least 4 sizes spanning a factor of 8; "
            f"this study has {len(sizes)} from {sizes[0]} to {sizes[-1]}."
        )
    if config.search.replicates < 3:
        warnings.append(
            f"A verdict needs at least 3 replicates; this study has {config.search.replicates}."
        )
    if config.search.replicates * config.confirm.seeds < 6:
        pairs = config.search.replicates * config.confirm.seeds
        warnings.append(
            "A verdict needs at least 6 confirm pairs per size (replicates times confirm seeds); "
            f"this study has {pairs}."
        )
    return warnings
