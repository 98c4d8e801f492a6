"""`study status`: how far a study is."""

from __future__ import annotations

from collections import Counter

from study.analysis import PrefixCacheSummary, counted, summarise_prefix_cache
from study.analysis.summary import summarise
from study.basics.text_format import byte_size, duration
from study.basics.urls import without_password
from study.cli.output import Console, number_table, print_facts
from study.cli.verdicts import print_sweep
from study.protocol.records import TrialRecord, TrialState
from study.protocol.results import StudyResults
from study.reuse.warm_start import warm_start_effect


def print_status(results: StudyResults) -> None:
    """States, the best of each cell, and what runs now."""
    console = Console()
    counts = Counter(r.state for r in results.trials)
    states = ", ".join(f"{counts[s]} {s.value.lower()}" for s in TrialState if counts[s])
    facts = {
        "Study": results.config.name,
        "Trials": states or "none yet: the data and model are still being prepared",
        "Ran for": duration(results.seconds),
    }
    if (budget := _budget(results)) is not None:
        facts["Budget"] = budget
    cache = summarise_prefix_cache(results.trials)
    if cache is not None:
        facts["Prefix cache"] = _cache_status(cache)
    facts["Results"] = results.place or without_password(results.config.database_url)
    print_facts(console, facts)
    table = number_table("arm", "examples", "ended", "best val", "confirm test", "failed")
    for arm in results.config.arms.names:
        for examples in results.config.dataset_sizes:
            cell = [r for r in results.trials if r.spec.arm == arm and r.spec.size == examples]
            table.add_row(arm, str(examples), *_cell_status(cell))
    console.print(table)
    for sentence in warm_start_effect(results):
        console.print(sentence)
    if not results.config.compares:
        print_sweep(console, summarise(results))
    for record in results.trials:
        if record.state in (TrialState.RUNNING, TrialState.PAUSED):
            done = record.measurements[-1].step if record.measurements else 0
            state = record.state.value.lower()
            console.print(f"{state} {record.spec.trial_id}: step {done}/{record.spec.steps}")
    if any(record.state is TrialState.PAUSED for record in results.trials):
        console.print("What is paused goes on when the study is run or submitted again.")


def _budget(results: StudyResults) -> str | None:
    """E.g. ``1.87 of 2 device hours, 0.95 of 12 wall hours``; None without a limit."""
    limits = results.config.budget
    used = (
        (results.device_seconds, limits.device_hours, "device"),
        (results.seconds, limits.wall_hours, "wall"),
    )
    told = [
        f"{seconds / 3600:.3g} of {limit:g} {kind} hours"
        for seconds, limit, kind in used
        if limit is not None
    ]
    return ", ".join(told) or None


def _cache_status(cache: PrefixCacheSummary) -> str:
    off = ""
    if cache.off:
        (reason, _), others = cache.off[0], len(cache.off) - 1
        more = f", and {counted(others, 'other reason')}" if others else ""
        off = f"off in {counted(cache.off_trials, 'trial')} ({reason}{more})"
    if cache.off_trials == cache.trials:
        return off
    share = "nothing" if cache.hit_share is None else f"{cache.hit_share:.0%}"
    told = (
        f"{byte_size(cache.bytes_on_node)} on disk, {share} of what was needed found there, "
        f"{duration(cache.saved_device_seconds)} of device time saved, "
        f"{duration(cache.fill_device_seconds)} spent filling"
    )
    return f"{told}; {off}" if off else told


def _cell_status(cell: list[TrialRecord]) -> tuple[str, str, str, str]:
    ended = [r for r in cell if r.state.has_ended]
    scores = [r.score for r in cell if r.state is TrialState.COMPLETE and r.score is not None]
    tests = [r.outcome.test_loss for r in cell if r.outcome and r.outcome.test_loss is not None]
    failed = sum(r.state is TrialState.FAIL for r in cell)
    return (
        f"{len(ended)}/{len(cell)}",
        f"{min(scores):.4f}" if scores else "-",
        f"{sum(tests) / len(tests):.4f}" if tests else "-",
        str(failed) if failed else "-",
    )
