"""What the prefix cache did over a whole study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from study.analysis.cells.cost_records import PrefixCacheSummary
from study.protocol.records import TrialRecord
from study.strategies import trains_all

_OFF = "off: "


def summarise_prefix_cache(trials: Iterable[TrialRecord]) -> PrefixCacheSummary | None:
    """Over the trials that have ended, of arms with blocks that do not train; None while there is
    none."""
    found = [
        (t.spec.arm, t.outcome.prefix_cache)
        for t in trials
        if not trains_all(t.spec.arm) and t.outcome is not None and t.outcome.prefix_cache
    ]
    if not found:
        return None
    uses = [use for _, use in found]
    reasons = Counter(u.status.removeprefix(_OFF) for u in uses if u.status.startswith(_OFF))
    return PrefixCacheSummary(
        arms=tuple(dict.fromkeys(arm for arm, _ in found)),
        trials=len(uses),
        off=tuple(sorted(reasons.items(), key=lambda found: (-found[1], found[0]))),
        hits=sum(u.hits for u in uses),
        misses=sum(u.misses for u in uses),
        bytes_written=sum(u.bytes_written for u in uses),
        bytes_on_node=max(u.bytes_on_node for u in uses),
        fill_device_seconds=sum(u.fill_seconds for u in uses),
        saved_device_seconds=sum(u.seconds_saved for u in uses),
    )
