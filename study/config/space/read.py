"""Search spaces: which hyperparameters a study searches, within what bounds, and their YAML.

A space has parameters shared by all arms and parameters of one arm; the latter add to the
shared ones or replace them. `search_spaces/README.md` describes the file format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from study.basics.errors import ConfigError, Fault
from study.basics.paths import is_yaml
from study.basics.shipped import shipped_folder
from study.basics.surroundings import expanded
from study.basics.yaml_source import YamlSource, read_yaml, suggestion
from study.config.space.domains import (
    CategoricalDomain,
    Domain,
    FixedDomain,
    FloatDomain,
    IntDomain,
)
from study.config.space.parameters import SHARED, read_domain, section_of
from study.strategies import STRATEGIES

__all__ = [
    "CategoricalDomain", "Domain", "FixedDomain", "FloatDomain", "IntDomain", "SearchSpace",
    "load_space", "space_names",
]  # fmt: skip

SPACES = "search_spaces"
REQUIRED = ("learning_rate", "warmup_ratio", "max_grad_norm")


@dataclass(frozen=True)
class SearchSpace:
    """Domains by parameter name.

    Attributes:
        name: for people; a file's stem, or ``inline``.
        shared: domains of all arms.
        arms: by arm, what it adds to the shared domains or has instead of them.
    """

    name: str
    shared: Mapping[str, Domain]
    arms: Mapping[str, Mapping[str, Domain]] = field(default_factory=dict)

    def for_arm(self, arm: str) -> dict[str, Domain]:
        """All domains of one arm: the shared ones in their order, then the arm's own."""
        return {**self.shared, **self.arms.get(arm, {})}

    def upper_bound(self, name: str) -> float:
        """The largest value a numeric parameter may take in any arm.

        Raises:
            KeyError: no arm has it.
        """
        sections = [self.shared, *self.arms.values()]
        domains = [section[name] for section in sections if name in section]
        if not domains:
            raise KeyError(name)
        return max(float(value) for domain in domains for value in domain.values())

    def with_overrides(self, overrides: Mapping[str, Any]) -> SearchSpace:
        """This space with single domains, or single bounds of them, replaced.

        Args:
            overrides: by parameter name for the shared domains, e.g.
                ``{"learning_rate": {"low": 1e-5}}``, and under an arm's name for that arm.

        Raises:
            ConfigError: all faults, with paths relative to `overrides`.
        """
        faults: list[Fault] = []
        space = override_space(self, overrides, "", faults)
        if faults:
            raise ConfigError("search-space overrides", faults)
        return space

    def to_dict(self) -> dict[str, Any]:
        """The space as its YAML says it; `load_space` reads it back."""
        sections = {"shared": self.shared, **self.arms}
        return {"name": self.name} | {
            section: {name: domain.to_yaml() for name, domain in domains.items()}
            for section, domains in sections.items()
        }


def load_space(
    spec: str | Mapping[str, Any],
    base_dir: Path | None = None,
    arms: Sequence[str] | None = None,
) -> SearchSpace:
    """Read a search space.

    Args:
        spec: a name in ``search_spaces/``, the path of a YAML file, or the space itself.
        base_dir: what a relative path is relative to; null: the working directory.
        arms: the arms that need a learning rate, a warmup and a clipping norm in it; None: all.

    Raises:
        ConfigError: all faults of the space, with the file's lines.
    """
    source = _find_space(spec, base_dir or Path.cwd())
    faults: list[Fault] = list(source.faults)
    default_name = "inline" if isinstance(spec, Mapping) else Path(source.name).stem
    space = read_space(source.data, default_name, "", faults)
    if not faults:
        faults = missing_parameters(space, STRATEGIES if arms is None else arms, "")
    if faults:
        raise ConfigError(source.name, source.locate(faults))
    return space


def is_space_file(spec: object) -> TypeGuard[str]:
    """Whether a study's search space is the path of a file, rather than a name or the space."""
    return isinstance(spec, str) and ("/" in spec or is_yaml(spec))


def space_names() -> list[str]:
    """Names of the spaces that come with the package."""
    return sorted(path.stem for path in shipped_folder(SPACES).glob("*.yaml"))


