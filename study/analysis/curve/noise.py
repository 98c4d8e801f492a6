"""How far results scatter: assumed before a study has run, and from its replicates afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from study.analysis.curve.design import SplitVariance
from study.analysis.curve.fit import Curve, split_covariance
from study.protocol.records import BaseModelRecord

ASSUMED_SD = 0.005
"""Nats: standard deviation of one arm's loss over data subsets, and over seeds; that of a pair's
difference is then 0.010. Measured at fixed configurations: 0.012 at 64 and 0.007 at 256 examples
on the demo's model, 0.004 to 0.005 over seeds alone. How much matters to a user changes none of
it."""
LARGEST_SD = 0.07
"""Nats: of a pair's difference, measured on an encoder of 22 M parameters that classifies after a
few hundred examples."""
ASSUMED_SPREAD = 0.02
"""Nats: over what range, evenly, the losses of a search's configurations lie by what is an arm's
own. Both search the same points, so most of what these do (`tuning.ASSUMED_RANGE`) cancels."""
_PRIOR_FREEDOM = 2.0
"""What the assumption counts for beside measurements, in degrees of freedom."""

ARM_CORRELATION = {"causal-lm": 0.99, "sequence-classification": 0.95}
"""Assumed between both arms' losses of one test example, until confirm runs tell; .99 is what the
demo has. By task."""
UNKNOWN_SPREAD = 0.6
"""Assumed standard deviation of the loss over test examples, nats, until the base model's is
measured."""


@dataclass(frozen=True)
class Noise:
    """Of the difference between the arms, paired by data subset and by seed.

    The arms share a replicate's subset and a pair's data order. What that does to one arm is
    assumed independent of what it does to the other: so each effect counts twice.

    Attributes:
        between: variance between replicates, nats squared: data subsets and the luck of a search
            of `trials` trials. What seeds add is not in it.
        within: variance of one confirm pair around its replicate's mean, nats squared.
        spread: nats; see `ASSUMED_SPREAD`.
        trials: search trials per replicate.
        freedom: degrees of freedom behind `between` that were measured; 0: all is assumed.
    """

    between: float
    within: float
    spread: float
    trials: int
    freedom: int = 0

    def of_point(self, trials: int, seeds: int) -> float:
        """Variance of a replicate's mean difference, nats squared, in a study of `trials` search
        trials per replicate and `seeds` confirm seeds."""
        # No more of what was measured is put down to the search than the assumption has.
        luck = min(2 * search_luck(self.spread, self.trials), self.between)
        change = search_luck(1.0, trials) / search_luck(1.0, self.trials)
        return self.between + luck * (change - 1.0) + self.within / max(seeds, 1)


def search_luck(spread: float, trials: int) -> float:
    """Variance of the lowest of `trials` losses that lie anywhere on a range of `spread`, nats
    squared: that of a Beta(1, trials) variable, scaled."""
    return spread**2 * trials / ((trials + 1) ** 2 * (trials + 2))


def assumed_noise(trials: int) -> Noise:
    """Before anything has run; see `ASSUMED_SD` and `ASSUMED_SPREAD`."""
    one = 2 * ASSUMED_SD**2
    luck = 2 * search_luck(ASSUMED_SPREAD, trials)
    return Noise(one + luck, one, ASSUMED_SPREAD, trials)


def noise_on_record(trials: int, curve: Curve | None) -> Noise:
    """The assumption, drawn towards what a study's replicates say as they become more.

    Args:
        trials: search trials per replicate of those that the curve is fitted to.
    """
    assumed = assumed_noise(trials)
    if curve is None:
        return assumed
    pairs = curve.paired.pairs
    spare = float((pairs - 1).sum())
    within = _pooled(assumed.within, curve.within_variance, spare)
    between = max(0.0, curve.variance - curve.within_variance / float(np.mean(pairs)))
    if not spare:  # seeds and subsets cannot be told apart, so the assumption's share is taken
        between = max(0.0, curve.variance - within)
    pooled = _pooled(assumed.between, between, float(curve.freedom))
    return replace(assumed, between=pooled, within=within, freedom=curve.freedom)


def _pooled(assumed: float, found: float, freedom: float) -> float:
    return (_PRIOR_FREEDOM * assumed + freedom * found) / (_PRIOR_FREEDOM + freedom)


@dataclass(frozen=True)
class SplitNoise:
    """How far off a study's difference is because its test split holds these examples and not
    others.

    Attributes:
        examples: independent test examples.
        error: standard error of the paired mean difference, nats.
        source: where it comes from: the confirm ``runs``, the ``base`` model's losses, or
            ``assumed``.
    """

    examples: int
    error: float
    source: Literal["runs", "base", "assumed"]

    @property
    def variance(self) -> SplitVariance:
        return SplitVariance(self.error**2, self.examples)

    def enough(self, limit: float) -> int:
        """Test examples whose error would be `limit` nats."""
        needed = math.ceil(self.examples * (self.error / limit) ** 2)
        return needed if needed < 100 else math.ceil(needed / 100) * 100

    def with_examples(self, examples: int) -> SplitNoise:
        """Of a test split of another size, from the same source."""
        return replace(
            self, examples=examples, error=self.error * math.sqrt(self.examples / examples)
        )


def split_error(
    task: str,
    examples: int,
    curve: Curve | None = None,
    base: BaseModelRecord | None = None,
    size: float | None = None,
) -> SplitNoise:
    """The test split's error: found in the confirm runs where they say it, else guessed.

    Guessed, both arms' losses spread over test examples as the base model's do, and correlate as
    `ARM_CORRELATION` has it.

    Args:
        task: as in the study file.
        examples: of the test split.
        curve: of the study's confirm runs.
        base: the base model's losses.
        size: dataset size at which the curve is read; its middle when None.
    """
    if curve is not None:
        sizes = curve.paired.sizes
        place = size or math.sqrt(float(sizes.min()) * float(sizes.max()))
        error = float(curve.test_error(place)[0])
        if error > 0.0:
            return SplitNoise(curve.paired.test_examples, error, "runs").with_examples(examples)
    factor = math.sqrt(2 * (1 - ARM_CORRELATION[task]))
    # A classifier's base losses are the class prior's: they say nothing of a trained one's.
    if base is not None and len(base.test_losses) > 1 and task == "causal-lm":
        targets = base.test_targets or (1,) * len(base.test_losses)
        covariance, known = split_covariance([base.test_losses], targets)
        error = factor * math.sqrt(float(covariance[0, 0]))
        return SplitNoise(known, error, "base").with_examples(examples)
    return SplitNoise(examples, factor * UNKNOWN_SPREAD / math.sqrt(examples), "assumed")
