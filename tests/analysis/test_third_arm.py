"""A third strategy, registered here alone, through analysis, report, recommendation and exports."""

from __future__ import annotations

import gzip
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.analysis import Pair
from study.analysis.summary import summarise
from study.basics.errors import UserError
from study.basics.remote import RemoteFolder
from study.cli.recommend import recommend_and_print
from study.protocol.results import StudyResults
from study.report import write_report
from study.reuse import best_configuration
from study.reuse.formats import FORMATS, export
from study.reuse.identity import Asked
from study.store.notes import study_note
from study.strategies import STRATEGIES
from study.strategies.base import BlockLayout, Phase, Strategy, split_steps
from tests.analysis.comparisons import compare
from tests.helpers.results import make_config

SIZES = (200, 400, 800, 1600)


class ToyStrategy(Strategy):
    """Blocks drawn at random, others every few steps."""

    label = "Toy"
    method = "random blocks"
    summary = "Blocks drawn at random train, others every few steps."
    noun = "random-block fine-tuning"
    colour, shape, dash = "#2a7f3f", "square", (2, 2)
    ink = "#2a7f40", "#7fd494"

    def phases(self, layout: BlockLayout, total_steps: int, *, seed: int = 0) -> tuple[Phase, ...]:
        drawn = random.Random(seed).choices(layout.blocks, k=2)
        parts = zip(drawn, split_steps(total_steps, 2), strict=True)
        return tuple(Phase(f"draw {k}", names, n) for k, (names, n) in enumerate(parts))


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "toy", ToyStrategy)


def study_of(*arms: str, better: str, **changes: Any) -> StudyResults:
    """A finished study in which one arm is better by 0.1 nats at every size."""
    results = compare(
        lambda arm, size: 3.9 if arm == better else 4.0,
        sizes=SIZES,
        costs=dict.fromkeys(STRATEGIES, 20.0),
        memory_mib=dict.fromkeys(STRATEGIES, 900),
        rates=dict.fromkeys(STRATEGIES, 3e-5),
        arms=arms,
        **changes,
    )
    return replace(results, model_parameters=1_000_000, num_blocks=4)


def test_a_study_of_full_and_the_third_is_decided_between_these() -> None:
    results = study_of("full", "toy", better="toy")
    summary = summarise(results, [400])
    (verdict,) = summary.verdicts
    assert summary.pairs == (summary.pair,) == (verdict.pair,) == (Pair("full", "toy"),)
    assert (verdict.answer, verdict.arm, verdict.failed_gates) == ("better", "toy", ())
    assert set(verdict.chances) == {"full", "toy"}
    assert "toy_better" in verdict.to_dict() and "lift_better" not in verdict.to_dict()
    assert summary.curve is not None and summary.curve.crossover().throughout(summary.pair) == "toy"


def test_each_pair_of_three_arms_can_be_compared() -> None:
    results = study_of("full", "lift", "toy", better="toy")
    pairs = (Pair("full", "lift"), Pair("full", "toy"), Pair("lift", "toy"))
    summary = summarise(results, [400])
    assert (summary.pair, summary.pairs) == (pairs[0], pairs)
    found = {pair: summarise(results, [400], pair=pair).verdicts[0] for pair in pairs}
    assert [found[pair].arm for pair in pairs[1:]] == ["toy", "toy"]
    assert found[pairs[0]].answer != "better"
    alone = study_of("full", "lift", better="toy")
    assert len(results.trials) > len(alone.trials)
    gap = found[pairs[0]].difference
    assert gap is not None and math.isclose(gap.value, 0.0, abs_tol=0.005)
    counts = next(g for g in found[pairs[2]].gates if g.name == "Trial counts")
    assert counts.status == "pass" and "of LIFT" in counts.found and "of Toy" in counts.found


@pytest.mark.parametrize("arms", [("full", "toy"), ("full", "lift", "toy"), ("toy",)])
def test_a_report_of_it_is_written_in_every_format(arms: tuple[str, ...], tmp_path: Path) -> None:
    paths = write_report(study_of(*arms, better="toy"), tmp_path, [400])
    texts = [path.read_text() for path in (paths.html, paths.markdown)]
    assert all("Toy" in text for text in texts)
    told = json.loads(paths.json.read_text())
    assert {cell["arm"] for cell in told["cells"]} == set(arms)
    if "lift" not in arms:
        assert not any("LIFT" in text for text in texts if len(arms) > 1)
    if arms == ("full", "toy"):
        assert {"full", "toy"} <= told["differences"][0].keys()
        assert told["verdicts"][0]["arm"] == told["crossover"]["kind"] == "toy"
        assert f'"{ToyStrategy.colour}"' not in texts[0] and "var(--toy)" in texts[0]
        assert all(f"--toy: {ink};" in texts[0] for ink in ToyStrategy.ink)


def test_a_question_is_answered_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = study_of("full", "toy", better="toy")
    url = (tmp_path / "published").as_uri()
    content = gzip.compress(json.dumps(results.to_dict()).encode())
    RemoteFolder(url).write("results.json.gz", content)
    asked = Asked(model=results.config.model.path, dataset_size=400)
    assert recommend_and_print(asked, [url], as_json=False) == 0
    told = capsys.readouterr().out
    assert "Use Toy for 400 training examples" in told and "--arm toy" in told
    assert "Toy / full" in told and "full - Toy" in told


def test_its_best_configuration_is_written_and_refused_by_name_elsewhere() -> None:
    results = study_of("full", "lift", "toy", better="toy")
    best = best_configuration(results, "toy", 400)
    made = export(best.content, "study")
    assert "Best configuration of random-block fine-tuning at 400 examples" in made.text
    written = yaml.safe_load(made.text)
    assert (written["arm"], written["verdict"]["arm"]) == ("toy", "toy")
    assert written["scores"]["arm_test_loss"] == pytest.approx(3.9, abs=0.01)
    for name in FORMATS.keys() - {"study"}:
        with pytest.raises(UserError, match="cannot express Toy") as error:
            export(best.content, name)
        assert "--format study (with `study train`)" in str(error.value)


def test_a_note_in_the_store_names_it() -> None:
    config = make_config(arms=("full", "toy"))
    assert "Full or Toy fine-tuning" in study_note(config)
