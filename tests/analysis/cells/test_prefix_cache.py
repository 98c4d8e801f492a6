"""The prefix cache over a study, against sums by hand."""

from __future__ import annotations

import pytest

from study.analysis import summarise_prefix_cache
from study.analysis.summary import summarise
from study.protocol.records import PrefixCacheUse, TrialRecord, TrialState
from tests.helpers.results import make_results, make_trial

FIRST = PrefixCacheUse("on", 30, 10, 4000, 4096, fill_seconds=2.0, seconds_saved=3.0)
SECOND = PrefixCacheUse("on", 60, 0, 0, 8192, 0.0, 6.5, cold_seconds=2.0)


def lift(index: int, use: PrefixCacheUse | None) -> TrialRecord:
    return make_trial("lift", index=index, score=4.0, prefix_cache=use)


def test_figures_are_summed_and_the_disk_is_the_fullest_seen() -> None:
    found = summarise_prefix_cache([lift(0, FIRST), lift(1, SECOND)])
    assert found is not None
    assert (found.trials, found.off) == (2, ())
    assert (found.hits, found.misses, found.bytes_written) == (90, 10, 4000)
    assert found.bytes_on_node == 8192
    assert found.hit_share == pytest.approx(0.9)
    assert (found.fill_device_seconds, found.saved_device_seconds) == (2.0, 9.5)


def test_reasons_for_doing_without_are_counted_most_frequent_first() -> None:
    reasons = ("off: no disk", "off: dropout", "off: dropout", "on")
    found = summarise_prefix_cache(
        [lift(k, PrefixCacheUse(reason)) for k, reason in enumerate(reasons)]
    )
    assert found is not None
    assert found.off == (("dropout", 2), ("no disk", 1))
    assert (found.trials, found.off_trials, found.hit_share) == (4, 3, None)


def test_full_has_no_prefix_to_keep_whatever_its_trials_say() -> None:
    full = make_trial("full", score=4.0, prefix_cache=PrefixCacheUse("off: nothing frozen"))
    assert summarise_prefix_cache([full]) is None
    assert summarise(make_results(arms=["full"])).prefix_cache is None


def test_trials_that_have_not_ended_say_nothing() -> None:
    waiting = make_trial("lift", state=TrialState.WAITING)
    running = make_trial("lift", score=4.0, state=TrialState.RUNNING)
    assert summarise_prefix_cache([waiting, running, lift(0, None)]) is None
