"""All the checks of a study, in order."""

from __future__ import annotations

import tempfile
from pathlib import Path

from study.basics.database_url import sqlite_path
from study.config.load import StudyConfig
from study.orchestration.preflight import local
from study.orchestration.preflight.base import Checklist, CheckObserver, CheckResult, Finding
from study.orchestration.preflight.examination import Examination

_FALLBACK = "See the log that was named at the start."


def check_study(
    config: StudyConfig, observer: CheckObserver, *, probe: bool = False
) -> tuple[CheckResult, ...]:
    """Say whether a study can run. Every check that can run does, whatever the others found.

    Tokenised data stays, for the study to use, beside those that it runs on or has results of;
    nothing else that was written does.

    Args:
        probe: also take a real step of each arm's heaviest phase, on the study's own workers,
            and predict the study's hours.
    """
    checks = Checklist(observer, _FALLBACK)
    facts = Examination(config)
    with tempfile.TemporaryDirectory(prefix="study-check-") as scratch:
        check_here(checks, facts, Path(scratch))
        # Not at the top: it imports Ray, which takes seconds that a wrong file need not cost.
        from study.orchestration.preflight.cluster_check import check_cluster

        check_cluster(checks, facts, probe=probe)
    return checks.results


def check_here(checks: Checklist, facts: Examination, scratch: Path) -> None:
    """Whatever needs no Ray.

    Args:
        scratch: an empty folder, for tokenised data where the results folder cannot take it.
    """
    config = facts.config
    checks.run("storage", lambda: local.check_storage(config))
    database = sqlite_path(config.database_url)
    inside = database is not None and database.parent == config.results_dir
    checks.run("database", lambda: _keep_store(facts), needs=("storage",) if inside else ())
    if config.tracking:
        checks.run("tracking", lambda: local.check_tracking(config))
    if not checks.stands("storage"):
        config = config.model_copy(
            update={"storage": config.storage.model_copy(update={"results": str(scratch)})}
        )
    checks.run(
        "data",
        lambda: _keep_data(facts, config),
        remedy="Check the data section of the study file.",
        working="Preparing the data",
    )
    checks.run("model", lambda: _keep_shape(facts), remedy="Check model.path.")
    checks.run(
        "tokens",
        lambda: local.check_tokens(config, facts.shape, facts.data),
        needs=("data", "model"),
    )
    checks.run("plan", lambda: _keep_plan(facts, config), needs=("data", "model"))


def _keep_store(facts: Examination) -> Finding:
    finding, facts.store = local.check_database(facts.config)
    return finding


def _keep_data(facts: Examination, config: StudyConfig) -> Finding:
    finding, facts.data = local.check_data(config, facts.store)
    return finding


def _keep_shape(facts: Examination) -> Finding:
    finding, facts.shape = local.check_model(facts.config)
    return finding


def _keep_plan(facts: Examination, config: StudyConfig) -> Finding:
    from study.orchestration.preflight.footprint import possible_phases

    finding, facts.prepared = local.check_plan(config, facts.store)
    plan = facts.prepared.plan
    facts.phases = {arm: possible_phases(plan, facts.shape, arm) for arm in config.arms.names}
    return finding
