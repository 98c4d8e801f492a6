"""What a best configuration's file says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.analysis import Evidence, Verdict
from study.basics.urls import without_passwords
from study.protocol.cost_model import abstract_layout
from study.protocol.records import OutcomeStatus, TrialOutcome
from study.protocol.results import StudyResults
from study.protocol.steps import (
    ModelFacts,
    evaluation_steps,
    full_steps,
    trial_steps,
    trial_strategy,
)
from study.reuse.best_file import FORMAT, Best
from study.reuse.choose import Choice
from study.reuse.scores import scores, verdict_facts, winner_facts
from study.strategies import trains_all


def best_file(
    results: StudyResults, evidence: Evidence, verdict: Verdict | None, choice: Choice
) -> Best:
    """The file of a choice."""
    config, spec = results.config, choice.trial.spec
    outcome = choice.trial.outcome or TrialOutcome(OutcomeStatus.FINISHED)
    chosen, settings = choice.hyperparameters, config.model_dump(mode="json")
    strategy = _with_chosen(getattr(config.arms, spec.arm).model_dump(mode="json"), chosen)
    content = {
        "format": FORMAT,
        "study": {
            "name": config.name,
            "seed": config.seed,
            "arms": list(config.arms.names),
            "comparison": config.comparison,
            "results": results.place or config.database_url,
        },
        "arm": spec.arm,
        "dataset_size": choice.dataset_size,
        "chosen": _chosen(choice),
        "hyperparameters": {k: v for k, v in chosen.items() if k not in strategy},
        "strategy": strategy,
        "training": _with_chosen(settings["training"], chosen),
        "run": _run(results, choice, outcome),
        "seeds": {
            "trial": spec.seed,
            "subset": spec.subset_seed,
            "order": spec.order_seed,
            "confirm": [t.spec.seed for t in choice.replicate.confirm],
        },
        "scores": scores(results, evidence, choice),
        "verdict": verdict_facts(verdict),
        "winners": [fact for cell in choice.cells for fact in winner_facts(cell)],
        "model": settings["model"] | _model_facts(results),
        "task": config.task,
        "data": settings["data"] | _data_facts(results),
        "zero": settings["zero"],
        "resources": settings["resources"],
        "prefix_cache": _prefix_cache(results, outcome),
        "deepspeed": outcome.deepspeed_config,
        "versions": outcome.versions,
    }
    return Best.read(without_passwords(content))


def _with_chosen(settings: dict[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {key: chosen.get(key, value) for key, value in settings.items()}


def _chosen(choice: Choice) -> dict[str, Any]:
    trials = [choice.trial] if choice.other is None else [choice.trial, choice.other]
    return {
        "trials": [trial.spec.trial_id for trial in trials],
        "rule": choice.rule,
        "interpolated": list(choice.interpolated),
        "notes": list(choice.notes),
    }


def _model_facts(results: StudyResults) -> dict[str, Any]:
    return {
        "fingerprint": results.model_fingerprint,
        "parameters": results.model_parameters,
        "num_blocks": results.num_blocks,
        "tied": results.tied,
    }


def _data_facts(results: StudyResults) -> dict[str, Any]:
    data = results.data
    if data is None:
        return {"fingerprint": None, "label_names": []}
    # A final run on another day must train on the same prompts.
    day = {"chat_date": data.chat_date} if data.chat_date else {}
    return day | {"fingerprint": data.fingerprint, "label_names": list(data.label_names)}


def _prefix_cache(results: StudyResults, outcome: TrialOutcome) -> dict[str, Any]:
    """Off where the study's probe has shown that reading costs more than computing: a final run
    has no probe of its own."""
    section = results.config.prefix_cache.model_dump(mode="json")
    use = outcome.prefix_cache
    costs_more = use is not None and use.status.startswith("off: computing costs less")
    return section | {"enabled": False} if costs_more else section


def _run(results: StudyResults, choice: Choice, outcome: TrialOutcome) -> dict[str, Any]:
    """One run at the size that was asked about: the trial's own where that size was tested, else
    planned by the study's rule for it."""
    config, spec = results.config, choice.trial.spec
    tested = choice.is_tested and not choice.interpolated
    steps = spec.steps if tested else _planned_steps(results, choice)
    if tested:
        evaluations = spec.evaluation_steps
        phases = [{"name": p.name, "steps": p.steps} for p in outcome.phases]
    else:
        evaluations = evaluation_steps(steps, config.training.evaluations)
        phases = _planned_phases(results, choice, steps)
    return {
        "steps": steps,
        "epochs": round(steps * config.training.global_batch_size / choice.dataset_size, 3),
        "evaluation_steps": list(evaluations),
        "best_step": outcome.best_step if tested else None,
        "phases": phases,
    }


def _planned_steps(results: StudyResults, choice: Choice) -> int:
    """By the plan's own rule. Where the record is from before the model's blocks were kept, the
    trial's steps in proportion to full's."""
    config, spec, size = results.config, choice.trial.spec, choice.dataset_size
    if results.num_blocks is None and not trains_all(spec.arm):
        return max(1, round(spec.steps * full_steps(config, size) / full_steps(config, spec.size)))
    model = ModelFacts(results.num_blocks or 1, results.probe, tied=results.tied)
    return trial_steps(config, model, spec.arm, size, choice.hyperparameters, spec.seed)


def _planned_phases(results: StudyResults, choice: Choice, steps: int) -> list[dict[str, Any]]:
    """None where the model's blocks are not on record. The layout's blocks count as equal."""
    spec = choice.trial.spec
    if trains_all(spec.arm):
        return [{"name": "all parameters", "steps": steps}]
    if results.num_blocks is None:
        return []
    strategy = trial_strategy(results.config, spec.arm, choice.hyperparameters)
    layout = abstract_layout(results.num_blocks, results.tied)
    phases = strategy.phases(layout, steps, seed=spec.seed)
    return [{"name": phase.name, "steps": phase.steps} for phase in phases]
