"""The layers of the package, kept by its import graph."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import study

ROOT = Path(study.__file__).parent

LAYERS = (
    (
        "errors",
        "fingerprints",
        "records",
        "domains",
        "yaml_source",
        "paths",
        "text_files",
        "text_format",
        "remote",
        "urls",
        "lift_options",
        "space_faults",
        "space",
    ),
    (
        "config_section",
        "config_arms",
        "config_models",
        "config_faults",
        "config_checks",
        "config_paths",
        "config",
        "schema",
        "templates",
    ),
    (
        "results",
        "strategies",
        "cost_model",
        "steps",
        "plan",
        "recipe",
        "advice",
        "extension",
        "storage",
        "patient_storage",
        "store_facts",
        "store_notes",
        "store_records",
        "store_reader",
        "snapshot",
        "store",
        "shared_results",
        "reading",
        "warm_bounds",
        "warm_start",
    ),
    ("training", "analysis", "table"),
    ("orchestration", "report", "reuse", "launch"),
    ("api", "cli"),
)
ONLY_IN = {
    "ray": "orchestration",
    "deepspeed": "training",
    "altair": "report",
    "vl_convert": "report",
    "jinja2": "report",
}
SOURCES = sorted(p for p in ROOT.rglob("*.py") if p.name not in ("__main__.py",))


def _layer(module: str) -> int | None:
    return next((i for i, names in enumerate(LAYERS) if module in names), None)


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_no_higher_layer(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own in ("__init__", "demo"):
        return
    layer = _layer(own)
    assert layer is not None, f"{own} has no layer"
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "study" and len(parts) > 1 and (other := _layer(parts[1])) is not None:
            assert other <= layer, f"{own} (layer {layer}) imports {name} (layer {other})"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_folder(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    for name in _imports(path):
        home = ONLY_IN.get(name.split(".")[0])
        assert home in (None, folder), f"{path} imports {name}"


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import study.cli.app", ("torch", "ray", "transformers", "optuna", "datasets", "scipy")),
        ("from study.config import load_config", ("torch", "ray", "transformers", "datasets")),
        ("import study.plan", ("torch", "ray", "transformers", "datasets", "scipy")),
        ("from study import open_study", ("torch", "ray", "transformers", "datasets")),
        (
            "import study.cli.recommend",
            ("torch", "ray", "transformers", "datasets", "optuna", "sqlalchemy", "altair"),
        ),
        ("import study.report", ("torch", "ray", "transformers", "datasets")),
        ("import study.launch", ("torch", "ray", "transformers", "datasets", "scipy", "jinja2")),
    ],
)
def test_a_module_is_imported_without_what_it_does_not_need(
    statement: str, banned: tuple[str, ...]
) -> None:
    code = f"{statement}\nimport sys\nprint(*(m for m in {banned!r} if m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded == []
