"""What comparison bases and answers are called, wherever a study's outcome is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BasisWords:
    """What a comparison makes equal.

    Attributes:
        noun: e.g. ``device seconds``.
        compound: the same as one word, where an adjective stands before it.
        about: what that means, ``{challenger}`` being the arm that is set beside the reference.
    """

    noun: str
    compound: str
    about: str

    @property
    def phrase(self) -> str:
        """E.g. ``at equal device seconds``."""
        return f"at equal {self.noun}"


BASES = {
    "device_seconds": BasisWords(
        "device seconds",
        "device-seconds",
        "device seconds: both arms are tuned and confirmed at the same measured cost of one run "
        "that starts with an empty prefix cache",
    ),
    "updates_per_parameter": BasisWords(
        "updates per parameter",
        "updates per parameter",
        "updates per parameter: every layer trains for as many steps in both arms, so {challenger} "
        "runs take longer overall",
    ),
    "tokens": BasisWords(
        "tokens",
        "tokens",
        "tokens: both arms see the same tokens, so each {challenger} layer gets fewer updates",
    ),
}
"""By the study file's `comparison`."""


@dataclass(frozen=True)
class AnswerWords:
    """What the decision rule answers, as different readers are told.

    Attributes:
        predicate: what it says of its arm, e.g. ``is better``.
        short: the same beside the arm's name, ``{rho}`` in nats.
        reason: why to use the arm, with ``{other}``, ``{rho}``, the memory ``{limit}`` in GiB and
            how sure that is, ``{sure}``.
        claim: the same in a report, with the ``{likelihood}`` in words; empty where a sentence of
            its own says it.
    """

    predicate: str
    short: str
    reason: str = ""
    claim: str = ""


ANSWERS = {
    "memory": AnswerWords(
        predicate="is the only one that fits",
        short="the other arm does not fit in the memory limit",
        reason="{other} does not fit in {limit:g} GiB of a device",
    ),
    "better": AnswerWords(
        predicate="is better",
        short="better by more than {rho:g} nats",
        reason="its test loss is lower by more than {rho:g} nats{sure}",
        claim="its test loss is {likelihood} to be lower than {other}'s by more than {rho:g} nats",
    ),
    "cheaper": AnswerWords(
        predicate="is not worse and cheaper",
        short="not worse by {rho:g} nats, and cheaper",
        reason="its test loss is not higher by {rho:g} nats{sure}, and it costs less",
        claim="its test loss is {likelihood} not to be higher than {other}'s by more than {rho:g} "
        "nats",
    ),
    "lean": AnswerWords(
        predicate="may be better, which is no claim",
        short="a lean, no claim",
        claim="its test loss is {likelihood} to be lower than {other}'s, which is too little for a "
        "claim",
    ),
    "not_enough_evidence": AnswerWords(
        predicate="not enough evidence", short="not enough evidence"
    ),
}
"""By the answer of a verdict."""
