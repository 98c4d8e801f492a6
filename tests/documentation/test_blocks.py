"""Every code block of every page is run, as far as one machine without a cluster can run it.

- `yaml` is loaded as the study file, the search space or the part of either that it is, and held
  against the JSON Schema.
- `bash`: each command line. `study` verbs that need no training run for real on a study on record
  (`RUN`); the others, and those that name a cluster or a bucket, go through the real argument
  parser, as `ray`'s do, and `aws` is held against Amazon's description of itself. Of every other
  tool (`PARSED`) only the shell's syntax, shellcheck and the files of this repository that a line
  names are checked. What the parsed verbs do has tests of its own; `run` and `train` are run for
  real by the tutorial's test.
- The tutorial and the Python of the README: `test_tutorial.py`.
- Output is compared with real output there; here only the words of `study check` are.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import click
import pytest
import typer
import yaml
from botocore import xform_name
from typer.testing import CliRunner

from study.basics.paths import StudyPaths
from study.basics.yaml_source import parse_yaml
from study.cli.app import app
from study.config.load import parse_config
from study.config.models import StudyConfig
from study.config.space.read import load_space
from tests.documentation.output import missing_part
from tests.documentation.pages import BLOCKS, ROOT, Block, commands, rule_of, with_rule
from tests.helpers.forms import GOOD, GOOD_SPACE, schema_takes

RUN = {
    "init", "schema", "plan", "status", "show", "stop", "report", "best", "export", "recommend",
    "clean", "cluster",
}  # fmt: skip
ANSWERS = {"clean": "n\n"}
PARSED = {
    "docker", "kubectl", "gcloud", "sbatch", "export", "optuna-dashboard", "tensorboard", "mlflow",
}  # fmt: skip


def test_every_block_has_a_test() -> None:
    assert {rule_of(block) for block in BLOCKS} == {
        "bash", "yaml", "python", "tutorial", "files", "output of a run", "output of a check",
    }  # fmt: skip


@pytest.mark.parametrize("block", with_rule("yaml"), ids=str)
def test_yaml_is_what_the_loader_and_the_schema_take(block: Block) -> None:
    data = parse_yaml(block.text, str(block)).data
    if set(data) <= {"name", "shared", "full", "lift"}:
        assert load_space(GOOD_SPACE | data).for_arm("lift")
        assert schema_takes(data, "space")
        return
    assert set(data) <= set(StudyConfig.model_fields), block
    study = data if "model" in data else GOOD | data
    assert parse_config(study).arms.names
    assert schema_takes(study)


@pytest.mark.parametrize("block", with_rule("bash"), ids=str)
def test_shell_is_shell(block: Block) -> None:
    script = f"#!/usr/bin/env bash\n{block.text}"
    checked = subprocess.run(
        [str(Path(sys.executable).with_name("shellcheck")), "--severity=warning", "-"],
        input=script,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.fixture
def folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, as the working directory; what a block writes there goes with it."""
    monkeypatch.chdir(project)
    there = set(project.iterdir())
    yield project
    for path in set(project.iterdir()) - there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("block", with_rule("bash"), ids=str)
def test_every_command_runs_or_parses(block: Block, folder: Path) -> None:
    for words in commands(block.text):
        tool = Path(words[0]).name
        if tool == "study":
            _study(words[1:], folder)
        elif tool == "ray":
            with warnings.catch_warnings():  # Ray's own, on import
                warnings.simplefilter("ignore")
                from ray.scripts.scripts import cli
            _parse(cli, "ray", words[1:])
        elif tool in ("python", "python3") and words[1] == "-m":
            _module(words[2], words[3:])
        elif tool == "aws":
            _aws(*words[1:])
        else:
            assert tool in PARSED or tool == "pip", f"{block}: nothing tests `{tool}`"
        for word in words[1:]:
            if word.startswith(("cluster/", "search_spaces/", "study/")) and word != "study/":
                assert (ROOT / word).exists(), f"{block}: {word}"


def _aws(service: str, operation: str, *options: str) -> None:
    """Amazon's own description of its services knows the operation and the options."""
    model = botocore.session.get_session().get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    shape = model.operation_model(names[operation]).input_shape
    known = {f"--{xform_name(name, '-')}" for name in shape.members}
    for option, value in zip(options[::2], options[1::2], strict=True):
        assert option in known
        if option.endswith("-document"):
            assert {"Version", "Statement"} == json.loads(value).keys()


