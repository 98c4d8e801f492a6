"""The report as ``report.json``, for programs; README.md lists its keys."""

from __future__ import annotations

import dataclasses
from typing import Any

from study.analysis import CellSummary, Ranking, ReplicateSummary, StudySummary
from study.analysis.verdict.records import Verdict
from study.protocol.results import StudyResults, published_config
from study.report.base import Contents
from study.report.downloads import to_json
from study.report.verdict import Setting, headline, setting_of

SCHEMA = 1
"""Raised when a key goes or changes its meaning; new keys may come without."""


def render_json(results: StudyResults, summary: StudySummary, contents: Contents) -> str:
    """The whole document, indented; numbers that are not finite are null."""
    setting = setting_of(results, summary)
    data = {
        "schema": SCHEMA,
        "study": results.config.name,
        "task": results.config.task,
        "comparison": results.config.comparison,
        "finished": summary.finished,
        "model": {
            "path": results.config.model.path,
            "revision": results.config.model.revision,
            "parameters": results.model_parameters,
        },
        "found": list(contents.headline),
        "caveats": list(contents.caveats),
        "verdicts": [_verdict(v, setting) for v in summary.verdicts],
        "grid": [_verdict(v, setting) for v in summary.grid],
        "crossover": _crossover(summary),
        "rankings": [_ranking(ranking) for ranking in summary.rankings],
        "cells": [_cell(cell) for cell in summary.cells],
        "differences": [d.to_dict() for d in summary.differences],
        "base_model": None if results.base is None else _base(results),
        "data": None if results.data is None else results.data.to_dict(),
        "probe": None if results.probe is None else results.probe.to_dict(),
        "counts": dataclasses.asdict(summary.counts),
        "seed": results.config.seed,
        "seconds": results.seconds,
        "device_seconds": results.device_seconds,
        "versions": versions_of(results),
        "config": published_config(results.config),
    }
    return to_json(data, indent=1) + "\n"


def versions_of(results: StudyResults) -> dict[str, list[str]]:
    """Library versions of all trials, by library."""
    found: dict[str, set[str]] = {}
    for trial in results.trials:
        for name, version in (trial.outcome.versions if trial.outcome else {}).items():
            found.setdefault(name, set()).add(version)
    return {name: sorted(found[name]) for name in sorted(found)}


def _verdict(verdict: Verdict, setting: Setting) -> dict[str, Any]:
    change = verdict.perplexity_change
    return verdict.to_dict() | {
        "sentence": headline(verdict, setting),
        "is_claim": verdict.is_claim,
        "perplexity_change": None if change is None else dataclasses.asdict(change),
        "memory_gib": dict(verdict.memory_gib),
        "memory_least_gib": dict(verdict.memory_least_gib),
    }


def _crossover(summary: StudySummary) -> dict[str, Any] | None:
    if summary.curve is None:
        return None
    return summary.curve.crossover().to_dict(summary.pair)


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return dataclasses.asdict(dataclasses.replace(ranking, ranked=())) | {
        "ranked": [
            {
                "trial": one.trial.spec.trial_id,
                "loss": one.loss,
                "runs": one.runs,
                "metrics": one.metrics,
                "behind": one.behind,
                "told_apart": one.told_apart,
            }
            for one in ranking.ranked
        ]
    }


def _cell(cell: CellSummary) -> dict[str, Any]:
    shallow = {f.name: getattr(cell, f.name) for f in dataclasses.fields(cell)}
    return {
        name: dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
        for name, value in shallow.items()
    } | {"replicates": [_replicate(r) for r in cell.replicates]}


def _replicate(replicate: ReplicateSummary) -> dict[str, Any]:
    """Trials by name: `trials.json` has the rest of them."""
    winner = replicate.winner
    return {
        "replicate": replicate.replicate,
        "winner": None if winner is None else winner.spec.trial_id,
        "hyperparameters": None if winner is None else winner.spec.hyperparameters,
        "search_score": replicate.search_score,
        "confirm": [trial.spec.trial_id for trial in replicate.confirm],
        "confirm_failed": replicate.confirm_failed,
        "confirm_stale": replicate.confirm_stale,
        "validation_losses": replicate.validation_losses,
        "test_losses": replicate.test_losses,
        "retention_rises": replicate.retention_rises,
    }


def _base(results: StudyResults) -> dict[str, Any]:
    assert results.base is not None
    return {
        "validation_loss": results.base.validation_loss,
        "test_loss": results.base.test_loss,
        "retention_loss": results.base.retention_loss,
    }
