"""What the pages say holds: verbs exist, links lead somewhere, the reference is the schema's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from study.config.models import StudyConfig
from study.config.schema.__main__ import BEGIN, END, with_reference
from tests.documentation.pages import BLOCKS, PAGES, ROOT, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = ROOT / "study" / "config" / "schema" / "README.md"


def test_every_verb_is_shown_and_no_other() -> None:
    from study.cli.app import app

    verbs = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    verbs |= {str(group.name) for group in app.registered_groups}
    lines = [words for b in BLOCKS if b.language == "bash" for words in commands(b.text)]
    shown = {words[1] for words in lines if Path(words[0]).name == "study"}
    assert shown == verbs


def test_the_reference_is_the_generated_one() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    assert page == with_reference(page), "python -m study.config.schema"
    assert page.count(BEGIN) == page.count(END) == 1


def test_the_reference_has_every_key_of_every_section() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    top, *sections = page.partition(BEGIN)[2].partition(END)[0].split("\n### ")
    tables = {"": top} | {text.split("`")[1]: text for text in sections}
    for name, field in {"": None, **StudyConfig.model_fields}.items():
        model = StudyConfig if field is None else field.annotation
        if name != "arms":
            for key in getattr(model, "model_fields", {}):
                assert f"\n| `{key}` | " in tables[name], f"{name}.{key}"
    assert set(tables) - {"", "arms.lift"} < set(StudyConfig.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_page_has_no_code_that_no_test_can_find(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    assert not re.search(r"\n\n {4,}\S", text), "an indented block: fence it"
    assert "~~~" not in text


def test_ci_calls_the_readmes_test_command() -> None:
    shown = [b.text for b in BLOCKS if b.page == "README.md" and b.language == "bash"]
    command = next(text.strip() for text in shown if "pytest" in text).replace(".venv/bin/", "")
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
