"""What runs cost, in time and memory, and what the prefix cache did."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis import StudySummary, counted
from study.analysis.cells.base import Interval
from study.analysis.verdict.records import Verdict
from study.basics.text_format import byte_size, duration
from study.report.base import (
    BY_CELL,
    MISSING,
    SIZE_COLUMN,
    Section,
    Table,
    count,
    numeric,
    or_dash,
    seconds,
    table_of,
)
from study.strategies import arm_label


def cost_table(summary: StudySummary) -> Table:
    """Steps, updates and device-seconds per arm and size."""
    caption = (
        "Per run: mean over complete trials that trained to their last step. Cold: what the run "
        "costs on its own, with an empty prefix cache at its start; the comparison basis is about "
        f"this. As run: what it cost inside the sweep, where {summary.pair.labels[1]} trials read "
        "what others had cached. Neither counts the writing of checkpoints. Updates per parameter: "
        "optimizer steps that the average weight got. All device-seconds: every trial of the arm "
        "at this size, pruned and failed ones too, checkpoints included."
    )
    return table_of(
        caption,
        summary.cells_by_size,
        *BY_CELL,
        numeric("Runs", lambda c: count(c.cost.run_count)),
        numeric("Steps per run", lambda c: count(c.cost.run_steps)),
        numeric("Updates per parameter", lambda c: count(c.cost.run_updates_per_parameter)),
        numeric("Tokens per run", lambda c: count(c.cost.run_tokens)),
        numeric("Device-seconds per run, cold", lambda c: seconds(c.cost.run_cold_device_seconds)),
        numeric("As run", lambda c: seconds(c.cost.run_device_seconds)),
        numeric("All device-seconds", lambda c: seconds(c.cost.device_seconds)),
    )


def memory_table(summary: StudySummary) -> Table:
    """Peak memory, and what training state takes of it, per arm and size."""
    caption = (
        "Largest on any device, over the phases of all complete trials. Peak memory: of the whole "
        "process on a CPU, of the device on a GPU. Training state: gradients, fp32 master weights "
        "and the optimizer's moments, counted in each phase's first two steps after every backward "
        "pass, and at its highest where a step holds further copies of gradients."
    )
    return table_of(
        caption,
        summary.cells_by_size,
        *BY_CELL,
        numeric("Peak memory", lambda c: or_dash(c.cost.peak_memory_bytes, byte_size)),
        numeric("Training state", lambda c: or_dash(c.cost.state_bytes, byte_size)),
        numeric("At its highest", lambda c: or_dash(c.cost.peak_state_bytes, byte_size)),
    )


def prefix_cache_section(summary: StudySummary) -> Section:
    """What keeping hidden states below the trained blocks did; empty without such trials."""
    cache = summary.prefix_cache
    if cache is None:
        return Section("prefix-cache", "Prefix cache")
    used, arms = cache.trials - cache.off_trials, " and ".join(map(arm_label, cache.arms))
    facts = [("Used by", f"{used:,} of {counted(cache.trials, f'{arms} trial')} that ended")]
    if used:
        share = MISSING if cache.hit_share is None else f"{cache.hit_share:.0%}"
        facts += [
            ("Read back", f"{share} of {cache.hits + cache.misses:,} hidden states"),
            ("On disk", f"{byte_size(cache.bytes_on_node)} on one node at most"),
            ("Written", f"{byte_size(cache.bytes_written)} by all trials"),
            ("Filling took", f"{duration(cache.fill_device_seconds)} of device time"),
            ("Reading saved", f"{duration(cache.saved_device_seconds)} of device time"),
        ]
    facts += [(f"Off in {counted(number, 'trial')}", reason) for reason, number in cache.off]
    return Section(
        "prefix-cache",
        "Prefix cache",
        paragraphs=(
            f"{arms}'s blocks below those in training still have the base model's weights, so what "
            "they give for an example never changes. It is computed once, kept on each node's "
            "disk, and read back in later epochs, phases and evaluations and by other "
            f"{arms} trials. "
            "Losses are the same with and without it, up to rounding.",
        ),
        facts=tuple(facts),
    )


def ratio_table(
    asked: Sequence[Verdict], grid: Sequence[Verdict], sizes: Sequence[int]
) -> Table | None:
    """The challenger over the reference with 95 % intervals at the asked and the tested sizes; None
    where none is known."""
    known = {v.dataset_size: v for v in grid if v.dataset_size in sizes}
    known |= {v.dataset_size: v for v in asked}
    told = [known[n] for n in sorted(known)]
    if not any(v.cost or v.memory for v in told):
        return None
    reference, challenger = told[0].pair.labels
    caption = (
        f"What one {challenger} run takes for each unit that a {reference} one takes, with 95 % "
        f"intervals. Below 1 {challenger} takes less."
    )
    return table_of(
        caption,
        told,
        (SIZE_COLUMN, lambda v: count(v.dataset_size)),
        numeric("Device seconds, cold", lambda v: _ratio(v.cost)),
        numeric("Device seconds, in the sweep", lambda v: _ratio(v.amortised_cost)),
        numeric("Wall time", lambda v: _ratio(v.wall_time)),
        numeric("Peak memory", lambda v: _ratio(v.memory)),
    )


def _ratio(found: Interval | None) -> str:
    if found is None:
        return MISSING
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
