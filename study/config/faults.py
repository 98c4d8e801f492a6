"""What pydantic finds wrong with a study file, as faults with a path, a rule and a remedy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from study.basics.errors import Fault
from study.basics.yaml_source import did_you_mean, suggestion
from study.config.arms import ArmsConfig, arms_model
from study.config.space.parameters import SHARED, section_of
from study.strategies import STRATEGIES

_FILES = "must be a path or a list of paths"
_SPLIT = "must be a number of examples (1 or more) or a share above 0 and below 1"
RULES_BY_PATH = {
    "name": "must be 1 to 64 letters, digits, dots, dashes or underscores, beginning with a "
    "letter or digit",
    "data.train": _FILES,
    "data.validation": _FILES,
    "data.test": _FILES,
    "data.retention": f"{_FILES}, or `general`",
    "data.validation_size": _SPLIT,
    "data.test_size": _SPLIT,
    "dataset_sizes": "must be a number of examples, at least 1, or a list of such numbers",
    "resources.gpus_per_worker": "must be `auto` or a number from 0 to 1",
    "resources.accelerator_type": "must be one of Ray's names, such as `H100`, or null",
    "resources.network_interface": "must be the name of an interface, such as `eth0`, or null",
    "resources.concurrent_trials": "must be `auto` or a whole number of at least 1",
    "search.space": "must be a space's name, a path, or a space written out",
    "zero.stage": "must be 0, 1, 2 or 3",
    "tracking": "must be `tensorboard`, `mlflow` or `wandb`, or a list of them",
    "training.betas": "must be a list of two numbers, e.g. [0.9, 0.999]",
}
RULES_BY_TYPE = {
    "missing": "is required",
    "extra_forbidden": "unknown key",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a section of `key: value` lines",
    "model_type": "must be a section of `key: value` lines",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entry",
}
# Stand-ins for required settings that are missing or faulty. What follows from them is never
# reported: `is_affected` silences it.
STAND_INS: dict[str, Any] = {
    "name": "study",
    "model": {"path": "model"},
    "data": {"train": "train.jsonl"},
    "dataset_sizes": [1],
}


@dataclass(frozen=True)
class SchemaFaults:
    """Faults, the paths of all settings that are missing, wrong or probably misspelt, and the
    top-level keys that have them."""

    faults: list[Fault]
    paths: frozenset[str]
    sections: frozenset[str]


def pydantic_faults(
    error: ValidationError, data: Mapping[str, Any], model: type[BaseModel]
) -> SchemaFaults:
    """One fault per setting; the alternatives of a union are put together."""
    by_path: dict[str, list[ErrorDetails]] = {}
    found = error.errors(include_url=False)
    for detail in found:
        by_path.setdefault(_path_of(detail, data), []).append(detail)
    # A wrong item of a list also fails the "or a single value" side of its union.
    around = {section for path in by_path for section in _sections_around(path)}
    paths = [path for path in by_path if path not in around]
    misspelt = {
        path: near
        for path in paths
        if by_path[path][0]["type"] == "extra_forbidden" and (near := _nearest(path, model))
    }
    faults = []
    for path in paths:
        details = by_path[path]
        if details[0]["type"] == "missing" and path in misspelt.values():
            continue
        faults.append(_fault(path, details, model))
    return SchemaFaults(
        faults,
        frozenset(paths) | frozenset(misspelt.values()),
        frozenset(str(detail["loc"][0]) for detail in found),
    )


def _sections_around(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def is_affected(path: str, faulty: Iterable[str]) -> bool:
    """Whether `path` is one of the faulty paths, inside one, or around one."""
    return any(f"{path}.".startswith(f"{f}.") or f"{f}.".startswith(f"{path}.") for f in faulty)


def is_section(key: str, model: type[BaseModel]) -> bool:
    """Whether a top-level key holds a section."""
    return _section_at(key, model) is not None


def repair(data: Mapping[str, Any], faulty: Iterable[str]) -> dict[str, Any]:
    """`data` without its faulty settings, and with stand-ins for required ones."""
    repaired = copy.deepcopy(dict(data))
    for path in faulty:
        section: Any = repaired
        keys = path.split(".")
        for key in keys[:-1]:
            if not isinstance(section.get(key), dict):
                # The fault is an item of a list: the list goes.
                section.pop(key, None)
                break
            section = section[key]
        else:
            section.pop(keys[-1], None)
    repaired.setdefault("arms", {arm: {} for arm in STRATEGIES})
    for key, value in STAND_INS.items():
        if isinstance(value, dict) and isinstance(repaired.get(key), dict):
            repaired[key] = {**value, **repaired[key]}
        else:
            repaired.setdefault(key, value)
    return repaired


def _path_of(detail: ErrorDetails, data: Any) -> str:
    """The dotted path in the file; names of union members in pydantic's path are left out."""
    keys = []
    for part in detail["loc"]:
        inside_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if inside_list or (isinstance(data, Mapping) and part in data):
            keys.append(str(part))
            data = data[part]
    if detail["type"] == "missing" and not isinstance(data, list):
        keys.append(str(detail["loc"][-1]))
    return ".".join(keys)


