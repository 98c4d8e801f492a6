"""A typed size is looked up in what the analysis wrote."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from study.report.base import VerdictCard
from study.report.case import case_cards, case_table, lookup
from study.report.html import prose
from study.report.verdict import headline
from tests.report.verdicts import ANSWERS, make_setting, make_verdict

EVIL = "</script><script>alert('x')</script> & <!--"


def _cards(sizes: list[int]) -> list[VerdictCard]:
    setting = make_setting(grid=tuple(make_verdict(dataset_size=n) for n in sizes))
    return list(case_cards(setting))


def test_every_size_finds_the_nearest_answer_by_ratio() -> None:
    sizes = [400, 500, 700, 1000, 1500]
    data = json.loads(lookup(_cards(sizes), [str(n) for n in sizes]))
    assert (data["low"], data["high"]) == (400, 1500)
    for asked in range(400, 1501):
        found = next(a for a in data["answers"] if asked <= a["until"])
        best = min(sizes, key=lambda n: abs(math.log(n / asked)))
        assert found["card"] == str(best), asked


def test_what_is_rendered_cannot_end_the_script_element() -> None:
    text = lookup(_cards([400, 500]), [EVIL, EVIL])
    assert "<" not in text and ">" not in text
    assert json.loads(text)["answers"][0]["card"] == EVIL


def test_the_table_has_the_tested_and_the_asked_sizes() -> None:
    grid = tuple(make_verdict(dataset_size=n) for n in (400, 500, 700, 1000, 2000, 4000, 5000))
    asked = replace(ANSWERS["lean"], dataset_size=3210)
    setting = make_setting(grid=grid)
    table = case_table(setting, [asked])
    assert table is not None
    assert [row[0] for row in table.rows] == ["500", "1,000", "2,000", "3,210", "4,000"]
    assert table.rows[3] == ("3,210", "Leans to LIFT", "86 %", headline(asked, setting))
    assert case_table(make_setting(grid=()), []) is None


def test_backticks_set_code_and_all_else_is_escaped() -> None:
    assert prose("Raise `search.trials` <now>") == ("Raise <code>search.trials</code> &lt;now&gt;")
    assert "<script" not in prose(f"`{EVIL}`")
