from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from study.basics.errors import UserError
from study.strategies import make_strategy
from study.strategies.base import BlockLayout, Phase, frozen_prefix, lowest_active_block
from study.strategies.full import FullStrategy
from study.strategies.lift import LiftStrategy
from tests.strategies.conformance import StrategyConformance, layout


class TestLiftByDefault(StrategyConformance):
    strategy = LiftStrategy()


class TestLiftBlockByBlockTwice(StrategyConformance):
    strategy = LiftStrategy(group_size=4, sweeps=2, group_lr_decay=0.5)


class TestLiftCumulative(StrategyConformance):
    strategy = LiftStrategy(group_size=2, cumulative=True)


class TestLiftBottomUp(StrategyConformance):
    strategy = LiftStrategy(group_size=3, order="bottom-up", group_lr_decay=0.5)


class TestLiftRandomCumulative(StrategyConformance):
    strategy = LiftStrategy(group_size=3, order="random", sweeps=2, cumulative=True)


class TestLiftProportional(StrategyConformance):
    strategy = LiftStrategy(group_size=4, phase_steps="proportional", cumulative=True, sweeps=2)
    even_steps = False


class TestLiftExplicitGroups(StrategyConformance):
    strategy = LiftStrategy(groups="1, 3, 8", rewarmup_ratio=0.5)
    layouts = (layout(12), layout(12, tied=True), layout(12, new_head=True))


class TestLiftWithPartsAlwaysActive(StrategyConformance):
    strategy = LiftStrategy(always_active="final_norm, last_2_blocks", group_lr_decay=0.9)
    layouts = (layout(), layout(5, tied=True), layout(12, new_head=True))


class TestLiftWithItsHeadAlwaysActive(StrategyConformance):
    strategy = LiftStrategy(group_size=2, always_active=["head"], order="bottom-up")


def test_groups_count_from_the_top_so_the_incomplete_one_is_lowest() -> None:
    assert LiftStrategy(group_size=2).block_groups(5) == (range(3, 5), range(1, 3), range(0, 1))


@pytest.mark.parametrize(("blocks", "groups"), [(1, 1), (4, 4), (5, 3), (6, 3), (12, 4), (13, 4)])
def test_default_group_is_a_quarter_of_the_blocks_rounded_up(blocks: int, groups: int) -> None:
    assert len(LiftStrategy().block_groups(blocks)) == groups


def test_norm_and_untied_head_go_with_the_top_group_and_embeddings_with_the_bottom() -> None:
    top, middle, bottom = LiftStrategy(group_size=2).phases(layout(6), 30)
    assert {"norm.weight", "head.weight"} <= set(top.parameters)
    assert "layers.5.bias" in top.parameters
    assert set(middle.parameters) == {f"layers.{i}.{p}" for i in (2, 3) for p in ("weight", "bias")}
    assert "embedding.weight" in bottom.parameters
    assert "head.weight" not in bottom.parameters


def test_a_tied_matrix_trains_with_the_bottom_group_only() -> None:
    top, *_, bottom = LiftStrategy(group_size=2).phases(layout(6, tied=True), 30)
    assert "embedding.weight" not in top.parameters
    assert "embedding.weight" in bottom.parameters


def test_one_group_is_the_same_phase_as_full_but_for_its_name() -> None:
    for size in (6, 99):
        (lift,) = LiftStrategy(group_size=size, group_lr_decay=0.5).phases(layout(6), 10)
        (full,) = FullStrategy().phases(layout(6), 10)
        assert replace(lift, name=full.name) == full


def test_cumulative_phases_only_grow() -> None:
    phases = LiftStrategy(group_size=2, cumulative=True).phases(layout(6), 30)
    for earlier, later in pairwise(phases):
        assert set(earlier.parameters) < set(later.parameters)
    assert phases[-1].parameters == layout(6).parameters


def test_without_cumulative_no_parameter_trains_in_two_groups() -> None:
    phases = LiftStrategy(group_size=2).phases(layout(6), 30)
    names = [n for p in phases for n in p.parameters]
    assert len(names) == len(set(names))


def test_a_second_sweep_starts_at_the_top_again() -> None:
    phases = LiftStrategy(group_size=3, sweeps=2).phases(layout(6), 30)
    assert [p.parameters for p in phases[:2]] == [p.parameters for p in phases[2:]]
    assert [p.name for p in phases] == [
        "group 1 (blocks 3-5), sweep 1",
        "group 2 (blocks 0-2), sweep 1",
        "group 1 (blocks 3-5), sweep 2",
        "group 2 (blocks 0-2), sweep 2",
    ]


