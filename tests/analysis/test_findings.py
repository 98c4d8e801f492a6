"""The two sentences say what was measured, name the basis and claim no more."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from study.analysis import caveats, crossover_sentence, found_sentences
from study.analysis.summary import summarise
from study.protocol.records import BaseModelRecord, PrefixCacheUse, Stage, TrialRecord
from study.protocol.results import StudyResults
from tests.helpers.results import make_config, make_results, make_trial


def compared(full: float, lift: float, base: float = 4.7, **changes: object) -> StudyResults:
    trials = []
    for arm, loss in (("full", full), ("lift", lift)):
        trials.append(make_trial(arm, 384, score=4.2))
        trials += [
            make_trial(arm, 384, stage=Stage.CONFIRM, index=k, score=4.1, test_loss=loss)
            for k in (0, 1)
        ]
    config = make_config(sizes=[384], trials=1, replicates=1, **changes)
    return StudyResults(config, tuple(trials), BaseModelRecord(4.6, base, None))


def test_a_comparison_names_size_basis_difference_and_losses() -> None:
    what, behind = found_sentences(summarise(compared(4.13, 4.10)))
    assert what == (
        "At 384 examples, at equal device seconds, LIFT's mean test loss was 0.030 nats lower than "
        "full's (4.100 against 4.130)."
    )
    assert behind == (
        "Each mean is over 1 replicate x 2 seeds; one LIFT run took 1.00 times the device seconds "
        "of a full one; too few confirm runs for an interval, so no statistical claim is made."
    )


@pytest.mark.parametrize(
    ("basis", "phrase"),
    [("tokens", "at equal tokens"), ("updates_per_parameter", "at equal updates per parameter")],
)
def test_the_basis_is_named(basis: str, phrase: str) -> None:
    what, _ = found_sentences(summarise(compared(4.1, 4.2, comparison=basis)))
    assert phrase in what
    assert "0.100 nats higher than full's" in what


def test_equal_losses_have_no_lower_arm() -> None:
    what, _ = found_sentences(summarise(compared(4.1, 4.1001)))
    assert "the same as full's to three decimals (4.100 against 4.100)" in what


def test_not_learning_is_said() -> None:
    summary = summarise(compared(4.8, 4.6))
    assert "but full did not get below the base model's 4.700" in found_sentences(summary)[0]
    assert summary.unlearned == (("full", 384),)
    assert "At 384 examples full did not learn the task" in caveats(summary)[0]
    neither, _ = found_sentences(summarise(compared(4.8, 4.7)))
    assert "but neither arm got below the base model's 4.700" in neither


def test_the_size_asked_about_is_the_one_reported() -> None:
    results = make_results(decision={"dataset_size": 128})
    assert found_sentences(summarise(results))[0].startswith("At 128 examples, ")
    assert found_sentences(summarise(make_results()))[0].startswith("At 512 examples, ")


def test_sizes_where_lift_is_lower_are_counted() -> None:
    summary = summarise(make_results())
    lower = sum(d.arms["full"].mean > d.arms["lift"].mean for d in summary.differences)
    assert 0 < lower < 4
    assert f"the lower one at {lower} of 4 sizes" in found_sentences(summary)[0]


def test_one_arm_is_measured_against_the_base_model_alone() -> None:
    what, behind = found_sentences(summarise(make_results(arms=["lift"], sizes=[64])))
    assert "below the base model's 4.630" in what
    assert "with one arm nothing is compared" in behind
    assert "full" not in what + behind


def test_without_confirm_runs_the_validation_split_is_named_as_the_one_that_picked() -> None:
    what, behind = found_sentences(summarise(make_results(confirm_seeds=0)))
    assert "LIFT's mean validation loss" in what
    assert "on the validation split that picked them, and no test loss was measured" in behind


def test_an_unfinished_study_says_how_far_it_is() -> None:
    summary = summarise(make_results(progress=0.8))
    counts = summary.counts
    expected = f"the study is unfinished ({counts.ended} of {counts.planned} trials ended)"
    assert 0 < counts.ended < counts.planned
    assert expected in found_sentences(summary)[1]


def test_nothing_ended_and_everything_failed_find_nothing() -> None:
    waiting, _ = found_sentences(summarise(make_results(sizes=[64], progress=0.0)))
    assert waiting == "No trial is complete yet: 2 running, 34 waiting."
    failed, where = found_sentences(summarise(make_results(sizes=[64], all_failed=True)))
    assert failed == "All 24 trials that ended failed (24 of them diverged), so there is no result."
    assert "reason" in where
    empty, _ = found_sentences(summarise(replace(make_results(sizes=[64]), trials=())))
    assert empty == "The study has no trials."


def test_arms_that_did_not_cost_the_same_are_said_on_the_device_seconds_basis() -> None:
    results = compared(4.1, 4.2)
    slower = tuple(
        make_trial("lift", 384, stage=t.spec.stage, index=t.spec.index, score=t.score,
                   test_loss=4.2, device_seconds=26.0)
        if t.spec.arm == "lift"
        else t
        for t in results.trials
    )  # fmt: skip
    said = caveats(summarise(replace(results, trials=slower)))
    assert "one LIFT run took 1.30 times the device seconds of a full one" in " ".join(said)
    assert caveats(summarise(results)) == ()


def test_the_basis_counts_cold_costs_and_what_was_spent_stands_beside() -> None:
    results = compared(4.1, 4.2)

    def cached(trial: TrialRecord) -> TrialRecord:
        assert trial.outcome is not None
        use = PrefixCacheUse("on", hits=9, cold_seconds=6.0)
        return replace(trial, outcome=replace(trial.outcome, prefix_cache=use))

    warm = tuple(cached(t) if t.spec.arm == "lift" else t for t in results.trials)
    summary = summarise(replace(results, trials=warm))
    costs = (
        "one LIFT run takes 1.30 times the device seconds of a full one when its prefix cache "
        "starts empty (it took 1.00 times here, with what other trials had cached)"
    )
    assert costs in found_sentences(summary)[1]
    assert f"At 384 examples {costs}, so the arms did not cost the same there." in caveats(summary)


@pytest.mark.parametrize("shape", [{}, {"confirm_seeds": 0}, {"arms": ["full"]}, {"progress": 0.7}])
def test_each_part_is_one_sentence_without_a_claim(shape: dict[str, object]) -> None:
    for sentence in found_sentences(summarise(make_results(**shape))):
        assert sentence.endswith(".")
        assert ". " not in sentence
        for word in ("significant", "better", "wins", "use LIFT", "recommend"):
            assert word not in sentence


def test_the_interval_that_the_curve_gives_is_stated() -> None:
    summary = summarise(make_results())
    assert summary.curve is not None
    found = summary.curve.at(512)
    _, behind = found_sentences(summary)
    assert behind.endswith(
        f"; 95 % interval of full minus LIFT {found.low[0]:+.3f} to {found.high[0]:+.3f} nats, "
        "fitted to 4 sizes, the test split's error included."
    )
    _, behind = found_sentences(summarise(make_results(config=make_config(confirm_seeds=0))))
    assert behind.endswith("so no statistical claim is made.")


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (lambda size: 0.3, "LIFT's mean test loss is lower at every tested size."),
        (lambda size: -0.3, "full's mean test loss is lower at every tested size."),
        (lambda size: 0.0, "and no crossing is shown either."),
    ],
)
def test_the_crossover_is_claimed_by_the_band_alone(
    gap: Callable[[int], float], words: str
) -> None:
    sentence = crossover_sentence(summarise(with_gap(gap)))
    assert sentence.startswith("By the simultaneous 95 % band of the curve, at equal device")
    assert sentence.endswith(words)


def test_a_crossover_names_the_sizes_between_which_it_lies() -> None:
    sentence = crossover_sentence(summarise(with_gap(lambda size: 0.1 * (7.5 - math.log2(size)))))
    found = re.search(r"LIFT's .* lower up to (\d+) examples and full's from (\d+) on", sentence)
    assert found is not None, sentence
    assert 128 < int(found[1]) < 2**7.5 < int(found[2]) < 256


def test_without_a_curve_there_is_no_word_of_a_crossover() -> None:
    assert crossover_sentence(summarise(compared(4.1, 4.2))) == ""


def with_gap(gap: Callable[[int], float]) -> StudyResults:
    """Four sizes, three replicates, two seeds; full's test loss is above LIFT's by `gap(size)`."""
    trials = []
    noise = np.random.default_rng(0).normal(0, 0.002, (2, 4, 3, 2))
    for a, arm in enumerate(("full", "lift")):
        for k, size in enumerate((64, 128, 256, 512)):
            for replicate in range(3):
                trials.append(make_trial(arm, size, replicate, score=4.2))
                for index in range(2):
                    loss = 4.1 + noise[a, k, replicate, index] + gap(size) * (arm == "full")
                    trials.append(
                        make_trial(
                            arm, size, replicate, stage=Stage.CONFIRM, index=index, score=4.1,
                            test_loss=loss,
                        )
                    )  # fmt: skip
    return StudyResults(make_config(trials=1), tuple(trials), BaseModelRecord(4.6, 4.7, None))
