"""The chapters on tuning: flags where an arm was tuned less well, and what is hidden says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from study.analysis.summary import summarise
from study.protocol.results import StudyResults
from study.report.base import Figure, Section
from study.report.fairness import fairness_sections, optimism_table
from tests.helpers.results import make_config, make_results, make_trial

WIDE = {"low": 1e-6, "high": 1e-4, "log": True}


def sections(results: StudyResults) -> dict[str, Section]:
    found = fairness_sections(results, summarise(results))
    return {section.anchor: section for section in found}


def figures(section: Section) -> dict[str, Figure]:
    return {figure.name: figure for figure in section.figures}


def narrow(won_at: dict[str, list[float]]) -> StudyResults:
    """Searches of one trial, one per replicate, at the learning rates given for each arm."""
    space: dict[str, Any] = {
        "shared": {"learning_rate": WIDE, "warmup_ratio": 0.1, "max_grad_norm": 1.0}
    }
    arms = list(won_at)
    replicates = len(won_at[arms[0]])
    config = make_config(
        arms=arms, sizes=[64], search={"space": space, "trials": 1, "replicates": replicates}
    )
    trials = tuple(
        make_trial(arm, 64, m, score=4.0, hyperparameters={"learning_rate": rate})
        for arm, rates in won_at.items()
        for m, rate in enumerate(rates)
    )
    return StudyResults(config, trials)


@pytest.fixture(scope="module")
def finished() -> dict[str, Section]:
    return sections(make_results(trials=8, failures=("lift-n64-r1-s2",)))


def test_a_finished_study_has_every_figure_told_in_words_and_numbers(
    finished: dict[str, Section],
) -> None:
    drawn = figures(finished["fairness"]) | figures(finished["hyperparameters"])
    assert list(drawn) == ["best-of-k", "learning-rates", "importance"]
    for figure in drawn.values():
        ElementTree.fromstring(figure.svg)
        assert figure.takeaway.endswith(".") and figure.alt.endswith(".") and figure.caption
        assert figure.table is not None and figure.table.rows
        assert {len(row) for row in figure.table.rows} == {len(figure.table.columns)}
        for arm in ("full", "LIFT"):
            assert arm in figure.alt
            assert any(arm in row for row in figure.table.rows)


def test_the_trials_table_counts_what_ended_how(finished: dict[str, Section]) -> None:
    (table,) = finished["fairness"].tables
    lift = next(row for row in table.rows if row[:2] == ("LIFT", "search"))
    # 96 trials, one of them failed: Wilson gives 0.2 % to 5.7 %.
    assert lift[2:] == (
        "96",
        "96",
        "95, 99% (94 to 100)",
        "0, 0% (0 to 4)",
        "0, 0% (0 to 4)",
        "1, 1% (0 to 6)",
        "1, 1% (0 to 6)",
    )


def test_every_size_has_its_panel_and_of_many_the_asked_one_is_among_them() -> None:
    sizes = [32, 64, 128, 256, 512, 1024]
    config = make_config(sizes=sizes, trials=2, decision={"dataset_size": 64})
    best = figures(sections(make_results(config=config))["fairness"])["best-of-k"]
    assert best.table is not None
    assert list(dict.fromkeys(row[0] for row in best.table.rows)) == ["32", "64", "256", "1,024"]
    few = figures(sections(make_results(sizes=sizes[:3], trials=2))["fairness"])["best-of-k"]
    assert few.table is not None
    assert {row[0] for row in few.table.rows} == {"32", "64", "128"}
    assert all(f">{n} examples<" in few.svg for n in (32, 64, 128))


def test_winners_at_one_end_are_flagged_with_what_to_change() -> None:
    found = sections(narrow({"full": [1e-5] * 3, "lift": [9e-5, 8e-5, 1e-5]}))["fairness"]
    (flag,) = found.paragraphs
    assert flag == (
        "LIFT may not be tuned as well as it can be: 2 of its 3 winners lie in the highest tenth "
        "of the learning rates that were searched, so better ones may lie beyond. A new study can "
        "search wider: give `search.overrides.lift.learning_rate` a `high` above 1.0e-04."
    )
    drawn = figures(found)["learning-rates"]
    assert drawn.takeaway == (
        "No winner of full lies at an end of the searched learning rates. Of 3 winners of LIFT, 2 "
        "lie in the highest tenth of the searched learning rates."
    )


@pytest.mark.parametrize(
    ("rates", "flagged"),
    [
        ([1e-4, 1e-5, 1e-5], False),  # a third may
        ([1e-4, 1e-6, 1e-5], False),  # and a third at either end
        ([1e-6, 1e-6, 1e-5], True),
    ],
)
def test_up_to_a_third_of_the_winners_may_lie_at_an_end(rates: list[float], flagged: bool) -> None:
    found = sections(narrow({"full": rates}))["fairness"]
    assert bool(found.paragraphs) == flagged
    if flagged:
        assert "a `low` below 1.0e-06" in found.paragraphs[0]


def test_a_search_that_still_gains_is_told_from_one_that_was_long_enough() -> None:
    config = make_config(sizes=[64], arms=["full"], trials=4, replicates=1)

    def takeaway(losses: list[float]) -> str:
        rates = [1e-4, 2e-4, 3e-4, 4e-4]
        trials = tuple(
            make_trial("full", index=k, score=loss, hyperparameters={"learning_rate": rates[k]})
            for k, loss in enumerate(losses)
        )
        return figures(sections(StudyResults(config, trials))["fairness"])["best-of-k"].takeaway

    # From 2 to 4 trials the best falls by 0.25 nats, or by 0.0025 (rho is 0.01).
    assert "Full still gained more than the 0.01" in takeaway([4.0, 4.5, 4.5, 4.5])
    assert "0.250 nats" in takeaway([4.0, 4.5, 4.5, 4.5])
    assert "were long" in takeaway([4.0, 4.005, 4.005, 4.005])


def test_what_is_hidden_says_why() -> None:
    found = sections(make_results(sizes=[64], trials=4))["hyperparameters"]
    assert found.figures == ()
    assert [text.split(":")[0] for text in found.paragraphs] == ["full", "LIFT"]
    assert all("12 usable trials are too few" in text for text in found.paragraphs)
    assert [row[1:] for row in found.tables[0].rows] == [
        ("12 of 12", "100%", "\u2013", "hidden")
    ] * 2


def test_the_optimism_table_holds_gaps_and_their_spread() -> None:
    summary = summarise(make_results(sizes=[64, 128]))
    table = optimism_table(summary)
    assert table is not None
    assert [row[:2] for row in table.rows] == [
        ("64", "full"),
        ("64", "LIFT"),
        ("128", "full"),
        ("128", "LIFT"),
    ]
    for row in table.rows:
        search, confirm, gap = float(row[2]), float(row[3]), float(row[5])
        assert gap == pytest.approx(confirm - search, abs=0.0011)
    assert optimism_table(summarise(make_results(sizes=[64], confirm_seeds=0))) is None


@pytest.mark.parametrize(
    "shape",
    [
        {"arms": ["lift"], "sizes": [64]},
        {"sizes": [64], "confirm_seeds": 0},
        {"arms": ["full"], "sizes": [64], "replicates": 1, "trials": 1},
        {"sizes": [64, 128], "progress": 0.4},
        {"sizes": [64], "all_failed": True},
        {"sizes": [64], "pruned": [f"full-n64-r0-s{k}" for k in range(4)]},
    ],
    ids=["one arm", "no confirm runs", "one of everything", "unfinished", "all failed", "pruned"],
)
def test_every_kind_of_study_gets_its_chapters(shape: dict[str, Any]) -> None:
    found = sections(make_results(**shape))
    assert list(found) == ["fairness", "hyperparameters"]
    alone = len(shape.get("arms", [])) == 1
    assert found["fairness"].title.startswith("Was it" if alone else "Were both arms")
    for section in found.values():
        for table in section.tables:
            assert {len(row) for row in table.rows} == {len(table.columns)}
        for figure in section.figures:
            ElementTree.fromstring(figure.svg)


def test_a_study_that_has_not_started_has_neither_chapter() -> None:
    assert sections(make_results(sizes=[64], progress=0.0)) == {}


def test_tpe_is_told_to_be_taken_in_any_order() -> None:
    results = make_results(sizes=[64])
    search = results.config.search.model_copy(update={"sampler": "tpe"})
    config = results.config.model_copy(update={"search": search})
    told = sections(replace(results, config=config))["fairness"].paragraphs
    assert any("TPE" in text for text in told)
