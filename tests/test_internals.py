"""Names of libraries that their documentation does not promise: what an upgrade took away or
changed fails here, as one list."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import version

import pytest

from study.basics.internals import gone, resolve

MODULES = {
    "deepspeed": "study.training.deepspeed_internals",
    "optuna": "study.store.optuna_internals",
    "ray": "study.orchestration.ray_internals",
    "transformers": "study.training.transformers_internals",
}
STAGE_0 = "deepspeed.runtime.fp16.unfused_optimizer.FP16_UnfusedOptimizer"
STAGE_2 = "deepspeed.runtime.zero.stage_1_and_2.DeepSpeedZeroOptimizer"
PARAMETERS = {
    "deepspeed.runtime.engine.DeepSpeedEngine._broadcast_model": "self",
    f"{STAGE_0}.initialize_optimizer_states": "self",
    f"{STAGE_0}.step": "self closure",
    f"{STAGE_0}._skip_invalid_grad_norm": "self",
    f"{STAGE_0}._update_scale": "self skip",
    f"{STAGE_0}.unscale_and_clip_grads": "self total_norm apply_scale",
    f"{STAGE_2}.initialize_optimizer_states": "self",
    f"{STAGE_2}.copy_grads_in_partition": "self param group_idx",
    f"{STAGE_2}._get_preflattened_grad_partition": "self group_idx",
    "deepspeed.runtime.zero.stage3.DeepSpeedZeroOptimizer_Stage3.empty_partition_cache": "self",
    "deepspeed.runtime.utils.get_global_norm": "norm_list",
    "deepspeed.runtime.utils.get_weight_norm": "parameters norm_type mpu",
    "deepspeed.runtime.utils.is_invalid_grad_norm": "norm",
    "deepspeed.runtime.compiler.compile": "",
    "transformers.PreTrainedModel._init_weights": "self module",
}
"""As they were seen; of what is called or overridden."""


@pytest.mark.parametrize("library", MODULES)
def test_every_internal_name_that_is_used_is_there_as_it_was_seen(library: str) -> None:
    used = getattr(import_module(MODULES[library]), "USED", {})
    lost = {name: reason for name, reason in used.items() if name in gone(used)}
    changed = {
        name: (PARAMETERS[name], parameters(name), reason)
        for name, reason in used.items()
        if name in PARAMETERS and name not in lost and parameters(name) != PARAMETERS[name]
    }
    assert not lost, f"{library} {version(library)} has no more: {lost}"
    assert not changed, f"{library} {version(library)} changed: {changed}"


def test_a_name_that_is_gone_is_told_from_one_that_is_there() -> None:
    there = ["json.JSONDecoder.decode", "json.decoder", "json.JSONDecoder:memo"]
    lost = ["json.JSONDecoder.gone", "json.nowhere.at_all", "json.JSONDecoder:no_such_attribute"]
    assert gone([*there, *lost]) == lost


def test_an_engine_is_built_without_what_its_deepspeed_lacks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from study.training import deepspeed_internals
    from study.training.engine import initialise

    monkeypatch.setattr(deepspeed_internals, "LEAN", {"deepspeed.runtime.engine.Gone": "a name"})
    initialise._changed.cache_clear()
    from deepspeed.runtime import engine

    stock = engine.DeepSpeedZeroOptimizer
    with initialise._lean(chunk_numel=1, broadcast=True):
        assert engine.DeepSpeedZeroOptimizer is stock
    initialise._changed.cache_clear()
    assert "deepspeed.runtime.engine.Gone" in caplog.text


def parameters(name: str) -> str:
    return " ".join(inspect.signature(resolve(name)).parameters)
