"""``report.json``: strict JSON, documented, and the same numbers as the analysis."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import study.report
from study.analysis.summary import summarise
from study.protocol.results import StudyResults
from study.report import headline, report_contents, setting_of
from study.report.json_report import render_json
from tests.helpers.costs import step_costs
from tests.helpers.results import make_results

RESULTS = make_results()
README = Path(study.report.__file__).with_name("README.md").read_text(encoding="utf-8")


def _read(results: StudyResults) -> dict[str, Any]:
    summary = summarise(results)
    text = render_json(results, summary, report_contents(results, summary))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    data: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return data


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return _read(RESULTS)


def test_every_key_is_documented_and_no_other(written: dict[str, Any]) -> None:
    table = README[README.index("## report.json") :]
    told = [
        name
        for line in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", line)
    ]
    assert sorted(told) == sorted(written)
    verdict = table[table.index("A verdict has") :]
    assert set(written["verdicts"][0]) - set(re.findall(r"`(\w+)`", verdict)) == set()


def test_verdicts_carry_the_analysed_numbers_and_their_sentence(written: dict[str, Any]) -> None:
    summary = summarise(RESULTS)
    setting = setting_of(RESULTS, summary)
    assert len(written["grid"]) == len(summary.grid) > 50
    for found, verdict in zip(
        [*written["verdicts"], *written["grid"]], [*summary.verdicts, *summary.grid], strict=True
    ):
        assert found["sentence"] == headline(verdict, setting)
        assert verdict.difference is not None
        for interval in ("difference", "perplexity_change", "cost", "one_run", "memory"):
            analysed = getattr(verdict, interval)
            assert found[interval] == (None if analysed is None else asdict(analysed)), interval
        assert (found["answer"], found["arm"]) == (verdict.answer, verdict.arm)
        assert [g["name"] for g in found["gates"]] == [g.name for g in verdict.gates]


def test_cells_name_their_trials(written: dict[str, Any]) -> None:
    for found, cell in zip(written["cells"], summarise(RESULTS).cells, strict=True):
        assert cell.test is not None
        assert found["test"]["mean"] == cell.test.mean
        winners = [r.winner.spec.trial_id for r in cell.replicates if r.winner]
        assert [r["winner"] for r in found["replicates"]] == winners


def test_what_is_not_finite_is_null() -> None:
    assert RESULTS.base is not None
    probe = step_costs(float("nan"), 0.1)
    data = _read(replace(RESULTS, probe=probe, device_seconds=float("inf")))
    assert (data["probe"]["full_step"], data["device_seconds"]) == (None, None)
    assert data["probe"]["lift_step"] == 0.1
    assert data["base_model"]["test_loss"] == RESULTS.base.test_loss


@pytest.mark.parametrize("shape", [{"arms": ["lift"]}, {"progress": 0.0}, {"sizes": [64]}])
def test_a_study_without_a_comparison_has_no_grid(shape: dict[str, Any]) -> None:
    data = _read(make_results(**shape))
    assert data["grid"] == []
    assert all(not verdict["is_claim"] for verdict in data["verdicts"])
