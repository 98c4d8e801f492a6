"""A verdict in words: one sentence that names size, basis, arm and confidence, and its notes."""

from __future__ import annotations

from dataclasses import dataclass

from study.analysis import BASIS_PHRASES, StudySummary, counted
from study.analysis.curve.fit import Crossover
from study.analysis.verdict.records import Retention, Verdict
from study.basics.text_format import percent, short_count
from study.protocol.results import StudyResults
from study.report.base import capital
from study.report.phrases import VERY_LIKELY, sure
from study.strategies import arm_label


@dataclass(frozen=True)
class Setting:
    """What the words need to know beside the verdict itself.

    Attributes:
        task: as in the study file.
        sizes: the tested dataset sizes, ascending.
        model_parameters: scalars in the model; None if unknown.
        task_loss, general_loss: nats, the base model's on the task's test split and on general
            text; None where not measured, or not comparable (classification).
        crossover: what the curve's band says of all tested sizes; None without a curve.
        grid: the verdicts of many sizes, ascending.
    """

    task: str
    sizes: tuple[int, ...]
    model_parameters: int | None = None
    task_loss: float | None = None
    general_loss: float | None = None
    crossover: Crossover | None = None
    grid: tuple[Verdict, ...] = ()

    @property
    def specificity(self) -> float | None:
        """Nats by which the base model does worse on the task than on general text."""
        if self.task_loss is None or self.general_loss is None:
            return None
        return self.task_loss - self.general_loss

    @property
    def is_classification(self) -> bool:
        return self.task != "causal-lm"

    @property
    def model(self) -> str:
        """``this model of 1.23 M parameters``."""
        if self.model_parameters is None:
            return "this model"
        return f"this model of {short_count(self.model_parameters)} parameters"


def setting_of(results: StudyResults, summary: StudySummary) -> Setting:
    """The setting of a study's verdicts."""
    base, task = results.base, results.config.task
    # A classifier's base loss is that of the class prior: no loss of the model's on the task.
    comparable = base is not None and task == "causal-lm"
    return Setting(
        task=task,
        sizes=summary.sizes,
        model_parameters=results.model_parameters,
        task_loss=base.test_loss if comparable and base else None,
        general_loss=base.retention_loss if comparable and base else None,
        crossover=None if summary.curve is None else summary.curve.crossover(),
        grid=summary.grid,
    )


def other_arm(arm: str) -> str:
    return "full" if arm == "lift" else "lift"


def label(verdict: Verdict) -> str:
    """The answer in a few words: ``LIFT``, ``Leans to full``, ``Not enough evidence``."""
    if verdict.arm is None:
        return "Not enough evidence"
    name = arm_label(verdict.arm)
    if not verdict.is_claim:
        return f"Leans to {name}"
    name = capital(name)
    return f"{name}, with a trade-off" if forgets_more(verdict) else name


def headline(verdict: Verdict, setting: Setting) -> str:
    """The verdict in one sentence."""
    where = f"{_where(verdict, setting)},"
    if verdict.arm is None:
        return (
            f"{where} there is not enough evidence to choose between full and LIFT for "
            f"{setting.model}: {_shortage(verdict)}."
        )
    arm, other = arm_label(verdict.arm), arm_label(other_arm(verdict.arm))
    if verdict.answer == "lean":
        return (
            f"{where} the evidence leans to {arm} for {setting.model}: its test loss is "
            f"{sure(verdict.confidence or 0.0)} to be lower than {other}'s, which is too little "
            "for a claim."
        )
    reason = {"memory": _memory, "better": _better, "cheaper": _cheaper}[verdict.answer](verdict)
    return f"{where} use {arm} for {setting.model}: {reason}{_price(verdict)}."


def forgets_more(verdict: Verdict) -> float | None:
    """Probability that the recommended arm forgets more than the other by more than
    `Retention.rho`, where it is high enough to make a win a trade-off."""
    if verdict.retention is None or verdict.arm is None:
        return None
    p = _forgets(verdict.retention, verdict.arm)
    return p if p >= VERY_LIKELY else None


