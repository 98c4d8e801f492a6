"""What tuning leaves above an arm's lowest loss, on average: the truth behind every scenario.

A scenario says what D(n) is *after* tuning. So each arm's loss at its best hyperparameters is set
to what it should be after tuning, less what the tuning procedure leaves on average, found by a
large Monte Carlo over search designs, subsets and seeds.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.simulation.landscape import BASE_LOSS, RHO, Noise, Surface
from tests.simulation.plans import plans
from tests.simulation.scenarios import PlanShape, Scenario

SHIFT_SD = 0.04
"""By how much the best log learning rate differs between training subsets."""
DRAWS = 40
"""Per search design, some hundred of which there are."""


def tuned_full_loss(size: float) -> float:
    """Full's test loss after tuning, nats."""
    return 1.9 + 6.0 * size**-0.33


@cache
def lowest_losses(scenario: Scenario, size: float) -> dict[str, float]:
    """Each arm's loss at its best hyperparameters, such that the tuned arms differ by the
    scenario's D(n)."""
    full = tuned_full_loss(size)
    wanted = {"full": full, "lift": full - scenario.difference(size)}
    found = {}
    for arm, tuned in wanted.items():
        excess, diverged, lost = _left_by_tuning(scenario, arm, size)
        # tuned = E[(1 - p) (lowest + excess) + p base]
        found[arm] = (tuned - excess + lost - diverged * BASE_LOSS) / (1.0 - diverged)
    for arm in scenario.unlearned:
        found[arm] = BASE_LOSS
    for arm in scenario.worse_than_base:
        found[arm] = BASE_LOSS + 5.0 * RHO
    return found


def _left_by_tuning(scenario: Scenario, arm: str, size: float) -> tuple[float, float, float]:
    """Means over winners of (excess, probability p that a confirm run diverges, p times excess).

    Scenarios with a pruner or a sampler that learns have equal surfaces in both arms, so what is
    left is equal too and its amount of no importance.
    """
    shape, noise = scenario.plan, scenario.noise
    if scenario.surfaces["full"].rate == scenario.surfaces["lift"].rate and (
        shape.sampler != "sobol" or shape.pruner != "none"
    ):
        return 0.0, 0.0, 0.0
    return _winners(scenario.surfaces[arm], noise, scenario, shape, size)


def _winners(
    surface: Surface, noise: Noise, scenario: Scenario, shape: PlanShape, size: float
) -> tuple[float, float, float]:
    random = np.random.default_rng([round(size), len(shape.sizes), shape.replicates])
    designs = np.concatenate([p.points for p in plans(shape)], axis=1)  # (3, designs, trials)
    rate, warmup, clipping = np.repeat(designs, DRAWS, axis=1)
    shift = random.normal(0.0, SHIFT_SD, (len(rate), 1))
    excess = surface.excess(size, (rate, warmup, clipping), shift)
    scale = noise.scale(size, shape.sizes[0])
    scores = excess + scale * noise.seeds(random, excess.shape)
    scores = scores + random.normal(0.0, noise.validation * RHO, excess.shape)
    risk = scenario.divergence.probability(rate)
    scores = np.where(random.random(excess.shape) < risk, np.inf, scores)
    rows, best = np.arange(len(scores)), scores.argmin(axis=1)
    won = np.isfinite(scores[rows, best])
    excess, risk = excess[rows, best][won], risk[rows, best][won]
    return float(excess.mean()), float(risk.mean()), float((risk * excess).mean())
