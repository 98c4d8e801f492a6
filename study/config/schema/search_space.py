"""The JSON Schema of a search space: of a file, and of what a study file says of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.config.space.parameters import SHARED, SHARED_PARAMETERS, Parameter, arm_parameters
from study.strategies import STRATEGIES

Schema = dict[str, Any]

# The newest that editors know in full.
DRAFT = "http://json-schema.org/draft-07/schema#"


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
    for definition, parameter in _definitions().items():
        definitions[definition] = _domain(parameter, whole=True)
        definitions[f"{definition}.override"] = _domain(parameter, whole=False)
    return definitions


def _parameters_of(section: str) -> dict[str, Parameter]:
    return SHARED_PARAMETERS | ({} if section == SHARED else arm_parameters(section))


def _definitions() -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for section in (SHARED, *STRATEGIES):
        for name, parameter in _parameters_of(section).items():
            found[_definition_of(section, name)] = parameter
    return found


def _definition_of(section: str, name: str) -> str:
    """A parameter's name, and before it an arm whose own of that name is another one."""
    parameter = _parameters_of(section)[name]
    sections = (SHARED, *STRATEGIES)
    first = next(p[name] for s in sections if name in (p := _parameters_of(s)))
    return name if parameter == first else f"{section}.{name}"


def _space() -> Schema:
    name = {"type": "string", "description": "For people; the file's name without one."}
    return _closed({"name": name} | _sections(""))


def _overrides() -> Schema:
    flat = {name: _reference(f"{name}.override") for name in SHARED_PARAMETERS}
    return _closed(flat | _sections(".override"))


def _sections(kind: str) -> dict[str, Schema]:
    texts = {SHARED: "Searched in all arms, separately."} | {
        arm: f"Of {strategy.label} alone, beside the shared ones or in their place."
        for arm, strategy in STRATEGIES.items()
    }
    sections = {}
    for section, text in texts.items():
        names = _parameters_of(section)
        known = {name: _reference(_definition_of(section, name) + kind) for name in names}
        sections[section] = _closed(known) | {"type": ["object", "null"], "description": text}
    return sections


def _domain(parameter: Parameter, whole: bool) -> Schema:
    """One line of a space; without `whole` a range may leave out what it does not change."""
    value = _value(parameter)
    choices = _closed(
        {"choices": {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}},
        required=["choices"],
    )
    forms = [value, choices]
    if parameter.kind in ("int", "float"):
        forms.append(_range(value, parameter, whole))
    return {"description": parameter.meaning, "anyOf": forms}


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


def _value(parameter: Parameter) -> Schema:
    """A single value that the parameter allows."""
    if parameter.kind == "bool":
        return {"type": "boolean"}
    if parameter.kind == "text":
        words, pattern = list(parameter.words), parameter.pattern
        return {"type": "string"} | ({"enum": words} if words else {"pattern": pattern})
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
