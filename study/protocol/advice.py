"""What a plan cannot show, said before it runs."""

from __future__ import annotations

from collections.abc import Iterator

from study.basics.text_format import counted, listed
from study.config.load import StudyConfig
from study.protocol.plan import StudyPlan, full_steps
from study.protocol.records import KEPT_HEAD, DataSummary
from study.protocol.steps import DEFAULT_EPOCHS, least_steps
from study.strategies.lift_options import read_always_active


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


def _one_step_phases(plan: StudyPlan) -> list[str]:
    """A phase of one step trains next to nothing, and one more than was asked for costs more."""
    sizes = sorted(
        {
            spec.size
            for spec in plan.search
            if spec.arm == "lift"
            and spec.steps
            == least_steps(plan.resolved, spec.arm, spec.hyperparameters, plan.model.num_blocks)
        }
    )
    if not sizes:
        return []
    return [
        f"At {listed([f'{size:,}' for size in sizes])} examples LIFT has no more than one "
        "optimizer step in each of its phases. Raise training.epochs, steps or min_steps, or have "
        "fewer groups (arms.lift)."
    ]


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


def _head_is_always_active(config: StudyConfig) -> bool:
    if config.arms.lift is None:
        return False
    domain = config.space().for_arm("lift").get("always_active")
    values = [config.arms.lift.always_active] if domain is None else domain.values()
    return any("head" in read_always_active(value) for value in values)  # type: ignore[arg-type]
