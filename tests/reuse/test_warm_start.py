"""Winners of earlier studies as first trials: which, in whose space, and what they were worth."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.basics.errors import ConfigError, StoreError
from study.config.load import StudyConfig, check_paths, load_config
from study.config.space.domains import CategoricalDomain, FixedDomain, FloatDomain, IntDomain
from study.config.space.read import SearchSpace, load_space
from study.protocol.plan import ModelFacts, plan_trials
from study.protocol.records import BaseModelRecord, Stage, TrialState, WarmStart
from study.protocol.results import StudyResults, winner_of
from study.reuse.warm_bounds import moved_space
from study.reuse.warm_start import nearest, warm_start, warm_start_effect, warm_start_plan
from tests.helpers.results import DRAWN_FROM, make_config, make_results, make_trial


def later_config(**changes: Any) -> StudyConfig:
    shape: dict[str, Any] = {"sizes": [200], "trials": 8, "replicates": 2, "overrides": DRAWN_FROM}
    return make_config(**{**shape, **changes})


def winners(results: StudyResults, arm: str, size: int) -> list[dict[str, Any]]:
    found = []
    for replicate in range(results.config.search.replicates):
        trials = [
            t
            for t in results.trials
            if (t.spec.arm, t.spec.size, t.spec.replicate) == (arm, size, replicate)
            and t.spec.stage is Stage.SEARCH
        ]
        winner = winner_of(trials, results.config.search.trials)
        assert winner is not None
        found.append(winner.spec.hyperparameters)
    return found


def test_the_nearest_sizes_winners_come_first_and_take_half_of_the_trials() -> None:
    earlier = make_results()  # sizes 64 to 512, three replicates
    start = warm_start(later_config(), {"first": earlier})
    assert start.trials == 4
    for arm in ("full", "lift"):
        # 256 is nearer to 200 than 128, by ratio.
        nearest_winners = winners(earlier, arm, 256)
        assert [dict(p) for p in start.points[arm][:3]] == nearest_winners
        assert dict(start.points[arm][3]) == winners(earlier, arm, 128)[0]
        assert start.sources[arm][0].startswith(f"first: {arm}-n256-r0-s")


def test_both_arms_start_with_equally_many_or_none() -> None:
    one_arm = make_results(arms=["full"])
    start = warm_start(later_config(), {"first": one_arm})
    assert start.trials == 0
    assert start.points == {"full": (), "lift": ()}
    assert any("no winner of lift" in note for note in start.notes)
    alone = warm_start(later_config(arms=["full"]), {"first": one_arm})
    assert alone.trials == 4


def test_a_search_of_one_trial_has_no_room() -> None:
    start = warm_start(later_config(trials=1), {"first": make_results()})
    assert start.trials == 0
    assert any("search.trials 1" in note for note in start.notes)


def test_points_are_moved_into_the_new_space_and_told() -> None:
    trial = make_trial(
        "full",
        64,
        score=4.0,
        hyperparameters={"learning_rate": 9e-3, "warmup_ratio": 0.05, "momentum": 0.5},
    )
    earlier = StudyResults(make_config(arms=["full"], sizes=[64], trials=1, replicates=1), (trial,))
    start = warm_start(later_config(arms=["full"], trials=2), {"old": earlier})
    (point,) = start.points["full"]
    assert point["learning_rate"] == pytest.approx(5.1e-3)
    assert "momentum" not in point
    assert "old (full): momentum is not searched here and was dropped." in start.notes
    assert any("learning_rate 0.009 is not in this study's range; 0.0051" in n for n in start.notes)


@pytest.mark.parametrize(
    ("domain", "value", "expected"),
    [
        (FloatDomain(1e-5, 1e-3, log=True), 2e-5, 2e-5),
        (FloatDomain(1e-5, 1e-3, log=True), 1.0, 1e-3),
        (FloatDomain(0.0, 0.1, step=0.02), 0.05, 0.04),
        (FloatDomain(0.0, 0.1, step=0.02), 0.09, 0.08),
        (FloatDomain(0.0, 0.1, step=0.02), 0.4, 0.1),
        (IntDomain(1, 7, step=2), 4, 5),
        (IntDomain(1, 4), 9, 4),
        (CategoricalDomain(("a", "b")), "b", "b"),
        (CategoricalDomain(("a", "b")), "c", None),
        (FixedDomain(1.0), 3.0, 1.0),
        (FloatDomain(0.0, 1.0), "text", None),
    ],
)
def test_nearest_value_of_a_domain(domain: Any, value: Any, expected: Any) -> None:
    found = nearest(domain, value)
    assert found == (expected if not isinstance(expected, float) else pytest.approx(expected))
    if found is not None:
        assert domain.distribution()._contains(domain.distribution().to_internal_repr(found))


def test_every_replicate_tries_them_first_and_searches_anew_after() -> None:
    config = later_config()
    start = warm_start(config, {"first": make_results()})
    facts = ModelFacts(4)
    warm, cold = plan_trials(config, facts, start), plan_trials(config, facts)
    for replicate in range(2):
        for arm in ("full", "lift"):
            own = [
                s.hyperparameters for s in warm.search if (s.arm, s.replicate) == (arm, replicate)
            ]
            before = [
                s.hyperparameters for s in cold.search if (s.arm, s.replicate) == (arm, replicate)
            ]
            assert [p["learning_rate"] for p in own[:4]] == [
                p["learning_rate"] for p in start.points[arm]
            ]
            assert own[4:] == before[:4], "the design goes on from its beginning"
            assert all(p.keys() == before[0].keys() for p in own), "none lacks a parameter"


def test_other_samplers_search_after_them() -> None:
    config = later_config(search={"trials": 4, "replicates": 1, "sampler": "tpe"})
    start = WarmStart({"full": ({"learning_rate": 3e-5},), "lift": ({"learning_rate": 4e-5},)})
    plan = plan_trials(config, ModelFacts(4), start)
    full = [s.hyperparameters for s in plan.search if s.arm == "full"]
    assert full[0]["learning_rate"] == 3e-5
    assert full[0].keys() == config.space().for_arm("full").keys()
    assert full[1:] == [{}] * 3


def test_the_same_file_and_record_give_the_same_plan() -> None:
    config = later_config()
    start = warm_start(config, {"first": make_results()})
    again = WarmStart.from_dict(start.to_dict())
    assert again == start
    assert plan_trials(config, ModelFacts(4), start) == plan_trials(config, ModelFacts(4), again)


def test_what_they_were_worth_is_told() -> None:
    config = make_config(arms=["full"], sizes=[64], trials=4, replicates=2)
    scores = {0: (4.0, 4.2, 4.3, 4.1), 1: (4.4, 4.5, 4.2, 4.3)}
    trials = tuple(
        make_trial("full", 64, replicate, index=index, score=score)
        for replicate, row in scores.items()
        for index, score in enumerate(row)
    )
    start = WarmStart({"full": ({"learning_rate": 1e-4},) * 2})
    results = StudyResults(config, trials, warm_start=start)
    (sentence,) = warm_start_effect(results)
    assert "an earlier winner won 1 of 2 searches" in sentence
    # (4.1 - 4.0 + 4.2 - 4.4) / 2
    assert "0.0500 nats above the best of the other 2 trials" in sentence
    unfinished = replace(results, trials=trials[:2])
    assert warm_start_effect(unfinished) == ()
    assert warm_start_effect(replace(results, warm_start=None)) == ()
    failed = [make_trial("full", 64, 0, index=i, state=TrialState.FAIL) for i in (2, 3)]
    only_warm = replace(results, trials=(*trials[:2], *failed, *trials[4:]))
    assert "won 1 of 2 searches" in warm_start_effect(only_warm)[0]
    assert "0.2000 nats above" in warm_start_effect(only_warm)[0]


SPACE = SearchSpace(
    "any",
    shared={
        "learning_rate": FloatDomain(1e-5, 1e-3, log=True),
        "warmup_ratio": FloatDomain(0.0, 0.2),
        "max_grad_norm": FixedDomain(1.0),
    },
    arms={"lift": {"group_size": IntDomain(1, 9, step=2)}},
)


@pytest.mark.parametrize(
    ("name", "values", "narrow", "widen"),
    [
        # Log scale: two decades, a quarter of them is half a decade.
        ("learning_rate", (1e-4, 1e-4), (1e-4 / 10**0.5, 1e-4 * 10**0.5), (1e-5, 1e-3)),
        ("learning_rate", (1e-5, 1e-3), (1e-5, 1e-3), (1e-5 / 10**0.5, 1e-3 * 10**0.5)),
        ("learning_rate", (2e-3, 2e-3), (2e-3 / 10**0.5, 1e-3), (1e-5, 2e-3 * 10**0.5)),
        # Beyond the range by more than the margin nothing would be left: it stays.
        ("learning_rate", (1.0, 1.0), (1e-5, 1e-3), (1e-5, 10**0.5)),
        # A share cannot be negative.
        ("warmup_ratio", (0.01, 0.19), (0.0, 0.2), (0.0, 0.24)),
        ("group_size", (5, 5), (3, 7), (1, 9)),
        ("group_size", (9, 9), (7, 9), (1, 11)),
    ],
)
def test_ranges_move_by_earlier_winners(
    name: str, values: tuple[float, float], narrow: tuple[float, ...], widen: tuple[float, ...]
) -> None:
    section = "lift" if name == "group_size" else "shared"
    # Shared: one winner of each arm. They move one range for both.
    points = [{name: value} for value in values]
    winners = {"lift": points} if section == "lift" else {"full": points[:1], "lift": points[1:]}
    for how, expected in (("narrow", narrow), ("widen", widen)):
        space, notes = moved_space(SPACE, winners, how)
        domains = space.shared if section == "shared" else space.arms["lift"]
        assert domains[name].values() == pytest.approx(expected, rel=1e-5), how
        changed = domains[name].values() != SPACE.for_arm("lift")[name].values()
        assert len(notes) == changed, "said if and only if it moved"
        assert load_space(space.to_dict()) == space, "what is on record is a space that loads"
        for arm in ("full", "lift"):
            others = {k: v for k, v in space.for_arm(arm).items() if k != name}
            before = {k: v for k, v in SPACE.for_arm(arm).items() if k != name}
            assert others == before


def test_bounds_move_only_when_asked_and_for_both_arms_alike() -> None:
    earlier = make_results()
    assert warm_start(later_config(), {"first": earlier}).space is None
    search = {"trials": 8, "replicates": 1, "overrides": DRAWN_FROM, "warm_start": ["first"]}
    config = later_config(search={**search, "warm_start_bounds": "narrow"})
    start = warm_start(config, {"first": earlier})
    plan = plan_trials(config, ModelFacts(4), WarmStart.from_dict(start.to_dict()))
    before, after = (c.space().for_arm("full")["learning_rate"] for c in (config, plan.resolved))
    assert isinstance(before, FloatDomain) and isinstance(after, FloatDomain)
    assert before.low < after.low or after.high < before.high
    assert any(note.startswith("learning_rate is searched from") for note in start.notes)
    assert "learning_rate is searched from" in (warm_start_plan(plan) or "")
    for arm in ("full", "lift"):
        rates = [s.hyperparameters["learning_rate"] for s in plan.search if s.arm == arm]
        assert all(after.low <= rate <= after.high for rate in rates)
    shared = [s.hyperparameters["learning_rate"] for s in plan.search if s.index >= start.trials]
    assert shared[0::2] == shared[1::2], "the design is the same in both arms"


@pytest.mark.parametrize(
    ("line", "path", "rule"),
    [
        ("warm_start: [results/frist]", "search.warm_start.0", "there is no such study"),
        ("warm_start_bounds: widen", "search.warm_start_bounds", "no earlier study"),
    ],
)
def test_earlier_studies_that_are_not_there_are_a_fault(
    line: str, path: str, rule: str, tmp_path: Path
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: later\nmodel: {path: ./m}\ndata: {train: ./t.jsonl, text: text}\n"
        f"dataset_sizes: 100\narms: [full]\nsearch:\n  {line}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    (fault,) = [f for f in caught.value.faults if f.path.startswith("search")]
    assert (fault.path, fault.line) == (path, 7)
    assert rule in str(fault)


def test_what_earlier_studies_said_is_on_record_and_in_the_results(tmp_path: Path) -> None:
    """From a results folder to the plan, and through the new study's own store."""
    from study.orchestration.prepare import prepare_study
    from study.orchestration.runner import _keep_facts
    from study.store.study_store import StudyStore
    from tests.helpers.data import task_rows, write_jsonl
    from tests.helpers.models import tiny_model_folder
    from tests.helpers.stores import finished_study, write_store

    earlier = finished_study(
        make_config(
            sizes=(30,),
            trials=2,
            overrides=DRAWN_FROM,
            name="first",
            storage={"results": str(tmp_path / "first")},
        )
    )
    write_store(earlier)
    tiny_model_folder(tmp_path)
    write_jsonl(tmp_path / "mine.jsonl", task_rows(80))
    config = later_config(
        sizes=[40],
        model={"path": str(tmp_path / "tiny-llama-0")},
        data={"train": str(tmp_path / "mine.jsonl"), "prompt": "{question}",
              "response": "{answer}", "retention": None},
        storage={"results": str(tmp_path / "second")},
        search={"trials": 4, "replicates": 1, "overrides": DRAWN_FROM,
                "warm_start": [str(tmp_path / "first")]},
    )  # fmt: skip
    prepared = prepare_study(config)
    start = prepared.plan.warm_start
    assert prepared.plan.warm_start.trials == 2
    assert prepared.plan.warm_start.sources["full"][0].startswith("first: full-n30-r0-s")
    store = StudyStore.create(config)
    _keep_facts(store, prepared)
    results = store.results()
    assert results.warm_start == prepared.plan.warm_start
    assert [t.spec for t in results.trials] == list(prepared.plan.search)
    assert StudyResults.from_dict(results.to_dict()).warm_start == results.warm_start
    assert store.fixed_warm_start is None, "it may be asked until there is a trial"
    store.set_info("base", BaseModelRecord(3.0, 3.1, None).to_dict())
    # The first study may go now: what it said is on record.
    shutil.rmtree(tmp_path / "first")
    assert not [f for f in check_paths(config) if "warm_start" in f.path]
    assert prepare_study(config, None, store.fixed_warm_start).plan == prepared.plan
    with pytest.raises(StoreError, match=r"search\.warm_start: .*first cannot be read"):
        prepare_study(config)
    # Ranges that it moved are those of the results, as in the plan.
    store.set_info("warm_start", replace(start, space=SPACE.to_dict()).to_dict())
    assert store.results().config.space() == SPACE
