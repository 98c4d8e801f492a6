"""What must hold before there is a verdict: what the study file decides, and what the outcome does.

A gate that fails forbids a verdict and says what to do about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from study.analysis.cells.base import Gate, GateStatus, counted, mean
from study.analysis.cells.rate_range import NAME, rate_range
from study.analysis.cells.rates import wilson
from study.analysis.cells.tuning import tuning_gate
from study.analysis.rules import (
    FEWEST_PAIRS,
    FEWEST_REPLICATES,
    FEWEST_SIZES,
    MOST_AT_END,
    REACH,
    SMALLEST_SPAN,
    SPLIT_LIMIT,
    SURE,
    Pair,
    pairs_of,
)
from study.config.load import StudyConfig
from study.protocol.records import TrialRecord, TrialState, base_name
from study.strategies import arm_label

if TYPE_CHECKING:
    from study.analysis.curve.evidence import Evidence

_RUNS_FAILED = (
    "Runs that the study file has failed: the report says why. Mend that, then raise "
    "`search.replicates` or `confirm.seeds`."
)
_LAST = 0.1
"""Share of a run's steps in which its loss should not fall any more."""


def plan_gates(config: StudyConfig, size: int, pair: Pair | None = None) -> tuple[Gate, ...]:
    """Those that the study file decides, for an asked dataset size.

    Args:
        pair: what is compared; None: the study's first two arms.
    """
    sizes, replicates = config.dataset_sizes, config.search.replicates
    pairs = replicates * config.confirm.seeds
    return (
        _arms_gate(config, pair or pairs_of(config.arms.names)[0]),
        _sizes_gate(sizes),
        _asked_gate(sizes, size),
        _pairs_gate({n: (replicates, pairs) for n in bracket(sizes, size)}),
    )


def outcome_gates(evidence: Evidence, size: int) -> tuple[Gate, ...]:
    """All of them, for an asked dataset size, in the order in which they are told.

    What the study file decides is judged by what there is: a study in any state has some. What
    such a gate needs that the file has already, is no edit of it.
    """
    plan = {gate.name: gate for gate in plan_gates(evidence.config, size, evidence.pair)}
    waiting = any(cell.counts.planned > cell.counts.ended for cell in evidence.cells)
    mend = "Let the study go on: `study run` continues it." if waiting else _RUNS_FAILED
    return tuple(
        replace(gate, remedy=plan[gate.name].remedy or mend)
        if gate.name in plan and gate.status != "pass"
        else gate
        for gate in _found_gates(evidence, size)
    )


def _found_gates(evidence: Evidence, size: int) -> tuple[Gate, ...]:
    """By the runs on record."""
    sizes = sorted({point.size for point in evidence.points})
    near = bracket(sizes, size)
    replicates = Counter(point.size for point in evidence.points)
    pairs = Counter(point.size for point in evidence.points for _ in point.pairs)
    arms, tested, ends, fit, divergence = _gates_at_any_size(evidence)
    return (
        arms,
        tested,
        _asked_gate(sizes, size),
        _pairs_gate({n: (replicates[n], pairs[n]) for n in near}),
        _trials_gate(evidence, near),
        _search_gate(evidence, near),
        _learned_gate(evidence, size),
        ends,
        _falling_gate(evidence, near),
        fit,
        divergence,
        *_split_gate(evidence, size),
    )


@lru_cache(maxsize=1)
def _gates_at_any_size(evidence: Evidence) -> tuple[Gate, Gate, Gate, Gate, Gate]:
    """A grid of sizes asks for the same ones again and again."""
    return (
        _arms_gate(evidence.config, evidence.pair),
        _sizes_gate(sorted({point.size for point in evidence.points})),
        _ends_gate(evidence),
        _fit_gate(evidence),
        _divergence_gate(evidence),
    )


@lru_cache(maxsize=1)
def _search_gate(evidence: Evidence, near: tuple[int, ...]) -> Gate:
    """Many sizes of a grid lie between the same two."""
    return tuning_gate(evidence.config, evidence.tuning, near, evidence.arms)


