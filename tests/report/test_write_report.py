"""The written files: self-contained, escaped, complete, for studies in any state."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from study.analysis import found_sentences
from study.analysis.summary import summarise
from study.basics.text_format import byte_size
from study.protocol.records import PrefixCacheUse
from study.protocol.results import StudyResults
from study.report import ReportPaths, write_report
from tests.helpers.results import make_config, make_results

EVIL = "<script>alert('x')</script> | `rm` **bold** [link](http://evil.example/x)"
HEADS = {"Examples", "Arm", "Trial", "Condition"}
"""Titles of tables' first columns."""
VOID = {"meta", "link", "br", "img", "hr", "input"}
FINISHED = make_results(sizes=[64, 256], failures=("lift-n64-r1-s2",))
Report = tuple["Page", str, ReportPaths]
SHAPES: dict[str, dict[str, Any]] = {
    "one arm": {"arms": ["lift"], "sizes": [64, 128]},
    "one size": {"sizes": [64]},
    "no confirm runs": {"confirm_seeds": 0, "sizes": [64, 128]},
    "one of everything": {"arms": ["full"], "sizes": [64], "replicates": 1, "trials": 1},
    "unfinished": {"progress": 0.7, "sizes": [64, 128]},
    "not started": {"progress": 0.0, "sizes": [64, 128]},
    "all failed": {"all_failed": True, "sizes": [64, 128]},
}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: list[list[str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


def written(results: StudyResults, folder: Path) -> Report:
    paths = write_report(results, folder)
    page = Page(paths.html.read_text(encoding="utf-8"))
    assert page.open == []
    return page, paths.markdown.read_text(encoding="utf-8"), paths


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One finished study's report, for the tests that only look at it."""
    return written(FINISHED, tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_kind_of_study_gets_both_files_with_the_same_headline(
    shape: dict[str, Any], tmp_path: Path
) -> None:
    results = make_results(**shape)
    page, markdown, _ = written(results, tmp_path)
    text = " ".join(page.text)
    for sentence in found_sentences(summarise(results)):
        assert sentence in text
        assert sentence in markdown
    for trial in results.trials:
        assert any(row and row[0] == trial.spec.trial_id for row in page.cells)
        assert f"| {trial.spec.trial_id} |" in markdown


def test_the_page_needs_nothing_from_outside(finished: Report) -> None:
    page, _, paths = finished
    html = paths.html.read_text(encoding="utf-8")
    assert page.tags["link"] == page.tags["img"] == page.tags["iframe"] == 0
    for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
        assert all(value.startswith(("#", "data:")) for value in page.values(name))
    assert "@import" not in html
    assert all(url.startswith("#") for url in re.findall(r"url\(['\"]?([^)]*)", html))


def test_links_inside_the_page_lead_somewhere_and_no_id_is_used_twice(finished: Report) -> None:
    page, _, _ = finished
    ids = Counter(page.values("id"))
    assert ids["loss"] == ids["trials"] == 1
    assert not [name for name, uses in ids.items() if uses > 1]
    inside = {link for link in page.values("href") if not link.startswith("data:")}
    assert {link[1:] for link in inside} <= set(ids)
    assert {name for value in page.values("aria-labelledby") for name in value.split()} <= set(ids)


def test_text_from_outside_is_escaped_everywhere(tmp_path: Path) -> None:
    config = make_config(
        sizes=[64], model={"path": EVIL}, task="sequence-classification",
        data={"train": EVIL, "text": "t", "label": "l"}, search={"replicates": 1},
    )  # fmt: skip
    results = make_results(
        config=config, failures=("full-n64-r0-s0",), failure_reason=f"{EVIL}\n\n# second line"
    )
    assert results.data is not None
    results = replace(results, notes=(EVIL,), data=replace(results.data, label_names=(EVIL,)))
    page, markdown, paths = written(results, tmp_path)
    assert page.tags["b"] == 0
    links = page.values("href")
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "".join(page.text).count("<script>alert('x')</script>") >= 5
    assert "<script>alert" not in paths.html.read_text(encoding="utf-8")
    outside_code = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert "<script" not in outside_code
    assert not re.search(r"(?<!\\)\]\(http", outside_code)
    assert "\n# second line" not in outside_code
    row = next(line for line in markdown.splitlines() if line.startswith("| full-n64-r0-s0 |"))
    assert "\\| \\`rm\\` \\*\\*bold\\*\\*" in row


def test_markdown_shows_every_figure_by_a_link_that_exists(finished: Report) -> None:
    _, markdown, paths = finished
    links = re.findall(r"^!\[(.+)\]\((.+)\)$", markdown, flags=re.MULTILINE)
    names = [Path(link).stem for _, link in links]
    assert names[:5] == ["difference", "loss", "learning-forgetting", "forgetting", "cost"]
    assert {"best-of-k", "learning-rates", "curves"} <= set(names)
    assert {path.with_suffix(".png").is_file() for path in paths.figures} == {True}
    assert [paths.html.parent / link for _, link in links] == list(paths.figures)
    for alt, link in links:
        assert len(alt) > 20
        root = ElementTree.fromstring((paths.html.parent / link).read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_markdown_tables_have_as_many_cells_as_columns(finished: Report) -> None:
    _, markdown, _ = finished
    blocks = re.findall(r"(?:^\|.*\|\n)+", markdown, flags=re.MULTILINE)
    assert len(blocks) >= 7
    for block in blocks:
        lines = block.splitlines()
        assert re.fullmatch(r"\|( ---:? \|)+", lines[1])
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(cells) == 1


def test_html_tables_have_as_many_cells_as_columns(finished: Report) -> None:
    page, _, _ = finished
    width = 0
    assert {row[0] for row in page.cells} >= HEADS
    for row in page.cells:
        if row and row[0] in HEADS:
            width = len(row)
        assert len(row) == width > 1


def test_the_loss_table_shows_the_analysed_means(finished: Report) -> None:
    page, _, _ = finished
    for cell in summarise(FINISHED).cells:
        assert cell.test is not None
        label = {"full": "full", "lift": "LIFT"}[cell.arm]
        rows = (r for r in page.cells if r[:2] == [str(cell.size), label] and len(r) == 7)
        row = next(rows)
        assert row[2] == f"{cell.test.mean:.3f}"
        assert row[5] == "3 replicates x 2 seeds"


def test_an_unfinished_study_carries_a_banner_and_a_finished_one_does_not(tmp_path: Path) -> None:
    results = make_results(sizes=[64, 128], progress=0.7)
    counts = summarise(results).counts
    page, markdown, _ = written(results, tmp_path / "a")
    banner = f"Unfinished: {counts.ended} of {counts.planned} trials have ended, 2 running,"
    assert banner in " ".join(page.text)
    assert banner in markdown
    ended, _, _ = written(make_results(sizes=[64]), tmp_path / "b")
    assert "Unfinished" not in " ".join(ended.text)


def test_failures_stand_with_their_reasons(finished: Report, tmp_path: Path) -> None:
    page, markdown, _ = finished
    reason = "loss became NaN at step 60 (learning rate 4.1e-03)"
    rows = [row for row in page.cells if row[0] == "lift-n64-r1-s2"]
    assert len(rows) == 2  # among the failures and among all trials
    assert all(row[-1] == reason for row in rows)
    assert "## Failures" in markdown
    clean, _, _ = written(make_results(sizes=[64]), tmp_path)
    assert "Failures" not in " ".join(clean.text)


def test_forgetting_is_left_out_when_it_was_not_measured(tmp_path: Path) -> None:
    results = make_results()
    assert results.base is not None
    blind = replace(results, base=replace(results.base, retention_loss=None))
    page, markdown, _ = written(blind, tmp_path)
    assert "forgetting" not in page.values("id")
    assert "## Forgetting" not in markdown


def test_arms_differ_by_shape_and_dash_as_well_as_colour(finished: Report) -> None:
    _, _, paths = finished
    by_name = {path.stem: path for path in paths.figures}
    svg = by_name["loss"].read_text(encoding="utf-8")
    assert 'stroke-dasharray="6,3"' in svg
    marks = [
        (attributes["fill"], "A" in attributes["d"])
        for found in re.findall(r"<path ([^>]+)>", svg)
        if (attributes := dict(re.findall(r'(\S+?)="([^"]*)"', found))).get("fill")
        in ("#0b62a4", "#c8500a")
    ]
    # Circles have arcs, triangles none.
    assert set(marks) == {("#0b62a4", True), ("#c8500a", False)}


def test_winning_configurations_are_ready_to_copy(finished: Report) -> None:
    page, markdown, _ = finished
    for arm in ("full", "lift"):
        best = summarise(FINISHED).cell(arm, 256).best
        assert best is not None and best.winner is not None
        rate = f"learning_rate: {best.winner.spec.hyperparameters['learning_rate']}"
        assert rate in "".join(page.text)
        assert rate in markdown


def test_a_report_is_replaced_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_report(make_results(sizes=[64], progress=0.5), tmp_path)
    paths = write_report(make_results(sizes=[64]), tmp_path)
    assert "Unfinished" not in paths.html.read_text(encoding="utf-8")
    names = ["figures", "report.html", "report.json", "report.md", "trials.csv", "trials.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert {p.suffix for p in (tmp_path / "figures").iterdir()} == {".svg", ".png"}


def test_the_cost_table_has_cold_costs_beside_those_spent(finished: Report) -> None:
    page, markdown, _ = finished
    for cell in summarise(FINISHED).cells:
        label = {"full": "full", "lift": "LIFT"}[cell.arm]
        rows = [r for r in page.cells if r[:2] == [str(cell.size), label]]
        cost = next(r for r in rows if len(r) == 9)
        memory = next(r for r in rows if len(r) == 5 and "iB" in r[2])
        cold, spent = cell.cost.run_cold_device_seconds, cell.cost.run_device_seconds
        assert cold is not None and spent is not None
        assert cost[6:8] == [f"{cold:.1f}", f"{spent:.1f}"]
        assert (cost[6] == cost[7]) == (cell.arm == "full")
        assert cell.cost.peak_state_bytes is not None
        assert memory[4] == byte_size(cell.cost.peak_state_bytes)
    assert "with an empty prefix cache at its start; the comparison basis is about this" in markdown


def test_updates_show_that_lift_gives_each_weight_a_fraction(finished: Report) -> None:
    page, _, _ = finished
    rows = {r[1]: r for r in page.cells if r[0] == "256" and len(r) == 9}
    assert rows["full"][4] == rows["full"][3]
    assert int(rows["LIFT"][4]) == round(int(rows["LIFT"][3]) / 4)


def test_the_prefix_cache_has_a_block_where_lift_ran(finished: Report, tmp_path: Path) -> None:
    page, markdown, _ = finished
    cache = summarise(FINISHED).prefix_cache
    assert cache is not None and cache.hit_share is not None
    text = " ".join(page.text)
    assert "prefix-cache" in page.values("id")
    for told in (
        f"{cache.hit_share:.0%} of {cache.hits + cache.misses:,} hidden states",
        f"{byte_size(cache.bytes_on_node)} on one node at most",
    ):
        assert told in text and told in markdown
    plain, without, _ = written(make_results(arms=["full"], sizes=[64]), tmp_path)
    assert "prefix-cache" not in plain.values("id")
    assert "## Prefix cache" not in without


def test_why_the_cache_was_off_is_told_and_escaped(tmp_path: Path) -> None:
    results = make_results(arms=["lift"], sizes=[64])
    off = PrefixCacheUse(f"off: {EVIL}")
    trials = tuple(
        replace(t, outcome=replace(t.outcome, prefix_cache=off)) if t.outcome else t
        for t in results.trials
    )
    page, markdown, _ = written(replace(results, trials=trials), tmp_path)
    assert page.tags["script"] == 0
    assert EVIL in page.text
    assert f"Off in {len(trials)} trials" in page.text
    assert "0 of 18 LIFT trials that ended" in page.text and "On disk" not in page.text
    assert "<script" not in markdown


def test_the_difference_is_drawn_with_its_interval_and_the_size_that_was_asked(
    tmp_path: Path,
) -> None:
    config = make_config(decision={"dataset_size": 200, "rho": 0.02})
    page, markdown, paths = written(make_results(config=config), tmp_path)
    assert "difference.svg" in {path.name for path in paths.figures}
    curve = summarise(make_results(config=config)).curve
    assert curve is not None
    low, high = curve.at(64).low[0], curve.at(64).high[0]
    interval = f"{low:+.3f} to {high:+.3f}".replace("-", "\u2212")
    cells = [cell for row in page.cells for cell in row]
    assert interval in cells or interval.replace("\u2212", "-") in cells
    assert "less than 0.02 nats" in markdown
    assert "Dashed line: the size asked about." in markdown
    without = write_report(make_results(confirm_seeds=0), tmp_path / "none")
    assert "difference.svg" not in {path.name for path in without.figures}
