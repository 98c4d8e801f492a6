"""`study.yaml` to a validated, immutable `StudyConfig`, with every fault reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from study.basics.errors import ConfigError, Fault
from study.basics.surroundings import check_process, unknown_in
from study.basics.yaml_source import YamlSource, parse_yaml, read_yaml
from study.config.arms import ArmsConfig
from study.config.checks import cross_field_faults, space_faults
from study.config.faults import is_affected, is_section, pydantic_faults, repair
from study.config.files import check_paths, database_faults, resolve_paths, unknown_names
from study.config.models import (
    Basis,
    BudgetConfig,
    ConfirmConfig,
    DataConfig,
    DecisionConfig,
    ModelConfig,
    PrefixCacheConfig,
    ResourcesConfig,
    SearchConfig,
    StorageConfig,
    StudyConfig,
    Task,
    TrainingConfig,
    ZeroConfig,
)
from study.config.space.read import (
    SearchSpace,
    load_space,
    missing_parameters,
    override_space,
    read_space,
)

__all__ = [
    "ArmsConfig", "Basis", "BudgetConfig", "ConfirmConfig", "DataConfig", "DecisionConfig",
    "ModelConfig", "PrefixCacheConfig", "ResourcesConfig", "SearchConfig", "StorageConfig",
    "StudyConfig", "Task", "TrainingConfig", "ZeroConfig", "check_paths", "load_config",
    "parse_config",
]  # fmt: skip


def load_config(path: str | Path) -> StudyConfig:
    """Read a study file. Relative paths in it are relative to its folder.

    Raises:
        ConfigError: everything that is wrong with the file, its search space, and the model and
            data files that it names.
        UserError: no study can run in this process.
    """
    check_process()
    path = Path(path)
    return _validate(read_yaml(path), path.absolute().parent, look_at_files=True)


def parse_config(
    study: str | Mapping[str, Any], base_dir: Path | None = None, source: str = "study.yaml"
) -> StudyConfig:
    """A configuration from YAML text or plain values; the files it names need not exist.

    Args:
        study: what a study file says.
        base_dir: what relative paths are relative to; null: the working directory.
        source: the file's name in messages.

    Raises:
        ConfigError: everything that is wrong.
    """
    parsed = parse_yaml(study, source) if isinstance(study, str) else YamlSource(source, study)
    return _validate(parsed, base_dir or Path.cwd(), look_at_files=False)


def _validate(source: YamlSource, base_dir: Path, look_at_files: bool) -> StudyConfig:
    if not isinstance(source.data, Mapping):
        rule = "a study file has one `key: value` line per setting."
        remedy = "`study init` writes a starting file."
        raise ConfigError(source.name, [Fault("study", None, source.data, rule, remedy)])
    data = _without_empty_sections(source.data)
    faults, affected = list(source.faults), frozenset[str]()
    try:
        config = StudyConfig.model_validate(data)
    except ValidationError as error:
        found = pydantic_faults(error, data, StudyConfig)
        faults, affected = faults + found.faults, found.paths
        # The other checks go on without the faulty settings, and stay silent about what depends
        # on them: one mistake, one message, and still all mistakes at once.
        try:
            config = StudyConfig.model_validate(repair(data, affected))
        except ValidationError:  # a key with a dot in it, which no path can name
            affected |= found.sections
            rest = {key: value for key, value in data.items() if key not in found.sections}
            config = StudyConfig.model_validate(repair(rest, ()))
    unknown = _unaffected(unknown_names(config), affected)
    faults += unknown
    affected |= {fault.path for fault in unknown}
    config = resolve_paths(config, base_dir)
    faults += cross_field_faults(config, affected)
    faults += _unaffected(database_faults(config.storage.database), affected)
    if look_at_files:
        faults += _unaffected(check_paths(config), affected)
    space = _read_space(config, base_dir, affected, faults)
    if faults:
        located = sorted(source.locate(faults), key=lambda fault: fault.line or 0)
        raise ConfigError(source.name, located)
    search = config.search.model_copy(update={"space": space.to_dict()})
    return config.model_copy(update={"search": search})


def _unaffected(faults: Iterable[Fault], affected: frozenset[str]) -> list[Fault]:
    return [fault for fault in faults if not is_affected(fault.path, affected)]


def _read_space(
    config: StudyConfig, base_dir: Path, affected: frozenset[str], faults: list[Fault]
) -> SearchSpace:
    """The study's search space before its overrides; what is wrong is added to `faults`."""
    spec, found = config.search.space, list[Fault]()
    if isinstance(spec, Mapping):
        space = read_space(spec, "inline", "search.space.", found)
    elif unknown_in(spec):
        return SearchSpace(spec, {})
    else:
        try:
            space = load_space(spec, base_dir, arms=())
        except ConfigError as error:
            faults += [_fault_in_file(spec, error, fault) for fault in error.faults]
            return SearchSpace(spec, {})
    overridden = override_space(space, config.search.overrides, "search.overrides.", found)
    if not found:
        if not is_affected("arms", affected):
            found += missing_parameters(overridden, config.arms.names, "search.space")
        found += space_faults(config, overridden)
    faults += _unaffected(found, affected)
    return space


def _fault_in_file(spec: str, error: ConfigError, fault: Fault) -> Fault:
    """A space file's fault, naming the file; if there is no such file, that of `search.space`."""
    if fault.path == error.source:
        fault = dataclasses.replace(fault, path="space", value=error.source)
    if fault.path == "space":
        return dataclasses.replace(fault, path="search.space")
    return dataclasses.replace(fault, path=f"{spec}: {fault.path}")


def _without_empty_sections(data: Mapping[Any, Any]) -> dict[str, Any]:
    """A section whose lines are all commented out stands for its defaults, an arm for itself."""
    sections = {str(key): _with_text_keys(value) for key, value in data.items()}
    arms = sections.get("arms")
    if isinstance(arms, dict):
        sections["arms"] = {arm: {} if value is None else value for arm, value in arms.items()}
    return {
        key: {} if value is None and is_section(key, StudyConfig) else value
        for key, value in sections.items()
    }


def _with_text_keys(value: Any) -> Any:
    """YAML reads a key such as `on` or `1` as a boolean or number; it is an unknown key here."""
    if isinstance(value, Mapping):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value