def bracket(sizes: Sequence[int], size: int) -> tuple[int, ...]:
    """The tested sizes next to an asked one: itself, one on each side, or the outermost."""
    below = max((n for n in sizes if n <= size), default=None)
    above = min((n for n in sizes if n >= size), default=None)
    return tuple(sorted({n for n in (below, above) if n is not None}))


def _gate(
    name: str,
    status: GateStatus | bool,
    found: str,
    needed: str,
    remedy: str,
    from_plan: bool = False,
) -> Gate:
    if isinstance(status, bool):
        status = "pass" if status else "fail"
    return Gate(name, status, found, needed, "" if status == "pass" else remedy, from_plan)


def _arms_gate(config: StudyConfig, pair: Pair) -> Gate:
    names = [arm for arm in config.arms.names if arm in pair]
    return _gate(
        "Arms",
        len(names) == 2,
        " and ".join(map(arm_label, names)),
        f"both {' and '.join(pair.labels)}",
        f"Write `arms: [{', '.join(pair)}]` into the study file.",
        from_plan=True,
    )


def _sizes_gate(sizes: Sequence[int]) -> Gate:
    number = counted(len(sizes), "size")
    found, span = f"{number} with confirm runs of both arms", 1.0
    if sizes:
        span = max(sizes) / min(sizes)
        found = f"{number} from {min(sizes):,} to {max(sizes):,} ({span:.3g}x)"
    return _gate(
        "Dataset sizes",
        len(sizes) >= FEWEST_SIZES and span >= SMALLEST_SPAN,
        found,
        f"at least {FEWEST_SIZES} sizes spanning {SMALLEST_SPAN}x",
        "Add sizes to `dataset_sizes`.",
        from_plan=True,
    )


def _asked_gate(sizes: Sequence[int], size: int) -> Gate:
    name, needed = "Asked size", "inside the tested sizes"
    if not sizes:
        found = f"{size:,}; no size is tested"
        remedy = "Raise `search.replicates` or `confirm.seeds`."
        return _gate(name, False, found, needed, remedy, from_plan=True)
    low, high = min(sizes), max(sizes)
    inside, near = low <= size <= high, low / REACH <= size <= high * REACH
    where = "tested" if size in sizes else "between tested sizes" if inside else "extrapolated"
    status: GateStatus = "pass" if inside else "warn" if near else "fail"
    return _gate(
        name,
        status,
        f"{size:,}, {where}" if near else f"{size:,}, far outside of {low:,} to {high:,}",
        f"{needed}, {low:,} to {high:,}, or outside by at most {REACH:g}x",
        f"Add {size} to `dataset_sizes`.",
        from_plan=True,
    )


def _pairs_gate(counts: dict[int, tuple[int, int]]) -> Gate:
    told = [
        f"{counted(replicates, 'replicate')} and {counted(pairs, 'pair')} at {size:,}"
        for size, (replicates, pairs) in counts.items()
    ]
    enough = [r >= FEWEST_REPLICATES and p >= FEWEST_PAIRS for r, p in counts.values()]
    return _gate(
        "Confirm runs",
        bool(enough) and all(enough),
        "; ".join(told) or "none",
        f"at least {FEWEST_REPLICATES} replicates and {FEWEST_PAIRS} confirm pairs at the sizes "
        "next to the asked one",
        "Raise `search.replicates` or `confirm.seeds`.",
        from_plan=True,
    )


def _trials_gate(evidence: Evidence, sizes: Iterable[int]) -> Gate:
    counts = dict.fromkeys(evidence.pair, 0)
    waiting = 0
    for cell in evidence.cells:
        if cell.size in sizes:
            counts[cell.arm] += sum(r.search_planned for r in cell.replicates)
            waiting += cell.counts.planned - cell.counts.ended
    first, second = counts.values()
    left, right = evidence.pair.labels
    found = f"{first} search trials of {left}, {second} of {right}"
    if waiting:
        found += f"; {counted(waiting, 'trial')} not ended"
    return _gate(
        "Trial counts",
        first == second > 0 and not waiting,
        found,
        "as many search trials in both arms next to the asked size, all of them ended",
        "Let the study go on: `study run` continues it.",
        from_plan=True,
    )


