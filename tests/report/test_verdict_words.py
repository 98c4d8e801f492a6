"""Verdicts in words: complete, no surer than they are, and the same for either arm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from study.analysis import Gate, Interval, Verdict
from study.analysis.summary import summarise
from study.protocol.results import StudyResults
from study.protocol.words import BASES
from study.report import headline, verdict_card
from study.report.base import MISSING
from study.report.methods import methods_section
from study.report.phrases import directed, percent, sure
from tests.helpers.results import make_config
from tests.report.verdicts import (
    ANSWERS,
    FAILED,
    FORGETS,
    LEAN,
    PAIR,
    PASSED,
    RUNS,
    SHORT,
    make_setting,
    make_verdict,
)

SETTING = make_setting()


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("verdict", ANSWERS.values(), ids=ANSWERS.keys())
def test_one_sentence_names_size_basis_arms_and_model(verdict: Verdict, basis: str) -> None:
    text = headline(replace(verdict, basis=basis), SETTING)
    assert text.startswith(f"For 3,000 training examples, {BASES[basis].phrase}, ")
    assert text.count(". ") == 0 and text.endswith(".")
    assert "LIFT" in text and "1.23 M parameters" in text


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("verdict", ANSWERS.values(), ids=ANSWERS.keys())
def test_notes_and_changes_name_the_basis_too(verdict: Verdict, basis: str) -> None:
    forgets = replace(FORGETS, forgets={"full": 0.0, "lift": 0.96})
    card = verdict_card(replace(verdict, basis=basis, retention=forgets), SETTING)
    told = [text for text in (*card.notes, *card.changes) if not text.startswith("More runs:")]
    assert len(told) >= 4
    assert [text for text in told if BASES[basis].phrase not in text] == []


def test_claims_carry_their_confidence_in_words_and_numbers() -> None:
    assert "is very likely (97 %) to be lower than full's by more than 0.01 nats" in headline(
        ANSWERS["better"], SETTING
    )
    assert (
        "is very likely (97 %) not to be higher than full's by more than 0.01 nats, and a run "
        "takes 0.80 times the device seconds" in headline(ANSWERS["cheaper"], SETTING)
    )
    assert (
        "only arm that fits into 80 GiB per device (peaks in GiB: full's 95.12, LIFT's 61.90)"
        in (headline(ANSWERS["memory"], SETTING))
    )


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (1.0, "very likely (99 %)"),
        (0.95, "very likely (95 %)"),
        (0.9499, "likely (94 %)"),
        (0.80, "likely (80 %)"),
        (0.7999, "uncertain (79 %)"),
    ],
)
def test_confidence_is_never_said_higher_than_it_is(probability: float, words: str) -> None:
    assert sure(probability) == words


def test_a_percentage_that_a_float_cannot_hold_is_not_rounded_down() -> None:
    assert [percent(k / 100) for k in range(100)] == [f"{k} %" for k in range(100)]


def _swapped(verdict: Verdict) -> Verdict:
    """The same evidence with the arms' labels exchanged."""
    assert verdict.difference is not None and verdict.difference.high is not None
    assert verdict.cost is not None and verdict.difference.low is not None
    d, other = verdict.difference, {"lift": "full", "full": "lift", None: None}
    return replace(
        verdict,
        arm=other[verdict.arm],  # type: ignore[arg-type]
        difference=Interval(-d.value, -verdict.difference.high, -verdict.difference.low),
        chances={other[arm]: found for arm, found in verdict.chances.items()},
        cost=Interval(1 / verdict.cost.value),
        memory_gib=tuple((str(other[arm]), gib) for arm, gib in verdict.memory_gib),
    )


@pytest.mark.parametrize("name", ["better", "cheaper", "lean"])
def test_swapping_the_arms_swaps_their_names_and_nothing_else(name: str) -> None:
    text = headline(ANSWERS[name], SETTING)
    exchanged = text.replace("LIFT", "?").replace("full", "LIFT").replace("?", "full")
    assert headline(_swapped(ANSWERS[name]), SETTING) == exchanged


def test_a_lean_is_no_headline_claim() -> None:
    card = verdict_card(LEAN, SETTING)
    assert (card.label, card.arm) == ("Leans to LIFT", "")
    assert "likely (86 %)" in card.sentence and "too little for a claim" in card.sentence
    assert not any("very likely" in text for text in (card.sentence, *card.notes))


def test_not_enough_evidence_has_reasons_probabilities_and_the_next_runs() -> None:
    card = verdict_card(SHORT, SETTING)
    assert (card.label, card.arm) == ("Not enough evidence", "")
    assert "a condition for a verdict is not met (replicates)" in card.sentence
    assert card.reasons == (
        ("Replicates", "2 at 1,000. Needed: at least 3. Set search.replicates to 3."),
    )
    assert card.next_runs is not None
    assert card.next_runs.rows == (
        (RUNS.change, RUNS.reason, "80", "1 h 0 min", "± 0.020", "± 0.012", "80 %"),
    )
    assert len(card.numbers) == len(verdict_card(ANSWERS["better"], SETTING).numbers) == 4
    open_gates = headline(replace(SHORT, gates=()), SETTING)
    assert "LIFT's test loss is lower with a probability of 62 %, full's with 38 %" in open_gates


