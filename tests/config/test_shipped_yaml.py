"""Every YAML file the project ships can be read, and does what its place promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from study.basics.errors import ConfigError
from study.cli.examples.templates import TEMPLATES, render_template
from study.config.load import load_config, parse_config
from study.config.space.read import load_space, space_names
from tests.helpers.data import DEMO_PATHS

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(
    path
    for pattern in ("*.y*ml", "*/**/*.y*ml")
    for path in ROOT.glob(pattern)
    if path.relative_to(ROOT).parts[0] in ("study", "search_spaces", "cluster") or
    path.parent == ROOT
)  # fmt: skip


def rendered(name: str) -> str:
    return render_template(name, **DEMO_PATHS) if name == "demo" else render_template(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with everything the templates point at."""
    (tmp_path / "base-model").mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "base-model" / file).write_text("{}")
    for file in ("train.jsonl", "train.csv", "task.jsonl", "general.jsonl"):
        (tmp_path / file).write_text("{}\n")
    return tmp_path


def test_there_are_yaml_files_to_look_at() -> None:
    assert {p.stem for p in SHIPPED} >= {*TEMPLATES, *space_names()}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_shipped_yaml_is_yaml_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert any(document is not None for document in yaml.safe_load_all(text))
    assert text.startswith("#")


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*")), ids=lambda p: p.name)
def test_every_shipped_space_loads_by_name_and_its_header_says_how_to_use_it(path: Path) -> None:
    if path.suffix == ".yaml":
        assert load_space(path.stem).name == path.stem
        assert f"space: {path.stem}" in path.read_text(encoding="utf-8").partition("shared:")[0]
    else:
        assert all(f"`{name}.yaml`" in path.read_text(encoding="utf-8") for name in space_names())


def test_every_template_file_is_listed() -> None:
    files = {p.stem for p in (ROOT / "study" / "cli" / "examples" / "templates").glob("*.yaml")}
    assert files == set(TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_loads_once_its_files_are_there(name: str, folder: Path) -> None:
    (folder / "study.yaml").write_text(rendered(name), encoding="utf-8")
    config = load_config(folder / "study.yaml")
    assert config.arms.names == ("full", "lift")
    assert config.model.path == str(folder / "base-model")
    sizes = config.dataset_sizes
    assert len(sizes) >= 4 and sizes[-1] >= 8 * sizes[0]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_templates_only_faults_are_the_files_it_points_at(name: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(rendered(name), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "study.yaml")
    expected = {"model.path", "data.train"} | ({"data.retention"} if name == "demo" else set())
    assert {fault.path for fault in caught.value.faults} == expected


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n != "demo"])
def test_a_template_proposes_enough_for_a_verdict(name: str) -> None:
    config = parse_config(rendered(name))
    assert config.search.replicates >= 3 and config.search.trials >= 8
    assert config.search.replicates * config.confirm.seeds >= 6


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n != "demo"])
def test_a_template_marks_the_three_lines_to_edit(name: str) -> None:
    marked = [line for line in rendered(name).splitlines() if "<--" in line][1:]
    assert len(marked) == 3


def test_the_demo_template_takes_any_path(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b": #c' / "$d"
    folder.mkdir(parents=True)
    awkward = {**DEMO_PATHS, "task": f"{folder}/task.jsonl"}
    assert parse_config(render_template("demo", **awkward)).data.train == awkward["task"]


def test_an_unknown_template_or_a_missing_path_is_refused() -> None:
    with pytest.raises(KeyError, match="causal-lm"):
        render_template("nope")
    with pytest.raises(KeyError, match="model"):
        render_template("demo")
