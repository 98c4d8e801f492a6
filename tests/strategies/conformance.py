"""What every strategy must do. Subclass `StrategyConformance` and give it a `strategy`."""

from __future__ import annotations

import pytest

from study.errors import UserError
from study.strategies.base import BlockLayout, Strategy


def layout(blocks: int = 6, tied: bool = False, new_head: bool = False) -> BlockLayout:
    """Two parameters per block; names sort differently as text than as numbers."""
    inside = tuple((f"layers.{i}.weight", f"layers.{i}.bias") for i in range(blocks))
    top = ("norm.weight", *(() if tied else ("head.weight",)))
    names = ["embedding.weight", *(n for block in inside for n in block), *top]
    return BlockLayout(
        numel={name: 10 + i for i, name in enumerate(names)},
        embeddings=("embedding.weight",),
        blocks=inside,
        top=top,
        new_head=("head.weight",) if new_head else (),
        tied=tied,
    )


class StrategyConformance:
    """Claims that hold for every strategy."""

    strategy: Strategy
    layouts = (layout(), layout(5, tied=True), layout(12, new_head=True), layout(1))

    def test_steps_add_up_and_no_phase_is_empty(self) -> None:
        for model in self.layouts:
            for total in (12, 13, 100, 101):
                phases = self.strategy.phases(model, total)
                assert sum(p.steps for p in phases) == total
                assert min(p.steps for p in phases) >= 1
                assert max(p.steps for p in phases) - min(p.steps for p in phases) <= 1

    def test_every_parameter_trains_at_some_time(self) -> None:
        for model in self.layouts:
            trained = {n for p in self.strategy.phases(model, 100) for n in p.parameters}
            assert trained == set(model.parameters)

    def test_phases_name_known_parameters_once_in_the_models_order(self) -> None:
        for model in self.layouts:
            order = {name: i for i, name in enumerate(model.parameters)}
            for phase in self.strategy.phases(model, 100):
                places = [order[n] for n in phase.parameters]
                assert places == sorted(set(places))
                assert places

    def test_a_random_head_trains_in_every_phase(self) -> None:
        model = layout(12, new_head=True)
        for phase in self.strategy.phases(model, 100):
            assert set(model.new_head) <= set(phase.parameters)

    def test_the_first_phase_has_no_rewarmup_of_its_own(self) -> None:
        for model in self.layouts:
            first, *later = self.strategy.phases(model, 100)
            assert first.rewarmup_steps == 0
            assert all(0 <= p.rewarmup_steps < p.steps for p in later)

    def test_factors_lie_above_zero_and_the_first_is_one(self) -> None:
        for model in self.layouts:
            factors = [p.learning_rate_factor for p in self.strategy.phases(model, 100)]
            assert factors[0] == 1.0
            assert all(0 < f <= 1 for f in factors)

    def test_same_input_gives_the_same_phases(self) -> None:
        for model in self.layouts:
            assert self.strategy.phases(model, 50) == self.strategy.phases(model, 50)

    def test_no_steps_is_refused(self) -> None:
        with pytest.raises(UserError, match="0 optimizer steps cannot be split"):
            self.strategy.phases(layout(), 0)
