"""What a planned study can detect, whether its test split is large enough, and what it costs."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from study.analysis.curve.noise import (
    ASSUMED_SD,
    LARGEST_SD,
    Noise,
    SplitNoise,
    noise_on_record,
    split_error,
)
from study.analysis.rules import ENOUGH
from study.analysis.verdict.power import Power, PowerAt, predict_power
from study.basics.text_format import counted, percent
from study.cli.output import Console, number_table, print_facts
from study.orchestration.prepare import Prepared
from study.protocol.plan import with_probe
from study.protocol.results import StudyResults

_SOURCES = {
    "runs": "from the confirm runs on record",
    "base": "guessed from the base model's losses, the arms' alike as in the demo",
    "assumed": "guessed: no loss is on record yet",
}


def print_detection(console: Console, prepared: Prepared, results: StudyResults | None) -> None:
    """Power, test split and cost of a plan; nothing about power where it compares nothing.

    Args:
        results: what the study has on record, if anything.
    """
    config = prepared.plan.resolved
    if not config.compares:
        facts = {"Cost": _cost(prepared, results)}
        if len(config.arms.names) == 2:
            facts["Verdict"] = (
                "none without confirm runs (confirm.seeds); configurations are ranked"
            )
        print_facts(console, facts)
        return
    power = predict(prepared, results)
    console.print(Text("\nWhat this study can detect", style="bold"))
    rho = config.decision.rho
    console.print(
        f"Chance of a verdict for the better arm if its test loss is lower by 2 rho ({2 * rho:g} "
        f"nats) or by rho ({rho:g}), and at least of a lean:\n"
    )
    console.print(_chances(power))
    console.print()
    facts = {
        "Noise": _noise(power.noise, config.task),
        "Test split": _split(power.split),
        "Cost": _cost(prepared, results),
    }
    print_facts(console, facts)
    for warning in detection_warnings(power):
        console.print(Text("warning: ", style="yellow").append(warning, style="default"))
    if (advice := _advice(power)) is not None:
        console.print(Text("advice: ", style="cyan").append(advice, style="default"))


def predict(prepared: Prepared, results: StudyResults | None) -> Power:
    """`predict_power` with the noise that the results show."""
    from study.analysis.summary import gather_evidence

    config = prepared.plan.resolved
    if results is None:
        noise = noise_on_record(config.search.trials, None)
        return predict_power(config, noise, split_error(config.task, prepared.data.test))
    evidence = gather_evidence(results)
    noise = noise_on_record(results.config.search.trials, evidence.curve)
    split = split_error(config.task, prepared.data.test, evidence.curve, results.base)
    return predict_power(config, noise, split, evidence.tuning)


def detection_warnings(power: Power) -> list[str]:
    """Why the study may not answer, one sentence or two each."""
    warnings = []
    needed = power.test_examples_needed
    if needed is not None:
        warnings.append(
            f"The test split is small: its error is predicted at {power.split.error:.4f} nats, "
            f"above rho / 4 ({power.split_limit:g}). About {needed:,} test examples would do "
            f"(data.test_size); it has {power.split.examples:,}."
        )
    if power.search_trials > power.trials:
        warnings.append(
            f"A search of {counted(power.trials, 'trial')} leaves its winner, and so the arms' "
            "difference, to the luck of the draw: as long as the second half of the trials still "
            f"lowers the best loss by more than rho ({power.rho:g}) there is no verdict. About "
            f"{power.search_trials} trials would do (search.trials)."
        )
    for place in _places(power):
        if place.failed:
            reasons = "; ".join(f"{g.found}, but {g.needed} needed" for g in place.failed)
            warnings.append(
                f"No verdict at {place.size:,} examples, whatever the runs show: {reasons}."
            )
    return warnings


def _advice(power: Power) -> str | None:
    """The cheapest change that would do; None where none is needed."""
    if power.middle.claim >= ENOUGH:
        return None
    middle = "in the middle of the sizes"
    if power.advice is None or power.advised is None:
        return (
            f"No growth within reach finds 2 rho in {ENOUGH:.0%} of studies {middle}. Is a "
            "difference as small as decision.rho what matters to you?"
        )
    found = f"2 rho would be found in {percent(power.advised)} of studies {middle}"
    split = "so many test examples" if power.test_examples_needed is not None else ""
    if not power.advice.change:
        return f"With {split} {found}."
    added = f"{power.advice.reason}: {counted(power.advice.trials, 'more trial')}"
    also = f" and {split}" if split else ""
    return f"With {power.advice.change} ({added}){also} {found}. Nothing cheaper does."


def _places(power: Power) -> tuple[PowerAt, ...]:
    one = power.middle.size == power.largest.size
    return (power.largest,) if one else (power.middle, power.largest)


def _chances(power: Power) -> Table:
    table = number_table(
        "examples", "95 % interval", "verdict at 2 rho", "verdict at rho", "lean at rho"
    )
    for place in _places(power):
        name = "largest" if place.size == power.largest.size else "middle"
        width = "-" if place.half_width is None else f"+/- {place.half_width:.4f}"
        chances = (place.claim, place.claim_at_rho, place.lean_at_rho)
        table.add_row(f"{place.size:,} ({name})", width, *map(percent, chances))
    return table


def _noise(noise: Noise, task: str) -> str:
    if not noise.freedom:
        told = (
            f"assumed: standard deviation of a run's loss {ASSUMED_SD:g} nats over data subsets "
            f"and {ASSUMED_SD:g} over seeds in each arm, and a search that leaves some luck"
        )
        if task == "causal-lm":
            return told
        return (
            f"{told}; a classifier with few examples may have several times that (up to "
            f"{LARGEST_SD:g} between the arms): ask again once replicates are on record"
        )
    return (
        f"by the replicates on record, the assumption beside them: the arms' difference has a "
        f"standard deviation of {noise.between**0.5:.4f} nats between replicates and "
        f"{noise.within**0.5:.4f} between seeds"
    )


def _split(split: SplitNoise) -> str:
    return (
        f"standard error {split.error:.4f} nats from {split.examples:,} examples "
        f"({_SOURCES[split.source]})"
    )


def _cost(prepared: Prepared, results: StudyResults | None) -> str:
    """Trials and, where a probe or trials are on record, device-hours."""
    from study.orchestration.preflight.forecast import Cluster, forecast
    from study.orchestration.preflight.spread import MEANING

    plan = prepared.plan
    if results is not None and results.probe is not None:
        plan = with_probe(plan, results.probe)
    resources = plan.resolved.resources
    gpus = resources.gpus_per_worker
    workers = resources.workers_per_trial
    cluster = Cluster(
        trials_at_once=1,
        devices_per_trial=workers * (gpus if isinstance(gpus, float) and gpus else 1),
        workers_per_trial=workers,
    )
    records = results.trials if results is not None else ()
    found = forecast(plan, prepared.data, records, cluster)
    told = counted(plan.trials, "trial")
    if found is None:
        return f"{told}; device-hours are predicted by `study check --probe`"
    if not found.trials:
        return f"{told}, all on record"
    left = "" if found.trials == found.of else f", {found.trials:,} of them left to run"
    hours = {arm: seconds / 3600 for arm, seconds in found.device_seconds.items()}
    parts = ", ".join(f"{arm} {value:.2g}" for arm, value in hours.items())
    split = f" ({parts})" if len(hours) > 1 else ""
    total = sum(hours.values())
    low, high = total / found.factor, total * found.factor
    return (
        f"{told}{left}: about {total:.2g} device-hours{split}; {MEANING}: {low:.2g} to {high:.2g}"
    )
