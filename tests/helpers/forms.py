"""Study files in every form that a key may be written in, and whether loader and schema take them.

The loader is `parse_config`, which looks at no files: like the schema, it is asked about the file.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import jsonschema

from study.basics.errors import ConfigError
from study.config.load import parse_config
from study.config.schema import space_schema, study_schema
from study.config.space.read import load_space

GOOD_SPACE: dict[str, Any] = {
    "shared": {"learning_rate": 1e-5, "warmup_ratio": 0.1, "max_grad_norm": 1.0}
}
GOOD: dict[str, Any] = {
    "name": "tiny",
    "model": {"path": "./model"},
    "data": {"train": "./train.jsonl", "prompt": "{q}", "response": "{a}"},
    "dataset_sizes": [64, 512],
    "arms": ["full", "lift"],
    "search": {"space": GOOD_SPACE},
}
# For every key, whether they suit it or not.
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 4, 16, 512, -0.5, 0.0, 1e-8, 0.03, 0.5, 0.999, 1.0, 1.5, 2.0,
    "", "auto", "none", "cpu", "x", "default", "general", "full", "lift", "tokens", "adamw", "asha",
    "head", "head, last_2_blocks", "last_0_blocks", "head head2", "2, 4, 6", "2 02", "2, 0", ",",
    "mlflow", ["wandb", "tensorboard"], ["wandb", "wandb"],
    "top-down", "proportional", "median", "fp32", "8", "a b", "sequence-classification",
    [], ["full"], ["lift", "full"], ["full", "full"], [1], [1, 2], [2, 0], [0.9, 0.95], [0.9, 1.0],
    ["x"], ["x", 2], [""], ["head"], ["head", "final_norm"], ["none"], ["none", "head"],
    ["last_1_block"], [[1]],
    {}, {"x": 1}, {"path": "p"}, {"full": {}}, {"full": None, "lift": None}, {"lora": {}},
    {"train": "t", "text": "c"}, {"low": 1.0, "high": 2.0},
]  # fmt: skip
DOMAINS: list[Any] = [
    *VALUES,
    *({"choices": [value]} for value in VALUES if not isinstance(value, dict)),
    {"choices": []}, {"choices": [0.1, 0.2]}, {"choices": [1, 1]}, {"choices": [1, 2], "log": True},
    {"choices": ["top-down", "random"]}, {"choices": [True, False]}, {"choices": [True, 1]},
    *({"low": low, "high": high, **rest}
      for low, high in [(1, 3), (0.1, 0.5), (0.0, 0.5), (0, 4), (1.0, 3.0), (None, 1), (True, 3)]
      for rest in [{}, {"log": True}, {"log": False}, {"log": None}, {"step": 1}, {"step": 0.2},
                   {"step": None}, {"step": 0}, {"log": True, "step": 1},
                   {"log": True, "step": None}, {"type": "int"}, {"type": "float"}, {"x": 1}]),
    {"low": 0.1}, {"high": 3}, {"low": 1, "high": None}, {"log": True}, {"step": 1},
]  # fmt: skip


def replaced(path: str, value: Any, base: dict[str, Any] = GOOD) -> dict[str, Any]:
    """`base` with `value` at a dotted path."""
    study = copy.deepcopy(base)
    section: dict[str, Any] = study
    *above, key = path.split(".")
    for name in above:
        if not isinstance(section.get(name), dict):
            section[name] = {}
        section = section[name]
    section[key] = copy.deepcopy(value)
    return study


def loader_takes(study: Any) -> bool:
    try:
        parse_config(study)
    except ConfigError:
        return False
    return True


def loader_takes_space(space: Any) -> bool:
    try:
        load_space(space, arms=())
    except ConfigError:
        return False
    return True


@cache
def _validator(kind: str) -> jsonschema.Draft7Validator:
    schema = study_schema() if kind == "study" else space_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    assert "prefixItems" not in json.dumps(schema)  # to draft 7 it is no rule
    return jsonschema.Draft7Validator(schema)


def schema_takes(study: Any, kind: str = "study") -> bool:
    return bool(_validator(kind).is_valid(study))


def whole_number_as_float(value: Any) -> bool:
    """JSON has one kind of number: to a schema 2.0 is a whole number."""
    if isinstance(value, dict):
        return any(whole_number_as_float(item) for item in value.values())
    if isinstance(value, list):
        return any(whole_number_as_float(item) for item in value)
    return isinstance(value, float) and value.is_integer()
