"""A plain sweep's report, notebook and last words: best configurations, not conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from study.analysis.summary import summarise
from study.cli.verdicts import print_verdicts
from study.report import write_report
from study.report.notebook import StudyView
from tests.helpers.results import make_results

SWEEPS: dict[str, dict[str, Any]] = {
    "one arm": {"arms": ["full"], "sizes": [64], "replicates": 1, "trials": 8, "confirm_seeds": 0},
    "no confirm runs": {"sizes": [64, 256], "confirm_seeds": 0},
    "one arm, confirmed": {"arms": ["lift"], "sizes": [64, 128]},
}


@pytest.fixture(params=SWEEPS.values(), ids=SWEEPS.keys())
def shape(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def printed(**shape: Any) -> str:
    results = make_results(**shape)
    console = Console(width=80, highlight=False, markup=False)
    with console.capture() as capture:
        print_verdicts(console, results, summarise(results))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_last_words_are_about_configurations_and_not_about_a_verdict(
    shape: dict[str, Any],
) -> None:
    told = " ".join(printed(**shape).split())
    assert "Not met" not in told and "verdict" not in told and "Cheapest next runs" not in told
    for ranking in summarise(make_results(**shape)).rankings:
        best = ranking.best
        assert f"{best.trial.spec.trial_id} validation {best.loss:.4f} learning_rate" in told
    assert "seeds alone may make" in told and "at a standard deviation of" in told
    assert "To compare full and LIFT" in told.split("standard deviation")[-1]


def test_where_the_seeds_scatter_is_known_from_is_said() -> None:
    assert "assumed, since no configuration ran twice" in " ".join(
        printed(**SWEEPS["one arm"]).split()
    )
    assert "by the confirm runs" in " ".join(printed(**SWEEPS["one arm, confirmed"]).split())


def test_a_single_search_lists_more_than_its_best() -> None:
    text = printed(**SWEEPS["one arm"])
    assert sum(line.startswith("  full-n64-r0-s") for line in text.splitlines()) == 3


def test_the_report_begins_with_the_best_configurations(
    shape: dict[str, Any], tmp_path: Path
) -> None:
    results = make_results(**shape)
    paths = write_report(results, tmp_path)
    markdown = paths.markdown.read_text(encoding="utf-8")
    headings = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert headings[0] == "## Best configurations"
    assert "Conditions for a verdict" not in markdown and "Not met" not in markdown
    html = paths.html.read_text(encoding="utf-8")
    assert html.index('id="best"') < html.index('id="measured"')
    rankings = summarise(results).rankings
    for ranking in rankings:
        assert f"| {ranking.best.trial.spec.trial_id} | {ranking.best.loss:.4f} |" in markdown
    written = json.loads(paths.json.read_text())["rankings"]
    assert [r["ranked"][0]["trial"] for r in written] == [
        r.best.trial.spec.trial_id for r in rankings
    ]
    assert [len(r["ranked"]) for r in written] == [len(r.ranked) for r in rankings]


def test_a_notebook_shows_the_same(shape: dict[str, Any]) -> None:
    part = StudyView(make_results(**shape)).verdict
    assert part.title == "Best configurations" and len(part.tables) == 1
    assert "To compare full and LIFT" in repr(part) and "compares nothing" not in repr(part)


def test_a_sweep_without_a_complete_trial_says_so_and_no_more(tmp_path: Path) -> None:
    results = make_results(progress=0.0, confirm_seeds=0, sizes=[64])
    assert "No trial is complete yet" in printed(progress=0.0, confirm_seeds=0, sizes=[64])
    assert "Best configurations" not in write_report(results, tmp_path).markdown.read_text()


def test_trials_of_a_search_that_goes_on_are_complete_all_the_same() -> None:
    told = printed(progress=0.2, confirm_seeds=0, replicates=1, sizes=[64, 256])
    assert "No trial is complete" not in told and "No search has ended yet" in told
