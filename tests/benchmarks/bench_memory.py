"""Bytes per active parameter and seconds per phase switch, on two CPU workers."""

from __future__ import annotations

import logging
import statistics
import time
from functools import partial
from itertools import pairwise, product

import torch
from transformers import AutoModelForCausalLM

from study.cli.examples.demo import BASE_MODEL
from study.config.load import ZeroConfig
from study.protocol.state_bytes import state_bytes
from study.training.engine.audit import PhaseAudit
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from tests.helpers.phase_memory import PHASES, STAGES, WORLD_SIZE, measure
from tests.helpers.workers import group_phases, phase_engine, run_workers

SWITCHES, SKIPPED = 9, 2
PARTS = ("build", "audit", "check", "close")


def switch_seconds(rank: int, world_size: int) -> dict[int, dict[str, float]]:
    """Median seconds of each part of a phase switch on the embedded model, by stage."""
    logging.disable(logging.INFO)
    found = {}
    ids = torch.randint(5, 200, (2, 8), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    for stage in STAGES:
        model = AutoModelForCausalLM.from_pretrained(BASE_MODEL).float()
        phases = group_phases(find_layout(model), steps=4)
        timed = []
        for switch in range(SWITCHES):
            marks = [time.perf_counter()]
            active = phases[switch % len(phases)].parameters
            engine = phase_engine(model, active, stage, world_size, zero=ZeroConfig(stage=stage))
            marks.append(time.perf_counter())
            audit = PhaseAudit(engine)
            marks.append(time.perf_counter())
            engine.train_step([batch], make_loss("causal-lm"), 1e-4)
            trained = time.perf_counter()
            audit.check()
            marks.append(marks[-1] + time.perf_counter() - trained)
            checked = time.perf_counter()
            engine.close()
            marks.append(marks[-1] + time.perf_counter() - checked)
            timed.append([after - before for before, after in pairwise(marks)])
        parts = zip(*timed[SKIPPED:], strict=True)
        found[stage] = dict(zip(PARTS, map(statistics.median, parts), strict=True))
    return found


def main() -> None:
    print("state bytes per active parameter, two workers: measured / formula")
    kinds = [*product(("bf16", "fp32"), STAGES)]
    rank_0 = run_workers(partial(measure, kinds), WORLD_SIZE)[0]
    for (precision, stage), phase in product(kinds, PHASES):
        one = rank_0[f"{precision}-{stage}-{phase}"]
        active = one["active"]
        formula = state_bytes(one["parameters"], active, WORLD_SIZE, stage, precision)
        held = {k: (one[k] - formula.weights) / active for k in ("after", "between", "peak")}
        print(
            f"{precision} stage {stage} {phase:<7} after a step {held['after']:5.2f}"
            f"  steady {held['between']:5.2f} / {formula.steady / active:5.2f}"
            f"  peak {held['peak']:5.2f} / {formula.peak / active:5.2f}"
        )
    for workers in (1, WORLD_SIZE):
        for stage, seconds in run_workers(switch_seconds, workers)[0].items():
            parts = "  ".join(f"{name} {value:.3f}" for name, value in seconds.items())
            total = sum(seconds.values())
            print(f"{workers} workers, stage {stage}: switch {total:.3f} s ({parts}); limit 0.300")


if __name__ == "__main__":
    main()
