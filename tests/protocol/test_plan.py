"""The plan: pure, reproducible, fair to both arms."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from study.basics.errors import UserError
from study.config.load import StudyConfig
from study.protocol.advice import plan_warnings
from study.protocol.plan import (
    Cell,
    ModelFacts,
    evaluation_steps,
    plan_trials,
    trial_steps,
    with_probe,
)
from study.protocol.records import DataSummary, Stage
from study.protocol.state_bytes import state_bytes
from study.protocol.steps import prefix_cache_pays
from tests.helpers.costs import step_costs
from tests.helpers.results import make_config

FACTS = ModelFacts(num_blocks=8)
DATA = DataSummary("f", 1000, 100, 100, 50, 0, 0, 0, 80.0, 40.0)


def test_the_same_file_gives_the_same_plan() -> None:
    assert plan_trials(make_config(), FACTS) == plan_trials(make_config(), FACTS)


def test_another_seed_gives_other_points_and_subsets() -> None:
    first, second = plan_trials(make_config(), FACTS), plan_trials(make_config(seed=1), FACTS)
    assert all(
        a.subset_seed != b.subset_seed and a.hyperparameters != b.hyperparameters
        for a, b in zip(first.search, second.search, strict=True)
    )


def test_trial_ids_are_unique_and_every_cell_has_all_its_trials() -> None:
    config = make_config(sizes=(64, 128), replicates=2, trials=3)
    plan = plan_trials(config, FACTS)
    assert len({s.trial_id for s in plan.search}) == len(plan.search) == 2 * 2 * 2 * 3
    assert len(plan.cells) == 8
    assert plan.trials == 24 + 8 * config.confirm.seeds


def test_arms_share_subsets_orders_and_the_columns_they_have_in_common() -> None:
    space = {
        "shared": {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "warmup_ratio": {"low": 0.0, "high": 0.1},
            "max_grad_norm": 1.0,
        },
        "lift": {"group_size": {"choices": [1, 2, 4]}},
    }
    plan = plan_trials(make_config(search={"space": space, "trials": 4, "replicates": 2}), FACTS)
    full = [s for s in plan.search if s.arm == "full"]
    lift = {s.trial_id: s for s in plan.search if s.arm == "lift"}
    assert len({s.hyperparameters["group_size"] for s in lift.values()}) > 1
    for spec in full:
        twin = lift[spec.trial_id.replace("full", "lift")]
        assert (spec.subset_seed, spec.order_seed) == (twin.subset_seed, twin.order_seed)
        assert spec.seed != twin.seed
        for name, value in spec.hyperparameters.items():
            assert twin.hyperparameters[name] == value


def test_replicates_and_sizes_draw_different_subsets_and_designs() -> None:
    plan = plan_trials(make_config(arms=("full",)), FACTS)
    first = {Cell(s.arm, s.size, s.replicate): s for s in plan.search if s.index == 0}
    assert len({s.subset_seed for s in first.values()}) == len(first)
    assert len({s.hyperparameters["learning_rate"] for s in first.values()}) == len(first)


def test_the_design_of_fewer_trials_begins_that_of_more() -> None:
    designs = {}
    for trials in (1, 2, 3, 4, 5, 8, 9, 20):
        plan = plan_trials(make_config(sizes=(64,), replicates=2, trials=trials), FACTS)
        designs[trials] = {s.trial_id: s for s in plan.search}
    longest = designs[20]
    for design in designs.values():
        assert design == {trial_id: longest[trial_id] for trial_id in design}


def test_more_sizes_replicates_and_seeds_change_no_trial_of_the_smaller_study() -> None:
    small = plan_trials(make_config(sizes=(64, 256), replicates=2, trials=3), FACTS)
    large = plan_trials(
        make_config(sizes=(32, 64, 128, 256), replicates=3, trials=5, confirm_seeds=4), FACTS
    )
    assert set(map(repr, small.search)) < set(map(repr, large.search))
    cell, point = small.cells[0], small.search[0].hyperparameters
    assert large.confirm(cell, point)[:2] == small.confirm(cell, point)


def test_a_design_fills_the_range_evenly() -> None:
    config = make_config(sizes=(64,), replicates=1, trials=8, arms=("full",))
    rates = sorted(
        math.log(s.hyperparameters["learning_rate"]) for s in plan_trials(config, FACTS).search
    )
    low, high = math.log(2e-5), math.log(5e-5)
    eighths = [int(8 * (r - low) / (high - low)) for r in rates]
    assert eighths == list(range(8))  # one point in each eighth: a Sobol net, unlike random draws


def test_confirm_trials_keep_the_subset_and_have_their_own_order_and_seed() -> None:
    plan = plan_trials(make_config(confirm_seeds=3), FACTS)
    search = plan.search[0]
    confirm = plan.confirm(Cell("full", search.size, 0), search.hyperparameters)
    assert [c.trial_id for c in confirm] == [f"full-n{search.size}-r0-c{i}" for i in range(3)]
    assert {c.subset_seed for c in confirm} == {search.subset_seed}
    assert len({c.order_seed for c in confirm} | {search.order_seed}) == 4
    assert len({c.seed for c in confirm} | {search.seed}) == 4
    assert all(c.stage is Stage.CONFIRM for c in confirm)
    lift = plan.confirm(Cell("lift", search.size, 0), search.hyperparameters)
    assert [c.order_seed for c in lift] == [c.order_seed for c in confirm]


def test_steps_have_a_floor_and_follow_epochs_above_it() -> None:
    config = make_config(training={"global_batch_size": 8, "epochs": 2, "min_steps": 50})
    assert trial_steps(config, FACTS, "full", 64, {}) == 50
    assert trial_steps(config, FACTS, "full", 512, {}) == 128
    assert trial_steps(config, FACTS, "full", 513, {}) == 129, "two whole epochs, and the rest"


@pytest.mark.parametrize(
    ("basis", "ratio", "hyperparameters", "expected"),
    [
        ("tokens", None, {}, 120),
        ("updates_per_parameter", None, {}, 480),  # 8 blocks in 4 groups
        ("updates_per_parameter", None, {"group_size": 1}, 960),
        ("device_seconds", None, {}, 192),  # 2G/(G+1) = 1.6
        ("device_seconds", 1.25, {}, 150),
        # Two groups: predicted 4/3 instead of 8/5, so the measured 1.2 shrinks alike.
        ("device_seconds", 1.2, {"group_size": 4}, 120),
        ("device_seconds", None, {"groups": "2, 6"}, 170),  # 85 * (1.5 + 2.75) = 361.25
        ("updates_per_parameter", None, {"groups": "2, 6"}, 240),
        ("tokens", None, {"order": "random", "sweeps": 2}, 120),
    ],
)
def test_lift_steps_follow_the_basis(
    basis: str, ratio: float | None, hyperparameters: dict, expected: int
) -> None:
    config = make_config(comparison=basis, training={"global_batch_size": 8, "steps": 120})
    probe = None if ratio is None else step_costs(ratio * 0.2, 0.2)
    facts = dataclasses.replace(FACTS, probe=probe)
    assert trial_steps(config, facts, "full", 64, hyperparameters) == 120
    assert trial_steps(config, facts, "lift", 64, hyperparameters) == expected


def test_lift_alone_is_not_given_more_steps() -> None:
    config = make_config(arms=("lift",), training={"global_batch_size": 8, "steps": 120})
    assert trial_steps(config, FACTS, "lift", 64, {}) == 120


@pytest.mark.parametrize("arms", [("lift",), ("full", "lift")])
@pytest.mark.parametrize("basis", ["tokens", "updates_per_parameter", "device_seconds"])
def test_no_lift_trial_has_fewer_steps_than_phases(arms: tuple[str, ...], basis: str) -> None:
    config = make_config(
        arms=arms, sizes=(4,), comparison=basis, training={"global_batch_size": 4, "steps": 3}
    )
    plan = plan_trials(
        with_lift(config, group_size=1, sweeps=2) if len(arms) > 1 else config, FACTS
    )
    phases = 16 if len(arms) > 1 else 4
    specs = [s for s in plan.search if s.arm == "lift"]
    specs += [s for cell in plan.cells if cell.arm == "lift" for s in plan.confirm(cell, {})]
    assert len(specs) > 2 and all(spec.steps >= phases for spec in specs)
    short = [text for text in plan_warnings(plan, DATA) if "in each of its phases" in text]
    assert bool(short) == any(spec.steps == phases for spec in specs)
    assert all("At 4 examples" in text for text in short)


def with_lift(config: StudyConfig, **options: object) -> StudyConfig:
    return StudyConfig.from_dict(config.to_dict() | {"arms": {"full": {}, "lift": options}})


def test_a_prefix_cache_buys_steps_and_more_so_the_more_often_examples_are_seen() -> None:
    config = make_config(training={"global_batch_size": 8, "steps": 120})
    facts = dataclasses.replace(FACTS, prefix_cache=True)
    assert trial_steps(config, facts, "lift", 64, {}) == 236  # see test_cost_model
    # 120 misses: 49 * (1.5 + 1.75) + 22 * 2 + 27 * 1.75 + 49 * 2.25 = 360.75 of 360 units.
    assert trial_steps(config, facts, "lift", 960, {}) == 196


def test_a_prefix_cache_that_the_probe_measured_counts_and_one_it_could_not_use_does_not() -> None:
    config = make_config(training={"global_batch_size": 8, "steps": 120})
    facts = dataclasses.replace(FACTS, prefix_cache=True, probe=step_costs(0.3, 0.1875, 0.15))
    assert trial_steps(config, facts, "lift", 64, {}) == 236
    facts = dataclasses.replace(facts, probe=step_costs(0.3, 0.1875, None))
    assert trial_steps(config, facts, "lift", 64, {}) == 192


def test_a_prefix_cache_that_does_not_pay_is_not_used_and_counts_for_nothing() -> None:
    config = make_config(training={"global_batch_size": 8, "steps": 120})
    slow = step_costs(0.3, 0.1875, 0.2, lift_fill=0.5)
    facts = dataclasses.replace(FACTS, prefix_cache=True, probe=slow)
    assert not prefix_cache_pays(config, facts)
    assert trial_steps(config, facts, "lift", 64, {}) == 192
    unusable = step_costs(0.3, 0.1875, None, lift_fill=0.5)
    for probe in (None, unusable, step_costs(0.3, 0.1875, 0.15)):
        assert prefix_cache_pays(config, dataclasses.replace(facts, probe=probe))


def test_the_probe_times_one_sweep_and_a_second_one_finds_no_frozen_prefix() -> None:
    config = make_config(training={"global_batch_size": 8, "steps": 120})
    facts = dataclasses.replace(FACTS, probe=step_costs(0.3, 0.1875, 0.15))
    # n steps a phase: 6 + 6n in the first sweep, 7.5n in the second.
    expected = round(8 * (360 - 6) / 13.5)
    for twice in (with_lift(config, sweeps=2), config):
        assert abs(trial_steps(twice, facts, "lift", 64, {"sweeps": 2}) - expected) <= 1


def test_a_random_order_costs_by_its_seed_and_the_same_seed_the_same() -> None:
    config = make_config(training={"global_batch_size": 8, "steps": 120})
    facts = dataclasses.replace(FACTS, prefix_cache=True)
    steps = [trial_steps(config, facts, "lift", 64, {"order": "random"}, s) for s in range(12)]
    assert steps == [
        trial_steps(config, facts, "lift", 64, {"order": "random"}, s) for s in range(12)
    ]
    assert min(steps) >= 191 and max(steps) <= 236 and len(set(steps)) > 2


def test_every_trial_of_a_random_order_is_planned_for_its_own_seed() -> None:
    config = with_lift(make_config(sizes=(64,), trials=8), order="random")
    facts = dataclasses.replace(FACTS, prefix_cache=True)
    lift = [s for s in plan_trials(config, facts).search if s.arm == "lift"]
    assert [s.steps for s in lift] == [
        trial_steps(config, facts, "lift", 64, s.hyperparameters, s.seed) for s in lift
    ]
    assert len({s.steps for s in lift}) > 1


def test_a_tied_head_that_is_always_active_gets_fewer_steps() -> None:
    config = with_lift(
        make_config(training={"global_batch_size": 8, "steps": 120}), always_active=["head"]
    )
    assert trial_steps(config, FACTS, "lift", 64, {}) == 192
    # Every phase goes all the way back: 1 + 1 + 1/4 units.
    tied = dataclasses.replace(FACTS, tied=True)
    assert trial_steps(config, tied, "lift", 64, {}) == 160


def test_planning_again_with_the_probe_changes_lift_steps_alone() -> None:
    plan = plan_trials(make_config(), FACTS)
    probed = with_probe(plan, step_costs(0.1, 0.1))
    for before, after in zip(plan.search, probed.search, strict=True):
        assert (before.steps == after.steps) is (before.arm == "full")
        assert before.hyperparameters == after.hyperparameters
    assert with_probe(probed, None) == plan


def test_groups_that_do_not_fit_the_model_are_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match="2 \\+ 4 = 6 blocks, but the model has 8"):
        plan_trials(with_lift(make_config(), groups=[2, 4]), FACTS)


@pytest.mark.parametrize("sampler", ["sobol", "tpe"])
def test_so_is_one_that_a_search_might_choose(sampler: str) -> None:
    domain = {"choices": ["2, 6", "4, 5"]}
    search = {"overrides": {"lift": {"groups": domain}}, "sampler": sampler, "trials": 1}
    with pytest.raises(UserError, match="4 \\+ 5 = 9 blocks, but the model has 8"):
        plan_trials(make_config(search=search), FACTS)
    assert plan_trials(make_config(search=search, arms=("full",)), FACTS).search


def test_an_always_active_tied_head_is_warned_about() -> None:
    for config in (
        with_lift(make_config(), always_active=["head"]),
        make_config(
            search={"overrides": {"lift": {"always_active": {"choices": ["none", "head"]}}}}
        ),
    ):
        tied = plan_trials(config, dataclasses.replace(FACTS, tied=True))
        assert any("tied to its embeddings" in text for text in plan_warnings(tied, DATA))
        assert not any("tied" in text for text in plan_warnings(plan_trials(config, FACTS), DATA))


def test_evaluations_are_even_and_end_at_the_last_step() -> None:
    assert evaluation_steps(100, 4) == (25, 50, 75, 100)
    assert evaluation_steps(3, 5) == (1, 2, 3)


def test_the_first_rung_lies_beyond_the_longest_warmup() -> None:
    space = {
        "shared": {
            "learning_rate": 1e-4,
            "warmup_ratio": {"low": 0, "high": 0.5},
            "max_grad_norm": 1.0,
        }
    }
    plan = plan_trials(
        make_config(
            search={"space": space, "pruner": "asha", "sampler": "random"},
            training={"global_batch_size": 8, "evaluations": 4, "steps": 100},
        ),
        FACTS,
    )
    assert plan.first_rung == 3  # the warmup ends with evaluation 2


def test_samplers_that_learn_get_empty_designs_and_a_seed_per_trial() -> None:
    plan = plan_trials(make_config(search={"sampler": "tpe", "trials": 4}), FACTS)
    assert all(s.hyperparameters == {} for s in plan.search)
    assert len({plan.sampler_seed(s) for s in plan.search}) == len(plan.search)


def test_warnings_name_what_is_not_plain_from_the_numbers() -> None:
    config = make_config(sizes=(64, 900), replicates=2, confirm_seeds=1)
    text = "\n".join(plan_warnings(plan_trials(config, FACTS), DATA))
    assert "900 examples overlap by about 90%" in text
    assert "At 64 examples the floor of 100 optimizer steps (training.min_steps) means 12.5" in text


def test_a_plain_sweep_gets_no_warnings() -> None:
    config = make_config(
        arms=("full",), sizes=(900,), replicates=1, confirm_seeds=0, zero={"stage": 0}
    )
    assert plan_warnings(plan_trials(config, FACTS), DATA) == []


def warned(word: str, **shape: Any) -> list[str]:
    plan = plan_trials(make_config(**shape), FACTS)
    return [text for text in plan_warnings(plan, DATA) if word in text]


def test_the_floor_is_warned_of_once_and_only_where_it_is_more_than_what_was_asked() -> None:
    # Batches of 8: three epochs are 24, 48 and 96 steps.
    training = {"global_batch_size": 8, "epochs": 3}
    sizes = (64, 128, 256)
    (told,) = warned("floor", sizes=sizes, training=training | {"min_steps": 48})
    assert told.startswith("At 64 examples the floor of 48 optimizer steps")
    assert "means 6 epochs rather than 3" in told
    (told,) = warned("floor", sizes=sizes, training=training | {"min_steps": 96})
    assert told.startswith("At 64 and 128 examples") and "means 12 and 6 epochs" in told
    assert not warned("floor", sizes=sizes, training=training | {"min_steps": 24})
    assert not warned("floor", sizes=sizes, training={"global_batch_size": 8, "steps": 10})


def test_subsets_that_overlap_are_warned_of_in_one_line() -> None:
    (told,) = warned("overlap", sizes=(64, 600, 900), replicates=2)
    assert told.startswith("Subsets of 600 and 900 examples overlap by about 60% and 90%")


@pytest.mark.parametrize(
    ("zero", "workers", "told"),
    [
        ({"stage": 2}, 1, True),
        ({"stage": 1}, 1, True),
        ({"stage": 0}, 1, False),
        ({"stage": 3}, 1, False),
        ({"stage": 2}, 2, False),
        ({"stage": 2, "offload_optimizer": "cpu"}, 1, False),
    ],
)
def test_zero_that_has_nobody_to_share_with_is_warned_of(
    zero: dict[str, Any], workers: int, told: bool
) -> None:
    resources = {"workers_per_trial": workers}
    assert bool(warned("ZeRO", zero=zero, resources=resources)) is told
    if told:
        one = [state_bytes(100, 100, 1, s, "bf16").peak for s in (zero["stage"], 0)]
        assert one[0] - one[1] == 4 * 100
        one = [state_bytes(100, 100, 1, s, "fp32").peak for s in (zero["stage"], 0)]
        assert one[0] - one[1] == 8 * 100
