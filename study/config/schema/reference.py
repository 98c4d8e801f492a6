"""The reference of `study.yaml` as Markdown, from its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from study.config.schema.search_space import Schema
from study.config.schema.study_file import study_schema
from study.strategies import STRATEGIES

# Where the schema's alternatives are too many to list, what they come to.
VALUES = {
    "dataset_sizes": "a number, or a list",
    "tracking": "`tensorboard`, `mlflow`, `wandb`, or a list",
    "arms": f"{', '.join(f'`{arm}`' for arm in STRATEGIES)}, a list of them, or a section",
    "data.train": "text, or a list",
    "data.validation": "text, or a list",
    "data.test": "text, or a list",
    "data.retention": "text, or a list",
    "search.space": "a name, a path, or a section",
    "search.overrides": "a section",
    "zero.overrides": "a section",
    "zero.stage": "`0`, `1`, `2`, `3`",
    "training.betas": "two numbers, from 0 to below 1",
}


def reference() -> str:
    """A table of the keys at the top, and one of each section."""
    schema = study_schema()
    parts = [_table(schema, "", schema)]
    for path, section in _sections(schema):
        meaning = _meaning(schema, path)
        parts.append(f"### `{path}`\n\n{meaning}\n\n{_table(section, path, schema)}")
    return "\n\n".join(parts) + "\n"


def _sections(schema: Schema) -> Iterator[tuple[str, Schema]]:
    for key, field in schema["properties"].items():
        section = _section_of(field, schema)
        if key == "arms":
            for arm, strategy in STRATEGIES.items():
                options = schema["$defs"][strategy.__name__]
                if options["properties"]:
                    yield f"arms.{arm}", options
        elif section is not None:
            yield key, section


def _meaning(schema: Schema, path: str) -> str:
    section, _, key = path.rpartition(".")
    owner = schema["$defs"]["ArmsConfig"] if section else schema
    return str(owner["properties"][key]["description"])


def _table(section: Schema, path: str, schema: Schema) -> str:
    lines = ["| key | meaning | values | default |", "|---|---|---|---|"]
    for key, field in section["properties"].items():
        full = f"{path}.{key}" if path else key
        needed = key in section.get("required", ())
        default = "required" if needed else _default(field)
        if _section_of(field, schema) is not None and not full.startswith("search."):
            values, default = f"[a section](#{key})", "required" if needed else ""
        else:
            values = VALUES.get(full) or _values(field)
        cells = [f"`{key}`", field["description"], values, default]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _section_of(field: Schema, schema: Schema) -> Schema | None:
    """The section that a key holds, where it always holds one of the study file's own."""
    name = str(field.get("$ref", "")).rpartition("/")[2]
    return schema["$defs"][name] if name.endswith("Config") else None


def _default(field: Schema) -> str:
    if field.get("default", []) == []:
        return ""
    return f"`{json.dumps(field['default'])}`".replace('"', "")


def _values(field: Schema) -> str:
    """What a key may be, in words; that null leaves it out, its default says."""
    forms = [form for form in field.get("anyOf", [field]) if form.get("type") != "null"]
    if len(forms) > 1 and forms[0].get("type") == "array":
        return "a list, or text"
    return ", or ".join(_form(form) for form in forms)


def _form(form: Schema) -> str:
    if "enum" in form:
        return ", ".join(_word(value) for value in form["enum"])
    if "const" in form:
        return _word(form["const"])
    if form["type"] == "array":
        return f"a list of {_form(form['items'])}"
    if form["type"] in ("boolean", "string"):
        return "`true`, `false`" if form["type"] == "boolean" else "text"
    return _number(form)


def _number(form: Schema) -> str:
    whole = form["type"] == "integer"
    bounds = [
        f"{words} {form[rule]:g}"
        for rule, words in (
            ("minimum", "at least"), ("exclusiveMinimum", "above"),
            ("maximum", "at most"), ("exclusiveMaximum", "below"),
        )
        if rule in form
    ]  # fmt: skip
    return " ".join(["a whole number" if whole else "a number", " and ".join(bounds)]).strip()


def _word(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"