def _learned_gate(evidence: Evidence, size: int) -> Gate:
    rho = evidence.config.decision.rho
    base = base_name(evidence.config.task, evidence.base)
    needed = (
        f"each arm beats the {base} on test by more than {rho:g} nats "
        f"with {_percent(SURE)} probability, at the asked size"
    )
    remedy = "Train longer (`training.epochs`), or search higher learning rates."
    told, learned = [], []
    for arm, curve in evidence.gains.items():
        if curve is None:
            told.append(f"{arm_label(arm)}: unknown")
            continue
        at = curve.at(size)
        learned.append(has_learned(evidence, arm, size))
        low, gain = float(at.low[0]), float(at.difference[0])
        told.append(f"{arm_label(arm)}: {gain:.3f} nats better, at least {low:.3f}")
    return _gate("Learning", len(learned) == 2 and all(learned), "; ".join(told), needed, remedy)


def has_learned(evidence: Evidence, arm: str, size: int) -> bool:
    """Whether an arm is known to beat the base model on test by more than rho."""
    curve = evidence.gains[arm]
    if curve is None:
        return False
    gained = curve.at(size).probability_above(evidence.config.decision.rho)
    return float(gained[0]) >= SURE


def _ends_gate(evidence: Evidence) -> Gate:
    told, at_end = [], []
    for arm in evidence.arms:
        found = winners_at_ends(evidence, arm)
        if found is None:
            told.append(f"{arm_label(arm)}: not searched")
            continue
        winners, low, high = found
        worst, end = max((low, "lowest"), (high, "highest"))
        told.append(f"{arm_label(arm)}: {worst} of {winners} winners in the {end} tenth")
        if worst > MOST_AT_END * winners:
            at_end.append(arm)
    status: GateStatus = ("pass", "fail", "warn")[len(at_end)]
    return _gate(
        "Learning rate range",
        status,
        "; ".join(told),
        "at most a third of an arm's winners in the tenth of the log range at one end",
        "Both arms would go further, so the verdict holds within the declared range only; widen "
        "`search.overrides.learning_rate` to know more."
        if len(at_end) == 2
        else "Widen `search.overrides.learning_rate`: this arm was not tuned as well as the other.",
    )


def winners_at_ends(evidence: Evidence, arm: str) -> tuple[int, int, int] | None:
    """(winners, those in the lowest and in the highest tenth of the range of learning rates on
    its log scale); None where it is not searched."""
    bounds = rate_range(evidence.config, arm)
    if bounds is None:
        return None
    rates = [
        float(r.winner.spec.hyperparameters[NAME])
        for cell in evidence.cells
        if cell.arm == arm
        for r in cell.replicates
        if r.winner is not None and NAME in r.winner.spec.hyperparameters
    ]
    return (len(rates), *bounds.at_ends(rates))


def _falling_gate(evidence: Evidence, sizes: Iterable[int]) -> Gate:
    rho = evidence.config.decision.rho
    told, worst, known = [], [], True
    for arm in evidence.arms:
        falls = {size: _mean_fall(evidence, arm, size) for size in sizes}
        found = [(fall, size) for size, fall in falls.items() if fall is not None]
        known = known and len(found) == len(falls) > 0
        if found:
            # At another size it may have ended: no mean hides the one where it has not.
            fall, size = max(found)
            worst.append(fall)
            told.append(f"{arm_label(arm)}: {fall:+.4f} nats at {size:,}")
        else:
            told.append(f"{arm_label(arm)}: unknown")
    status: GateStatus = (
        "fail" if any(fall > rho for fall in worst) else "pass" if known else "warn"
    )
    return _gate(
        "Training length",
        status,
        "; ".join(told),
        f"validation loss falls by at most {rho:g} nats over the last tenth of the confirm runs, "
        "at each of the sizes next to the asked one",
        "Train longer: raise `training.epochs` (or `steps`)."
        if known
        else "Set `training.evaluations` to 2 or more, so that it can be seen.",
    )


