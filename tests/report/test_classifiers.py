"""A classifier's report: accuracy and macro-F1 at a glance, and the class prior by its name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from study.analysis import caveats, found_sentences
from study.analysis.summary import summarise
from study.protocol.results import StudyResults
from study.report import write_report
from study.report.text import tiles
from tests.helpers.results import make_results, with_metrics


@pytest.mark.parametrize(("seeds", "split"), [(2, "test"), (0, "validation")])
def test_the_first_tiles_have_the_accuracy_of_the_same_split(seeds: int, split: str) -> None:
    results = with_metrics(make_results(sizes=[64], confirm_seeds=seeds))
    summary = summarise(results)
    found = {tile.label: tile for tile in tiles(summary, results)}
    for arm, name in (("full", "Full"), ("lift", "LIFT")):
        cell = summary.cell(arm, 64)
        if split == "test":
            runs = [t.outcome for r in cell.replicates for t in r.confirm if t.outcome]
            shares = [math.exp(-(o.test_loss or 0) / 5) for o in runs]
        else:
            shares = [math.exp(-(r.search_score or 0) / 5) for r in cell.replicates]
        tile = found[f"{name}, {split} accuracy"]
        assert tile.value == f"{100 * sum(shares) / len(shares):.1f} %"
        assert tile.detail.startswith("Macro-F1 0.") and tile.arm == arm
    assert f"Class prior, {split} loss" in found
    assert found[f"Class prior, {split} loss"].detail == "guessing by the classes' shares"


def test_a_language_model_has_no_accuracy_and_a_base_model() -> None:
    results = make_results(sizes=[64])
    found = {tile.label: tile.detail for tile in tiles(summarise(results), results)}
    assert found["Base model, test loss"] == "before any fine-tuning"
    assert not [label for label in found if "accuracy" in label]


def texts(results: StudyResults, folder: Path) -> str:
    paths = write_report(results, folder)
    figures = [path.read_text(encoding="utf-8") for path in paths.figures]
    files = [path.read_text(encoding="utf-8") for path in (paths.html, paths.markdown)]
    return "\n".join([*files, *figures])


def test_a_random_heads_loss_is_nowhere_called_the_base_models(tmp_path: Path) -> None:
    results = with_metrics(make_results(sizes=[64], failures=("lift-n64-r0-c0",)))
    text = texts(results, tmp_path)
    told = [line for line in text.splitlines() if "base model" in line.lower()]
    # Of the weights below LIFT's blocks, and of the loss on general text, it is still true.
    kept = ("s weights", "retention", "general text")
    assert not [line for line in told if not any(word in line for word in kept)]
    assert "class prior" in text and "Macro-F1" in text


def test_what_did_not_learn_is_compared_with_the_class_prior() -> None:
    results = with_metrics(make_results(arms=["full"], sizes=[64]))
    assert results.base is not None
    low = StudyResults(**{**vars(results), "base": type(results.base)(1.0, 1.0, None)})
    summary = summarise(low)
    assert "not below the class prior's 1.000" in found_sentences(summary)[0]
    assert "not below the class prior's." in caveats(summary)[0]
