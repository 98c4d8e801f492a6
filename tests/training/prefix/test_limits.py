"""The prefix cache where room is short, taken away, or where it must not be used."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from study.training.data.tokenised import StudyData, TokenisedSplit
from study.training.model.bypass import PREFIX_HIDDEN
from study.training.model.layout import find_layout
from study.training.placement import Placement
from study.training.prefix.cache import PrefixCache
from study.training.prefix.open import open_prefix_cache
from tests.helpers.models import tiny_model
from tests.helpers.prefix_runs import (
    EXAMPLES,
    STAGES,
    lift,
    make_config,
    make_data,
    once,
    shared_folder,
)
from tests.helpers.workers import group_phases, phase_engine, run_workers


def long_data() -> StudyData:
    """Every example is longer than the check's sample."""
    pool, validation = (
        TokenisedSplit(np.tile(split.tokens, 5), split.offsets * 5, split.targets, None, 5 * 24)
        for split in (make_data().pool, make_data().validation)
    )
    return dataclasses.replace(make_data(), pool=pool, validation=validation, test=validation)


def check_limits(rank: int, world_size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["recomputed"] = once(make_config(folder / "a", enabled=False))
        found["cold"] = once(make_config(folder / "b"))
        found["no room"] = once(make_config(folder / "c", max_gib=1e-9))
        one = (make_data().pool.offsets[-1] + make_data().validation.offsets[-1]) * 16 * 4
        found["one bytes"] = int(one)
        found["one boundary"] = once(make_config(folder / "d", max_gib=1.01 * one / 2**30))
        (folder / "blocked").write_text("a file")
        found["no folder"] = once(make_config(folder / "blocked"))
        model = tiny_model("gpt2")
        model.config.resid_pdrop = 0.1
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        found["dropout"] = once(make_config(folder / "e"), model=model)
        for name, cache in (("plain", {"enabled": False}), ("cached", {})):
            sharing = tiny_model("gemma4_text", num_kv_shared_layers=2)
            config = make_config(folder / "g", **cache)
            found[f"shared keys, {name}"] = once(config, model=sharing)

        for name, cache in (("plain", {"enabled": False}), ("cached", {})):
            mixing = tiny_model()
            for layer in mixing.model.layers:
                # As a convolution over tokens does, padding included.
                layer.register_forward_hook(lambda _m, _a, out: out + 0.1 * out.roll(-1, 1))
            config = make_config(folder / "h", **cache)
            found[f"mixing tokens, {name}"] = once(config, long_data(), model=mixing)

        def take_away(cache: PrefixCache | None, step: int) -> None:
            assert cache is not None
            if step == 0:  # what a disk that fills up looks like
                cache.store = dataclasses.replace(cache.store, max_bytes=0)

        found["taken away"] = once(make_config(folder / "f"), during=take_away)
    return found


def fill_without_room(stage: int, rank: int, world_size: int) -> dict[str, Any]:
    """Runs whose rank 0 loses its room after the first step, and what this rank had filled by the
    end of each step."""
    filled: list[int] = []

    def take_away(cache: PrefixCache | None, step: int) -> None:
        assert cache is not None
        if step == 0 and rank == 0:
            cache.store = dataclasses.replace(cache.store, max_bytes=0)
        filled.append(cache.counts.fill_token_blocks)

    runs = {}
    with tempfile.TemporaryDirectory() as own:
        for kind, enabled in (("recomputed", False), ("full", "auto")):
            model = tiny_model()
            phases = group_phases(find_layout(model), 12, group_size=1)
            config = make_config(shared_folder(own, rank), stage, enabled=enabled)
            during = take_away if enabled else None
            run = lift(model, phases, config, make_data(), rank, world_size, during)
            runs[kind] = dataclasses.asdict(run)
    return runs | {"filled": filled}


def check_searched_groups(rank: int, world_size: int) -> dict[str, Any]:
    """Trials of one study with room for the boundaries of either structure, not of both."""
    found = {}
    data = make_data()
    tokens = int(data.pool.offsets[-1] + data.validation.offsets[-1])
    with tempfile.TemporaryDirectory() as folder:
        # A row ends somewhere in a block of the disk.
        room = (tokens * 16 * 4 + 4 * 4096) / 2**30
        for name, groups in (("first", "1, 3"), ("second", "2, 2"), ("third", "3, 1")):
            model = tiny_model()
            phases = group_phases(find_layout(model), 8, groups=groups)
            config = make_config(folder, max_gib=room)
            found[name] = dataclasses.asdict(lift(model, phases, config, data, 0, 1))
    return found


class OthersMiss(Placement):
    """Stands for ranks among whom another has to fill in every batch."""

    def max(self, value: float) -> float:
        return max(1.0, value)


def check_hits_among_misses(rank: int, world_size: int) -> dict[str, Any]:
    """A batch that was read while another rank filled, and the batch that it should be."""
    data, model = make_data(), tiny_model()
    phases = group_phases(find_layout(model), 8, group_size=2)
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(folder, 3)
        once(config, data)
        placement = OthersMiss(model.device, 0, 1)
        cache, _ = open_prefix_cache(
            config, data, placement, model, find_layout(model), phases, np.arange(EXAMPLES)
        )
        assert cache is not None
        batches, ids = [], np.arange(3)
        filled = {int(ids[0]): np.full(data.pool.lengths[0] * 64, 77, dtype=np.uint8)}
        with (
            # Filled rows equal read ones; only a row of another value shows which was taken.
            patch.object(cache, "_fill", return_value=filled),
            phase_engine(model, phases[0].parameters, 3, 1) as engine,
        ):
            cache.enter_phase(0, engine)
            for in_step in (False, True):
                cache._in_step = in_step
                batches.append(cache.batch("pool", ids)[PREFIX_HIDDEN])
        cache.close()
    return {"alone": batches[0], "in step": batches[1]}


def two_workers(rank: int, world_size: int) -> dict[str, Any]:
    return {str(stage): fill_without_room(stage, rank, world_size) for stage in STAGES}


def one_worker(rank: int, world_size: int) -> dict[str, Any]:
    return {
        "limits": check_limits(rank, world_size),
        "searched": check_searched_groups(rank, world_size),
        "hits": check_hits_among_misses(rank, world_size),
    }


@pytest.fixture(scope="module")
def both() -> dict[str, Any]:
    return run_workers(two_workers, 2)[0]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return run_workers(one_worker, 1)[0]


def test_without_room_or_folder_the_trial_goes_on_without_a_cache(alone: dict[str, Any]) -> None:
    runs = alone["limits"]
    assert runs["no room"]["status"] == "off: no disk has room for it"
    assert (
        runs["no folder"]["status"].startswith("off: ") and "blocked" in runs["no folder"]["status"]
    )
    assert runs["dropout"]["status"].startswith("off: dropout changes the hidden states")
    assert "0.1" in runs["dropout"]["status"] and "model: {dropout: 0}" in runs["dropout"]["status"]
    assert runs["no room"]["losses"] == runs["recomputed"]["losses"]
    # Room for one boundary of three; then none at all while the trial runs.
    assert runs["one boundary"]["status"] == "on"
    assert runs["one boundary"]["losses"] == pytest.approx(runs["recomputed"]["losses"], abs=1e-5)
    assert 0 < runs["one boundary"]["use"]["bytes_written"] <= runs["one bytes"]
    assert runs["taken away"]["losses"] == pytest.approx(runs["recomputed"]["losses"], abs=1e-5)
    assert 0 < runs["taken away"]["use"]["bytes_written"] < runs["cold"]["use"]["bytes_written"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_rank_without_room_trains_on_and_computes_nothing_apart(
    both: dict[str, Any], stage: int
) -> None:
    run = both[str(stage)]
    assert run["full"]["losses"] == pytest.approx(run["recomputed"]["losses"], abs=1e-5)
    assert run["full"]["use"]["hits"] > 0
    # The second step finds that there is no room.
    after = run["filled"][1:]
    assert after[0] > 0
    if stage < 3:  # there it runs along when another rank fills
        assert set(after) == {after[0]}


def test_boundaries_of_other_structures_make_room_for_those_of_this_trial(
    alone: dict[str, Any],
) -> None:
    for name, run in alone["searched"].items():
        assert run["status"] == "on", name
        assert run["use"]["bytes_written"] > 0 and run["use"]["hits"] > 0, name


def test_a_row_that_was_read_stays_when_another_rank_has_to_fill(alone: dict[str, Any]) -> None:
    batches = alone["hits"]
    assert torch.equal(batches["alone"], batches["in step"])


def test_a_model_in_which_padding_counts_trains_without_a_cache(alone: dict[str, Any]) -> None:
    cached = alone["limits"]["mixing tokens, cached"]
    assert cached["status"].startswith("off: results differ")
    assert cached["losses"] == alone["limits"]["mixing tokens, plain"]["losses"]


def test_a_model_that_fails_without_its_lowest_blocks_trains_without_a_cache(
    alone: dict[str, Any],
) -> None:
    cached = alone["limits"]["shared keys, cached"]
    assert cached["status"].startswith("off: its blocks cannot be left out (they drop tokens")
    assert cached["losses"] == alone["limits"]["shared keys, plain"]["losses"]