def _mean_fall(evidence: Evidence, arm: str, size: int) -> float | None:
    """Over an arm's confirm runs at a size, see `last_fall`."""
    return mean(
        [
            fall
            for cell in evidence.cells
            if cell.arm == arm and cell.size == size
            for replicate in cell.replicates
            for trial in replicate.confirm
            if (fall := last_fall(trial)) is not None
        ]
    )


def last_fall(trial: TrialRecord) -> float | None:
    """How much the validation loss fell over the last tenth of a run's steps, nats, by its last
    two evaluations; None with fewer, or for a run that diverged."""
    if len(trial.measurements) < 2 or trial.state is not TrialState.COMPLETE:
        return None
    before, last = trial.measurements[-2:]
    share = (last.step - before.step) / last.step
    return (before.validation_loss - last.validation_loss) * min(1.0, _LAST / share)


def _fit_gate(evidence: Evidence) -> Gate:
    rho, curve = evidence.config.decision.rho, evidence.curve
    needed = f"sizes' means lie within {rho / 2:g} nats of the curve, or within their scatter"
    lack = None if curve is None else curve.lack_of_fit()
    if lack is None:
        found = "no curve" if curve is None else "too few sizes to tell"
        status: GateStatus = "fail" if curve is None else "pass"
        return _gate("Curve", status, found, needed, "More replicates or sizes are needed.")
    distance, p = lack
    return _gate(
        "Curve",
        not (p < 1 - SURE and distance > rho / 2),
        f"farthest mean {distance:.4f} nats from it, p = {p:.2g}",
        needed,
        "The arms' difference has no simple shape over these sizes. Ask about a tested size in a "
        "study of sizes closer to it.",
    )


def _divergence_gate(evidence: Evidence) -> Gate:
    shares = {}
    for arm in evidence.arms:
        cells = [cell for cell in evidence.cells if cell.arm == arm]
        ended = sum(cell.counts.ended for cell in cells)
        shares[arm] = wilson(sum(cell.counts.diverged for cell in cells), ended), ended
    overlap = max(i.low or 0.0 for i, _ in shares.values()) <= min(
        1.0 if i.high is None else i.high for i, _ in shares.values()
    )
    told = [
        f"{arm_label(arm)}: {_percent(i.value)} of {ended} "
        f"({_percent(i.low or 0)} to {_percent(i.high or 0)})"
        for arm, (i, ended) in shares.items()
    ]
    return _gate(
        "Divergence",
        overlap,
        "; ".join(told),
        "the arms' shares of diverged trials do not differ beyond chance (95 % intervals overlap)",
        "Lower `search.overrides.learning_rate.high`: trials that diverge are lost to their arm.",
    )


def _split_gate(evidence: Evidence, size: int) -> tuple[Gate, ...]:
    rho, curve = evidence.config.decision.rho, evidence.curve
    if curve is None:
        return ()
    error = float(curve.test_error(size)[0])
    examples = curve.paired.test_examples
    if not examples:
        needed, remedy = "each test example's loss on record", "Run the study with this version."
        return (_gate("Test split", "warn", "error unknown", needed, remedy),)
    return (
        _gate(
            "Test split",
            "pass" if error <= SPLIT_LIMIT * rho else "warn",
            f"standard error {error:.4f} nats from {counted(examples, 'example')}",
            f"at most {SPLIT_LIMIT * rho:g} nats (a quarter of rho)",
            "A larger test split (`data.test_size`) in a new study would narrow the interval.",
        ),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