def read_space(data: object, name: str, prefix: str, faults: list[Fault]) -> SearchSpace:
    """A space from plain values; what is wrong is added to `faults` under `prefix`."""
    if not isinstance(data, Mapping):
        rule = "a search space needs a section `shared` with domains below it."
        faults.append(Fault(prefix or "shared", None, None, rule, "See search_spaces/README.md."))
        return SearchSpace(name, {})
    sections: dict[str, dict[str, Domain]] = {}
    for section, domains in data.items():
        path = f"{prefix}{section}"
        if section == "name" and isinstance(domains, str):
            name = domains
        elif section in (SHARED, *STRATEGIES):
            sections[section] = _read_section(section, domains, path, faults)
        else:
            faults.append(_unknown_section(str(section), path))
    return SearchSpace(name, sections.pop("shared", {}), sections)


def override_space(
    space: SearchSpace, overrides: Mapping[str, Any], prefix: str, faults: list[Fault]
) -> SearchSpace:
    """`space` with overrides; what is wrong is added to `faults` under `prefix`."""
    shared = dict(space.shared)
    arms = {arm: dict(domains) for arm, domains in space.arms.items()}
    own = {key: value for key, value in overrides.items() if key not in (SHARED, *STRATEGIES)}
    example = "learning_rate: {high: 1.0e-3}"
    flat = {
        section: _lines(overrides.get(section), f"{prefix}{section}", example, faults)
        for section in (SHARED, *STRATEGIES)
        if section == SHARED or section in overrides
    }
    flat[SHARED] |= own
    for section, domains in flat.items():
        target = shared if section == "shared" else arms.setdefault(section, {})
        for name, spec in domains.items():
            nested = section != "shared" or name not in own
            path = f"{prefix}{section}.{name}" if nested else f"{prefix}{name}"
            merged = _merge(target.get(name, shared.get(name)), spec)
            domain = read_domain(section, str(name), merged, path, faults)
            if domain is not None:
                target[name] = domain
    return SearchSpace(space.name, shared, arms)


def missing_parameters(space: SearchSpace, arms: Iterable[str], path: str) -> list[Fault]:
    """A fault for each parameter that every trial needs and an arm's domains lack."""
    faults = []
    for name in REQUIRED:
        lacking = [arm for arm in arms if name not in space.for_arm(arm)]
        if lacking:
            rule = f"the search space lacks `{name}` (arm: {', '.join(lacking)})."
            remedy = f"Add a domain under `shared`, or a single value to fix it: `{name}: ...`."
            faults.append(Fault(path or f"shared.{name}", None, None, rule, remedy))
    return faults


def _read_section(section: str, data: object, path: str, faults: list[Fault]) -> dict[str, Domain]:
    example = "learning_rate: {low: 2.0e-5, high: 5.0e-5, log: true}"
    domains = {}
    for name, spec in _lines(data, path, example, faults).items():
        domain = read_domain(section, str(name), spec, f"{path}.{name}", faults)
        if domain is not None:
            domains[name] = domain
    return domains


def _lines(data: object, path: str, example: str, faults: list[Fault]) -> dict[str, Any]:
    """What a section says of parameters."""
    if data is None or isinstance(data, Mapping):
        return dict(data or {})
    rule = "must be a section with one parameter per line."
    faults.append(Fault(path, None, data, rule, f"Write e.g. `{example}` below it."))
    return {}


def _merge(base: Domain | None, spec: object) -> object:
    """A partial range such as ``{low: 1e-5}`` keeps the other fields of the range it overrides."""
    if isinstance(spec, Mapping) and "choices" not in spec:
        written = base.to_yaml() if isinstance(base, FloatDomain | IntDomain) else {}
        return {**written, **spec}
    return spec


def _unknown_section(section: str, path: str) -> Fault:
    below = section_of(section)
    if below is not None:
        rule = "a parameter belongs inside a section."
        return Fault(path, None, None, rule, f"Indent it below `{below}:`.")
    return Fault(path, None, None, "unknown section.", suggestion(section, (SHARED, *STRATEGIES)))


def _find_space(spec: str | Mapping[str, Any], base_dir: Path) -> YamlSource:
    if isinstance(spec, Mapping):
        return YamlSource("inline search space", spec)
    if is_space_file(spec):
        return read_yaml(base_dir / expanded(spec))
    path = shipped_folder(SPACES) / f"{spec}.yaml"
    if not path.is_file():
        rule = f"there is no search space named `{spec}`."
        remedy = f"{suggestion(spec, space_names())} For a file of yours, write its path."
        raise ConfigError(spec, [Fault("space", None, None, rule, remedy)])
    return read_yaml(path)