def _study(arguments: list[str], folder: Path) -> None:
    _parse(typer.main.get_command(app), "study", arguments)
    elsewhere = any("://" in word and "sqlite" not in word for word in arguments)
    if arguments[0] not in RUN or elsewhere:
        return
    ours = (folder / "study.yaml").read_text()
    if arguments[0] == "init":
        (folder / "study.yaml").unlink()
    ran = CliRunner().invoke(app, arguments, input=ANSWERS.get(arguments[0]))
    # 3: one replicate is no evidence to recommend anything from.
    expected = 3 if arguments[0] == "recommend" else 0
    assert ran.exit_code == expected, f"{arguments}: {ran.exception!r}"
    (folder / "study.yaml").write_text(ours)  # the reader edits it too


def _parse(command: click.Command, name: str, arguments: list[str]) -> None:
    """Through the parser of a command line, without running it."""
    context = click.Context(command, info_name=name)
    while hasattr(command, "get_command") and arguments:
        inner = command.get_command(context, arguments[0])
        assert inner is not None, f"{name} has no `{arguments[0]}`"
        command, name, arguments = inner, arguments[0], arguments[1:]
    command.make_context(name, list(arguments), parent=context)


def _module(module: str, arguments: list[str]) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    if module.partition(".")[0] in ("tests", "study"):
        folder = spec.submodule_search_locations
        source = Path(folder[0]) / "__main__.py" if folder else Path(str(spec.origin))
        text = source.read_text(encoding="utf-8")
        for option in (word for word in arguments if word.startswith("--")):
            assert f'"{option}"' in text, f"{module} has no {option}"


@pytest.mark.parametrize("block", with_rule("files"), ids=str)
def test_every_file_of_a_listing_is_there(block: Block, project: Path) -> None:
    head, *lines = block.text.splitlines()
    if head.startswith("results/"):
        known = {
            found.name
            for name, value in vars(StudyPaths).items() if isinstance(value, property)
            if isinstance(found := getattr(StudyPaths(project), name), Path)
        } | {"checkpoints"}  # fmt: skip
        for line in lines:
            name = re.match(r"  (\S+)", line)
            assert name is None or name[1].strip("/") in known, line
        return
    for line in lines:
        if line.startswith(" " * 10):
            continue  # the description of the line before goes on
        root = "" if not line.startswith("  ") else head
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            assert list(ROOT.glob(f"{root}{name.rstrip('/')}")), f"{block}: {name}"


@pytest.mark.parametrize("block", with_rule("output of a check"), ids=str)
def test_the_words_of_a_check_are_the_programs(block: Block) -> None:
    known: set[tuple[str, str]] = set()
    for path in (ROOT / "study" / "orchestration" / "preflight").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                known |= _pairs(node.value)
    # Lines begin with a verdict and a check's name, and values stand between the words.
    said = _pairs(" ".join(line[15:] for line in block.text.splitlines() if line[15:].strip()))
    assert len(said & known) >= 0.6 * len(said), sorted(said - known)


def _pairs(text: str) -> set[tuple[str, str]]:
    """Neighbouring words with nothing but a space between them."""
    return set(re.findall(r"(?=\b([a-z]+)\s+([a-z]+)\b)", text))


def test_every_fence_ends() -> None:
    for path in {ROOT / block.page for block in BLOCKS}:
        assert path.read_text(encoding="utf-8").count("```") % 2 == 0, path


def test_templates_show_commands_that_exist() -> None:
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    for path in (ROOT / "study" / "cli" / "examples" / "templates").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text)
        assert set(re.findall(r"^#\s+study (\w+)", text, re.M)) <= verbs


def test_output_that_differs_in_more_than_numbers_is_found() -> None:
    output = "Starting Ray ...\n[ 1/9] full-n64-r0-s0  COMPLETE val 0.1 9 s\nTook 1 min 2 s\n"
    same = "Starting Ray ...\n[ 2/18] lift-n32-r1-s1 COMPLETE val 2e-3 1 min 3 s"
    assert missing_part(same, output) is None
    assert missing_part("Starting Ray\n...\nTook 7 s", output) is None
    backwards = "Took 7 s\n...\nStarting Ray"
    for wrong in ("Starting Tune", backwards, "[ 1/9] full-n1-r0-s0 FAIL", "Took 7 min."):
        assert missing_part(wrong, output) is not None
