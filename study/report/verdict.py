"""A verdict in words: one sentence that names size, basis, arm and confidence, and its notes."""

from __future__ import annotations

from dataclasses import dataclass

from study.analysis import StudySummary, counted
from study.analysis.curve.fit import Crossover
from study.analysis.rules import SURE
from study.analysis.verdict.records import Verdict
from study.basics.text_format import capital, percent, short_count
from study.protocol.results import StudyResults
from study.protocol.words import ANSWERS, BASES
from study.report.phrases import sure
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
        both = " and ".join(verdict.pair.labels)
        return (
            f"{where} there is not enough evidence to choose between {both} for "
            f"{setting.model}: {_shortage(verdict)}."
        )
    arm, reason = arm_label(verdict.arm), _claim(verdict)
    if verdict.answer == "lean":
        return f"{where} the evidence leans to {arm} for {setting.model}: {reason}."
    return f"{where} use {arm} for {setting.model}: {reason}{_price(verdict)}."


def forgets_more(verdict: Verdict) -> float | None:
    """Probability that the recommended arm forgets more than the other by more than
    `Retention.rho`, where it is high enough to make a win a trade-off."""
    if verdict.retention is None or verdict.arm is None:
        return None
    p = verdict.retention.forgets[verdict.arm]
    return p if p >= SURE else None


def notes(verdict: Verdict) -> tuple[str, ...]:
    """What must be known beside the sentence: a trade-off, and gates that warn."""
    made = []
    if (p := forgets_more(verdict)) is not None and verdict.arm is not None:
        assert verdict.retention is not None  # the probability is its
        other = arm_label(verdict.pair.other(verdict.arm))
        made.append(
            f"Trade-off {BASES[verdict.basis].phrase}: {arm_label(verdict.arm)} is {sure(p)} to "
            f"forget more general text than {other} by more than "
            f"{verdict.retention.rho:g} nats."
        )
    made += [f"{g.name}: {g.found}. {g.remedy}" for g in verdict.gates if g.status == "warn"]
    return tuple(made)


def _where(verdict: Verdict, setting: Setting) -> str:
    text = f"For {verdict.dataset_size:,} training examples, {BASES[verdict.basis].phrase}"
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
    if not verdict.chances:
        return "there are too few confirm runs of both arms"
    reference, challenger = verdict.pair.labels
    theirs, ours = (percent(verdict.chances[arm].better) for arm in verdict.pair)
    return (
        f"{challenger}'s test loss is lower with a probability of {ours}, {reference}'s with "
        f"{theirs}"
    )


def _claim(verdict: Verdict) -> str:
    assert verdict.arm is not None
    if verdict.answer == "memory":
        return _memory(verdict)
    text = ANSWERS[verdict.answer].claim.format(
        likelihood=sure(verdict.confidence or 0.0),
        other=arm_label(verdict.pair.other(verdict.arm)),
        rho=verdict.rho,
    )
    return f"{text}{_saving(verdict)}" if verdict.answer == "cheaper" else text


def _saving(verdict: Verdict) -> str:
    if verdict.cost is None:
        return ", and it is cheaper"
    cost = verdict.cost.value
    ratio = cost if verdict.arm == verdict.pair.challenger else 1.0 / cost
    return f", and a run takes {ratio:.2f} times the device seconds"


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
    other = verdict.pair.other(verdict.arm)
    least = dict(verdict.memory_least_gib).get(other)
    if other in verdict.memory_ran_out:
        behind.append(f"{arm_label(other)} ran out of memory with one example per pass")
    elif other not in peaks and least is not None:
        behind.append(f"{arm_label(other)}'s weights and optimizer alone take {least:.2f} GiB")
    return f"{text} ({'; '.join(behind)})" if behind else text


def _price(verdict: Verdict) -> str:
    p = forgets_more(verdict)
    return "" if p is None else f"; the price is that it is {sure(p)} to forget more general text"
