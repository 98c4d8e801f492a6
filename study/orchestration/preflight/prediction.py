"""The last two checks: a real step on real workers, and what the study will take."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from study.basics.text_format import byte_size, counted, duration
from study.orchestration.cluster.workers import Workers
from study.orchestration.preflight.base import Checklist, Finding, Status
from study.orchestration.preflight.examination import Examination
from study.orchestration.preflight.forecast import Cluster, Forecast, forecast
from study.orchestration.preflight.probe_job import Probed, run_probe_by_arm
from study.orchestration.preflight.spread import MEANING
from study.protocol.plan import with_probe

log = logging.getLogger(__name__)

_NEEDED = ("storage", "data", "model", "plan", "resources", "nodes", "paths", "deepspeed")
_OUT_OF_MEMORY = (
    "Raise zero.stage or resources.workers_per_trial, set model.gradient_checkpointing, or lower "
    "training.micro_batch_size_per_worker."
)


def check_probe(checks: Checklist, facts: Examination, *, wanted: bool) -> Probed | None:
    """One check per arm: what a real step of its heaviest phase takes."""
    if not wanted:
        checks.skip("probe", "a real step of each arm: study check --probe")
        return None
    arms = facts.config.arms.names
    able = [a for a in arms if checks.ready(f"probe {a}", (*_NEEDED, f"memory {a}"))]
    if not able:
        return None
    checks.working("Taking a real step of each arm, and timing more of them")
    by_need = sorted(able, key=lambda arm: facts.footprints[arm].total)
    phases = [(arm, facts.footprints[arm].phase) for arm in by_need]
    try:
        probed, failed = run_probe_by_arm(
            facts.config,
            facts.room.workers,
            phases,
            facts.prepared.data.fingerprint,
            costs=len(able) == len(arms),
        )
    except Exception as error:  # Ray's own, when the job could not be started or watched
        log.exception("probe")
        probed, failed = None, dict.fromkeys(able, f"{type(error).__name__}: {error}"[:300])
    for arm in able:
        checks.add(f"probe {arm}", _judge(facts, arm, probed, failed))
    return probed


def _judge(
    facts: Examination, arm: str, probed: Probed | None, failed: Mapping[str, str]
) -> Finding:
    why = failed.get(arm) or failed.get("steps")
    if why is not None:
        remedy = _OUT_OF_MEMORY if "memory" in why else "See the log that was named at the start."
        return Finding(f"a real step failed: {why}", Status.FAIL, remedy)
    assert probed is not None  # else every arm has failed
    footprint = facts.footprints[arm]
    return Finding(
        f"a real step peaks at {byte_size(probed.peak_bytes[arm])} a worker (estimated "
        f"{byte_size(footprint.total)}), in {footprint.phase.name}"
    )


def check_prediction(
    checks: Checklist,
    facts: Examination,
    probed: Probed | None,
    nodes: Sequence[Mapping[str, float]],
) -> None:
    """How long the study will take, from a probe or from trials on record.

    Args:
        nodes: total resources of each living node.
    """
    needs = ("plan", "resources")
    checks.run("prediction", lambda: _predict(facts, probed, nodes), needs=needs)


def _predict(
    facts: Examination, probed: Probed | None, nodes: Sequence[Mapping[str, float]]
) -> Finding:
    plan, workers = facts.prepared.plan, facts.room.workers
    if probed is not None and probed.costs is not None:
        plan = with_probe(plan, probed.costs)
    records = facts.store.results().trials if facts.store else ()
    trials = max(1, facts.room.trials)
    found = forecast(
        plan,
        facts.prepared.data,
        records,
        Cluster(
            trials_at_once=trials,
            devices_per_trial=workers.count * (workers.gpus or 1),
            workers_per_trial=workers.count,
            startup_seconds=probed.startup_seconds if probed else None,
            slowdown=_slowdown(workers, trials, nodes),
        ),
    )
    if found is None:
        return Finding("needs a probe or ended trials: study check --probe", Status.SKIP)
    if not found.trials:
        return Finding("every trial is on record; nothing is left to run")
    return Finding(_described(facts, found, trials))


def _slowdown(workers: Workers, trials: int, nodes: Sequence[Mapping[str, float]]) -> float:
    """How much longer steps take when all trials share the cores that the probe had alone."""
    cores = sum(node.get("CPU", 0) for node in nodes)
    if workers.gpus or not cores:
        return 1.0
    # Even half a CPU gets one thread.
    threads = workers.count * max(1, int(workers.cpus))
    return max(1.0, trials * threads / cores) / max(1.0, threads / cores)


def _described(facts: Examination, found: Forecast, trials: int) -> str:
    unit = "GPU-hours" if facts.room.workers.gpus else "device-hours"
    hours = {arm: f"{seconds / 3600:.2g}" for arm, seconds in found.device_seconds.items()}
    parts = ", ".join(f"{arm} {value}" for arm, value in hours.items())
    total = sum(found.device_seconds.values()) / 3600
    split = f" ({parts})" if len(hours) > 1 else ""
    early = facts.config.search.pruner != "none" or facts.config.training.patience is not None
    notes = "; at most, for trials may be stopped early" if early else ""
    if not found.startup_known:
        notes += "; start-up of workers not counted"
    count = f"{found.trials} of {counted(found.of, 'trial')}, {trials} at once"
    low, high = map(duration, found.range)
    return (
        f"about {duration(found.seconds)} ({MEANING}: {low} to {high}) for {count}; {total:.2g} "
        f"{unit}{split}{notes}"
    )
