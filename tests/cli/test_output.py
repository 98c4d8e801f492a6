"""Hostile text in a study's records reaches no terminal, whichever verb shows it."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from study.basics.paths import StudyPaths
from study.cli.live import LiveView
from study.cli.output import Console, guarded_streams, print_facts, write_data
from study.orchestration.ledger.sampling import begin_trial
from study.protocol.plan import ModelFacts, StudyPlan, plan_trials
from study.protocol.records import BaseModelRecord, TrialOutcome, TrialState
from study.store.study_store import StudyStore
from tests.helpers.answers import command
from tests.helpers.results import make_config
from tests.helpers.stores import measurement

ROOT = Path(__file__).parents[2]
EVIL = "\x1b]0;owned\x07\x1b[2J\u202eevil\r=1\nerror: forged"
OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and movements of Rich's own."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results whose reasons, notes, versions and logs were written by somebody else."""
    folder = tmp_path_factory.mktemp("hostile")
    config = make_config(
        sizes=(64, 128), replicates=1, trials=1, confirm_seeds=1, storage={"results": str(folder)}
    )
    plan = plan_trials(config, ModelFacts(4))
    store = StudyStore.create(config)
    store.set_info("num_blocks", 4)
    store.set_info("base", BaseModelRecord(3.0, 3.1, None).to_dict())
    for number, spec in enumerate(plan.search):
        begin_trial(plan, store, spec)
        store.report(spec, measurement(spec.steps, 2.0))
        outcome = TrialOutcome(
            "finished", reason=EVIL if number else "", score=2.0, best_step=spec.steps,
            notes=(EVIL,), versions={"torch": EVIL},
        )  # fmt: skip
        state = TrialState.FAIL if number else TrialState.COMPLETE
        store.finish(spec, state, outcome)
        log = StudyPaths(folder).trial_log(spec.trial_id)
        log.parent.mkdir(exist_ok=True)
        log.write_text(f"\x1b[36mcoloured\x1b[0m\n{EVIL}\n")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["show", "lift-n64-r0-s0"],
        ["show", f"no\x1b[31m{EVIL}"],
        ["report", "--output", "out"],
        ["best", "--arm", "full"],
        ["export"],
        ["export", "--output", f"{EVIL}.txt"],
        ["stop", f"x{EVIL}"],
        ["status", f"--{EVIL}"],
    ],
)
def test_no_verb_lets_it_through(
    arguments: list[str], hostile: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").symlink_to("nowhere")
    place = [] if arguments[-1].startswith("--") else [str(hostile)]
    answer = command(*arguments, *place)
    assert answer.code in (0, 2)
    # A file for another program keeps its texts, quoted; a terminal gets them written out.
    turning = "" if arguments[0] == "best" else "\u202e"
    assert not re.search(f"[\x00-\x08\x0b-\x1f{turning}]", answer.text), answer.text
    if arguments[0] not in ("show", "export"):  # a log's own lines, a cell's own lines
        assert not re.search("^error: forged", answer.text, re.MULTILINE)
    if "out" in arguments:
        told = (tmp_path / "out" / "report.md").read_text()
        assert "evil" in told and not re.search("[\x00-\x08\x0b-\x1f\u202e]", told)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield Terminal()


def test_the_live_view_has_its_own_colours_and_nobody_elses(terminal: Terminal) -> None:
    config = make_config(sizes=(64,), replicates=1, trials=2, confirm_seeds=0)
    plan: StudyPlan = plan_trials(config, ModelFacts(4))
    with LiveView(Console(terminal)) as view:
        view.planned(plan, ())
        view.message(EVIL)
        view.started(plan.search[0])
        view.finished(plan.search[0], TrialState.FAIL, TrialOutcome("diverged", reason=EVIL))
    shown = terminal.getvalue()
    assert "\x1b[31m" in shown  # red, of our own
    left = OURS.sub("", shown).replace("\r", "")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", left), left
    assert "\x1b[2J" not in shown and "\nerror: forged" not in left


def test_a_console_takes_words_as_words(terminal: Terminal) -> None:
    console = Console(terminal)
    console.print("a :smile: [bold]b[/bold]")
    print_facts(console, {"Name": EVIL})
    assert "a :smile: [bold]b[/bold]" in terminal.getvalue()
    assert "\x1b]0" not in terminal.getvalue()


def test_data_for_another_program_arrive_byte_for_byte_and_reach_no_terminal() -> None:
    text = "template: \u200b\u202e\x1b\n"
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with redirect_stdout(plain), guarded_streams():
        write_data(text)
    assert plain.buffer.getvalue() == text.encode()  # type: ignore[attr-defined]
    with redirect_stdout(Terminal()) as screen, guarded_streams():
        write_data(text)
        print("é", json.dumps({"a": 1}))
    assert "\x1b" not in screen.getvalue() and 'é {"a": 1}' in screen.getvalue()


def test_a_name_that_the_terminal_cannot_write_is_no_traceback() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    with redirect_stdout(stream), guarded_streams():
        print("caf\xe9 \udc80")
        Console().print("caf\xe9")
    assert stream.buffer.getvalue() == b"caf\\xe9 \\udc80\ncaf\\xe9\n"  # type: ignore[attr-defined]


def test_the_streams_are_as_they_were_afterwards() -> None:
    before = sys.stdout, sys.stderr
    command("--version")
    assert (sys.stdout, sys.stderr) == before


def test_only_one_module_makes_consoles() -> None:
    """Ruff's TID251 says so too, where it runs."""
    found = [
        path.name
        for path in (ROOT / "study").rglob("*.py")
        if re.search(r"rich\.console import .*\bConsole\b|import rich\.console", path.read_text())
    ]
    assert found == ["output.py"]