def test_decay_is_per_group_and_rewarmup_a_share_of_the_phase() -> None:
    strategy = LiftStrategy(group_size=2, group_lr_decay=0.5, rewarmup_ratio=0.2)
    phases = strategy.phases(layout(6), 31)
    assert [set(p.learning_rate_factors) for p in phases] == [{1.0}, {0.5}, {0.25}]
    assert [p.steps for p in phases] == [11, 10, 10]
    assert [p.rewarmup_steps for p in phases] == [0, 2, 2]


def factors_of(phase: Phase) -> dict[str, float]:
    """Learning-rate factors by parameter, weights alone."""
    pairs = zip(phase.parameters, phase.learning_rate_factors, strict=True)
    return {n.removesuffix(".weight"): f for n, f in pairs if n.endswith(".weight")}


def test_what_trains_in_other_groups_phases_keeps_its_own_groups_factor() -> None:
    cumulative = LiftStrategy(group_size=2, cumulative=True, group_lr_decay=0.5)
    assert factors_of(cumulative.phases(layout(6), 30)[2]) == {
        "embedding": 0.25, "layers.0": 0.25, "layers.1": 0.25, "layers.2": 0.5, "layers.3": 0.5,
        "layers.4": 1.0, "layers.5": 1.0, "norm": 1.0, "head": 1.0,
    }  # fmt: skip
    parts = ["head", "last_1_blocks"]
    always = LiftStrategy(group_size=2, always_active=parts, group_lr_decay=0.5)
    assert factors_of(always.phases(layout(6), 30)[1]) == {
        "layers.2": 0.5, "layers.3": 0.5, "layers.5": 1.0, "head": 1.0,
    }  # fmt: skip
    # A tied head is the embeddings, which are the lowest group's.
    tied = LiftStrategy(group_size=2, always_active=["head"], group_lr_decay=0.5)
    assert factors_of(tied.phases(layout(6, tied=True), 30)[0])["embedding"] == 0.25
    new = LiftStrategy(group_size=2, group_lr_decay=0.5)
    assert factors_of(new.phases(layout(6, new_head=True), 30)[2])["head"] == 1.0


def blocks_of(phase: Phase) -> set[int]:
    """The blocks that a phase trains."""
    return {int(n.split(".")[1]) for n in phase.parameters if n.startswith("layers.")}


def test_explicit_groups_count_from_the_top_as_list_or_text() -> None:
    groups = (range(10, 12), range(6, 10), range(6))
    for written in ([2, 4, 6], "2, 4, 6", "2 4 6"):
        strategy = LiftStrategy(groups=written)
        assert strategy.block_groups(12) == groups
        assert strategy == LiftStrategy(groups=(2, 4, 6))


def test_equal_explicit_groups_are_the_phases_of_a_group_size() -> None:
    explicit = LiftStrategy(groups=[2, 2, 2], sweeps=2).phases(layout(6), 33)
    assert explicit == LiftStrategy(group_size=2, sweeps=2).phases(layout(6), 33)


def test_groups_that_do_not_add_up_are_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"2 \+ 4 = 6 blocks, but the model has 8.*add up to 8"):
        LiftStrategy(groups=[2, 4]).phases(layout(8), 30)


def test_groups_and_group_size_exclude_each_other() -> None:
    with pytest.raises(UserError, match="exclude each other"):
        make_strategy("lift", {"groups": [2, 4]}, {"group_size": 2})


def test_bottom_up_is_top_down_backwards_and_groups_keep_names_parts_and_factors() -> None:
    down = LiftStrategy(group_size=2, group_lr_decay=0.5).phases(layout(6), 30)
    up = LiftStrategy(group_size=2, group_lr_decay=0.5, order="bottom-up").phases(layout(6), 30)
    assert [p.name for p in up] == [p.name for p in reversed(down)]
    assert [p.parameters for p in up] == [p.parameters for p in reversed(down)]
    assert [set(p.learning_rate_factors) for p in up] == [{0.25}, {0.5}, {1.0}]
    assert [p.rewarmup_steps for p in up] == [0, 1, 1]
    assert "embedding.weight" in up[0].parameters and "head.weight" in up[2].parameters


