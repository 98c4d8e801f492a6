"""One line of a search space to a domain, with every rule that a domain must keep."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, TypeGuard

from study.basics.errors import ConfigError, Fault
from study.basics.yaml_source import suggestion
from study.config.space.domains import (
    CategoricalDomain,
    Domain,
    FixedDomain,
    FloatDomain,
    IntDomain,
)
from study.strategies import STRATEGIES, Strategy, arm_label
from study.strategies.base import AsText

SHARED = "shared"
RANGE_KEYS = ("low", "high", "log", "step", "type")
MAX_STEPS = 1_000_000
EXAMPLE = "Write `{low: ..., high: ...}`, `{choices: [...]}`, or a single value to fix it."


Kind = Literal["float", "int", "bool", "text"]
_KINDS: Mapping[str, Kind] = {"number": "float", "integer": "int", "boolean": "bool"}


@dataclass(frozen=True)
class Parameter:
    """What a hyperparameter's values must be.

    Attributes:
        kind: of value.
        low, high, open_low, open_high: the interval of numbers.
        words: the values of a text.
        read: for a text that lists something; raises ConfigError for one that it cannot read.
        example: such a text.
        pattern: of all such texts, as a JSON Schema has it.
        meaning: what it is, for people.
    """

    kind: Kind
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    words: tuple[str, ...] = ()
    read: Callable[[str], object] | None = None
    example: str = ""
    pattern: str = ""
    meaning: str = field(default="", compare=False)

    def allows(self, value: object) -> bool:
        """Whether `value` is of this kind and inside the interval."""
        if self.kind == "bool":
            return isinstance(value, bool)
        if self.kind == "text":
            return isinstance(value, str) and self._is_readable(value)
        if not _is_number(value) or (self.kind == "int" and value != int(value)):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def _is_readable(self, text: str) -> bool:
        if self.read is None:
            return text in self.words
        try:
            self.read(text)
        except ConfigError:
            return False
        return True

    def __str__(self) -> str:
        if self.kind == "bool":
            return "true or false"
        if self.kind == "text":
            return f'text such as "{self.example}"' if self.read else " or ".join(self.words)
        parts = ["a whole number" if self.kind == "int" else "a number"]
        if self.low > -math.inf:
            parts.append(f"{'above' if self.open_low else 'at least'} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"{'below' if self.open_high else 'at most'} {self.high:g}")
        return " ".join(parts[:2]) + (f" and {parts[2]}" if len(parts) > 2 else "")


SHARED_PARAMETERS = {
    "learning_rate": Parameter(
        "float", 0, open_low=True, meaning="Highest learning rate, after the warmup."
    ),
    "warmup_ratio": Parameter(
        "float", 0, 1, open_high=True,
        meaning="Share of a trial's steps over which the learning rate rises from 0.",
    ),
    "max_grad_norm": Parameter(
        "float", 0, open_low=True,
        meaning="Gradients with a larger norm are scaled down to this one.",
    ),
    "weight_decay": Parameter("float", 0, meaning="Instead of training.weight_decay."),
    "beta2": Parameter(
        "float", 0, 1, open_high=True,
        meaning="AdamW's second decay rate, instead of that in training.betas.",
    ),
}  # fmt: skip


def arm_parameters(arm: str) -> dict[str, Parameter]:
    """What can be searched in one arm alone: its strategy's options."""
    return _options_of(STRATEGIES[arm])


def all_parameters() -> dict[str, Parameter]:
    """Those of every arm, by name."""
    found = dict(SHARED_PARAMETERS)
    for arm in STRATEGIES:
        found = found | arm_parameters(arm) | found  # what an earlier one has stays
    return found


def section_of(name: str) -> str | None:
    """Where a parameter stands in a search space; None for what is no parameter."""
    if name in SHARED_PARAMETERS:
        return SHARED
    return next((arm for arm in STRATEGIES if name in arm_parameters(arm)), None)


@lru_cache
def _options_of(strategy: type[Strategy]) -> dict[str, Parameter]:
    schemas = strategy.model_json_schema()["properties"]
    return {
        name: parameter
        for name, option in strategy.model_fields.items()
        if (parameter := _parameter(schemas[name], option.metadata)) is not None
    }


