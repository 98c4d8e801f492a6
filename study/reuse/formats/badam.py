"""LIFT by LLaMA-Factory's layer-wise BAdam (Luo et al., arXiv 2404.02827).

What BAdam does was read in badam 1.4 and LLaMA-Factory 0.9.5.
"""

from __future__ import annotations

from typing import Any

from study.reuse.formats.base import CannotExpressError, Run
from study.strategies.lift_options import read_groups

_MODES = {"top-down": "descending", "bottom-up": "ascending", "random": "random"}


def badam_run(run: Run) -> Run:
    """The run with as many steps as give every layer its turn in every sweep, all of one length,
    on one device where BAdam runs on no more.

    Raises:
        CannotExpressError: the structure is none of BAdam's.
    """
    _refuse(run)
    interval, turns = _turns(run)
    # BAdam's first turn is one step shorter than the others.
    steps = interval * turns - 1 if interval > 1 else turns
    best = run.best
    changes: dict[str, Any] = {"run": best.run.model_copy(update={"steps": steps})}
    if not zero_3(run):
        changes["resources"] = best.resources.model_copy(update={"workers_per_trial": 1})
    return Run(best.model_copy(update=changes))


def badam_arguments(run: Run) -> dict[str, Any]:
    """BAdam's arguments, and the precision that goes with it; of LIFT's run, not of `badam_run`."""
    shared = zero_3(run)
    return {
        "use_badam": True,
        "badam_mode": "layer",
        "badam_switch_mode": _MODES[run.best.strategy.get("order", "top-down")],
        "badam_switch_interval": _turns(run)[0],
        "bf16": run.bf16 and shared,
        "pure_bf16": run.bf16 and not shared,
    }


def badam_notes(run: Run) -> list[str]:
    """What BAdam does otherwise than LIFT, a sentence each; of LIFT's run, not of `badam_run`."""
    interval, turns = _turns(run)
    blocks = run.best.model.num_blocks
    phases = len(run.best.run.phases or ()) or turns
    notes = [
        f"LIFT trained groups of layers in {phases} phases; BAdam trains each of the {blocks} "
        f"layers alone, {interval} steps at a time.",
        f"It takes {badam_run(run).steps:,} steps rather than {run.steps:,}: every layer gets its "
        "turn and none one too many, and BAdam's first turn is a step short.",
        "BAdam never trains embeddings, the final norm and the head; LIFT trains the last two with "
        "the top group and embeddings with the lowest.",
        "BAdam finds layers by names with `layers.N.` in them and trains no other models.",
        "Adam's state starts anew with every layer, as with every group of LIFT's; the study warms "
        "up again there, BAdam does not.",
        "Weight decay is torch AdamW's default on all parameters, 0.01, whatever weight_decay "
        f"says; the study has {run.weight_decay} and none on vectors.",
    ]
    if not zero_3(run):
        notes.append("BAdam runs on one device; on several it needs ZeRO stage 3.")
    if run.best.strategy.get("order") == "random":
        notes.append("The order is drawn anew in every sweep, from another generator.")
    return notes


def zero_3(run: Run) -> bool:
    """Whether BAdam can share its work among devices."""
    return int(run.best.zero.stage) == 3


def _turns(run: Run) -> tuple[int, int]:
    """Steps of a turn, and turns."""
    turns = (run.best.model.num_blocks or 0) * int(run.best.strategy.get("sweeps", 1))
    return max(1, round((run.steps + 1) / turns)), turns


def _refuse(run: Run) -> None:
    """Say what BAdam has no option for."""
    strategy = run.best.strategy
    reasons = []
    if strategy.get("cumulative"):
        reasons.append("layers that stay trainable after their turn (cumulative)")
    if strategy.get("always_active"):
        reasons.append("parts that train in every phase (always_active)")
    if strategy.get("group_lr_decay", 1.0) != 1.0:
        reasons.append("learning rates of their own for lower layers (group_lr_decay)")
    if strategy.get("phase_steps", "even") != "even":
        reasons.append("turns of different length (phase_steps)")
    groups = strategy.get("groups")
    if groups and len(set(read_groups(groups))) > 1:
        reasons.append("groups of different size (groups), which get equally many steps")
    if run.training.optimizer != "adamw":
        reasons.append(f"another optimizer than AdamW ({run.training.optimizer})")
    if run.best.model.num_blocks is None:
        reasons.append("a model whose number of blocks is not on record")
    if reasons:
        raise CannotExpressError(
            "LLaMA-Factory's layer-wise option, BAdam, trains one layer after another, all for "
            f"equally many steps. It has nothing for {'; '.join(reasons)}."
        )
