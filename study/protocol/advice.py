"""What a plan cannot show, said before it runs."""

from __future__ import annotations

from collections.abc import Iterator

from study.basics.text_format import counted, listed
from study.config.load import StudyConfig
from study.protocol.cost_model import abstract_layout
from study.protocol.plan import StudyPlan, full_steps
from study.protocol.records import KEPT_HEAD, DataSummary
from study.protocol.steps import DEFAULT_EPOCHS, least_steps, possible_strategies
from study.strategies import STRATEGIES


def plan_warnings(plan: StudyPlan, data: DataSummary) -> list[str]:
    """What a reader of the results should know beforehand, one sentence each."""
    config = plan.resolved
    warnings = [
        *data.notes,
        *_about_classes(data),
        *_overlaps(config, data.pool),
        *_floored(config),
        *_one_step_phases(plan),
        *_needless_zero(config),
    ]
    warnings += _of_strategies(plan)
    if config.search.pruner != "none" and plan.first_rung >= config.training.evaluations:
        warnings.append(
            "The longest warmup reaches past the last evaluation a pruner could act on: nothing "
            "will be pruned. Raise training.evaluations or lower warmup_ratio."
        )
    return warnings


def _about_classes(data: DataSummary) -> Iterator[str]:
    if data.head not in ("", KEPT_HEAD):
        yield f"The head for the classes is a new one: {data.head}."
    few = [n for n, count in zip(data.label_names, data.class_counts, strict=False) if count < 2]
    if few:
        yield (
            f"{counted(len(few), 'class has', 'classes have')} fewer than two training examples: "
            f"{', '.join(few[:8])}"
            f"{', ...' if len(few) > 8 else ''}. Small subsets will lack them."
        )


def _one_step_phases(plan: StudyPlan) -> Iterator[str]:
    """A phase of one step trains next to nothing, and one more than was asked for costs more."""
    config, blocks = plan.resolved, plan.model.num_blocks
    short: dict[str, set[int]] = {}
    for spec in plan.search:
        least = least_steps(config, spec.arm, spec.hyperparameters, blocks)
        if spec.steps == least > 1:
            short.setdefault(spec.arm, set()).add(spec.size)
    for arm, sizes in short.items():
        strategy, found = STRATEGIES[arm], listed([f"{size:,}" for size in sorted(sizes)])
        yield (
            f"At {found} examples {strategy.label} has no more than one optimizer step in each of "
            "its phases. Raise training.epochs, steps or min_steps, or have "
            f"{strategy.fewer_phases} (arms.{arm})."
        )


def _of_strategies(plan: StudyPlan) -> list[str]:
    layout = abstract_layout(plan.model.num_blocks, plan.model.tied)
    found = [
        strategy.warning(layout)
        for arm in plan.resolved.arms.names
        for strategy in possible_strategies(plan.resolved, arm)
    ]
    return [text for text in dict.fromkeys(found) if text]


def _overlaps(config: StudyConfig, pool: int) -> list[str]:
    found = [size for size in config.dataset_sizes if size > pool / 2]
    if not found or config.search.replicates < 2:
        return []
    sizes = listed([f"{size:,}" for size in found])
    shares = listed([f"{size / pool:.0%}" for size in found])
    return [
        f"Subsets of {sizes} examples overlap by about {shares} between replicates (pool: "
        f"{pool:,}); results there are about this pool, not about new data."
    ]


def _floored(config: StudyConfig) -> list[str]:
    """Sizes at which the floor on steps is more than what was asked for."""
    training = config.training
    without = config.model_copy(update={"training": training.model_copy(update={"min_steps": 1})})
    found = [n for n in config.dataset_sizes if full_steps(without, n) < full_steps(config, n)]
    if not found:
        return []
    sizes = listed([f"{size:,}" for size in found])
    epochs = listed(
        [f"{training.min_steps * training.global_batch_size / size:.3g}" for size in found]
    )
    asked = DEFAULT_EPOCHS if training.epochs is None else training.epochs
    return [
        f"At {sizes} examples the floor of {counted(training.min_steps, 'optimizer step')} "
        f"(training.min_steps) means {epochs} epochs rather than {asked:g}."
    ]


def _needless_zero(config: StudyConfig) -> list[str]:
    """Stages 1 and 2 hold gradients a second time at the step; alone, a worker gets nothing for
    it (`study.training.engine.memory` has the formula)."""
    zero = config.zero
    if config.resources.workers_per_trial > 1 or zero.stage not in (1, 2):
        return []
    if zero.offload_optimizer != "none":
        return []
    return [
        f"With one worker per trial ZeRO stage {zero.stage} shares nothing and takes 4 bytes of "
        "memory per trained parameter for it, 8 in fp32: `zero: {stage: 0}` does without."
    ]
