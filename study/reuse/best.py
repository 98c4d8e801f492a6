"""The best configuration of an arm, picked by rule and written out as YAML."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from study.analysis import ReplicateSummary, StudySummary, decide
from study.analysis.rules import pair_with
from study.analysis.summary import gather_evidence, summarise
from study.protocol.records import TrialRecord
from study.protocol.results import StudyResults
from study.reuse.best_file import Best
from study.reuse.choose import choose
from study.reuse.content import best_file
from study.reuse.scores import unlearned


@dataclass(frozen=True)
class BestConfiguration:
    """What `study best` prints.

    Attributes:
        arm, dataset_size: what it is for.
        chosen: the replicate whose winner it is.
        trial: the search trial with the configuration; where it lies between two trials', the one
            that gives what is not interpolated.
        hyperparameters: of a run.
        interpolated: names of those that are no trial's; empty for a tested configuration.
        rule: how it was picked, one sentence.
        notes: what else must be known, one sentence each.
        warnings: those that speak against using it.
        file: what `study best` writes.
    """

    arm: str
    dataset_size: int
    chosen: ReplicateSummary
    trial: TrialRecord
    hyperparameters: dict[str, Any]
    interpolated: tuple[str, ...]
    rule: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    file: Best


def best_configuration(
    results: StudyResults, arm: str, dataset_size: int | None = None
) -> BestConfiguration:
    """Among a size's replicate winners, the one with the lowest mean confirm validation loss.

    Without confirm runs the lowest search validation loss decides; while no search has ended, the
    best trial so far. Both are said in `rule`. Between two tested sizes a configuration is
    interpolated where the winners allow it (see `study.reuse.interpolate`); else, and outside of
    the tested sizes, it is that of the nearest one with results, and `notes` say why.

    Args:
        arm: one of the study's.
        dataset_size: null: the size the study asks about (`decision.dataset_size`), or the
            largest one with results.

    Raises:
        UserError: an arm that is not in the study, or no complete trial of it; or none at a size
            that the study tests.
    """
    pair = pair_with(results.config.arms.names, arm)
    summary = summarise(results, with_grid=False, pair=pair)
    evidence = gather_evidence(results, pair)
    choice = choose(results, summary, arm, dataset_size)
    warnings = unlearned(summary, choice)
    choice = replace(choice, notes=(*choice.notes, *_state_notes(summary), *warnings))
    compares = results.config.compares
    verdict = decide(evidence, choice.dataset_size, with_next_runs=False) if compares else None
    return BestConfiguration(
        arm=arm,
        dataset_size=choice.dataset_size,
        chosen=choice.replicate,
        trial=choice.trial,
        hyperparameters=dict(choice.hyperparameters),
        interpolated=choice.interpolated,
        rule=choice.rule,
        notes=choice.notes,
        warnings=warnings,
        file=best_file(results, evidence, verdict, choice),
    )


def _state_notes(summary: StudySummary) -> list[str]:
    if summary.finished:
        return []
    counts = summary.counts
    return [f"The study is unfinished: {counts.ended} of {counts.planned} trials ended."]