def _fault(path: str, details: list[ErrorDetails], model: type[BaseModel]) -> Fault:
    detail = details[0]
    kind, context = detail["type"], detail.get("ctx", {})
    if "remedy" in context:
        return Fault(path, None, None, detail["msg"], context["remedy"])
    if kind == "extra_forbidden":
        return Fault(path, None, None, "unknown key.", _unknown_key_remedy(path, model))
    field = _field_at(path, model)
    # A tuple that is too short also has something missing.
    missing = kind == "missing" and isinstance(detail["input"], Mapping)
    rule = None if missing else RULES_BY_PATH.get(path)
    if rule is None:
        rules = [_rule(each) for each in details]
        rule = rules[0] + "".join(f" or {r.removeprefix('must be ')}" for r in rules[1:])
    return Fault(path, None, None, f"{rule}.", _remedy(path, detail, field, missing))


def _rule(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "literal_error":
        return f"must be {context['expected'].replace(chr(39), '`')}"
    template = RULES_BY_TYPE.get(detail["type"])
    if template is not None:
        return template.format(**context)
    return detail["msg"].replace("Input should be", "must be")


def _remedy(path: str, detail: ErrorDetails, field: FieldInfo | None, missing: bool) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "literal_error":
        near = did_you_mean(str(value), _literals(detail))
        if near:
            return f"Did you mean `{near}`?"
    if missing:
        return f"Add `{path.rpartition('.')[2]}:`. {_description(field)}".rstrip()
    if kind == "model_type":
        first = _first_key(field)
        return f"Indent its keys below it, e.g. `{first}: ...`." if first else ""
    if isinstance(value, str) and _is_number(value):
        return "Remove the quotes."
    if kind == "string_type" and isinstance(value, int | float):
        return "Put it in quotes."
    if field is None or field.is_required():
        return _description(field)
    if field.default is None:
        return f"Leave it out if you do not need it. {_description(field)}".rstrip()
    default = field.get_default(call_default_factory=True)
    default = list(default) if isinstance(default, tuple) else default
    return f"The default is {default!r}."


def _literals(detail: ErrorDetails) -> list[str]:
    expected: str = detail["ctx"]["expected"]
    return expected.replace(" or ", ", ").replace("'", "").split(", ")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _description(field: FieldInfo | None) -> str:
    text = field.description if field is not None and field.description else ""
    return " ".join(text.split())


def _unknown_key_remedy(path: str, model: type[BaseModel]) -> str:
    section_path, _, key = path.rpartition(".")
    searched = section_of(key)
    if searched is not None:
        where = f"{key}: ..." if searched == SHARED else f"{searched}: {{{key}: ...}}"
        return f"It is searched; set its range with `search: {{overrides: {{{where}}}}}`."
    for name, field in model.model_fields.items():
        section = _section_model(field)
        if section is not None and key in section.model_fields and name != section_path:
            return f"It belongs below `{name}:`."
    owner = _section_at(section_path, model)
    return suggestion(key, owner.model_fields if owner is not None else ())


def _nearest(path: str, model: type[BaseModel]) -> str | None:
    """The path that an unknown key was probably meant to be."""
    section_path, _, key = path.rpartition(".")
    owner = _section_at(section_path, model)
    near = did_you_mean(key, owner.model_fields) if owner is not None else None
    if near is None:
        return None
    return f"{section_path}.{near}" if section_path else near


def _field_at(path: str, model: type[BaseModel]) -> FieldInfo | None:
    """The field of `path`; for an item of a list, the list's."""
    field: FieldInfo | None = None
    owner: type[BaseModel] | None = model
    for key in path.split("."):
        if owner is None or key not in owner.model_fields:
            break
        field = owner.model_fields[key]
        owner = _section_model(field)
    return field


def _section_at(path: str, model: type[BaseModel]) -> type[BaseModel] | None:
    owner: type[BaseModel] | None = model
    for key in path.split(".") if path else ():
        if owner is None or key not in owner.model_fields:
            return None
        owner = _section_model(owner.model_fields[key])
    return owner


def _section_model(field: FieldInfo) -> type[BaseModel] | None:
    """The section behind a field's type, also where it may be null."""
    candidates = (field.annotation, *getattr(field.annotation, "__args__", ()))
    found = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return arms_model() if found is ArmsConfig else found


def _first_key(field: FieldInfo | None) -> str | None:
    section = _section_model(field) if field is not None else None
    return next(iter(section.model_fields), None) if section is not None else None
