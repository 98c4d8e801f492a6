from __future__ import annotations

from study.strategies.full import FullStrategy
from tests.strategies.conformance import StrategyConformance, layout


class TestFull(StrategyConformance):
    strategy = FullStrategy()

    def test_one_phase_trains_everything(self) -> None:
        (phase,) = self.strategy.phases(layout(), 7)
        assert phase.parameters == layout().parameters
        assert phase.steps == 7
