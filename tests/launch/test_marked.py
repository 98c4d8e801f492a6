"""Examples that are templates: marked values are replaced, and nothing else."""

from __future__ import annotations

import itertools
import json
import re
import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from study.basics.errors import UserError
from study.launch.cluster_file.marked import fill, marked_keys
from study.launch.cluster_file.targets import TARGETS, cluster_folder

YAML = """\
# Edit what is marked <--.
name: example  # <-- name
# kind: {a: b}  # <-- kind
list:
  - one  # <-- item
text: |  # <-- text
  some text

    indented
after: 1
again: {name: 2}
"""
SHELL = """\
#SBATCH --nodes=1  # <-- nodes
##SBATCH --partition=gpu  # <-- partition
NAME=study.yaml  # <-- name, a file
# INTERFACE=ib0  # <-- interface
echo "$NAME"
"""


@pytest.mark.parametrize(
    "value",
    ["plain", "true", "1.5", "a: b", "it's # no comment", "", "[x]", "é", 3, [1, "x"], {"k": "v"}],
)
def test_any_value_comes_back_from_the_yaml_as_it_went_in(value: object) -> None:
    filled = yaml.safe_load(fill(YAML, {"name": value, "item": value}, shell=False).text)
    assert filled["name"] == value and filled["list"] == [value]
    assert filled["after"] == 1 and filled["again"] == {"name": 2}


def test_a_block_is_replaced_up_to_the_next_key() -> None:
    text = "a: 1\n\n  deeper: # <-- name\nlast é\n"
    written = fill(YAML, {"text": text}, shell=False).text
    assert "\n  a: 1\n\n    deeper: # <-- name\n  last é\nafter: 1\n" in written  # for people
    assert yaml.safe_load(written)["text"] == text


# What readers of YAML are known to change, and what tells a block of text where it ends.
PIECES = [
    "a", "b: c", " ", "  ", "\n", "\n\n", "\r\n", "\r", "\t", "\u2028", "\u2029", "\x85", "\xa0",
    "\ufeff", "é", "\U0001f600", "\U000e0001", "---\n", "# <-- name", '"', "\\", "'", "%", "{",
    "|", "\x7f", "\x00", "\u200b", "- x\n", "name: y \n", "\ue000", "\x1b[31m", "...\n", "#",
]  # fmt: skip


def read_as_yaml_1_2(written: str) -> str:
    """The value of `text`. In YAML 1.2 quoted JSON is what JSON says, and a block's lines end at
    line feeds alone."""
    lines = written.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("text: "))
    value = lines[start].removeprefix("text: ")
    if value.startswith('"'):
        wide = re.sub(r"(?<!\\)((?:\\\\)*)\\U([0-9a-f]{8})",
                      lambda m: m[1] + chr(int(m[2], 16)), value)  # fmt: skip
        return str(json.JSONDecoder().raw_decode(wide)[0])
    if value != "|  # <-- text":  # a word
        return value.removesuffix("  # <-- text")
    block = itertools.takewhile(lambda line: not line or line.startswith("  "), lines[start + 1 :])
    return "".join(f"{line[2:]}\n" for line in block)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.one_of(st.lists(st.sampled_from(PIECES)).map("".join), st.text()))
def test_a_text_arrives_byte_for_byte_whichever_yaml_is_spoken(text: str) -> None:
    written = fill(YAML, {"text": text, "name": text}, shell=False).text
    found = yaml.safe_load(written)  # YAML 1.1
    assert found["text"] == found["name"] == text
    assert found["after"] == 1 and found["again"] == {"name": 2}
    assert read_as_yaml_1_2(written) == text


def test_an_optional_line_is_off_until_it_gets_a_value() -> None:
    assert "kind" not in yaml.safe_load(fill(YAML, {}, shell=False).text)
    assert yaml.safe_load(fill(YAML, {"kind": {"x": "y"}}, shell=False).text)["kind"] == {"x": "y"}
    assert "name" not in yaml.safe_load(fill(YAML, {"name": None}, shell=False).text)


def test_what_was_filled_can_be_filled_again() -> None:
    once = fill(YAML, {"name": None, "kind": {"x": 1}, "text": "a\nb"}, shell=False).text
    twice = fill(once, {"name": "back", "kind": None, "text": "c"}, shell=False).text
    assert yaml.safe_load(twice) == {
        "name": "back", "list": ["one"], "text": "c", "after": 1, "again": {"name": 2},
    }  # fmt: skip


def test_values_that_are_still_the_examples_are_named_with_their_lines() -> None:
    assert fill(YAML, {"name": "x"}, shell=False).left == ((5, "item"), (6, "text"))


@pytest.mark.parametrize("value", ["plain", "two words", "$(rm -rf x)", "a'b\"c", "#"])
def test_a_shell_value_is_that_text_and_is_never_run(value: str) -> None:
    script = fill(SHELL, {"name": value}, shell=True).text
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{value}\n"


def test_a_leading_tilde_is_the_home_of_who_runs_it() -> None:
    script = fill(SHELL, {"name": "~/my venv"}, shell=True).text
    ran = subprocess.run(
        ["bash", "-c", script], env={"HOME": "/home/x"}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "/home/x/my venv\n"


def test_options_of_the_batch_system_are_turned_on_and_off() -> None:
    script = fill(SHELL, {"nodes": None, "partition": "fast"}, shell=True).text
    assert "\n#SBATCH --partition=fast  #" in script
    assert script.startswith("##SBATCH --nodes=1")
    with pytest.raises(UserError, match="cannot stand in an #SBATCH line"):
        fill(SHELL, {"nodes": "1 --wrap=x"}, shell=True)


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"`partitions` is no value.*Did you mean `partition`"):
        fill(SHELL, {"partitions": "x"}, shell=True)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_mark_of_a_shipped_file_is_understood(target: object) -> None:
    path = cluster_folder() / target.file  # type: ignore[attr-defined]
    text = path.read_text()
    marks = [line for line in text.splitlines() if "# <-- " in line]
    shell = path.suffix == ".sh"
    found = sum(bool(marked_keys(line, shell=shell)) for line in marks)
    assert found == len(marks) > 0
