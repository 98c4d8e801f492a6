"""What the prefix cache did over a whole study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from study.analysis.cells.cost_records import PrefixCacheSummary
from study.protocol.records import TrialRecord

_OFF = "off: "


def summarise_prefix_cache(trials: Iterable[TrialRecord]) -> PrefixCacheSummary | None:
    """Over the LIFT trials that have ended; None while there is none."""
    uses = [
        t.outcome.prefix_cache
        for t in trials
        if t.spec.arm == "lift" and t.outcome is not None and t.outcome.prefix_cache is not None
    ]
    if not uses:
        return None
    reasons = Counter(u.status.removeprefix(_OFF) for u in uses if u.status.startswith(_OFF))
    return PrefixCacheSummary(
        trials=len(uses),
        off=tuple(sorted(reasons.items(), key=lambda found: (-found[1], found[0]))),
        hits=sum(u.hits for u in uses),
        misses=sum(u.misses for u in uses),
        bytes_written=sum(u.bytes_written for u in uses),
        bytes_on_node=max(u.bytes_on_node for u in uses),
        fill_device_seconds=sum(u.fill_seconds for u in uses),
        saved_device_seconds=sum(u.seconds_saved for u in uses),
    )
