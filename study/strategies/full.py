"""Full-parameter fine-tuning: everything trains all the time."""

from __future__ import annotations

from study.strategies.base import BlockLayout, Phase, Strategy, split_steps


class FullStrategy(Strategy):
    """One phase with every parameter."""

    label = "full"
    method = "full-parameter fine-tuning"
    noun = "full fine-tuning"
    summary = "Every weight trains in every step."
    colour, shape, dash = "#0b62a4", "circle", (1, 0)
    ink = "#0b62a4", "#62b2ee"
    trains_all = True
    exports = frozenset({"study", "deepspeed", "transformers", "axolotl", "llamafactory"})

    def phases(self, layout: BlockLayout, total_steps: int, *, seed: int = 0) -> tuple[Phase, ...]:
        (steps,) = split_steps(total_steps, 1)
        return (Phase("all parameters", layout.parameters, steps),)
