"""The JSON Schema of a search space: of a file, and of what a study file says of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from study.config.space.parameters import Parameter
from study.config.space.read import LIFT_PARAMETERS, SHARED_PARAMETERS
from study.strategies.lift_options import ORDERS, PHASE_STEPS

Schema = dict[str, Any]

# The newest that editors know in full.
DRAFT = "http://json-schema.org/draft-07/schema#"
_GROUP, _BETWEEN = "0*[1-9][0-9]*", r"[,\s]+"
_PART = "(head|final_norm|last_[1-9][0-9]*_blocks?)"
PART = f"^{_PART}$"
# What `study.strategies.lift_options` reads.
TEXTS = {
    "groups": rf"^[,\s]*{_GROUP}({_BETWEEN}{_GROUP})*[,\s]*$",
    "always_active": rf"^[,\s]*(none|{_PART}({_BETWEEN}{_PART})*)?[,\s]*$",
}
MEANINGS = {
    "learning_rate": "Highest learning rate, after the warmup.",
    "warmup_ratio": "Share of a trial's steps over which the learning rate rises from 0.",
    "max_grad_norm": "Gradients with a larger norm are scaled down to this one.",
    "weight_decay": "Instead of training.weight_decay.",
    "beta2": "AdamW's second decay rate, instead of that in training.betas.",
    "group_size": "Transformer blocks per group.",
    "groups": 'Blocks of each group from the top, as text: "2, 4, 6".',
    "order": f"Which group trains first: {', '.join(ORDERS)}.",
    "sweeps": "Times the whole pass over the groups is repeated.",
    "cumulative": "Groups that trained earlier in a sweep keep training.",
    "always_active": 'What trains in every phase, as text: "head, last_2_blocks", or none.',
    "phase_steps": f"How steps are shared among phases: {', '.join(PHASE_STEPS)}.",
    "group_lr_decay": "Learning-rate factor per group below the top one.",
    "rewarmup_ratio": "Share of each phase, from the second on, that warms up again.",
}


def space_schema() -> Schema:
    """The schema of a file such as those in search_spaces/."""
    return {
        "$schema": DRAFT,
        "title": "A search space of finetune-study",
        "$ref": "#/$defs/SearchSpace",
        "$defs": space_definitions(),
    }


def space_definitions() -> dict[str, Schema]:
    """``SearchSpace``, ``SpaceOverrides``, and a domain of each parameter for either."""
    definitions: dict[str, Schema] = {"SearchSpace": _space(), "SpaceOverrides": _overrides()}
    for name, parameter in _parameters().items():
        definitions[name] = _domain(name, parameter, whole=True)
        definitions[f"{name}.override"] = _domain(name, parameter, whole=False)
    return definitions


def _parameters() -> dict[str, Parameter]:
    return SHARED_PARAMETERS | LIFT_PARAMETERS


def _space() -> Schema:
    name = {"type": "string", "description": "For people; the file's name without one."}
    return _closed({"name": name} | _sections(lambda parameter: parameter))


def _overrides() -> Schema:
    def overridden(parameter: str) -> str:
        return f"{parameter}.override"

    return _closed(
        {name: _reference(overridden(name)) for name in SHARED_PARAMETERS} | _sections(overridden)
    )


def _sections(definition_of: Callable[[str], str]) -> dict[str, Schema]:
    texts = {
        "shared": "Searched in both arms, separately.",
        "full": "Of full alone, beside the shared ones or in their place.",
        "lift": "Of LIFT alone, beside the shared ones or in their place.",
    }
    sections = {}
    for section, text in texts.items():
        names = _parameters() if section == "lift" else SHARED_PARAMETERS
        section_schema = _closed({name: _reference(definition_of(name)) for name in names})
        sections[section] = section_schema | {"type": ["object", "null"], "description": text}
    return sections


def _domain(name: str, parameter: Parameter, whole: bool) -> Schema:
    """One line of a space; without `whole` a range may leave out what it does not change."""
    value = _value(name, parameter)
    choices = _closed(
        {"choices": {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}},
        required=["choices"],
    )
    forms = [value, choices]
    if parameter.kind in ("int", "float"):
        forms.append(_range(value, parameter, whole))
    return {"description": MEANINGS[name], "anyOf": forms}


def _range(value: Schema, parameter: Parameter, whole: bool) -> Schema:
    step = {"type": "integer", "minimum": 1} if parameter.kind == "int" else {
        "type": "number", "exclusiveMinimum": 0}  # fmt: skip
    schema = _closed(
        {
            "low": value,
            "high": value,
            "log": {"type": "boolean", "description": "Log-uniform; not with `step`."},
            "step": {"anyOf": [step, {"type": "null"}], "description": "Not with `log`."},
            "type": {"const": parameter.kind},
        },
        required=["low", "high"] if whole else [],
    )
    logarithmic = {"properties": {"log": {"const": True}}, "required": ["log"]}
    rules = {"low": {"exclusiveMinimum": 0}, "step": {"type": "null"}}
    return schema | {"if": logarithmic, "then": {"properties": rules}}


def _value(name: str, parameter: Parameter) -> Schema:
    """A single value that the parameter allows."""
    if parameter.kind == "bool":
        return {"type": "boolean"}
    if parameter.kind == "text":
        known = {"enum": list(parameter.words)} if parameter.words else {"pattern": TEXTS[name]}
        return {"type": "string", **known}
    schema: Schema = {"type": "integer" if parameter.kind == "int" else "number"}
    if parameter.low > -float("inf"):
        schema["exclusiveMinimum" if parameter.open_low else "minimum"] = parameter.low
    if parameter.high < float("inf"):
        schema["exclusiveMaximum" if parameter.open_high else "maximum"] = parameter.high
    return schema


def _closed(properties: Mapping[str, Schema], required: list[str] | None = None) -> Schema:
    """An object with these keys and no other."""
    needed = {"required": required} if required else {}
    return {
        "type": "object", "properties": dict(properties), **needed, "additionalProperties": False,
    }  # fmt: skip


def _reference(definition: str) -> Schema:
    return {"$ref": f"#/$defs/{definition}"}
