"""The report in a real browser: quiet, offline, usable, accessible.

Needs Chromium (`apt install chromium`) and `pip install -e '.[test,browser]'`; run with
`pytest -m browser`. The extra brings the client and axe, no browser of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.analysis.summary import summarise
from study.report import write_summary
from tests.helpers.results import make_results
from tests.report.verdicts import FORGETS, RUNS, make_verdict

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished study with a claim, a trade-off, a lean and a grid of sizes."""
    results = make_results(failures=("lift-n64-r1-s2",))
    summary = summarise(results)
    sizes = [verdict.dataset_size for verdict in summary.grid]
    claims = (
        make_verdict(dataset_size=128),
        make_verdict(arm="full", dataset_size=256, retention=FORGETS),
        make_verdict("lean", dataset_size=300, confidence=0.86, next_runs=(RUNS,)),
        *summary.verdicts,
    )
    grid = tuple(make_verdict(arm="lift" if n < 256 else "full", dataset_size=n) for n in sizes)
    folder = tmp_path_factory.mktemp("report")
    paths = write_summary(results, replace(summary, verdicts=claims, grid=grid), folder)
    return paths.html.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "no chromium on this machine (apt install chromium)"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """The report, and in `page.heard` what the browser logged or asked the network for."""
    found = browser.new_page(viewport={"width": 1000, "height": 900})
    found.heard = []
    found.on("console", lambda message: found.heard.append(message.text))
    found.on("pageerror", lambda error: found.heard.append(str(error)))
    found.on("request", lambda request: found.heard.append(request.url))
    found.goto(url)
    yield found
    found.close()


def test_it_is_quiet_and_asks_the_network_for_nothing(page: Any, url: str) -> None:
    page.fill("#case-size", "100")
    page.mouse.wheel(0, 20_000)
    page.wait_for_timeout(200)
    assert page.heard == [url]


def test_the_page_may_not_reach_the_network_even_if_a_script_tried(page: Any) -> None:
    blocked = page.evaluate("fetch('https://example.com/').then(() => false, () => true)")
    assert blocked
    assert any("Content Security Policy" in text for text in page.heard)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("64", "use LIFT for this model"),
        ("500", "use full for this model"),
        ("1 28", "For 128 training examples"),
        ("9", "This study can answer for 43 to 768 examples"),
        ("100000", "This study can answer for 43 to 768 examples"),
        ("many", "Type a whole number"),
    ],
)
def test_a_typed_size_gets_its_answer(page: Any, typed: str, answer: str) -> None:
    page.get_by_label("How many training examples do you have?").press_sequentially(typed)
    page.keyboard.press("Enter")
    assert answer in " ".join(page.inner_text("#case-answer").split())


def test_an_emptied_size_takes_its_answer_back(page: Any) -> None:
    page.fill("#case-size", "64")
    assert page.inner_text("#case-answer")
    page.fill("#case-size", "")
    assert page.inner_text("#case-answer") == ""


def test_the_keyboard_reaches_results_size_and_downloads(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(300):
        page.keyboard.press("Tab")
        active = page.evaluate(
            "[document.activeElement.id || document.activeElement.tagName, "
            "document.activeElement.getAttribute('download'), "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        reached |= {active[0], active[1]}
        if active[0] == "BODY":
            break
        assert active[2] != "none", f"no visible focus on {active}"
    assert reached >= {"case-size", "SUMMARY", "trials.csv", "trials.json.gz"}


def test_a_download_is_saved_offline(page: Any, tmp_path: Path) -> None:
    with page.expect_download() as waiting:
        page.get_by_role("link", name="trials.csv").click()
    saved = tmp_path / "trials.csv"
    waiting.value.save_as(saved)
    assert saved.read_text().startswith("study,trial_id,arm,size,replicate")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000])
def test_nothing_scrolls_sideways_and_axe_finds_nothing_serious(
    browser: Any, url: str, scheme: str, width: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # Axe is put into the page, which the page's own policy forbids to scripts from outside.
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    page = context.new_page()
    page.goto(url)
    page.fill("#case-size", "100")
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = Axe().run(page).response["violations"]
    context.close()
    told = [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in SERIOUS]
    assert told == []


def test_it_reads_without_javascript(browser: Any, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert page.locator("#case-form").is_hidden()
    text = page.inner_text("body")
    for told in ("use LIFT for this model", "The verdict at the tested and the asked", "Methods"):
        assert told in text
    context.close()


def test_paper_shows_what_is_folded_and_no_dark_ground(browser: Any, url: str) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(url)
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#trials td").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#case-form").is_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.evaluate("document.querySelector('#trials details').open")
    context.close()
