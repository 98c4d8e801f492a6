"""The best configuration of an arm, picked by rule and written out as YAML."""

from __future__ import annotations

from dataclasses import dataclass, replace

from study.analysis import StudySummary, decide
from study.analysis.rules import pair_with
from study.analysis.summary import gather_evidence, summarise
from study.protocol.results import StudyResults
from study.reuse.best_file import Best
from study.reuse.choose import Choice, choose
from study.reuse.content import best_file
from study.reuse.scores import unlearned


@dataclass(frozen=True, kw_only=True)
class BestConfiguration(Choice):
    """A choice as `study best` prints it.

    Attributes:
        warnings: those of `notes` that speak against using it.
        file: what `study best` writes.
    """

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
    file = best_file(results, evidence, verdict, choice)
    return BestConfiguration(**vars(choice), warnings=warnings, file=file)


def _state_notes(summary: StudySummary) -> list[str]:
    if summary.finished:
        return []
    counts = summary.counts
    return [f"The study is unfinished: {counts.ended} of {counts.planned} trials ended."]
