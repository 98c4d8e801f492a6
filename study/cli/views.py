"""Tables for the terminal: a plan and a trial."""

from __future__ import annotations

import json
from collections.abc import Sequence

import yaml
from rich.table import Table
from rich.text import Text

from study.analysis import cold_device_seconds_of, device_seconds_of
from study.analysis.cells.estimates import validation_metrics_of
from study.analysis.rules import pairs_of
from study.basics.errors import UserError
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.basics.text_format import byte_size, counted, duration, short_count
from study.basics.text_safety import without_colours
from study.cli.data import data_facts
from study.cli.detection import print_detection
from study.cli.output import Console, number_table, print_facts, told_metrics
from study.cli.samples import ShownExample, print_examples
from study.orchestration.prepare import Prepared
from study.protocol.plan import StudyPlan, trial_steps
from study.protocol.records import PrefixCacheUse, TrialRecord, TrialState
from study.protocol.results import StudyResults
from study.reuse.warm_start import warm_start_plan
from study.training.data.batches import AUTOMATIC_MICRO_BATCH_SIZE


def print_plan(
    prepared: Prepared,
    named: str,
    results: StudyResults | None = None,
    examples: Sequence[ShownExample] = (),
) -> None:
    """What it would run on, what would run, what it can detect, and what to know beforehand.

    Args:
        named: the STUDY argument, for the advice.
        results: what the study has on record, if anything.
        examples: training examples to show.
    """
    console = Console()
    plan, data, config = prepared.plan, prepared.data, prepared.plan.resolved
    print_facts(
        console,
        {
            "Study": f"{config.name} (seed {config.seed})",
            "Model": f"{config.model.path}, {counted(plan.model.num_blocks, 'block')}",
            **data_facts(data, config.training.sequence_length),
            "Batch": _batch(plan),
            "Basis": _basis(plan),
            "Search": f"{counted(config.search.trials, f'{config.search.sampler} trial')} x "
            f"{counted(config.search.replicates, 'replicate')} per cell, pruner "
            f"{config.search.pruner}; {counted(config.confirm.seeds, 'confirm seed')}",
        },
    )
    print_examples(console, examples, data.pool)
    console.print(_cells(prepared))
    confirm = len(plan.cells) * config.confirm.seeds
    console.print(
        f"\n{counted(plan.trials, 'trial')}: {len(plan.search)} search, {confirm} confirm. "
        f"Results go to {config.results_url or config.results_dir}",
        soft_wrap=True,
    )
    told = warm_start_plan(plan)
    if told is not None:
        console.print(f"{told}.")
    print_detection(console, prepared, results)
    for warning in prepared.warnings:
        console.print(Text("warning: ", style="yellow").append(warning, style="default"))
    console.print(f"\nStart it with: study run {named}", soft_wrap=True)


def _batch(plan: StudyPlan) -> str:
    training = plan.resolved.training
    workers = plan.resolved.resources.workers_per_trial
    limit = f"{AUTOMATIC_MICRO_BATCH_SIZE * training.sequence_length:,} tokens"
    if training.micro_batch_size_per_worker:
        limit = counted(training.micro_batch_size_per_worker, "example")
    return (
        f"{counted(training.global_batch_size, 'example')} per step on "
        f"{counted(workers, 'worker')}, at most {limit} per pass; "
        f"ZeRO-{plan.resolved.zero.stage}"
    )


def _basis(plan: StudyPlan) -> str:
    config = plan.resolved
    if len(config.arms.names) < 2:
        return "one arm, nothing to equalise"
    pair = pairs_of(config.arms.names)[0]
    reference, challenger = pair.labels
    steps = [
        [trial_steps(config, plan.model, arm, size, {}) for arm in pair]
        for size in config.dataset_sizes
    ]
    ratios = sorted(ours / theirs for theirs, ours in steps)
    low, high = f"{ratios[0]:.2f}", f"{ratios[-1]:.2f}"
    times = low if low == high else f"{low} to {high}"
    known = plan.model.probe is not None or config.comparison != "device_seconds"
    note = "" if known else " (predicted; measured before the first trial)"
    return f"{config.comparison}: {challenger} takes {times} times {reference}'s steps{note}"


def _cells(prepared: Prepared) -> Table:
    plan, data = prepared.plan, prepared.data
    columns = ("examples", "search", "confirm", "steps", "epochs", "tokens/trial")
    table = number_table("arm", *columns)
    config = plan.resolved
    for arm in config.arms.names:
        for examples in config.dataset_sizes:
            specs = [s for s in plan.search if s.arm == arm and s.size == examples]
            steps = sorted({s.steps for s in specs})
            # They vary with a searched structure.
            shown = str(steps[0]) if len(steps) == 1 else f"{steps[0]}-{steps[-1]}"
            seen = steps[-1] * config.training.global_batch_size
            table.add_row(
                arm,
                str(examples),
                str(len(specs)),
                str(config.search.replicates * config.confirm.seeds),
                shown,
                f"{seen / examples:.3g}",
                f"{seen * data.mean_tokens:,.0f}",
            )
    return table


