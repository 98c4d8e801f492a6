"""What every strategy must do. Subclass `StrategyConformance` and give it a `strategy`."""

from __future__ import annotations

import pytest

from study.basics.errors import UserError
from study.strategies.base import BlockLayout, Strategy, frozen_prefix, lowest_active_block


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
        head=("embedding.weight",) if tied else ("head.weight",),
    )


class StrategyConformance:
    """Claims that hold for every strategy."""

    strategy: Strategy
    even_steps = True
    layouts = (layout(), layout(5, tied=True), layout(12, new_head=True), layout(1))

    def test_steps_add_up_and_no_phase_is_empty(self) -> None:
        for model in self.layouts:
            for total in (12, 13, 100, 101):
                phases = self.strategy.phases(model, total)
                assert sum(p.steps for p in phases) == total
                assert min(p.steps for p in phases) >= 1
                spread = max(p.steps for p in phases) - min(p.steps for p in phases)
                assert spread <= 1 or not self.even_steps

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
        assert any(model.new_head for model in self.layouts)
        for model in self.layouts:
            for phase in self.strategy.phases(model, 100):
                assert set(model.new_head) <= set(phase.parameters)

    def test_the_first_phase_has_no_rewarmup_of_its_own(self) -> None:
        for model in self.layouts:
            first, *later = self.strategy.phases(model, 100)
            assert first.rewarmup_steps == 0
            assert all(0 <= p.rewarmup_steps < p.steps for p in later)

    def test_factors_lie_above_zero_and_the_largest_is_one(self) -> None:
        for model in self.layouts:
            phases = self.strategy.phases(model, 100)
            assert all(len(p.learning_rate_factors) == len(p.parameters) for p in phases)
            factors = [f for p in phases for f in p.learning_rate_factors]
            assert max(factors) == 1.0
            assert all(0 < f <= 1 for f in factors)

    def test_a_parameter_has_the_same_factor_in_every_phase(self) -> None:
        for model in self.layouts:
            found: dict[str, set[float]] = {}
            for phase in self.strategy.phases(model, 100):
                for name, factor in zip(phase.parameters, phase.learning_rate_factors, strict=True):
                    found.setdefault(name, set()).add(factor)
            assert all(len(factors) == 1 for factors in found.values())

    def test_same_input_gives_the_same_phases(self) -> None:
        for model in self.layouts:
            for seed in (0, 7):
                first = self.strategy.phases(model, 50, seed=seed)
                assert first == self.strategy.phases(model, 50, seed=seed)

    def test_no_block_of_a_frozen_prefix_nor_what_feeds_it_has_ever_trained(self) -> None:
        for model in self.layouts:
            phases = self.strategy.phases(model, 50, seed=3)
            trained: set[str] = set()
            for phase, boundary in zip(phases, frozen_prefix(model, phases), strict=True):
                trained |= set(phase.parameters)
                if boundary:
                    assert trained.isdisjoint(model.embeddings)
                    assert all(trained.isdisjoint(b) for b in model.blocks[:boundary])
                if boundary < len(model.blocks) and trained.isdisjoint(model.embeddings):
                    assert not trained.isdisjoint(model.blocks[boundary])

    def test_nothing_below_the_lowest_active_block_trains(self) -> None:
        for model in self.layouts:
            for phase in self.strategy.phases(model, 50):
                lowest = lowest_active_block(model, phase)
                below = {n for block in model.blocks[:lowest] for n in block}
                assert below.isdisjoint(phase.parameters)
                assert lowest == 0 or set(model.embeddings).isdisjoint(phase.parameters)

    def test_no_steps_is_refused(self) -> None:
        with pytest.raises(UserError, match="0 optimizer steps cannot be split"):
            self.strategy.phases(self.layouts[0], 0)
