"""`study train`: the final run, the model folder and its card."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from study.basics.errors import UserError
from study.basics.owned import claim
from study.basics.paths import StudyPaths
from study.basics.remote import is_remote
from study.basics.text_format import duration
from study.cli.output import Console, libraries_to, stopped_by_signals, told_metrics
from study.protocol.records import BaseModelRecord, Measurement, TrialSpec, base_name

if TYPE_CHECKING:
    from study.reuse.recipe import FinalRun


class TrainingView:
    """A line for every evaluation, with what is left."""

    def __init__(self, console: Console, task: str) -> None:
        self._console, self._task, self._since = console, task, time.monotonic()
        self._first_step, self._best = 0, float("inf")

    def message(self, text: str) -> None:
        self._console.print(Text(f"{text} ...", style="dim"))

    def started(self, spec: TrialSpec, base: BaseModelRecord) -> None:
        name = base_name(self._task, base).capitalize()
        self._console.print(
            f"{name}: validation {base.validation_loss:.4f} test {base.test_loss:.4f}"
        )
        self._console.print(
            f"Training {spec.arm} on {spec.size:,} examples for {spec.steps:,} steps"
        )
        self._since = time.monotonic()

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        spent = time.monotonic() - self._since
        done = measurement.step - self._first_step
        if spent < 1.0 and measurement.step < spec.steps:
            # Evaluations of an earlier session come all at once.
            self._first_step, done = measurement.step, 0
        left = spent / done * (spec.steps - measurement.step) if done else 0.0
        line = (
            f"step {measurement.step:>{len(str(spec.steps))}}/{spec.steps}  "
            f"validation {measurement.validation_loss:.4f}  train {measurement.train_loss:.4f}"
        )
        line += told_metrics(measurement.validation_metrics).replace(", ", "  ")
        if left >= 1.0:
            line += f"  {duration(left)} left"
        if measurement.validation_loss < self._best:
            self._best = measurement.validation_loss
            line += "  best so far"
        self._console.print(line)


def train_and_print(
    best: Path,
    output: str | None,
    dataset_size: int | None,
    seed: int | None,
    repository: str | None,
) -> None:
    """Train a best configuration, save the model, say how good it is and where it lies.

    Args:
        best: what `study best` wrote.
        output: folder or URL; None: named after study and arm, in the working directory.
        dataset_size, seed: see `train_final`.
        repository: of the Hub, to send it to.
    """
    from study.orchestration.final import train_final
    from study.reuse.recipe import read_recipe
    from study.reuse.trained import is_trained, put_in_place

    recipe = read_recipe(best)
    place = output or f"{recipe.config.name}-{recipe.arm}"
    if repository is not None:
        from study.reuse.hub import check_login

        if is_remote(place):
            raise UserError("--push-to-hub: give --output a folder of this machine.")
        check_login(repository)
    place = place.rstrip("/") if is_remote(place) else str(Path(place).absolute())
    if is_trained(recipe, place, dataset_size, seed):
        print(f"{place} has this configuration's model already.")
        _push(place, repository)
        return
    run_place = f"{place}.run"
    config = recipe.config_at(1, run_place)
    claim(config.results_dir, config.results_url)
    log = StudyPaths(config.results_dir).log
    stopped_by_signals()
    print(f"Training {best}: model goes to {place}\nLibrary output goes to {log}")
    with libraries_to(log) as console:
        try:
            view = TrainingView(console, config.task)
            run = train_final(recipe, run_place, view, dataset_size, seed)
        except KeyboardInterrupt:
            console.print("\nStopped. The same command goes on from the last checkpoint.")
            raise
        put_in_place(recipe, run, place)
    _tell(run, place)
    _push(place, repository)


def _tell(run: FinalRun, place: str) -> None:
    from study.reuse.scores import not_learned

    outcome = run.outcome
    console = Console()
    test = f"test {outcome.test_loss:.4f}{told_metrics(outcome.test_metrics)}"
    scores = [f"validation {outcome.score:.4f}", test]
    if outcome.retention_loss is not None and run.base.retention_loss is not None:
        rise = outcome.retention_loss - run.base.retention_loss
        scores.append(f"general text {outcome.retention_loss:.4f} ({rise:+.4f})")
    console.print(f"\nBest at step {outcome.best_step} of {run.spec.steps}: {', '.join(scores)}")
    if outcome.test_loss is not None and outcome.test_loss >= run.base.test_loss:
        name = base_name(run.config.task, run.base)
        told = not_learned(name, "test", outcome.test_loss, run.base.test_loss)
        console.print(f"warning: {told}")
    console.print(Text("Model: ").append(place, style="bold"), soft_wrap=True)
    if not is_remote(place):
        console.print("\nLoad it:")
        kind = "CausalLM" if run.config.task == "causal-lm" else "SequenceClassification"
        console.print(f"  from transformers import AutoModelFor{kind}", soft_wrap=True)
        console.print(f"  AutoModelFor{kind}.from_pretrained({place!r})", soft_wrap=True)


def _push(place: str, repository: str | None) -> None:
    if repository is None:
        return
    from study.reuse.hub import push

    print(f"Sent to {push(Path(place), repository)}")
