"""The verdict card: everything that is said about one dataset size, independent of its format."""

from __future__ import annotations

from study.analysis.cells.base import Interval
from study.analysis.verdict.records import NextRuns, Retention, Verdict
from study.basics.text_format import capital, duration, percent
from study.protocol.words import BASES
from study.report.base import (
    MISSING,
    Column,
    Table,
    Tile,
    VerdictCard,
    count,
    numeric,
    or_dash,
    table_of,
)
from study.report.phrases import directed, likelihood, ratio_span, span, with_ratio_span
from study.report.verdict import Setting, forgets_more, headline, label, notes
from study.report.what_changes import what_changes
from study.strategies import arm_label

_RATIO = ".2f"


def verdict_card(verdict: Verdict, setting: Setting) -> VerdictCard:
    """The verdict, laid out in words."""
    return VerdictCard(
        dataset_size=verdict.dataset_size,
        arm=(verdict.arm or "") if verdict.is_claim else "",
        label=label(verdict),
        sentence=headline(verdict, setting),
        notes=notes(verdict),
        numbers=_numbers(verdict, setting),
        facts=tuple((name, text) for name, text in _facts(verdict, setting) if text),
        reasons=tuple(
            (gate.name, f"{gate.found}. Needed: {gate.needed}. {gate.remedy}".strip())
            for gate in verdict.failed_gates
        ),
        changes=what_changes(verdict, setting),
        next_runs=next_runs_table(verdict.next_runs) if verdict.next_runs else None,
    )


def next_runs_table(runs: tuple[NextRuns, ...]) -> Table:
    """What to run next: the edit, its cost and what it is expected to do."""
    caption = (
        "The cheapest runs that would say more. Cost: device time of both arms. Interval: of the "
        "difference at this size, in nats. Chance: of a verdict, if the difference is what it "
        "seems now."
    )
    return table_of(
        caption,
        runs,
        (Column("Change in the study file", wide=True), lambda run: run.change),
        (Column("What it adds", wide=True), lambda run: run.reason),
        numeric("Trials", lambda run: count(run.trials)),
        numeric("Expected cost", lambda run: or_dash(run.device_seconds, duration)),
        numeric("95 % interval now", lambda run: or_dash(run.half_width, _half_width)),
        numeric("Expected then", lambda run: or_dash(run.expected_half_width, _half_width)),
        numeric("Chance of a verdict", lambda run: or_dash(run.power, percent)),
    )


def _half_width(value: float) -> str:
    return f"± {value:.3f}"


def _numbers(verdict: Verdict, setting: Setting) -> tuple[Tile, ...]:
    """The four that are looked for first; each stands even where nothing is known."""
    if verdict.answer == "memory" and verdict.confidence is None:
        known = len(verdict.memory_gib) == 2 or bool(verdict.memory_ran_out)
        how = "measured" if known else "by formula"
        sure = Tile("Confidence", how, "what a run needs, against your memory limit")
    elif verdict.confidence is None:
        sure = Tile("Confidence", "none", "no claim is made")
    else:
        sure = Tile("Confidence", percent(verdict.confidence), likelihood(verdict.confidence))
    pair = verdict.pair
    return (
        sure,
        _tile(f"{capital(pair.difference)}, test loss", verdict.difference, "+.3f", "nats"),
        _tile(f"{pair.ratio}, device seconds", verdict.cost, _RATIO, "cold run"),
        _tile(f"{pair.ratio}, peak memory", verdict.memory, _RATIO, "per device"),
    )


def _tile(name: str, interval: Interval | None, form: str, unit: str) -> Tile:
    if interval is None:
        return Tile(name, MISSING, "not measured")
    found = ratio_span(interval, form) if form == _RATIO else span(interval, form)
    return Tile(name, f"{interval.value:{form}}", f"{unit}, {found}" if found else unit)


def _facts(verdict: Verdict, setting: Setting) -> list[tuple[str, str]]:
    return [
        ("Dataset size", _size(verdict, setting)),
        ("Comparison", _basis(verdict)),
        ("Confidence", _confidence(verdict)),
        ("Test loss", _difference(verdict)),
        *_second_measure(verdict, setting),
        ("One more pair of runs", _one_run(verdict)),
        ("Cost", _cost(verdict)),
        ("Memory", _memory(verdict)),
        ("Forgetting", _forgetting(verdict)),
        ("Model and task", _model_and_task(setting)),
    ]


def _size(verdict: Verdict, setting: Setting) -> str:
    where = "outside of" if verdict.extrapolated else "inside"
    return (
        f"{verdict.dataset_size:,} training examples, {where} the tested "
        f"{setting.sizes[0]:,} to {setting.sizes[-1]:,}"
    )


