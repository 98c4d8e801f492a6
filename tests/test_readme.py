"""What the README says holds: examples parse, commands exist, links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from study.config import parse_config
from study.config_models import StudyConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_yaml_examples_are_valid_studies() -> None:
    (example,) = blocks("yaml")
    assert parse_config(example).arms.names == ("full",)


def test_python_examples_compile_and_use_the_public_names() -> None:
    import study

    (example,) = blocks("python")
    compile(example, "README.md", "exec")
    for name in study.__all__:
        assert name in example


def test_every_verb_in_the_readme_is_a_command() -> None:
    from study.cli.app import app

    verbs = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    verbs |= {group.name for group in app.registered_groups}
    mentioned = set(re.findall(r"^study (\w+)", "\n".join(blocks("bash")), re.M))
    assert mentioned == verbs


def test_the_reference_has_every_section_and_no_other() -> None:
    reference = README.split("## Reference of `study.yaml`")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)", reference, re.M))
    named |= {m.split(".")[0] for m in re.findall(r"`(\w+\.\w+)`", reference)}
    assert named == set(StudyConfig.model_fields)


def test_the_reference_has_every_key_of_every_section() -> None:
    reference = README.split("## Reference of `study.yaml`")[1].split("\n## ")[0]
    for section, field in StudyConfig.model_fields.items():
        model = field.annotation
        for key in getattr(model, "model_fields", {}):
            assert re.search(rf"\b{key}\b", reference), f"{section}.{key}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("**/README.md")), ids=lambda p: str(p.parent))
def test_links_lead_somewhere(page: Path) -> None:
    if any(part.startswith(".") for part in page.relative_to(ROOT).parts):
        return
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_ci_calls_the_readmes_test_command() -> None:
    command = next(b.strip() for b in blocks("bash") if "pytest" in b).replace(".venv/bin/", "")
    assert command in (ROOT / ".ci" / "run").read_text()


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.version import Version

    lines = (ROOT / "constraints.txt").read_text().split()
    pins = {x.split("==")[0].lower().replace("_", "-"): x.split("==")[1] for x in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        r for extra in project["optional-dependencies"].values() for r in extra
    ]
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name != project["name"]:
            pin = pins[requirement.name.lower().replace("_", "-")]
            assert requirement.specifier.contains(Version(pin)), f"{text}: {pin}"
