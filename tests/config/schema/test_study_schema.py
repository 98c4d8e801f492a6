"""The JSON Schemas say of a file what the loader says of it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.basics.errors import ConfigError
from study.basics.yaml_source import parse_yaml
from study.cli.examples.templates import TEMPLATES, render_template
from study.config.load import parse_config
from study.config.models import StudyConfig
from study.config.schema import SPACE_FILE, STUDY_FILE, space_schema, study_schema
from study.config.space.parameters import all_parameters
from study.config.space.read import load_space
from study.strategies.lift import LiftStrategy
from tests.helpers.data import DEMO_PATHS
from tests.helpers.forms import (
    DOMAINS,
    GOOD,
    GOOD_SPACE,
    VALUES,
    loader_takes,
    loader_takes_space,
    replaced,
    schema_takes,
    whole_number_as_float,
)
from tests.helpers.wrong_studies import WRONG

ROOT = Path(__file__).parents[3]
SECTIONS = {
    "": [
        *(name for name, field in StudyConfig.model_fields.items()
          if not hasattr(field.annotation, "model_fields")),
        "arms", "arms.full", "arms.lift",
    ],
    "arms.lift": [f"arms.lift.{key}" for key in LiftStrategy.model_fields],
} | {
    section: [section, *(f"{section}.{key}" for key in field.annotation.model_fields)]
    for section, field in StudyConfig.model_fields.items()
    if section != "arms" and hasattr(field.annotation, "model_fields")
}  # fmt: skip
# Text that the loader looks into, and numbers that have to suit others.
LOOKED_INTO = {
    "task", "data.text", "data.prompt", "data.response", "data.messages", "data.label",
    "data.validation_size", "data.test_size", "search.space", "search.replicates",
    "storage.database", "storage.results",
    "training.micro_batch_size_per_worker", "resources.workers_per_trial",
    "zero.offload_parameters",
}  # fmt: skip
# Faults that only the loader can find.
NOT_YAML = {
    "duplicate key", "nested duplicate", "tab", "open bracket", "two documents", "tag",
    "leading zero", "value inside itself", "nested a thousand times", "nested through aliases",
    "a bomb of aliases", "many aliases", "too long", "a long line", "a control character",
    "a null character", "a null character in a path", "half a character", "a number beyond all",
    "a number in base 16 beyond all",
}  # fmt: skip
ONLY_THE_LOADER = {
    # In files.
    "missing model", "model in a folder that is here", "model is a file", "missing tokenizer",
    "missing data", "missing data without a dot", "empty glob", "one of several files",
    "folder without data", "unknown format", "missing retention", "home of nobody",
    "name too long", "results below a file", "prefix cache below a file", "unknown space",
    "missing space file",
    # Over several keys.
    "groups and group size", "group size here, groups searched",
    "groups here, group size searched", "groups and group size searched", "epochs and steps",
    "steps and min_steps", "batch and workers", "batch and micro-batch",
    "default batch and workers", "parameter offload below stage 3",
    "optimizer offload on stage 0", "gpu shared within a trial", "no columns", "two forms",
    "prompt without response", "response without prompt", "label in causal-lm",
    "classification without label", "splits take everything", "inline space",
    "endless trials", "endless replicates", "endless evaluations", "endless steps",
    "endless epochs", "override past the other bound", "decided twice", "beta2 for SGD",
    # Inside a text.
    "a group of endless digits",
    "open brace", "positional field", "format specification", "column without braces",
    "prompt without braces", "column with braces", "not a database", "another database",
    "database in memory",
    # JSON has no infinity.
    "infinite", "endless budget",
}  # fmt: skip


def test_the_files_are_the_generated_ones() -> None:
    for path, schema in ((STUDY_FILE, study_schema()), (SPACE_FILE, space_schema())):
        assert json.loads(path.read_text(encoding="utf-8")) == schema, (
            "python -m study.config.schema"
        )


@pytest.mark.parametrize("section", SECTIONS)
def test_a_form_is_taken_by_the_schema_if_and_only_if_the_loader_takes_it(section: str) -> None:
    for path in SECTIONS[section]:
        for value in VALUES:
            study = replaced(path, value)
            by_loader, by_schema = loader_takes(study), schema_takes(study)
            if value == [] and path.startswith("data."):
                by_loader = False  # `load_config` refuses it: no file is named
            if path == "prefix_cache.enabled" and value == 0:
                continue  # pydantic takes 0 for false
            if by_schema and not by_loader:
                assert path in LOOKED_INTO or whole_number_as_float(value), (path, value)
            else:
                assert by_schema == by_loader, (path, value)


def _does_not_divide(domain: Any) -> bool:
    """Whether `high` is no whole number of steps above `low`: a sum, which no schema does."""
    return isinstance(domain, dict) and domain.get("step") in (1, 0.2) and "low" in domain


@pytest.mark.parametrize("section", ["shared", "full", "lift"])
def test_a_domain_is_taken_by_the_schema_if_and_only_if_the_loader_takes_it(section: str) -> None:
    for name in all_parameters():
        for domain in DOMAINS[:: 1 if section == "lift" else 5]:
            space = replaced(f"{section}.{name}", domain, GOOD_SPACE)
            by_loader, by_schema = loader_takes_space(space), schema_takes(space, "space")
            if by_schema != by_loader:
                assert by_schema and _does_not_divide(domain), (name, domain)


@pytest.mark.parametrize("section", [None, "shared", "lift"])
def test_an_override_that_the_loader_takes_is_taken_by_the_schema(section: str | None) -> None:
    ranges = {"learning_rate": {"low": 0.1, "high": 2.0}, "beta2": {"low": 0.0, "high": 0.5}}
    data = {"shared": GOOD_SPACE["shared"] | ranges, "lift": {"sweeps": {"low": 1, "high": 3}}}
    space, taken = load_space(data), 0
    for name in all_parameters():
        for domain in DOMAINS[::5]:
            overrides = {section: {name: domain}} if section else {name: domain}
            if schema_takes({**GOOD, "search": {"space": data, "overrides": overrides}}):
                taken += 1
                continue
            with pytest.raises(ConfigError):
                space.with_overrides(overrides)
    assert taken > 20


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_taken(name: str) -> None:
    text = render_template(name, **DEMO_PATHS) if name == "demo" else render_template(name)
    assert schema_takes(yaml.safe_load(text))


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")))
def test_a_shipped_space_is_taken(path: Path) -> None:
    space = parse_yaml(path.read_text(encoding="utf-8"), path.name).data
    assert schema_takes(space, "space")
    assert schema_takes({**GOOD, "search": {"space": space}})


def test_a_loaded_configuration_is_taken_again() -> None:
    assert schema_takes(json.loads(json.dumps(parse_config(GOOD).to_dict())))


@pytest.mark.parametrize("case", sorted(set(WRONG) - NOT_YAML))
def test_a_wrong_file_is_refused_by_the_schema_where_a_schema_can_tell(case: str) -> None:
    text, *_ = WRONG[case]
    assert schema_takes(parse_yaml(text, case).data) == (case in ONLY_THE_LOADER)


def test_every_key_says_what_it_means() -> None:
    schema = study_schema()
    sections = [schema, *(d for n, d in schema["$defs"].items() if n.endswith("Config"))]
    for section in sections:
        for key, field in section["properties"].items():
            assert field.get("description"), key
            assert len(field["description"]) > 8 and "\n" not in field["description"], key


def test_the_verb_prints_them(tmp_path: Path) -> None:
    for more, path in ((), STUDY_FILE), (("--space",), SPACE_FILE):
        done = subprocess.run(
            [sys.executable, "-m", "study", "schema", *more], capture_output=True, text=True,
            check=True, cwd=tmp_path,
        )  # fmt: skip
        assert done.stdout == path.read_text(encoding="utf-8")


def test_a_new_study_file_names_its_schema_for_editors(tmp_path: Path) -> None:
    from study.cli.files import write_study_file

    write_study_file(tmp_path / "study.yaml", "causal-lm", force=False)
    first = (tmp_path / "study.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={STUDY_FILE.as_uri()}"
    assert STUDY_FILE.is_file()


def test_the_schema_is_closed_at_every_depth() -> None:
    wrong = copy.deepcopy(GOOD)
    for path in ("x", "model.x", "arms", "search.x", "search.space.x", "search.space.shared.x"):
        value: Any = {"lift": {"x": 1}} if path == "arms" else 1
        assert not schema_takes(replaced(path, value, wrong)), path