def _basis(verdict: Verdict) -> str:
    return f"{BASES[verdict.basis].phrase}; {verdict.rho:g} nats is the difference that matters"


def _confidence(verdict: Verdict) -> str:
    if not verdict.chances:
        return ""
    reference, challenger = verdict.pair.labels
    theirs, ours = (verdict.chances[arm] for arm in verdict.pair)
    return (
        f"{challenger}'s test loss is lower: {_p(ours.better)}, by more than {verdict.rho:g} nats: "
        f"{_p(ours.better_by_rho)}. {capital(reference)}'s is lower: {_p(theirs.better)}, by more "
        f"than {verdict.rho:g}: {_p(theirs.better_by_rho)}"
    )


def _p(probability: float) -> str:
    return "less than 1 %" if probability < 0.01 else percent(probability)


def _difference(verdict: Verdict) -> str:
    if verdict.difference is None:
        return ""
    return directed(verdict.difference, *_with(verdict, "nats lower"), ".3f", "")


def _with(verdict: Verdict, what: str) -> tuple[str, str]:
    """How what favours the challenger is said, and what favours the reference."""
    reference, challenger = verdict.pair.labels
    return f"{what} with {challenger}", f"{what} with {reference}"


def _second_measure(verdict: Verdict, setting: Setting) -> list[tuple[str, str]]:
    """Perplexity for a language model, accuracy for a classifier."""
    if setting.is_classification:
        if verdict.accuracy is None:
            return []
        points = verdict.accuracy.mapped(_in_percent)
        text = directed(points, *_with(verdict, "points higher"), ".1f", "")
        return [("Accuracy", text)]
    change = verdict.perplexity_change
    if change is None:
        return []
    challenger = verdict.pair.labels[1]
    words = (f"lower with {challenger}", f"higher with {challenger}")
    return [("Perplexity", directed(change.mapped(_in_percent), *words, ".1f", " %"))]


def _in_percent(share: float) -> float:
    return share * 100.0


def _one_run(verdict: Verdict) -> str:
    run = verdict.one_run
    if run is None or run.low is None or run.high is None:
        return ""
    return (
        f"would show {verdict.pair.difference} between {run.low:+.3f} and {run.high:+.3f} nats, "
        "each arm tuned once"
    )


def _cost(verdict: Verdict) -> str:
    reference, challenger = verdict.pair.labels
    parts = []
    for found, what in (
        (verdict.cost, f"device seconds of a {reference} one, each with an empty prefix cache"),
        (verdict.amortised_cost, "device seconds as spent inside the sweep"),
        (verdict.wall_time, "wall time"),
    ):
        if found is not None:
            parts.append(with_ratio_span(f"{found.value:.2f} times the {what}", found, _RATIO))
    return f"a {challenger} run takes {'; '.join(parts)}" if parts else ""


def _memory(verdict: Verdict) -> str:
    parts = []
    if verdict.memory is not None:
        reference, challenger = verdict.pair.labels
        text = f"{challenger} peaks at {verdict.memory.value:.2f} times {reference}'s memory"
        parts.append(with_ratio_span(text, verdict.memory, _RATIO))
    parts += [f"{arm_label(arm)} {peak:.2f} GiB per device" for arm, peak in verdict.memory_gib]
    if verdict.memory_limit_gib is not None:
        parts.append(f"your limit {verdict.memory_limit_gib:g} GiB")
    return "; ".join(parts)


def _forgetting(verdict: Verdict) -> str:
    found = verdict.retention
    if found is None:
        return ""
    text = directed(found.difference, *_with(verdict, "nats less forgotten"), ".3f", "")
    return f"{text}. {_matched(verdict, found)}{_trade_off(verdict, found)}"


def _matched(verdict: Verdict, found: Retention) -> str:
    if found.matched is None:
        return "The arms' task losses do not overlap, so there is no comparison at equal task loss"
    matched = directed(found.matched, *_with(verdict, "less"), ".3f", " nats")
    return f"At equal task loss: {matched}"


def _trade_off(verdict: Verdict, found: Retention) -> str:
    p = forgets_more(verdict)
    if p is None or verdict.arm is None:
        return ""
    arm, other = arm_label(verdict.arm), arm_label(verdict.pair.other(verdict.arm))
    return f". {arm} forgets more than {other} by more than {found.rho:g} nats: {percent(p)}"


def _model_and_task(setting: Setting) -> str:
    parts = [setting.model] if setting.model_parameters is not None else []
    gap = setting.specificity
    if gap is not None:
        side = "above" if gap >= 0 else "below"
        parts.append(
            f"the base model's loss on the task ({setting.task_loss:.3f}) is {abs(gap):.3f} nats "
            f"{side} that on general text ({setting.general_loss:.3f}): the higher, the more "
            "specific the task"
        )
    return "; ".join(parts)