def test_unknown_numbers_are_left_out_not_invented() -> None:
    bare = Verdict(3000, "tokens", "not_enough_evidence", None, None, 0.01, PAIR)
    card = verdict_card(bare, make_setting(model_parameters=None, task_loss=None, crossover=None))
    assert "too few confirm runs of both arms" in card.sentence and "this model:" in card.sentence
    assert [name for name, _ in card.facts] == ["Dataset size", "Comparison"]
    assert [number.value for number in card.numbers] == ["none", *[MISSING] * 3]


def test_extrapolation_and_a_searched_range_that_was_too_narrow_are_said() -> None:
    verdict = replace(ANSWERS["better"], dataset_size=5000, extrapolated=True, within_range=True)
    text = headline(verdict, SETTING)
    assert "extrapolated from 500 to 4,000" in text and "within the declared search range" in text
    assert (
        "outside of the tested 500 to 4,000"
        in dict(verdict_card(verdict, SETTING).facts)["Dataset size"]
    )
    assert "extrapolated" not in headline(ANSWERS["better"], SETTING)


def test_gates_that_warn_stand_beside_the_sentence() -> None:
    wide = Gate("Learning rate range", "warn", "12 of 12 at the top", "a third", "Widen it.")
    verdict = make_verdict(gates=(PASSED, wide, FAILED))
    assert verdict_card(verdict, SETTING).notes == (
        "Learning rate range: 12 of 12 at the top. Widen it.",
    )


def test_a_win_that_forgets_more_is_a_trade_off_from_95_percent_on() -> None:
    full = make_verdict(arm="full", retention=FORGETS)
    card = verdict_card(full, SETTING)
    assert card.label == "Full, with a trade-off"
    assert "it is very likely (97 %) to forget more general text" in card.sentence
    less = make_verdict(
        arm="full", retention=replace(FORGETS, forgets={"full": 0.949, "lift": 0.0})
    )
    assert verdict_card(less, SETTING).label == "Full"
    assert "forget" not in headline(less, SETTING)
    other = verdict_card(make_verdict(retention=FORGETS), SETTING)
    assert other.label == "LIFT" and "forget" not in other.sentence


def test_a_trade_off_names_the_difference_in_forgetting_that_was_judged() -> None:
    card = verdict_card(make_verdict(arm="full", rho=0.3, retention=FORGETS), SETTING)
    told = [*card.notes, dict(card.facts)["Forgetting"]]
    assert all("by more than 0.02 nats" in text and "0.3" not in text for text in told)
    assert len(told) == 2
    config = make_config(decision={"rho": 0.3, "retention_rho": 0.02})
    results = StudyResults(config, ())
    methods = " ".join(methods_section(results, summarise(results)).paragraphs)
    assert "forgets more on general text by more than 0.02 nats (decision.retention_rho)" in methods


def test_forgetting_is_told_as_it_is_and_at_equal_task_loss() -> None:
    facts = dict(verdict_card(make_verdict(retention=FORGETS), SETTING).facts)
    assert facts["Forgetting"] == (
        "0.040 nats less forgotten with LIFT (95 % interval 0.030 to 0.050). At equal task loss: "
        "0.010 nats less with LIFT (95 % interval -0.010 nats to 0.020 nats)"
    )
    apart = make_verdict(retention=replace(FORGETS, matched=None))
    assert "do not overlap" in dict(verdict_card(apart, SETTING).facts)["Forgetting"]


def test_a_language_model_has_perplexity_and_a_classifier_accuracy() -> None:
    # exp(-0.031) = 0.9695, exp(-0.012) = 0.9881, exp(-0.05) = 0.9512.
    facts = dict(verdict_card(ANSWERS["better"], SETTING).facts)
    assert facts["Perplexity"] == "3.1 % lower with LIFT (95 % interval 1.2 % to 4.9 %)"
    assert facts["Model and task"].startswith("this model of 1.23 M parameters; the base model's")
    assert "is 0.690 nats above that on general text (3.940)" in facts["Model and task"]
    labels = make_setting(task="sequence-classification", task_loss=None, general_loss=None)
    verdict = make_verdict(accuracy=Interval(-0.012, -0.03, 0.006))
    facts = dict(verdict_card(verdict, labels).facts)
    assert facts["Accuracy"] == "1.2 points higher with full (95 % interval -0.6 to 3.0)"
    assert "Perplexity" not in facts


def test_a_negative_change_turns_its_interval_round() -> None:
    change = Interval(-0.02, -0.05, 0.01)
    assert directed(change, "more", "less", ".2f", "") == (
        "0.02 less (95 % interval -0.01 to 0.05)"
    )
    assert directed(Interval(-0.02), "more", "less", ".2f", "") == "0.02 less"


def test_what_would_change_it_is_read_off_the_grid() -> None:
    changes = verdict_card(ANSWERS["better"], SETTING).changes
    assert changes[0] == "At 900 examples, at equal device seconds, the evidence supports no claim."
    assert "cross between 800 and 1,500 examples" in changes[1]
    assert changes[2].startswith("With a memory limit from 61.90 to 95.12 GiB per device only LIFT")
    alike = make_setting(grid=tuple(v for v in SETTING.grid if v.is_claim), crossover=None)
    assert verdict_card(ANSWERS["better"], alike).changes[0] == (
        "No dataset size from 1,000 to 6,000 examples would change it."
    )
