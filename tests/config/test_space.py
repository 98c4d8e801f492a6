"""Search spaces: domains, YAML, arms, overrides, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from study.basics.errors import ConfigError
from study.config.space.read import (
    CategoricalDomain,
    FixedDomain,
    FloatDomain,
    IntDomain,
    SearchSpace,
    load_space,
    space_names,
)

UNIT = st.floats(0, 1, exclude_max=True)
SHARED: dict[str, Any] = {
    "learning_rate": {"low": 2e-5, "high": 5e-5, "log": True},
    "warmup_ratio": 0.1,
    "max_grad_norm": 1.0,
}


def space_with(**shared: object) -> dict[str, Any]:
    return {"shared": {**SHARED, **shared}}


def faults_of(spec: Any, base_dir: Path | None = None) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_space(spec, base_dir)
    return {fault.path: str(fault) for fault in caught.value.faults}


@st.composite
def float_domains(draw: st.DrawFn) -> FloatDomain:
    low = draw(st.floats(1e-9, 1e3))
    if draw(st.booleans()):
        step = draw(st.sampled_from([0.01, 0.1, 0.25, 3.0]))
        low = round(low, 2)
        return FloatDomain(low, round(low + draw(st.integers(1, 50)) * step, 2), step=step)
    high = low * draw(st.floats(1.01, 1e6))
    return FloatDomain(low, high, log=draw(st.booleans()))


@st.composite
def int_domains(draw: st.DrawFn) -> IntDomain:
    low, span = draw(st.integers(1, 1000)), draw(st.integers(1, 1000))
    if draw(st.booleans()):
        return IntDomain(low, low + span, log=True)
    step = draw(st.integers(1, 7))
    return IntDomain(low, low + span * step, step=step)


@given(float_domains(), UNIT)
def test_float_values_from_the_unit_interval_are_ones_optuna_accepts(
    domain: FloatDomain, u: float
) -> None:
    value = domain.from_unit(u)
    assert domain.low <= value <= domain.high
    distribution = domain.distribution()
    assert distribution._contains(distribution.to_internal_repr(value))


@given(int_domains(), UNIT)
def test_int_values_from_the_unit_interval_are_ones_optuna_accepts(
    domain: IntDomain, u: float
) -> None:
    value = domain.from_unit(u)
    assert isinstance(value, int)
    distribution = domain.distribution()
    assert distribution._contains(distribution.to_internal_repr(value))


@given(float_domains(), UNIT, UNIT)
def test_float_values_rise_with_the_unit_interval(
    domain: FloatDomain, first: float, second: float
) -> None:
    low, high = sorted((first, second))
    assert domain.from_unit(low) <= domain.from_unit(high)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (FloatDomain(1e-6, 1e-2, log=True), FloatDistribution(1e-6, 1e-2, log=True)),
        (FloatDomain(0.0, 0.3, step=0.1), FloatDistribution(0.0, 0.3, step=0.1)),
        (IntDomain(1, 64, log=True), IntDistribution(1, 64, log=True)),
        (IntDomain(0, 8, step=4), IntDistribution(0, 8, step=4)),
        (CategoricalDomain((1, "a")), CategoricalDistribution((1, "a"))),
    ],
)
def test_optuna_draws_from_what_the_domain_says(domain: Any, expected: BaseDistribution) -> None:
    assert domain.distribution() == expected


def test_a_log_domain_puts_its_geometric_mean_in_the_middle() -> None:
    assert FloatDomain(1e-6, 1e-2, log=True).from_unit(0.5) == pytest.approx(1e-4)
    assert FloatDomain(2.0, 4.0).from_unit(0.5) == 3.0


def test_steps_whole_numbers_and_choices_are_equally_likely() -> None:
    grid = [i / 60 for i in range(60)]
    for domain, values in [
        (FloatDomain(0.1, 0.5, step=0.1), [0.1, 0.2, 0.3, 0.4, 0.5]),
        (IntDomain(1, 3), [1, 2, 3]),
        (IntDomain(2, 8, step=2), [2, 4, 6, 8]),
        (CategoricalDomain((True, False)), [True, False]),
    ]:
        drawn = [domain.from_unit(u) for u in grid]
        assert {v: drawn.count(v) for v in values} == dict.fromkeys(values, 60 // len(values))


def test_a_fixed_domain_is_on_record_as_its_one_value() -> None:
    domain = FixedDomain(3)
    assert domain.from_unit(0.0) == domain.from_unit(0.99) == 3
    assert domain.distribution().single()


def test_the_default_space_is_the_published_range() -> None:
    space = load_space("default")
    assert space.for_arm("full") == space.for_arm("lift")
    assert space.for_arm("full") == {
        "learning_rate": FloatDomain(2e-5, 5e-5, log=True),
        "warmup_ratio": FloatDomain(0.0, 0.1),
        "max_grad_norm": FloatDomain(0.3, 3.0, log=True),
    }


def test_the_wide_space_covers_three_decades() -> None:
    assert load_space("wide").for_arm("lift")["learning_rate"] == FloatDomain(1e-6, 1e-3, log=True)


def test_the_structure_space_adds_to_lift_alone() -> None:
    space = load_space("lift-structure")
    assert list(space.for_arm("full")) == ["learning_rate", "warmup_ratio", "max_grad_norm"]
    added = set(space.for_arm("lift")) - set(space.for_arm("full"))
    assert added == {"group_size", "sweeps", "cumulative", "phase_steps", "group_lr_decay"}
    assert space.for_arm("lift")["sweeps"] == IntDomain(1, 3)
    assert space.for_arm("lift")["cumulative"] == CategoricalDomain((False, True))


@pytest.mark.parametrize("name", space_names())
def test_a_space_survives_being_written_out(name: str) -> None:
    assert load_space(load_space(name).to_dict()) == load_space(name)


def test_an_arm_keeps_the_shared_order_and_replaces_in_place() -> None:
    space = load_space(space_with() | {"lift": {"sweeps": 2, "learning_rate": 1e-4}})
    lift = space.for_arm("lift")
    assert list(lift) == ["learning_rate", "warmup_ratio", "max_grad_norm", "sweeps"]
    assert lift["learning_rate"] == FixedDomain(1e-4)
    assert space.for_arm("full")["learning_rate"] == FloatDomain(2e-5, 5e-5, log=True)


def test_numbers_without_a_dot_in_the_mantissa_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "shared:\n  learning_rate: {low: 1e-5, high: 5E-5, log: true}\n"
        "  warmup_ratio: 0\n  max_grad_norm: 1e0\n"
    )
    space = load_space("./mine.yaml", tmp_path)
    assert space.name == "mine"
    assert space.shared["learning_rate"] == FloatDomain(1e-5, 5e-5, log=True)
    assert space.shared["max_grad_norm"] == FixedDomain(1.0)


def test_an_override_moves_one_bound_and_keeps_the_rest() -> None:
    space = load_space("default").with_overrides({"learning_rate": {"low": 1e-5}})
    assert space.shared["learning_rate"] == FloatDomain(1e-5, 5e-5, log=True)


def test_an_override_for_one_arm_starts_from_the_shared_range() -> None:
    space = load_space("default").with_overrides(
        {"lift": {"learning_rate": {"high": 2e-4}, "group_size": {"choices": [1, 2]}}}
    )
    assert space.for_arm("lift")["learning_rate"] == FloatDomain(2e-5, 2e-4, log=True)
    assert space.for_arm("lift")["group_size"] == CategoricalDomain((1, 2))
    assert space.for_arm("full") == load_space("default").for_arm("full")


def test_an_override_may_fix_a_parameter_or_add_one() -> None:
    space = load_space("default").with_overrides({"max_grad_norm": 1, "weight_decay": 0.01})
    assert space.shared["max_grad_norm"] == FixedDomain(1.0)
    assert space.shared["weight_decay"] == FixedDomain(0.01)


def test_overriding_leaves_the_original_space_alone() -> None:
    space = load_space("default")
    space.with_overrides({"learning_rate": 1e-4})
    assert space == load_space("default")


def test_wrong_overrides_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load_space("default").with_overrides({"learning_rat": 1e-4, "lift": {"sweeps": 0}})
    assert [f.path for f in caught.value.faults] == ["learning_rat", "lift.sweeps"]


def test_the_upper_bound_is_over_all_arms() -> None:
    space = SearchSpace("s", {"warmup_ratio": FloatDomain(0, 0.1)},
                        {"lift": {"warmup_ratio": FixedDomain(0.3)}})  # fmt: skip
    assert space.upper_bound("warmup_ratio") == 0.3
    assert math.isclose(load_space("default").upper_bound("learning_rate"), 5e-5)
    with pytest.raises(KeyError):
        space.upper_bound("sweeps")


@pytest.mark.parametrize(
    ("domain", "path", "telling"),
    [
        ({"low": 1e-5}, "high", "required"),
        ({"low": 5e-5, "high": 2e-5}, "high", "above `low`"),
        ({"low": 0.0, "high": 1e-3}, "low", "above 0"),
        ({"low": "small", "high": 1e-3}, "low", "a number"),
        ({"low": 1e-5, "high": 1e-3, "logs": True}, "logs", "`log`"),
        ({"low": 1e-5, "high": 1e-3, "log": "yes"}, "log", "true or false"),
        ({"low": 1e-5, "high": 1e-3, "log": True, "step": 1e-5}, "step", "exclude"),
        ({"low": 1e-5, "high": 1e-3, "step": 3e-4}, "step", "`high:"),
        ({"low": 1e-5, "high": 1e-3, "step": -1}, "step", "above 0"),
        ({"low": 1e-5, "high": 1e-3, "step": 1e-40}, "step", "Remove `step`"),
        ({"low": 1e-5, "high": 1e-3, "type": "int"}, "type", "type: float"),
        ({"choices": []}, "choices", "list of values"),
        ({"choices": [1e-5, -1]}, "choices.1", "above 0"),
        ({"choices": [1e-5, 1e-5]}, "choices.1", "twice"),
        ({"choices": [1e-5], "low": 1e-6}, "low", "stands alone"),
        ([1e-5, 1e-3], "", "choices"),
        (-1e-5, "", "above 0"),
        ("fast", "", "a number"),
        (None, "", "a number"),
        (True, "", "a number"),
        (math.inf, "", "a number"),
    ],
)
def test_a_wrong_learning_rate_is_refused(domain: object, path: str, telling: str) -> None:
    faults = faults_of(space_with(learning_rate=domain))
    where = "shared.learning_rate" + (f".{path}" if path else "")
    assert list(faults) == [where]
    assert telling in faults[where]


@pytest.mark.parametrize(
    ("parameter", "domain"),
    [
        ("warmup_ratio", 1.0), ("warmup_ratio", -0.1), ("max_grad_norm", 0),
        ("weight_decay", -1), ("beta2", 1.0), ("warmup_ratio", {"low": 0, "high": 1}),
    ],
)  # fmt: skip
def test_values_outside_a_parameters_limits_are_refused(parameter: str, domain: object) -> None:
    (path,) = faults_of(space_with(**{parameter: domain}))
    assert path.startswith(f"shared.{parameter}")


@pytest.mark.parametrize(
    ("parameter", "domain"),
    [
        ("group_size", 0), ("group_size", 1.5), ("sweeps", {"low": 1.5, "high": 3}),
        ("cumulative", 1), ("cumulative", {"low": 0, "high": 1}), ("group_lr_decay", 0),
        ("group_lr_decay", 1.1), ("rewarmup_ratio", 1), ("sweeps", {"choices": [1, True]}),
        ("groups", 4), ("groups", "2, 0"), ("groups", ""), ("groups", {"low": 1, "high": 2}),
        ("groups", {"choices": ["2, 2", "4, x"]}), ("order", "down"), ("order", True),
        ("always_active", "hed"), ("always_active", {"choices": ["none", None]}),
        ("phase_steps", {"choices": ["even", "evn"]}),
    ],
)  # fmt: skip
def test_lift_values_outside_their_limits_are_refused(parameter: str, domain: object) -> None:
    (path,) = faults_of(space_with() | {"lift": {parameter: domain}})
    assert path.startswith(f"lift.{parameter}")


def test_lists_are_searched_as_text_and_reach_optuna_as_choices() -> None:
    space = load_space(
        space_with()
        | {
            "lift": {
                "groups": {"choices": ["2, 4, 6", "4, 4, 4"]},
                "always_active": {"choices": ["none", "head, final_norm", "last_2_blocks"]},
                "order": "random",
            }
        }
    )
    lift = space.for_arm("lift")
    assert lift["groups"].distribution().choices == ("2, 4, 6", "4, 4, 4")
    assert lift["always_active"].from_unit(0.5) == "head, final_norm"
    assert lift["order"] == FixedDomain("random")
    assert load_space(space.to_dict()) == space


@pytest.mark.parametrize(
    ("parameter", "domain", "telling"),
    [
        ("groups", [2, 4], 'Write it as text: "2, 4".'),
        ("groups", {"choices": [[2, 4]]}, 'Write it as text: "2, 4".'),
        ("order", "bottomup", "Did you mean `bottom-up`"),
        ("order", ["random"], "does not say whether it is a range"),
        ("order", {"low": 1, "high": 2}, "`{choices: [...]}`"),
        ("always_active", {"choices": ["head, finalnorm"]}, "Did you mean `final_norm`"),
        ("phase_steps", 1, "even or proportional"),
    ],
)
def test_a_wrong_text_says_how_to_write_it(parameter: str, domain: object, telling: str) -> None:
    (text,) = faults_of(space_with() | {"lift": {parameter: domain}}).values()
    assert telling in text


@pytest.mark.parametrize("section", ["shared", "full"])
def test_a_lift_parameter_outside_lift_is_refused(section: str) -> None:
    spec = space_with()
    spec.setdefault(section, {})["group_size"] = 2
    assert "below `lift:`" in faults_of(spec)[f"{section}.group_size"]


def test_unknown_names_suggest_the_nearest() -> None:
    faults = faults_of({"shred": {}, "learning_rate": 1e-5, "shared": {"learnin_rate": 1}})
    assert "Did you mean `shared`" in faults["shred"]
    assert "Indent it below `shared:`" in faults["learning_rate"]
    assert "Did you mean `learning_rate`" in faults["shared.learnin_rate"]


def test_every_space_needs_the_three_tuned_parameters() -> None:
    faults = faults_of({"shared": {"warmup_ratio": 0}, "full": {"learning_rate": 1e-5}})
    assert "lift" in faults["shared.learning_rate"] and "full" not in faults["shared.learning_rate"]
    assert "shared.max_grad_norm" in faults and "shared.warmup_ratio" not in faults


def test_an_unknown_name_lists_the_spaces_there_are() -> None:
    (text,) = faults_of("defualt").values()
    assert "Did you mean `default`" in text and "lift-structure" in text and "path" in text


def test_a_space_files_fault_has_its_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("# mine\nshared:\n  learning_rate:\n    low: 1\n    high: 0.5\n")
    with pytest.raises(ConfigError) as caught:
        load_space("mine.yaml", tmp_path)
    assert caught.value.source == str(file)
    assert [(f.path, f.line) for f in caught.value.faults] == [("shared.learning_rate.high", 5)]