def test_a_random_order_is_a_new_permutation_each_sweep_and_follows_the_seed() -> None:
    strategy = LiftStrategy(group_size=1, order="random", sweeps=3)
    names = [p.name for p in strategy.phases(layout(12), 36, seed=5)]
    sweeps = [[name.split(" (")[0] for name in names[i : i + 12]] for i in (0, 12, 24)]
    assert all(sorted(sweep) == sorted(sweeps[0]) for sweep in sweeps)
    assert len({tuple(sweep) for sweep in sweeps}) == 3
    assert (
        len({tuple(p.name for p in strategy.phases(layout(12), 36, seed=s)) for s in range(9)}) == 9
    )
    assert names == [p.name for p in strategy.phases(layout(12), 36, seed=5)]


def test_cumulative_keeps_what_trained_in_this_sweep_whatever_the_order() -> None:
    for order in ("bottom-up", "random"):
        strategy = LiftStrategy(group_size=2, order=order, cumulative=True, sweeps=2)
        phases = strategy.phases(layout(6), 60, seed=1)
        for sweep in (phases[:3], phases[3:]):
            assert [len(blocks_of(p)) for p in sweep] == [2, 4, 6]
            assert all(blocks_of(a) < blocks_of(b) for a, b in pairwise(sweep))


def test_always_active_parts_train_in_every_phase_and_nothing_else_does() -> None:
    plain = LiftStrategy(group_size=2).phases(layout(6), 30)
    strategy = LiftStrategy(group_size=2, always_active=["head", "final_norm", "last_1_blocks"])
    extra = {"head.weight", "norm.weight", "layers.5.weight", "layers.5.bias"}
    for with_parts, without in zip(strategy.phases(layout(6), 30), plain, strict=True):
        assert set(with_parts.parameters) == set(without.parameters) | extra


def test_a_tied_head_that_is_always_active_is_the_embedding_and_leaves_no_frozen_prefix() -> None:
    model = layout(6, tied=True)
    phases = LiftStrategy(group_size=2, always_active="head").phases(model, 30)
    assert all("embedding.weight" in p.parameters for p in phases)
    assert frozen_prefix(model, phases) == (0, 0, 0)
    assert [lowest_active_block(model, p) for p in phases] == [0, 0, 0]


def test_more_blocks_always_active_than_the_model_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"last_7_blocks, but the model has 6.*last_6_blocks"):
        LiftStrategy(always_active=["last_7_blocks"]).phases(layout(6), 30)


def test_a_part_that_the_model_lacks_is_refused() -> None:
    post_norm = replace(layout(6), head=("norm.weight", "head.weight"))
    with pytest.raises(UserError, match="always_active has final_norm, but the model has nothing"):
        LiftStrategy(always_active=["final_norm"]).phases(post_norm, 30)


@pytest.mark.parametrize(
    ("written", "telling"),
    [("hed", "Did you mean `head`"), (["final_norm", "last_0_blocks"], "`last_0_blocks` cannot"),
     ("head head", "`head` is listed twice"), (["none"], None), ("", None)],
)  # fmt: skip
def test_always_active_is_checked_entry_by_entry(
    written: str | list[str], telling: str | None
) -> None:
    options = {"always_active": written}
    if telling is None:
        assert make_strategy("lift", options, {}) == LiftStrategy()
        return
    with pytest.raises(UserError, match=telling):
        make_strategy("lift", options, {})


def test_proportional_steps_follow_the_parameters_that_train() -> None:
    blocks = tuple((f"b{i}",) for i in range(6))
    model = BlockLayout(
        numel={"e": 0, **{n: 10 for (n,) in blocks}, "h": 0}, embeddings=("e",), blocks=blocks,
        top=("h",), head=("h",),
    )  # fmt: skip
    strategy = LiftStrategy(groups=[1, 2, 3], phase_steps="proportional", rewarmup_ratio=0.2)
    assert [p.steps for p in strategy.phases(model, 60)] == [10, 20, 30]
    assert [p.rewarmup_steps for p in strategy.phases(model, 60)] == [0, 4, 6]


def test_fewer_steps_than_phases_is_refused_with_the_numbers() -> None:
    with pytest.raises(UserError, match="5 optimizer steps cannot be split into 6 phases"):
        LiftStrategy(group_size=1).phases(layout(6), 5)


@pytest.mark.parametrize(
    "options",
    [{"group_size": 0}, {"sweeps": 0}, {"group_lr_decay": 0.0}, {"rewarmup_ratio": 1.0},
     {"order": "upwards"}, {"phase_steps": "equal"}],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(UserError, match=f"lift: {name} must be"):
        make_strategy("lift", options, {})