def _parameter(schema: Mapping[str, Any], metadata: list[Any]) -> Parameter | None:
    """An option as its strategy declares it; None for one that a search space cannot hold."""
    # Its meaning in a study file, without what is said there of values and null.
    meaning = re.split(r"[.:;] |[.:;]$", " ".join(schema["description"].split()))[0]
    for text in metadata:
        if isinstance(text, AsText):
            meaning = f'{meaning}, as text: "{text.example}".'
            return Parameter(
                "text", read=text.read, example=text.example, pattern=text.pattern, meaning=meaning
            )
    form = next(f for f in schema.get("anyOf", [schema]) if f.get("type") != "null")
    words = form.get("enum", [form["const"]] if "const" in form else [])
    if words:
        return Parameter("text", words=tuple(words), meaning=f"{meaning}.")
    kind = _KINDS.get(form["type"])
    if kind is None:
        return None
    return Parameter(
        kind,
        form.get("minimum", form.get("exclusiveMinimum", -math.inf)),
        form.get("maximum", form.get("exclusiveMaximum", math.inf)),
        open_low="exclusiveMinimum" in form,
        open_high="exclusiveMaximum" in form,
        meaning=f"{meaning}.",
    )


def read_domain(
    section: str, name: str, spec: object, path: str, faults: list[Fault]
) -> Domain | None:
    """The domain that `spec` writes for a parameter in a section (``shared`` or an arm).

    Adds what is wrong to `faults` and then returns None.
    """
    parameter = _find_parameter(section, name, path, faults)
    if parameter is None:
        return None
    found = list(_spec_faults(parameter, spec, path))
    if found:
        faults.extend(found)
        return None
    return _build(parameter, spec)


def _find_parameter(section: str, name: str, path: str, faults: list[Fault]) -> Parameter | None:
    known = SHARED_PARAMETERS | ({} if section == SHARED else arm_parameters(section))
    if name in known:
        return known[name]
    owner = section_of(name)
    if owner is not None:
        rule, remedy = f"only {arm_label(owner)} has this parameter.", f"Move it below `{owner}:`."
    else:
        rule = "unknown parameter."
        remedy = suggestion(name, all_parameters())
    faults.append(Fault(path, None, None, rule, remedy))
    return None


def _spec_faults(parameter: Parameter, spec: object, path: str) -> Iterator[Fault]:
    if isinstance(spec, list) and not parameter.read:
        yield Fault(path, None, spec, "a list does not say whether it is a range.", EXAMPLE)
    elif not isinstance(spec, Mapping):
        if not parameter.allows(spec):
            rule = f"must be {parameter}, or a domain."
            yield Fault(path, None, spec, rule, _value_remedy(parameter, spec, EXAMPLE))
    elif "choices" in spec:
        yield from _choice_faults(parameter, spec, path)
    elif parameter.kind in ("bool", "text"):
        values = "[false, true]" if parameter.kind == "bool" else "[...]"
        remedy = f"Write `{{choices: {values}}}`, or a single value to fix it."
        yield Fault(path, None, None, f"what is {parameter} has no range.", remedy)
    else:
        unknown = [key for key in spec if key not in RANGE_KEYS]
        for key in unknown:
            remedy = suggestion(str(key), (*RANGE_KEYS, "choices"))
            yield Fault(f"{path}.{key}", None, None, "unknown key.", remedy)
        if not unknown:
            yield from _range_faults(parameter, spec, path)


def _choice_faults(parameter: Parameter, spec: Mapping[str, Any], path: str) -> Iterator[Fault]:
    choices = spec["choices"]
    for key in spec:
        if key != "choices":
            remedy = "Keep either `choices` or the range."
            yield Fault(f"{path}.{key}", None, None, "`choices` stands alone.", remedy)
    if not isinstance(choices, list) or not choices:
        remedy = "Write e.g. `{choices: [1, 2, 4]}`."
        yield Fault(f"{path}.choices", None, choices, "must be a list of values.", remedy)
        return
    for index, choice in enumerate(choices):
        if not parameter.allows(choice):
            remedy = _value_remedy(parameter, choice, "Change or remove this choice.")
            yield Fault(f"{path}.choices.{index}", None, choice, f"must be {parameter}.", remedy)
        elif choice in choices[:index]:
            rule, remedy = "the choice is listed twice.", "Keep one of them."
            yield Fault(f"{path}.choices.{index}", None, choice, rule, remedy)


