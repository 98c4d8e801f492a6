"""What the analysis hands to reports about cost: frozen records, part of those in `base`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CellCost:
    """What one arm at one size cost.

    Attributes:
        device_seconds: of every trial, pruned and failed ones too, with what checkpoints took; the
            others below are without.
        run_cold_device_seconds: mean of the COMPLETE trials that trained to their last step (one
            per run, not per replicate), each as if it had found an empty prefix cache: what the
            comparison basis is about. None without any.
        run_device_seconds: the same as really spent, with whatever other trials had cached.
        run_count: how many such trials.
        run_steps: their optimizer steps (the mean, should they differ).
        run_updates_per_parameter: steps that the average scalar of the model got in them; None
            where it is not known.
        run_tokens: their mean training tokens, padding excluded.
        peak_memory_bytes: largest over the COMPLETE trials; None without any.
        state_bytes: gradients, master weights and optimizer moments held after a backward pass,
            largest over ranks, phases and COMPLETE trials; None where it is not on record.
        peak_state_bytes: the same at its highest, inside a step.
    """

    device_seconds: float
    run_cold_device_seconds: float | None
    run_device_seconds: float | None
    run_count: int
    run_steps: float | None
    run_updates_per_parameter: float | None
    run_tokens: float | None
    peak_memory_bytes: int | None
    state_bytes: int | None
    peak_state_bytes: int | None


@dataclass(frozen=True)
class PrefixCacheSummary:
    """What kept hidden states did for a study's trials that leave blocks untrained.

    Attributes:
        arms: theirs, as in the study file.
        trials: those that have ended and say what they did with the cache.
        off: (why, how many) of those that ran without it, most frequent first.
        hits, misses: examples, counted each time they were needed, whose hidden states were read,
            or computed.
        bytes_written: by all of them.
        bytes_on_node: disk that hidden states took on one node, the most any trial saw.
        fill_device_seconds: spent computing and keeping hidden states.
        saved_device_seconds: what the hits would have cost to compute, less reading them.
    """

    arms: tuple[str, ...]
    trials: int
    off: tuple[tuple[str, int], ...]
    hits: int
    misses: int
    bytes_written: int
    bytes_on_node: int
    fill_device_seconds: float
    saved_device_seconds: float

    @property
    def off_trials(self) -> int:
        return sum(number for _, number in self.off)

    @property
    def hit_share(self) -> float | None:
        """0 to 1; None when nothing was ever looked up."""
        wanted = self.hits + self.misses
        return self.hits / wanted if wanted else None
