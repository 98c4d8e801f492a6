"""The JSON Schema of `study.yaml`: pydantic's, made true to what the loader takes.

The loader takes a few forms that the models do not show (`arms: [full, lift]`, one dataset size,
sections whose lines are all commented out), and looks into values that are any mapping to pydantic
(a search space, DeepSpeed's overrides). Rules over several keys, files and hub ids are the
loader's alone: `study plan` says what is wrong with them.
"""

from __future__ import annotations

import re
from typing import Any

from study.config.arms import arms_model
from study.config.checks import OWNED_KEYS
from study.config.models import StudyConfig
from study.config.schema.search_space import DRAFT, Schema, space_definitions
from study.strategies import STRATEGIES

WHOLE: Schema = {"type": "integer", "minimum": 1}
TEXT: Schema = {"type": "string"}
NULL: Schema = {"type": "null"}


def study_schema() -> Schema:
    """The schema of a study file."""
    schema = _tidy(StudyConfig.model_json_schema())
    definitions = schema["$defs"]
    for field in schema["properties"].values():
        if "$ref" in field:
            field.pop("default", None)
            section = definitions[field["$ref"].rpartition("/")[2]]
            if not section.get("required"):
                # A section whose lines are all commented out stands for its defaults.
                section["type"] = ["object", "null"]
    _correct_arms(schema["properties"]["arms"], definitions)
    _write(schema, "dataset_sizes", anyOf=[WHOLE, _list(WHOLE, uniqueItems=True)])
    tracking = schema["properties"]["tracking"]
    several = {"type": "array", "items": tracking["items"]}
    _write(schema, "tracking", anyOf=[tracking["items"], several, NULL])
    search, zero = definitions["SearchConfig"], definitions["ZeroConfig"]
    _write(search, "space", anyOf=[TEXT, {"$ref": "#/$defs/SearchSpace"}])
    _write(search, "overrides", **{"$ref": "#/$defs/SpaceOverrides"})
    _write(zero, "overrides", **_deepspeed_overrides())
    definitions |= space_definitions()
    title = "study.yaml of finetune-study"
    return {"$schema": DRAFT, "title": title, **schema, "description": "One declared comparison."}


def _correct_arms(field: Schema, definitions: Schema) -> None:
    arms = _tidy(arms_model().model_json_schema())
    for name, strategy in arms.pop("$defs").items():
        del strategy["description"]  # for who writes one; the arm has one for who uses it
        definitions[name] = strategy
    names: Schema = {"enum": list(STRATEGIES)}
    field["anyOf"] = [names, _list(names, uniqueItems=True), {"$ref": field.pop("$ref")}]
    for arm in arms["properties"].values():
        del arm["default"]  # an arm without options is on
    definitions["ArmsConfig"] = arms | {"type": "object", "minProperties": 1}


def _write(section: Schema, key: str, **form: Any) -> None:
    """Say how a key may be written, in place of what pydantic says of it."""
    known = section["properties"][key]
    kept = {name: known[name] for name in ("description", "default") if name in known}
    section["properties"][key] = kept | form


def _list(item: Schema, **rules: Any) -> Schema:
    return {"type": "array", "items": item, "minItems": 1} | rules


def _deepspeed_overrides() -> Schema:
    """Any DeepSpeed key but those that other settings of the study decide."""
    top = {key: False for key in OWNED_KEYS if "." not in key}
    zero = {key.partition(".")[2]: False for key in OWNED_KEYS if "." in key}
    section = {"type": "object", "properties": zero}
    return {"type": "object", "properties": top | {"zero_optimization": section}}


def _tidy(value: Any, inside_properties: bool = False) -> Any:
    """Without pydantic's titles; descriptions on one line, as they are read by people."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidy = {}
    for key, item in value.items():
        if not inside_properties and key == "title":
            continue
        if not inside_properties and key == "description":
            tidy[key] = re.sub("``(.*?)``", r"`\1`", " ".join(item.split()))
        else:
            tidy[key] = _tidy(item, key in ("properties", "$defs") and not inside_properties)
    return tidy
