"""This program on the sweep's study file, with a Ray Train job per trial or warm groups."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

from study import run_study
from study.config.load import load_config
from study.orchestration.observer import QuietObserver
from study.protocol.records import TrialRecord, TrialSpec, TrialState
from tests.benchmarks.sweep_scripts.work import Report, Work


class Clock(QuietObserver):
    """Notes when the study hands out its first trial."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def started(self, spec: TrialSpec) -> None:
        self._report.starts()


def between_evaluations(record: TrialRecord) -> list[float]:
    """Seconds from each evaluation to the next one beyond the steps between them: an evaluation,
    and what booking the one before took."""
    return [
        now.seconds - before.seconds - (now.tokens - before.tokens) / now.tokens_per_second
        for before, now in pairwise(record.measurements)
    ]


def training_seconds(records: tuple[TrialRecord, ...]) -> list[float]:
    """Per trial, steps and evaluations. Records have no seconds of evaluations, so the shortest
    time that any of them can have taken stands for all: this program's overhead can only come
    out too large."""
    evaluation = min((s for r in records for s in between_evaluations(r)), default=0.0)
    return [
        r.outcome.train_seconds + evaluation * len(r.measurements) for r in records if r.outcome
    ]


def main() -> None:
    folder, reuse_workers = Path(sys.argv[1]), sys.argv[2] == "warm"
    work, report = Work.read(folder), Report()
    work.write_study(len(work.hyperparameters), reuse_workers=reuse_workers)
    results = run_study(load_config(work.study_file), Clock(report))
    for record in results.trials:
        if record.state is not TrialState.COMPLETE:
            raise SystemExit(f"{record.spec.trial_id}: {record.state} {record.outcome}")
        planned = work.hyperparameters[record.spec.index]
        if record.spec.hyperparameters != planned:
            raise SystemExit(f"{record.spec.trial_id} is not the sweep's trial: {planned}")
    report.training_seconds = training_seconds(results.trials)
    report.losses = [r.score for r in results.trials if r.score is not None]
    report.note = "base model measured, checkpoints within 3 % of each trial's time"
    report.write(folder)


if __name__ == "__main__":
    main()
