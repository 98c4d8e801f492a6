"""The report in a notebook: HTML that stands alone, is escaped, and disturbs nothing around it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from study import show
from study.protocol.results import StudyResults
from study.report.notebook import StudyView
from tests.helpers.results import make_config, make_results

RESULTS = make_results()
VIEW = StudyView(RESULTS)
_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Reader(HTMLParser):
    """Keeps what is in a page, and fails where tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> does not match"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_whole_view_has_verdict_comparison_and_curves() -> None:
    page = Reader(VIEW._repr_html_())
    assert [tag for tag, _ in page.tags].count("svg") == 2
    for title in ("Verdict", "Comparison", "Learning curves"):
        assert title in page.text
    assert "For 512 training examples" in page.text


@pytest.mark.parametrize("part", ["verdict", "comparison", "curves"])
def test_each_part_is_drawn_by_itself_and_printed_as_text(part: str) -> None:
    found = getattr(VIEW, part)
    assert Reader(found._repr_html_()).tags[0] == ("div", {"class": "finetune-study"})
    assert repr(found) and "<" not in repr(found)


def test_the_text_names_the_numbers() -> None:
    lines = repr(VIEW.comparison).splitlines()
    assert lines[0].split()[:2] == ["Examples", "Arm"]
    assert len(lines) == 1 + 8 + 1 + 1 + 4
    assert repr(VIEW).startswith("synthetic: For 512 training examples")


def test_nothing_is_fetched_and_no_script_runs() -> None:
    html = VIEW._repr_html_()
    for tag, attributes in Reader(html).tags:
        assert tag not in ("script", "link", "iframe", "img", "object", "form")
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"src", "href", "xlink:href"} & attributes.keys()
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in "".join(style) and "@import" not in "".join(style)


def test_the_style_stays_inside() -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", VIEW._repr_html_(), re.DOTALL)
    depth, outside = 0, ""
    for character in style:
        if depth == 0 and character not in "{}":
            outside += character
        depth += {"{": 1, "}": -1}.get(character, 0)
    assert depth == 0 and outside.split() == [".finetune-study"]
    assert ":root" not in style and not re.search(r"^body \{", style, re.MULTILINE)


def test_ids_of_two_outputs_do_not_collide() -> None:
    pages = [Reader(html._repr_html_()) for html in (VIEW, VIEW.comparison, VIEW.curves)]
    ids = [attributes["id"] for page in pages for _, attributes in page.tags if "id" in attributes]
    assert ids and len(ids) == len(set(ids))
    for page in pages:
        own = {attributes.get("id") for _, attributes in page.tags}
        labels = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
        assert labels and labels <= own


def test_text_from_a_study_is_escaped() -> None:
    bad = "<script>alert(1)</script>"
    trials = tuple(
        replace(t, outcome=replace(t.outcome, test_metrics={bad: 0.5}))
        if t.outcome is not None and t.outcome.test_loss is not None
        else t
        for t in RESULTS.trials
    )
    config = RESULTS.config.model_copy(update={"name": bad})
    html = StudyView(replace(RESULTS, config=config, trials=trials))._repr_html_()
    assert "<script" not in html.lower()
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2
    Reader(html)


@pytest.mark.parametrize(
    "results",
    [
        pytest.param(make_results(progress=0.3), id="unfinished"),
        pytest.param(make_results(arms=("full",), sizes=(64,), replicates=1), id="sweep"),
        pytest.param(StudyResults(make_config(), ()), id="new"),
    ],
)
def test_a_study_in_any_state_is_shown(results: StudyResults) -> None:
    view = show(results)
    assert Reader(view._repr_html_()).text and repr(view) and repr(view.curves)


def test_other_sizes_may_be_asked_about() -> None:
    view = show(RESULTS, dataset_sizes=[100, 300], memory_limit_gib=0.7)
    assert [card.dataset_size for card in view.verdict.cards] == [100, 300]
    assert len(repr(view.verdict).splitlines()) == 2


def test_no_notebook_is_needed() -> None:
    code = "import sys, study.report.notebook as n; print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
