"""How everything was measured and decided, and with which versions."""

from __future__ import annotations

from study.analysis import Pair, StudySummary
from study.config.load import DecisionConfig
from study.protocol.results import StudyResults
from study.report.base import Section
from study.report.json_report import versions_of


def methods_section(results: StudyResults, summary: StudySummary) -> Section:
    """How winners were picked, how data and seeds were drawn, which versions ran."""
    config, data = results.config, results.data
    paragraphs = [
        "A trial's score is its evaluation with the lowest validation loss. The winner of a "
        "replicate is the complete search trial with the lowest score; pruned and failed trials "
        "never win. A search that has not ended has no winner yet.",
        "A confirm run trains the winner's hyperparameters again on the replicate's subset, with a "
        "fresh seed and order of examples. Its test loss is taken at the weights with the lowest "
        "validation loss, on a split that no selection saw."
        if config.confirm.seeds
        else "The study has no confirm runs, so no test loss was measured. Validation losses of "
        "winners flatter: the same split picked them.",
        "Each dataset size and replicate draws its own subset of the training pool; both arms "
        "train on the same subsets. Every seed follows from the study's seed, "
        f"{config.seed}.",
    ]
    if data is not None and max(summary.sizes) > data.pool / 2:
        paragraphs.append(
            f"Sizes above half the pool ({data.pool:,} examples) have overlapping subsets: their "
            "replicates are not independent, and the numbers are about this pool."
        )
    if len(config.arms.names) > 1:
        paragraphs += _verdict_methods(config.decision, summary.pair)
    facts = tuple((name, ", ".join(found)) for name, found in versions_of(results).items())
    return Section("methods", "Methods", paragraphs=tuple(paragraphs), facts=facts)


def _verdict_methods(decision: DecisionConfig, pair: Pair) -> list[str]:
    reference, challenger = pair.labels
    return [
        f"D is the test loss of {reference} minus that of {challenger}: above 0 favours "
        f"{challenger}. A polynomial in the logarithm of the dataset size is fitted to the "
        "replicates' mean differences. Its variance is HC2 with Bell-McCaffrey degrees of freedom, "
        "and the error of the test split is added. "
        "Intervals and probabilities are those of Student's t; a crossover is claimed by a "
        "simultaneous (Scheffe) band.",
        f"Differences of less than {decision.rho:g} nats do not matter (decision.rho). The rules, "
        "in order: an arm that does not fit into memory is out; a failed condition forbids a "
        "verdict; an arm better by more than that at 95 % is recommended; else one that is not "
        "worse by more than that at 95 % and costs at least 10 % less; else a lean at 80 %; else "
        "there is not enough evidence.",
        "A confidence is about the mean over repetitions of the whole procedure, subsets, seeds "
        "and tuning included, on this model and data. It is shown as 99 % at most. A "
        f"recommendation that forgets more on general text by more than {decision.retention_rho:g} "
        "nats (decision.retention_rho), at 95 %, is called a trade-off.",
    ]