def print_trial(results: StudyResults, trial_id: str, log_lines: int) -> None:
    """Configuration, curve, outcome and the end of the log.

    Raises:
        UserError: the study has no such trial.
    """
    found = next((r for r in results.trials if r.spec.trial_id == trial_id), None)
    if found is None:
        examples = ", ".join(r.spec.trial_id for r in results.trials[:4])
        raise UserError(
            f"No trial {trial_id!r} in study {results.config.name}. Its trials are named like "
            f"{examples}; `study report` lists all."
        )
    console = Console()
    print_facts(console, _trial_facts(found))
    if found.measurements:
        console.print(_curve(found))
    if found.outcome and found.outcome.phases:
        console.print(_phases(found))
    if found.outcome and found.outcome.deepspeed_config:
        console.print(Text("\nDeepSpeed configuration (first phase)", style="dim"))
        console.print(Text(yaml.safe_dump(found.outcome.deepspeed_config, sort_keys=True)))
    _print_log(console, results, trial_id, log_lines)


def _trial_facts(record: TrialRecord) -> dict[str, str]:
    spec, outcome = record.spec, record.outcome
    facts = {
        "Trial": spec.trial_id,
        "State": _state(record),
        "Cell": f"{spec.arm}, {spec.size} examples, replicate {spec.replicate}, {spec.stage}",
        "Steps": str(spec.steps),
        "Seeds": f"trial {spec.seed}, subset {spec.subset_seed}, order {spec.order_seed}",
        "Parameters": json.dumps(spec.hyperparameters),
    }
    if record.ray_train_job:
        facts["Ray Train job"] = record.ray_train_job
    if outcome and outcome.notes:
        facts["Notes"] = "\n".join(outcome.notes)
    if outcome and outcome.score is not None:
        told = f"validation loss {outcome.score:.4f}{told_metrics(validation_metrics_of(record))}"
        facts["Best"] = f"{told} at step {outcome.best_step}"
    if outcome and outcome.test_loss is not None:
        facts["Test loss"] = f"{outcome.test_loss:.4f}{told_metrics(outcome.test_metrics)}"
    if outcome and outcome.retention_loss is not None:
        facts["Retention"] = f"{outcome.retention_loss:.4f}"
    if outcome and outcome.prefix_cache is not None:
        facts["Prefix cache"] = _cache_use(outcome.prefix_cache)
    if device_seconds_of(record):
        facts["Device time"] = _device_time(record)
    if outcome and outcome.versions:
        facts["Versions"] = ", ".join(f"{k} {v}" for k, v in outcome.versions.items())
    return facts


def _state(record: TrialRecord) -> str:
    if record.state is TrialState.PAUSED:
        return f"{record.state.value}: no driver runs it; it goes on when the study is run again"
    reason = record.outcome.reason if record.outcome else ""
    return f"{record.state.value}: {reason}" if reason else record.state.value


def _cache_use(use: PrefixCacheUse) -> str:
    if use.status != "on":
        return use.status
    return (
        f"{use.hits:,} of {use.hits + use.misses:,} hidden states found, "
        f"{byte_size(use.bytes_written)} written, {duration(use.fill_seconds)} spent filling, "
        f"{duration(use.seconds_saved)} saved"
    )


def _device_time(record: TrialRecord) -> str:
    spent, cold = device_seconds_of(record), cold_device_seconds_of(record)
    told = duration(spent)
    return told if cold == spent else f"{told} ({duration(cold)} with an empty prefix cache)"


def _curve(record: TrialRecord) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    metrics = sorted({name for m in record.measurements for name in m.validation_metrics})
    titles = [{"accuracy": "acc", "macro_f1": "F1"}.get(name, name) for name in metrics]
    names = ["step", "epoch", "phase", "train", "val", *titles, "lr", "norm"]
    if not metrics:  # more would not fit into 80 columns
        names += ["clipped", "tok/s"]
    for name in (*names, "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for m in record.measurements:
        found = [m.validation_metrics.get(name) for name in metrics]
        table.add_row(
            str(m.step),
            f"{m.epoch:.2f}",
            str(m.phase + 1),
            f"{m.train_loss:.4f}",
            f"{m.validation_loss:.4f}",
            *("-" if value is None else f"{value:.3f}" for value in found),
            f"{m.learning_rate:.1e}",
            f"{m.grad_norm:.2f}",
            *(() if metrics else (f"{m.clipped_share:.0%}", f"{m.tokens_per_second:.0f}")),
            byte_size(m.peak_memory_bytes),
        )
    return table


def _phases(record: TrialRecord) -> Table:
    columns = ("steps", "trained", "switch", "training", "state", "at step")
    table = number_table("phase", *columns, no_wrap=True)
    for phase in record.outcome.phases if record.outcome else ():
        table.add_row(
            phase.name,
            str(phase.steps),
            short_count(phase.trainable_parameters),
            f"{phase.switch_seconds:.2f} s",
            f"{phase.train_seconds:.1f} s",
            byte_size(phase.state_bytes) if phase.state_bytes else "-",
            byte_size(phase.peak_state_bytes) if phase.peak_state_bytes else "-",
        )
    return table


def _print_log(console: Console, results: StudyResults, trial_id: str, lines: int) -> None:
    if not lines:
        return
    if results.place is None:
        console.print(Text("Its log is in the study's results folder.", style="dim"))
        return
    paths = StudyPaths(results.config.results_dir)
    path, url = paths.trial_log(trial_id), results.config.results_url
    if url is not None:
        name = path.relative_to(paths.root).as_posix()
        content, place = RemoteFolder(url).read(name), f"{url}/{name}"
    else:
        content, place = path.read_bytes() if path.is_file() else None, str(path)
    if content is None:
        return
    console.print(Text(f"Last lines of {place}", style="dim"), soft_wrap=True)
    for line in without_colours(content.decode(errors="replace")).splitlines()[-lines:]:
        console.print(Text(line), soft_wrap=True)
