"""What Prometheus reads of a study, from the metrics port of a real Ray node."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator

import pytest

from study.orchestration.observer import QuietObserver
from study.protocol.plan import ModelFacts, StudyPlan, plan_trials
from study.protocol.records import (
    Measurement,
    PrefixCacheUse,
    TrialOutcome,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from tests.helpers.data import study_config

pytestmark = pytest.mark.ray

Found = dict[tuple[str, ...], float]
"""Values by name, arm, size and, for trials, state."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a node that takes metrics from its processes every half second."""
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 500},
    )
    (node,) = ray.nodes()
    yield node["MetricsExportPort"]
    ray.shutdown()


def scrape(port: int) -> Found:
    """The study's lines of the endpoint, in Prometheus' text format."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found: Found = {}
    for line in lines:
        if match := re.fullmatch(r"ray_(study_\w+)\{(.*)\} (\S+)", line):
            name, labels, value = match.groups()
            tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            assert tags["study"] == "tiny", line
            key = (name, tags["arm"], tags["size"], *([tags["state"]] if "state" in tags else []))
            found[key] = float(value)
    return found


def wait_for(port: int, wanted: Found) -> None:
    deadline, found = time.monotonic() + 30, {}
    while time.monotonic() < deadline:
        found = scrape(port)
        if all(found.get(key) == pytest.approx(value) for key, value in wanted.items()):
            return
        time.sleep(0.5)
    pytest.fail(f"{wanted}\nis not in\n{found}")


def make_plan() -> StudyPlan:
    config = study_config(
        {"train": "unused.jsonl", "text": "text"},
        dataset_sizes=[8, 16],
        search={"trials": 2, "replicates": 3},
        confirm={"seeds": 1},
    )
    return plan_trials(config, ModelFacts(4, None, False, False))


def measurement(spec: TrialSpec, device_seconds: float) -> Measurement:
    return Measurement(
        step=1, tokens=1, epoch=0.1, phase=0, train_loss=1.0, validation_loss=1.5,
        learning_rate=1e-3, grad_norm=1.0, clipped_share=0.0, tokens_per_second=1.0,
        seconds=device_seconds, device_seconds=device_seconds, peak_memory_bytes=1,
    )  # fmt: skip


def test_states_losses_hours_and_cache_hits_can_be_scraped_and_go_on_in_a_second_session(
    port: int,
) -> None:
    from study.orchestration.trackers.metrics import MeteredObserver

    plan = make_plan()
    lift = [s for s in plan.search if (s.arm, s.size) == ("lift", 16)]
    use = PrefixCacheUse("on", hits=30, misses=10, bytes_written=4096)
    before = TrialRecord(
        lift[0],
        TrialState.COMPLETE,
        outcome=TrialOutcome("finished", score=2.0, device_seconds=3600.0, prefix_cache=use),
    )
    observer = MeteredObserver(QuietObserver(), plan, [before])
    wait_for(port, {
        # 3 replicates of 2 search trials and 1 confirm trial
        ("study_trials", "lift", "16", "WAITING"): 8,
        ("study_trials", "lift", "16", "COMPLETE"): 1,
        ("study_trials", "full", "8", "WAITING"): 9,
        ("study_best_validation_loss", "lift", "16"): 2.0,
        ("study_device_hours_total", "lift", "16"): 1.0,
        ("study_cache_hits_total", "lift", "16"): 30,
    })  # fmt: skip

    observer.started(lift[1])
    observer.measured(lift[1], measurement(lift[1], 1800.0))
    wait_for(port, {
        ("study_trials", "lift", "16", "RUNNING"): 1,
        ("study_trials", "lift", "16", "WAITING"): 7,
        ("study_device_hours_total", "lift", "16"): 1.5,
        ("study_best_validation_loss", "lift", "16"): 2.0,
    })  # fmt: skip

    # It was lost, went on elsewhere, and told its first evaluation again.
    observer.measured(lift[1], measurement(lift[1], 1700.0))
    observer.finished(
        lift[1],
        TrialState.COMPLETE,
        TrialOutcome("finished", score=1.25, device_seconds=5400.0, prefix_cache=use),
    )
    observer.started(lift[2])
    observer.finished(lift[2], TrialState.FAIL, TrialOutcome("error", "worker died"))
    wait_for(port, {
        ("study_trials", "lift", "16", "RUNNING"): 0,
        ("study_trials", "lift", "16", "COMPLETE"): 2,
        ("study_trials", "lift", "16", "FAIL"): 1,
        ("study_trials", "lift", "16", "WAITING"): 6,
        ("study_trials", "full", "16", "WAITING"): 9,
        ("study_best_validation_loss", "lift", "16"): 1.25,
        ("study_device_hours_total", "lift", "16"): 2.5,
        ("study_cache_hits_total", "lift", "16"): 60,
        ("study_cache_misses_total", "lift", "16"): 20,
        ("study_cache_written_bytes_total", "lift", "16"): 8192,
    })  # fmt: skip
    assert ("study_best_validation_loss", "full", "8") not in scrape(port)
    observer.close()
