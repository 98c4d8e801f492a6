"""LIFT's list-like options: the same as YAML list and as text."""

from __future__ import annotations

from typing import Any

import pytest

from study.basics.errors import ConfigError
from study.config.load import StudyConfig, parse_config
from study.protocol.steps import trial_strategy
from study.strategies.lift import LiftStrategy
from study.strategies.lift_options import last_blocks, read_always_active, read_groups

STUDY: dict[str, Any] = {
    "name": "tiny",
    "model": {"path": "./model"},
    "data": {"train": "./train.jsonl", "text": "text"},
    "dataset_sizes": [64],
}


def study_with(**lift: Any) -> StudyConfig:
    return parse_config({**STUDY, "arms": {"full": {}, "lift": lift}})


@pytest.mark.parametrize("written", [[2, 4, 6], "2, 4, 6", "2,4,6", " 2 4  6 "])
def test_groups_are_read_from_both_forms(written: list[int] | str) -> None:
    assert read_groups(written) == (2, 4, 6)
    assert study_with(groups=written) == study_with(groups=[2, 4, 6])


@pytest.mark.parametrize("wrong", ["", "2, 0", "2, -1", "2, 1.5", [2, True], [2, 1.5], [], "two"])
def test_groups_that_are_no_block_counts_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"whole numbers of at least 1.*\[2, 4, 6\]"):
        read_groups(wrong)


@pytest.mark.parametrize("written", [["head", "last_2_blocks"], "head, last_2_blocks"])
def test_always_active_is_read_from_both_forms(written: list[str] | str) -> None:
    assert read_always_active(written) == ("head", "last_2_blocks")
    assert study_with(always_active=written) == study_with(always_active=["head", "last_2_blocks"])


@pytest.mark.parametrize("nothing", ["", "none", [], ["none"]])
def test_nothing_always_active_has_a_word_for_search_spaces(nothing: list[str] | str) -> None:
    assert read_always_active(nothing) == ()
    assert study_with(always_active=nothing) == study_with()


def test_the_number_of_always_active_blocks_is_in_the_word() -> None:
    assert last_blocks(["head"]) == 0
    assert last_blocks(["last_1_block", "head"]) == 1
    assert last_blocks(["last_12_blocks"]) == 12


def test_a_studys_structure_reaches_the_strategy_and_survives_the_store() -> None:
    config = study_with(
        groups="1, 3", order="random", always_active="final_norm", phase_steps="proportional"
    )
    expected = LiftStrategy(
        groups=(1, 3), order="random", always_active=("final_norm",), phase_steps="proportional"
    )
    assert trial_strategy(config, "lift", {}) == expected
    assert (
        trial_strategy(StudyConfig.from_dict(config.to_dict()), "lift", {"order": "random"})
        == expected
    )
    assert trial_strategy(config, "lift", {"groups": "2, 2"}).block_groups(4) == (
        range(2, 4),
        range(2),
    )
