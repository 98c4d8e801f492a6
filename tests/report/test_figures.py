"""Every figure says what to take from it, in words and in numbers too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from altair.utils import schemapi

from study.analysis import Interval, StudySummary
from study.analysis.summary import summarise
from study.report.base import Figure
from study.report.figures.cost_figure import draw_cost
from study.report.figures.difference_figure import draw_difference
from study.report.figures.forgetting_figures import draw_forgetting, draw_learning_forgetting
from study.report.figures.loss_figures import draw_curves, draw_loss
from study.report.figures.png import to_png
from tests.helpers.results import make_results
from tests.report.verdicts import FORGETS, make_verdict

SUMMARY = summarise(make_results(replicates=4))


def _draw(summary: StudySummary) -> dict[str, Figure]:
    assert schemapi.DEBUG_MODE  # every chart is checked against Altair's schema
    verdict = make_verdict(retention=FORGETS)
    drawn = (
        draw_loss(summary),
        draw_curves(summary),
        draw_cost(summary),
        draw_difference(summary, [100, 700]),
        draw_forgetting(summary),
        draw_learning_forgetting(summary, verdict),
    )
    return {figure.name: figure for figure in drawn if figure is not None}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return _draw(SUMMARY)


def test_every_figure_has_a_sentence_a_label_and_its_numbers(drawn: dict[str, Figure]) -> None:
    assert len(drawn) == 6
    for figure in drawn.values():
        assert figure.takeaway.endswith(".") and len(figure.takeaway) > 20
        assert len(figure.alt) > 40 and len(figure.caption) > 20
        assert figure.table is not None and figure.table.rows
        assert {len(row) for row in figure.table.rows} == {len(figure.table.columns)}


def test_learning_and_forgetting_stand_against_one_another_run_by_run(
    drawn: dict[str, Figure],
) -> None:
    figure = drawn["learning-forgetting"]
    assert figure.table is not None
    runs = [
        (f"{cell.size:,}", {"full": "full", "lift": "LIFT"}[cell.arm], f"{t:.3f}", f"{r:+.3f}")
        for cell in SUMMARY.cells_by_size
        for replicate in cell.replicates
        for t, r in zip(replicate.test_losses, replicate.retention_rises, strict=True)
    ]
    assert list(figure.table.rows) == runs and len(runs) == 4 * 2 * 4 * 2
    marks = figure.svg.count('fill="#0b62a4"'), figure.svg.count('fill="#c8500a"')
    assert marks == (len(runs) // 2 + 1, len(runs) // 2 + 1)  # and one each in the legend
    assert "and at equal test loss by 0.010 nats less with LIFT" in figure.takeaway


def test_the_takeaway_on_forgetting_says_where_nothing_can_be_matched() -> None:
    apart = make_verdict(retention=replace(FORGETS, matched=None))
    figure = draw_learning_forgetting(SUMMARY, apart)
    assert figure is not None and "do not overlap" in figure.takeaway
    worse = make_verdict(retention=replace(FORGETS, matched=Interval(-0.02, -0.03, -0.01)))
    figure = draw_learning_forgetting(SUMMARY, worse)
    assert figure is not None
    assert "0.020 nats less with full (95 % interval 0.010 to 0.030)" in figure.takeaway


def test_asked_sizes_are_marked_and_those_outside_are_extrapolated(
    drawn: dict[str, Figure],
) -> None:
    figure = drawn["difference"]
    assert ">100<" in figure.svg and ">700<" in figure.svg
    assert "dotted curve: extrapolated" in figure.caption
    assert 'stroke-dasharray="2,4"' in figure.svg
    inside = draw_difference(SUMMARY, [100])
    assert inside is not None and 'stroke-dasharray="2,4"' not in inside.svg
    assert "extrapolated" not in inside.caption
    assert figure.table is not None
    assert [row[0] for row in figure.table.rows] == ["64", "100", "128", "256", "512", "700"]


def test_a_crossover_is_drawn_as_a_bar_and_only_then() -> None:
    wide = summarise(make_results(sizes=(64, 128, 256, 512, 1024), replicates=5, trials=38))
    assert wide.curve is not None and wide.curve.crossover().kind == "crossover"
    crossing, plain = draw_difference(wide, []), draw_difference(SUMMARY, [])
    assert crossing is not None and 'stroke-width="6"' in crossing.svg
    assert "Thick bar" in crossing.caption
    assert SUMMARY.curve is not None and SUMMARY.curve.crossover().kind != "crossover"
    assert plain is not None and 'stroke-width="6"' not in plain.svg


def test_a_png_is_twice_as_wide_as_its_svg(drawn: dict[str, Figure]) -> None:
    figure = drawn["loss"]
    data = to_png(figure)
    assert data.startswith(b"\x89PNG\r\n")
    width = int(figure.svg.split('width="')[1].split('"')[0].split(".")[0])
    assert abs(int.from_bytes(data[16:20], "big") - 2 * width) <= 2