def notes(verdict: Verdict) -> tuple[str, ...]:
    """What must be known beside the sentence: a trade-off, and gates that warn."""
    made = []
    if (p := forgets_more(verdict)) is not None and verdict.arm is not None:
        assert verdict.retention is not None  # the probability is its
        made.append(
            f"Trade-off {BASIS_PHRASES[verdict.basis]}: {arm_label(verdict.arm)} is {sure(p)} to "
            f"forget more general text than {arm_label(other_arm(verdict.arm))} by more than "
            f"{verdict.retention.rho:g} nats."
        )
    made += [f"{g.name}: {g.found}. {g.remedy}" for g in verdict.gates if g.status == "warn"]
    return tuple(made)


def _where(verdict: Verdict, setting: Setting) -> str:
    text = f"For {verdict.dataset_size:,} training examples, {BASIS_PHRASES[verdict.basis]}"
    if verdict.extrapolated:
        text += f", extrapolated from {_tested(setting)}"
    if verdict.within_range:
        text += ", within the declared search range"
    return text


def _tested(setting: Setting) -> str:
    return f"{setting.sizes[0]:,} to {setting.sizes[-1]:,}"


def _shortage(verdict: Verdict) -> str:
    failed = verdict.failed_gates
    if len(failed) == 1:
        return f"a condition for a verdict is not met ({failed[0].name.lower()})"
    if failed:
        return f"{counted(len(failed), 'condition')} for a verdict are not met"
    if verdict.lift_better is None or verdict.full_better is None:
        return "there are too few confirm runs of both arms"
    return (
        f"LIFT's test loss is lower with a probability of {percent(verdict.lift_better)}, full's "
        f"with {percent(verdict.full_better)}"
    )


def _better(verdict: Verdict) -> str:
    assert verdict.arm is not None
    return (
        f"its test loss is {sure(verdict.confidence or 0.0)} to be lower than "
        f"{arm_label(other_arm(verdict.arm))}'s by more than {verdict.rho:g} nats"
    )


def _cheaper(verdict: Verdict) -> str:
    assert verdict.arm is not None
    text = (
        f"its test loss is {sure(verdict.confidence or 0.0)} not to be higher than "
        f"{arm_label(other_arm(verdict.arm))}'s by more than {verdict.rho:g} nats"
    )
    if verdict.cost is None:
        return f"{text}, and it is cheaper"
    ratio = verdict.cost.value if verdict.arm == "lift" else 1.0 / verdict.cost.value
    return f"{text}, and a run takes {ratio:.2f} times the device seconds"


def _memory(verdict: Verdict) -> str:
    assert verdict.arm is not None
    text = "it is the only arm that fits"
    if verdict.confidence is not None:
        text = f"it is {sure(verdict.confidence)} to be the only arm that fits"
    limit = verdict.memory_limit_gib
    text += " the study's devices" if limit is None else f" into {limit:g} GiB per device"
    peaks = dict(verdict.memory_gib)
    told = [f"{arm_label(arm)}'s {peak:.2f}" for arm, peak in peaks.items()]
    behind = [f"peaks in GiB: {', '.join(told)}"] if told else []
    other = other_arm(verdict.arm)
    least = dict(verdict.memory_least_gib).get(other)  # type: ignore[call-overload]
    if other in verdict.memory_ran_out:
        behind.append(f"{arm_label(other)} ran out of memory with one example per pass")
    elif other not in peaks and least is not None:
        behind.append(f"{arm_label(other)}'s weights and optimizer alone take {least:.2f} GiB")
    return f"{text} ({'; '.join(behind)})" if behind else text


def _price(verdict: Verdict) -> str:
    p = forgets_more(verdict)
    return "" if p is None else f"; the price is that it is {sure(p)} to forget more general text"


def _forgets(retention: Retention, arm: str) -> float:
    if arm == "lift":
        return retention.probability_lift_forgets
    return retention.probability_full_forgets
