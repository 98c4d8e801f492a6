"""The import contracts of `pyproject.toml`, and what a module's import must not bring along."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_package_keeps_its_import_contracts() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


BANNED = {
    "import study.cli.app": ("torch", "ray", "transformers", "optuna", "datasets", "scipy"),
    "from study.config.load import load_config": ("torch", "ray", "transformers", "datasets"),
    "import study.protocol.plan": ("torch", "ray", "transformers", "datasets", "scipy"),
    "from study import open_study": ("torch", "ray", "transformers", "datasets"),
    "import study.cli.recommend":
        ("torch", "ray", "transformers", "datasets", "optuna", "sqlalchemy", "altair"),
    "import study.report": ("torch", "ray", "transformers", "datasets"),
    "import study.protocol.search.steps, study.protocol.rounds.planning":
        ("torch", "ray", "transformers", "datasets", "optuna", "pandas", "scipy"),
    "import study.launch": ("torch", "ray", "transformers", "datasets", "scipy", "jinja2"),
}  # fmt: skip


@pytest.mark.parametrize("statement", BANNED)
def test_a_module_is_imported_without_what_it_does_not_need(statement: str) -> None:
    code = (
        f"{statement}\nimport sys\nprint(*(m for m in {BANNED[statement]!r} if m in sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded == []


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in ROOT.glob("study/*/__init__.py")))
def test_a_package_says_what_it_is_for_what_to_import_and_what_it_never_does(folder: str) -> None:
    tree = ast.parse((ROOT / "study" / folder / "__init__.py").read_text(encoding="utf-8"))
    first, _, rest = (ast.get_docstring(tree) or "").partition("\n\n")
    assert first.endswith(".") and rest.count(".") >= 2
