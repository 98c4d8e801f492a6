"""The optimism gap, by hand."""

from __future__ import annotations

import pytest

from study.analysis.cells.optimism import optimism
from study.analysis.summary import summarise
from study.protocol.records import BaseModelRecord, Stage, TrialRecord
from study.protocol.results import StudyResults
from tests.helpers.results import make_config, make_results, make_trial


def replicate(number: int, search: float, confirm: list[tuple[float, float]]) -> list[TrialRecord]:
    """A search of two trials, `search` the winner's loss, and (validation, test) of its runs."""
    chosen = {"learning_rate": 1e-4 + number}
    return [
        make_trial("full", 64, number, index=0, score=search + 0.5),
        make_trial("full", 64, number, index=1, score=search, hyperparameters=chosen),
        *[
            make_trial(
                "full",
                64,
                number,
                stage=Stage.CONFIRM,
                index=k,
                score=score,
                test_loss=test,
                hyperparameters=chosen,
            )
            for k, (score, test) in enumerate(confirm)
        ],
    ]


def test_gaps_are_per_replicate_and_their_spread_is_over_replicates() -> None:
    trials = replicate(0, 4.00, [(4.02, 4.10), (4.04, 4.12)]) + replicate(1, 3.90, [(3.91, 4.00)])
    results = StudyResults(
        make_config(arms=["full"], sizes=[64]),
        tuple(trials),
        base=BaseModelRecord(5.0, 5.0, None),
    )
    (found,) = optimism(summarise(results).cells)
    assert (found.arm, found.size, found.gap.replicates) == ("full", 64, 2)
    assert found.search.mean == pytest.approx(3.95)
    assert found.confirm.mean == pytest.approx((4.03 + 3.91) / 2)
    assert found.gap.mean == pytest.approx((0.03 + 0.01) / 2)
    assert found.gap.sd == pytest.approx(0.02 / 2**0.5)
    assert (found.gap.low, found.gap.high) == pytest.approx((0.01, 0.03))
    assert found.test is not None and found.test_gap is not None
    assert found.test.mean == pytest.approx((4.11 + 4.00) / 2)
    assert found.test_gap.mean == pytest.approx((0.11 + 0.10) / 2)


def test_only_confirmed_winners_have_a_gap() -> None:
    assert optimism(summarise(make_results(sizes=[64], confirm_seeds=0)).cells) == ()
    unconfirmed = replicate(0, 4.00, [(4.02, 4.10)]) + replicate(1, 3.00, [])
    results = StudyResults(make_config(arms=["full"], sizes=[64]), tuple(unconfirmed))
    (found,) = optimism(summarise(results).cells)
    assert (found.search.mean, found.gap.sd) == (4.0, None)


def test_cells_come_by_size_then_arm() -> None:
    found = optimism(summarise(make_results(sizes=[64, 128])).cells)
    assert [(o.size, o.arm) for o in found] == [
        (64, "full"),
        (64, "lift"),
        (128, "full"),
        (128, "lift"),
    ]
