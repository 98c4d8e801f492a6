"""The tutorial, block by block, for real: Ray, a study, a final run, and the model it leaves.

Its output is held against what the page shows. Numbers, durations, the folder and
which of two trials ends first differ from machine to machine and are not compared; `...` on the
page leaves something out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study import open_study
from tests.documentation.output import fixed, missing_part
from tests.documentation.pages import ROOT, TUTORIAL, Block, with_rule
from tests.helpers.ray_head import RayHead

pytestmark = pytest.mark.ray

HOME = "/home/you/first"  # the folder on the page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorial")


@pytest.fixture(scope="module")
def printed(folder: Path, ray_head: RayHead) -> list[tuple[Block, str]]:
    """Each block of output on the page, with what the block before it printed."""
    found, output = [], ""
    for block in with_rule("tutorial"):
        if block.language == "text":
            found.append((block, output))
        elif block.language == "yaml":
            _edit(folder / "study.yaml", block.text)
        else:
            output = _run(block.language, block.text, folder, **ray_head.environment)
    return found


def _run(language: str, text: str, folder: Path, **environment: str) -> str:
    """What a block prints."""
    command = {"bash": ["bash", "-euc"], "python": [sys.executable, "-c"]}[language]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, text], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": path, "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
        | environment,
    )  # fmt: skip
    # 3: past studies have no answer, as the page says.
    expected = 3 if "study recommend" in text else 0
    assert done.returncode == expected, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout.replace(str(folder), HOME)


def _edit(path: Path, changes: str) -> None:
    """The lines of a block, in the file."""
    study = yaml.safe_load(path.read_text())
    for key, value in yaml.safe_load(changes).items():
        study[key] = {**study[key], **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(study, sort_keys=False))


def test_every_command_prints_what_the_page_shows(printed: list[tuple[Block, str]]) -> None:
    assert len(printed) >= 4
    for block, output in printed:
        # What the model writes after that may differ by a word where rounding does.
        shown = "\n".join(block.text.splitlines()[: 3 if block.mark == "its first lines" else None])
        missing = missing_part(shown, output)
        assert missing is None, f"{TUTORIAL}:{block.line}: {missing!r} is not in\n{output}"


def test_the_readmes_output_of_a_run_is_in_the_words_of_a_run(
    printed: list[tuple[Block, str]],
) -> None:
    (shown,) = with_rule("output of a run")
    output = next(text for block, text in printed if "Starting Ray" in text)
    said = [_named(line) for line in output.splitlines()]
    source = (ROOT / "study" / "cli" / "run.py").read_text(encoding="utf-8")
    for line in shown.text.splitlines():
        if line.strip() not in ("", "...") and not line.startswith("$"):
            # What only the demo is told stands in the program's text.
            told = all(part in source for part in re.split(r"\s{2,}", line.strip()))
            assert told or any(_named(line) in known for known in said), line


def _named(line: str) -> str:
    """A line of output with one name for every study, arm, trial and path."""
    line = re.sub(r"--arm \w+", "--arm ARM", line)
    line = re.sub(r"(\S*/)?results/[\w-]+(/\S+)?", "PATH", line)
    return re.sub(r"\b(demo|my-study|study\.yaml)\b", "NAME", fixed(line))


def test_the_readmes_python_runs_on_the_study(
    printed: list[tuple[Block, str]], folder: Path
) -> None:
    output = "".join(_run("python", block.text, folder) for block in with_rule("python"))
    assert str(len(open_study(folder / "study.yaml").results().trials)) in output.split()


def test_the_readmes_python_uses_every_public_name() -> None:
    import study

    text = "".join(block.text for block in with_rule("python"))
    assert all(name in text for name in study.__all__)


def test_the_model_folder_is_whole(printed: list[tuple[Block, str]], folder: Path) -> None:
    names = {path.name for path in (folder / "my-model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
