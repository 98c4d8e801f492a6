"""An answer from past studies, without running anything; or why there is none.

An answer is the verdict of a study of the same model and the same task whose sizes reach the asked
one, by the decision rule of its report, with the configuration that won. Anything else is declined,
with the nearest evidence and the smallest study that would answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.analysis import NextRuns, Verdict
from study.analysis.rules import REACH
from study.analysis.summary import gather_evidence, verdict_of
from study.protocol.results import StudyResults
from study.reuse.best import BestConfiguration, best_configuration
from study.reuse.identity import Asked, AskedModel, AskedTask, Match, task_key, task_of
from study.reuse.past_studies import PastStudy, find_studies
from study.reuse.smallest import SmallestStudy, smallest_study


@dataclass(frozen=True)
class Judged:
    """A past study of the same model and task, read.

    Attributes:
        verdict: at the asked size; None in a study of one arm.
        finished_at: when its last trial ended, seconds since the epoch; 0 where none did.
    """

    study: PastStudy
    results: StudyResults
    verdict: Verdict | None
    finished_at: float

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.results.config.dataset_sizes)

    def reaches(self, size: int) -> bool:
        return self.sizes[0] / REACH <= size <= self.sizes[-1] * REACH

    def claims(self, size: int) -> bool:
        """Whether it answers at a size; memory that forces an arm does so at any that was tested
        or lies near."""
        return self.verdict is not None and self.verdict.is_claim and self.reaches(size)


@dataclass(frozen=True)
class NearStudy:
    """A past study that comes near.

    Attributes:
        differs: in what it is no answer, one sentence.
    """

    study: PastStudy
    differs: str


@dataclass(frozen=True)
class Recommendation:
    """What past studies say.

    Attributes:
        asked: the question.
        judged: the study that answers.
        best: the recommended arm's configuration at the asked size.
        others: further studies of the same model and task.
        notes: what else must be known, one sentence each.
    """

    asked: Asked
    judged: Judged
    verdict: Verdict
    best: BestConfiguration
    others: tuple[Judged, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Declined:
    """Past studies do not say.

    Attributes:
        reason: one sentence.
        nearest: the nearest evidence first.
        verdict: of the nearest study at the asked size, where it is of the same model and task.
        next_runs: the cheapest growths of that study that would answer.
        smallest: a new study that would; None where growing one is the way, or running it on.
        notes: what else must be known, one sentence each.
    """

    asked: Asked
    reason: str
    nearest: tuple[NearStudy, ...]
    verdict: Verdict | None = None
    next_runs: tuple[NextRuns, ...] = ()
    smallest: SmallestStudy | None = None
    notes: tuple[str, ...] = ()


def recommend(asked: Asked, places: Sequence[str] = ()) -> Recommendation | Declined:
    """Answer from the studies in some places.

    Args:
        places: see `study.reuse.past_studies.find_studies`.

    Raises:
        UserError: the question names a model, data, a task or a place that is not there.
    """
    model = AskedModel(asked.model)
    studies, trouble = find_studies(places)
    task = AskedTask(asked, studies)
    notes = tuple(f"Left out: {text}" for text in trouble)
    of_model = [(s, m) for s in studies if (m := model.match(s))]
    same = [(s, m, t) for s, m in of_model if (t := task.match(s))]
    if not same:
        return _no_such(asked, model, task, studies, [s for s, _ in of_model], notes)
    keys = {task_key(study) for study, _, _ in same}
    if len(keys) > 1:
        return _several_tasks(asked, [study for study, _, _ in same], notes)
    if not task.said:
        notes += (f"Taken to be the task of the studies of this model: {task_of(same[0][0])}.",)
    notes += _by_name_notes(same)
    size = asked.dataset_size
    judged = sorted((_judge(s, asked) for s, _, _ in same), key=lambda j: _order(j, size))
    *others, first = judged
    others.reverse()
    verdict = first.verdict
    if not first.claims(size) or verdict is None or verdict.arm is None:
        return _undecided(asked, first, tuple(others), notes)
    best = best_configuration(first.results, verdict.arm, size)
    return Recommendation(asked, first, verdict, best, tuple(others), notes)


def _judge(study: PastStudy, asked: Asked) -> Judged:
    results = study.results()
    verdict = verdict_of(gather_evidence(results), asked.dataset_size, asked.memory_limit_gib)
    ended = [trial.finished for trial in results.trials if trial.finished is not None]
    return Judged(study, results, verdict, max(ended, default=0.0))


def _order(judged: Judged, size: int) -> tuple[bool, bool, bool, bool, float, float]:
    """The best evidence has the highest: a claim, sizes around the asked one, a lean, the nearest
    sizes, the newest."""
    verdict = judged.verdict
    away = max(judged.sizes[0] / size, size / judged.sizes[-1], 1.0)
    return (
        judged.claims(size),
        judged.sizes[0] <= size <= judged.sizes[-1],
        verdict is not None,
        verdict is not None and verdict.answer == "lean",
        -away,
        judged.finished_at,
    )


def _undecided(
    asked: Asked, first: Judged, others: tuple[Judged, ...], notes: tuple[str, ...]
) -> Declined:
    """The same model and task, and no claim."""
    size, verdict = asked.dataset_size, first.verdict
    low, high = first.sizes[0], first.sizes[-1]
    span = f"{low:,} to {high:,}" if low != high else f"{low:,}"
    smallest = None
    if verdict is None:
        arm = first.results.config.arms.names[0]
        reason = f"study {first.study.name} ran {arm} alone, so there is no verdict."
        smallest = smallest_study(asked, first.results.config.model.path, first.study, True)
    elif not first.reaches(size):
        reason = (
            f"{size:,} examples are far outside of what was tested: study {first.study.name} has "
            f"sizes {span}, and answers up to {REACH:g} times beyond."
        )
    elif verdict.answer == "lean":
        reason = f"study {first.study.name} leans, and makes no claim at {size:,} examples."
    else:
        reason = f"study {first.study.name} has not enough evidence at {size:,} examples."
    nearest = [NearStudy(j.study, _standing(j, asked)) for j in (first, *others)]
    runs = () if verdict is None else verdict.next_runs
    return Declined(asked, reason, tuple(nearest), verdict, runs, smallest, notes)


def _standing(judged: Judged, asked: Asked) -> str:
    """What a study of the same model and task says at the asked size."""
    sizes = sizes_of(judged.study)
    if judged.verdict is None:
        return f"one arm; {sizes}"
    if not judged.reaches(asked.dataset_size):
        return f"far from {asked.dataset_size:,}; {sizes}"
    return f"{judged.verdict.answer.replace('_', ' ')}; {sizes}"


def _no_such(
    asked: Asked,
    model: AskedModel,
    task: AskedTask,
    studies: list[PastStudy],
    of_model: list[PastStudy],
    notes: tuple[str, ...],
) -> Declined:
    """No study of this model, or none of it with this task."""
    nearest = sorted(studies, key=lambda s: (not model.match(s), not task.match(s), s.name))
    told = [
        NearStudy(study, f"{_difference(model.match(study), task.match(study))}; {sizes_of(study)}")
        for study in nearest
    ]
    near = nearest[0] if nearest else None
    if near is None:
        reason = "there is no study here."
    elif not of_model:
        reason = f"no study here is about the model {asked.model}."
    else:
        reason = f"no study here is about the model {asked.model} and this task."
    path = model.name if not of_model else of_model[0].config.model.path
    same_task = near is not None and task.said and bool(task.match(near))
    smallest = smallest_study(asked, path, near, same_task)
    return Declined(asked, reason, tuple(told), smallest=smallest, notes=notes)


def sizes_of(study: PastStudy) -> str:
    """E.g. ``sizes 250, 500, 1,000``."""
    return f"sizes {', '.join(f'{size:,}' for size in study.config.dataset_sizes)}"


def _difference(model: Match, task: Match) -> str:
    return " and ".join(match.reason for match in (model, task) if not match) or "the same"


def _several_tasks(asked: Asked, studies: list[PastStudy], notes: tuple[str, ...]) -> Declined:
    told = tuple(NearStudy(study, f"{task_of(study)}; {sizes_of(study)}") for study in studies)
    reason = (
        "the studies of this model are about several tasks. Say which: --data with your training "
        f"files, or --task with a study's name, e.g. --task {studies[0].name}."
    )
    return Declined(asked, reason, told, notes=notes)


def _by_name_notes(same: Sequence[tuple[PastStudy, Match, Match]]) -> tuple[str, ...]:
    matches = [match for _, model, task in same for match in (model, task)]
    return tuple(dict.fromkeys(m.reason for m in matches if m.kind == "by name"))
