from __future__ import annotations

import pytest

from study.basics.errors import ModelError, UserError
from study.strategies import STRATEGIES, make_strategy
from study.strategies.base import BlockLayout
from study.strategies.lift import LiftStrategy


def test_hyperparameters_override_the_arms_options() -> None:
    strategy = make_strategy(
        "lift", {"group_size": 2, "sweeps": 3}, {"group_size": 5, "learning_rate": 1e-5}
    )
    assert strategy == LiftStrategy(group_size=5, sweeps=3)


def test_full_ignores_hyperparameters_of_lift() -> None:
    assert make_strategy("full", {}, {"group_size": 5}) == STRATEGIES["full"]()


def test_unknown_arm_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"arms\.lisa: unknown strategy.*full, lift"):
        make_strategy("lisa", {}, {})


def test_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown options group_siz\. Known: .*group_size"):
        make_strategy("lift", {"group_siz": 2}, {})


def test_a_layout_that_forgets_a_parameter_is_refused() -> None:
    with pytest.raises(ModelError, match=r"exactly one of.*: b"):
        BlockLayout(numel={"a": 1, "b": 1}, embeddings=("a",), blocks=(), top=())


def test_a_layout_with_a_parameter_in_two_parts_is_refused() -> None:
    with pytest.raises(ModelError, match=r"exactly one of.*: a"):
        BlockLayout(numel={"a": 1}, embeddings=("a",), blocks=(("a",),), top=())


def test_missing_weights_below_the_head_are_refused() -> None:
    with pytest.raises(ModelError, match=r"no weights for parameters below its head: a\."):
        BlockLayout(
            numel={"a": 1, "b": 1}, embeddings=(), blocks=(("a",),), top=("b",), new_head=("a",)
        )
