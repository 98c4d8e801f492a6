"""The best configuration of an arm, picked by rule and written out as YAML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import yaml

from study.analysis import (
    CellSummary,
    ReplicateSummary,
    StudySummary,
    arm_label,
    cold_device_seconds_of,
    counted,
    device_seconds_of,
    peak_memory_of,
    score_of,
    summarise,
)
from study.errors import UserError
from study.records import TrialOutcome, TrialRecord
from study.results import StudyResults


@dataclass(frozen=True)
class BestConfiguration:
    """What `study best` prints.

    Attributes:
        arm, dataset_size: the cell it was picked from.
        chosen: the replicate whose winner it is.
        candidates: every replicate's winner at that size, by replicate.
        trial: the search trial with the configuration.
        rule: how it was picked, one sentence.
        notes: what else must be known, one sentence each.
        content: everything `to_yaml` writes, plain values only.
    """

    arm: str
    dataset_size: int
    chosen: ReplicateSummary
    candidates: tuple[ReplicateSummary, ...]
    trial: TrialRecord
    rule: str
    notes: tuple[str, ...]
    content: dict[str, Any]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dict(self.trial.spec.hyperparameters)

    def to_yaml(self) -> str:
        """YAML with a commented header; `yaml.safe_load` gives `content` back."""
        lines = [
            f"Best configuration of {arm_label(self.arm)} at {self.dataset_size:,} examples, "
            f"study {self.content['study']['name']}.",
            self.rule,
            *self.notes,
            "Losses are in nats. Steps and epochs are those of one run.",
        ]
        header = "".join(f"# {' '.join(line.split())}\n" for line in lines)
        return header + str(
            yaml.safe_dump(self.content, sort_keys=False, allow_unicode=True, width=100)
        )


def best_configuration(
    results: StudyResults, arm: str, dataset_size: int | None = None
) -> BestConfiguration:
    """Among a size's replicate winners, the one with the lowest mean confirm validation loss.

    Without confirm runs the lowest search validation loss decides; while no search has ended, the
    best trial so far. Both are said in `rule`.

    Args:
        arm: ``full`` or ``lift``.
        dataset_size: null: the size the study asks about (`decision.dataset_size`), or the
            largest one with results. A size that was asked about but not tested: the nearest
            tested one with results, by ratio.

    Raises:
        UserError: an arm or size that is not in the study, or one without any complete trial.
    """
    summary = summarise(results)
    if arm not in summary.arms:
        known = ", ".join(summary.arms)
        raise UserError(
            f"Arm '{arm}' is not in study '{results.config.name}'. Use one of: {known}."
        )
    cell, size_note = _pick_cell(summary, arm, dataset_size)
    chosen, trial, rule = _pick_replicate(cell)
    notes = list(size_note)
    if not summary.finished:
        counts = summary.counts
        notes.append(f"The study is unfinished: {counts.ended} of {counts.planned} trials ended.")
    if (arm, cell.size) in summary.unlearned:
        notes.append(
            "Its arm did not learn the task at this size: the mean loss is not below the base "
            "model's."
        )
    return BestConfiguration(
        arm=arm,
        dataset_size=cell.size,
        chosen=chosen,
        candidates=tuple(r for r in cell.replicates if r.winner is not None),
        trial=trial,
        rule=rule,
        notes=tuple(notes),
        content=_content(results, cell, chosen, trial),
    )


def _pick_cell(
    summary: StudySummary, arm: str, dataset_size: int | None
) -> tuple[CellSummary, tuple[str, ...]]:
    """The cell to pick from, and a note when it is not the size that was asked about."""
    sizes = ", ".join(f"{n}" for n in summary.sizes)
    able = [n for n in summary.sizes if any(r.leader for r in summary.cell(arm, n).replicates)]
    has = ", ".join(map(str, able))
    remedy = f"Sizes with results: {has}." if able else "Run the study first, or look at failures "
    if not able:
        remedy += "with: study status."
    if dataset_size is not None and dataset_size not in summary.sizes:
        raise UserError(f"Dataset size {dataset_size} is not in the study. Its sizes: {sizes}.")
    asked = dataset_size or summary.config.decision.dataset_size
    if asked in able:
        return summary.cell(arm, asked), ()
    if not able or asked in summary.sizes:
        where = f" at {asked} examples" if asked in summary.sizes else ""
        raise UserError(f"No search trial of arm '{arm}'{where} is complete. {remedy}")
    if asked is None:
        return summary.cell(arm, able[-1]), ()
    near = min(able, key=lambda n: abs(math.log(n / asked)))
    note = f"The size asked about, {asked:,}, was not tested; {near:,} is the nearest that was."
    return summary.cell(arm, near), (note,)


def _pick_replicate(cell: CellSummary) -> tuple[ReplicateSummary, TrialRecord, str]:
    """(replicate, its trial, the rule that picked it); the cell has at least one leader."""
    winners = sum(r.winner is not None for r in cell.replicates)
    best = cell.best
    if best is None or best.winner is None:
        led = [
            (score, r.replicate, r, r.leader)
            for r in cell.replicates
            if r.leader is not None and (score := score_of(r.leader)) is not None
        ]
        _, _, replicate, trial = min(led, key=lambda entry: entry[:2])
        rule = (
            "Picked as the lowest search validation loss so far: no search at this size has ended."
        )
        return replicate, trial, rule
    among = f"among {counted(winners, 'replicate winner')}"
    if best.confirm_score is not None:
        runs = counted(len(best.validation_losses), "confirm run")
        rule = f"Picked {among} by the lowest mean validation loss of its confirm runs ({runs})."
    else:
        rule = (
            f"Picked {among} by the lowest search validation loss, which flatters: no confirm run "
            "is complete."
        )
    return best, best.winner, rule


def _content(
    results: StudyResults, cell: CellSummary, chosen: ReplicateSummary, trial: TrialRecord
) -> dict[str, Any]:
    config, spec, data = results.config, trial.spec, results.data
    outcome = trial.outcome or TrialOutcome("finished")
    section = getattr(config.arms, spec.arm).model_dump(mode="json")
    training = config.training.model_dump(mode="json")
    strategy = {k: spec.hyperparameters.get(k, v) for k, v in section.items()}
    return {
        "study": {"name": config.name, "seed": config.seed, "comparison": config.comparison},
        "arm": spec.arm,
        "dataset_size": spec.size,
        "trial": spec.trial_id,
        "hyperparameters": {k: v for k, v in spec.hyperparameters.items() if k not in strategy},
        "strategy": strategy,
        "phases": [{"name": p.name, "steps": p.steps} for p in outcome.phases],
        "training": {
            **{k: spec.hyperparameters.get(k, v) for k, v in training.items()},
            "steps": spec.steps,
            "epochs": round(spec.steps * config.training.global_batch_size / spec.size, 3),
            "best_step": outcome.best_step,
        },
        "seeds": {
            "trial": spec.seed,
            "subset": spec.subset_seed,
            "order": spec.order_seed,
            "confirm": [t.spec.seed for t in chosen.confirm],
        },
        "scores": _scores(results, chosen, trial),
        "winners": [_candidate(r) for r in cell.replicates if r.winner is not None],
        "model": config.model.model_dump(mode="json"),
        "task": config.task,
        "data": {
            **config.data.model_dump(mode="json"),
            "fingerprint": None if data is None else data.fingerprint,
            "label_names": [] if data is None else list(data.label_names),
        },
        "workers_per_trial": config.resources.workers_per_trial,
        "deepspeed": outcome.deepspeed_config,
        "versions": outcome.versions,
    }


def _scores(results: StudyResults, chosen: ReplicateSummary, trial: TrialRecord) -> dict[str, Any]:
    base = results.base
    return {
        "search_validation_loss": _rounded(score_of(trial)),
        "confirm_validation_loss": _rounded(chosen.confirm_score),
        "test_loss": _rounded(chosen.test_loss),
        "test_losses": [_rounded(value) for value in chosen.test_losses],
        "retention_rise": _rounded(chosen.retention_rise),
        "base_test_loss": None if base is None else _rounded(base.test_loss),
        "base_retention_loss": None if base is None else _rounded(base.retention_loss),
        "device_seconds": _rounded(device_seconds_of(trial), 1),
        "cold_device_seconds": _rounded(cold_device_seconds_of(trial), 1),
        "peak_memory_bytes": peak_memory_of(trial),
    }


def _candidate(replicate: ReplicateSummary) -> dict[str, Any]:
    winner = replicate.winner
    assert winner is not None  # only winners are listed
    return {
        "trial": winner.spec.trial_id,
        "replicate": replicate.replicate,
        "search_validation_loss": _rounded(replicate.search_score),
        "confirm_validation_loss": _rounded(replicate.confirm_score),
        "test_loss": _rounded(replicate.test_loss),
        "hyperparameters": dict(winner.spec.hyperparameters),
    }


def _rounded(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else round(value, digits)