def _value_remedy(parameter: Parameter, value: object, otherwise: str) -> str:
    """What to do about a value that the parameter does not allow."""
    if isinstance(value, str) and parameter.words:
        return suggestion(value, parameter.words)
    if isinstance(value, str) and parameter.read:
        try:
            parameter.read(value)
        except ConfigError as error:
            return f"{error.faults[0].rule} {error.faults[0].remedy}"
    if isinstance(value, list) and parameter.read:
        return f'Write it as text: "{", ".join(map(str, value))}".'
    return otherwise


def _range_faults(parameter: Parameter, spec: Mapping[str, Any], path: str) -> Iterator[Fault]:
    log, step, kind = spec.get("log", False), spec.get("step"), spec.get("type", parameter.kind)
    if kind != parameter.kind:
        remedy = f"Leave `type` out, or write `type: {parameter.kind}`."
        yield Fault(f"{path}.type", None, kind, f"this parameter is {parameter}.", remedy)
    if not isinstance(log, bool):
        yield Fault(f"{path}.log", None, log, "must be true or false.", "Write `log: true`.")
    bounds_hold = True
    for key in ("low", "high"):
        if not parameter.allows(spec.get(key)):
            bounds_hold = False
            rule = "is required." if spec.get(key) is None else f"must be {parameter}."
            remedy = "A range needs `low` and `high`, both within the parameter's limits."
            yield Fault(f"{path}.{key}", None, spec.get(key), rule, remedy)
    if not bounds_hold:
        return
    low, high = spec["low"], spec["high"]
    if low >= high:
        remedy = "Swap them, or write the single value to fix the parameter."
        yield Fault(f"{path}.high", None, high, f"must be above `low` ({low}).", remedy)
    elif log is True and low <= 0:
        rule, remedy = "a log range must begin above 0.", "Raise `low`, or remove `log`."
        yield Fault(f"{path}.low", None, low, rule, remedy)
    elif step is not None:
        yield from _step_faults(parameter, low, high, step, log is True, path)


def _step_faults(
    parameter: Parameter, low: float, high: float, step: object, log: bool, path: str
) -> Iterator[Fault]:
    whole = parameter.kind == "int"
    if log:
        yield Fault(f"{path}.step", None, step, "`log` and `step` exclude each other.",
                    "Remove one of them.")  # fmt: skip
    elif not _is_number(step) or step <= 0 or (whole and step != int(step)):
        rule = f"must be a {'whole ' if whole else ''}number above 0."
        yield Fault(f"{path}.step", None, step, rule, "Write e.g. `step: 1`.")
    else:
        if (high - low) / step > MAX_STEPS:
            rule = f"the range has more than {MAX_STEPS} steps."
            yield Fault(f"{path}.step", None, step, rule, "Remove `step`.")
            return
        # In decimals, as Optuna does: 0.3 is three steps of 0.1, which floats deny.
        low_, high_, step_ = (Decimal(str(number)) for number in (low, high, step))
        count, rest = divmod(high_ - low_, step_)
        if rest or count < 1:
            nearest = low_ + max(count, Decimal(1)) * step_
            rule = f"`high` must be a whole number of steps above `low` ({low})."
            yield Fault(f"{path}.step", None, step, rule, f"Write e.g. `high: {nearest:f}`.")


def _build(parameter: Parameter, spec: Any) -> Domain:
    convert = {"float": float, "int": int, "bool": bool, "text": str}[parameter.kind]
    if not isinstance(spec, Mapping):
        return FixedDomain(convert(spec))
    if "choices" in spec:
        return CategoricalDomain(tuple(convert(choice) for choice in spec["choices"]))
    log, step = spec.get("log", False), spec.get("step")
    if parameter.kind == "int":
        return IntDomain(int(spec["low"]), int(spec["high"]), log, int(step or 1))
    step = None if step is None else float(step)
    return FloatDomain(float(spec["low"]), float(spec["high"]), log, step)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
