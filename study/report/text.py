"""The words around the numbers: what was compared, on which basis, by which methods."""

from __future__ import annotations

import datetime

import yaml

from study.analysis import StudySummary, counted, spent_device_seconds_of
from study.analysis.rules import pairs_of
from study.basics.text_format import capital, duration, metric_title, short_count
from study.config.load import StudyConfig
from study.protocol.records import DataSummary, base_name
from study.protocol.results import StudyResults
from study.protocol.words import BASES
from study.report.base import MISSING, Section, Snippet, Tile, loss, seconds
from study.reuse.warm_start import warm_start_effect
from study.strategies import STRATEGIES, arm_label, trains_all

Facts = tuple[tuple[str, str], ...]


def banner(summary: StudySummary) -> str:
    """What an unfinished study still lacks; empty when finished."""
    counts = summary.counts
    if summary.finished:
        return ""
    paused = "" if not counts.paused else f"{counts.paused} paused until the study is run again, "
    return (
        f"Unfinished: {counts.ended} of {counts.planned} trials have ended, "
        f"{counts.running} running, {paused}{counts.waiting} waiting. All numbers below are so far."
    )


def tiles(summary: StudySummary, results: StudyResults) -> tuple[Tile, ...]:
    """The numbers at a glance: each arm's loss at the asked size (a classifier's accuracy too),
    what it must be below, the trials."""
    split, made = summary.split, []
    size = asked_size(summary)
    for arm in summary.arms:
        cell = None if size is None else summary.cell(arm, size)
        found = None if cell is None else cell.loss(split)
        if cell is None or found is None:
            continue
        name, metrics = capital(arm_label(arm)), dict(cell.metrics_on(split))
        where = f"{size:,} examples, {found.extent}"
        made.append(Tile(f"{name}, {split} loss", loss(found.mean), where, arm))
        if "accuracy" in metrics:
            accuracy = f"{100 * metrics.pop('accuracy'):.1f} %"
            others = ", ".join(f"{metric_title(k)} {v:.3f}" for k, v in metrics.items())
            made.append(Tile(f"{name}, {split} accuracy", accuracy, others or where, arm))
    base, task = summary.base_loss(split), results.config.task
    if base is not None:
        name = base_name(task, results.base)
        guess = "guessing by the classes' shares"
        about = guess if name == "class prior" else "before any fine-tuning"
        made.append(Tile(f"{capital(name)}, {split} loss", loss(base), about))
    counts = summary.counts
    lost = "none failed" if not counts.failed else f"{counts.failed} failed"
    made.append(Tile("Trials", f"{counts.ended:,}", f"of {counts.planned:,} ended, {lost}"))
    spent = sum(map(spent_device_seconds_of, results.trials))
    made.append(Tile("Device time", duration(spent), f"in {duration(results.seconds)} of running"))
    return tuple(made)


def asked_size(summary: StudySummary) -> int | None:
    """The size the study asks about, or the largest with a loss; None without any."""
    known = [cell.size for cell in summary.cells if cell.loss(summary.split)]
    asked = summary.config.decision.dataset_size
    return asked if asked in known else max(known, default=None)


def compared_section(results: StudyResults) -> Section:
    """Model, data, arms, basis, search and training settings."""
    config = results.config
    facts = (
        *_model_facts(results),
        *_data_facts(config, results.data),
        *_arm_facts(results),
        *_search_facts(config),
        *_training_facts(config),
    )
    space = config.search.space
    snippets = []
    if isinstance(space, dict):
        snippets.append(Snippet("Search space", to_yaml(space)))
    if config.search.overrides:
        snippets.append(Snippet("Search space, overridden", to_yaml(config.search.overrides)))
    return Section(
        "compared",
        "What was compared",
        paragraphs=(*results.notes, *warm_start_effect(results)),
        facts=facts,
        snippets=tuple(snippets),
    )


def _model_facts(results: StudyResults) -> Facts:
    model = results.config.model
    size = results.model_parameters
    name = model.path if model.revision is None else f"{model.path} ({model.revision})"
    if size is not None:
        name += f", {short_count(size)} parameters"
    return (("Model", name), ("Task", results.config.task))


def _data_facts(config: StudyConfig, data: DataSummary | None) -> Facts:
    train = config.data.train
    files = train if isinstance(train, str) else ", ".join(train)
    facts = [("Data", files)]
    if data is None:
        return tuple(facts)
    kept = f"{data.retention:,} retention" if data.retention else "retention not measured"
    facts += [
        (
            "Splits",
            f"{data.pool:,} examples to train on, {data.validation:,} validation, "
            f"{data.test:,} test, {kept}",
        ),
        (
            "Cleaning",
            f"{counted(data.duplicates_removed, 'exact duplicate')} and "
            f"{counted(data.empty_removed, 'empty example')} removed, "
            f"{counted(data.truncated, 'example')} cut to "
            f"{config.training.sequence_length:,} tokens",
        ),
        (
            "Tokens",
            f"{data.mean_tokens:,.1f} per example on average, {data.mean_target_tokens:,.1f} of "
            "them carry loss",
        ),
    ]
    if data.label_names:
        facts.append(("Labels", ", ".join(data.label_names)))
    facts.append(("Data fingerprint", data.fingerprint))
    return tuple(facts)


def _arm_facts(results: StudyResults) -> Facts:
    config = results.config
    facts = []
    for arm in config.arms.names:
        options = getattr(config.arms, arm).model_dump()
        # Of the two ways to cut the blocks, the one in use.
        options.pop("groups" if options.get("groups") is None else "group_size", None)
        told = ", ".join(f"{k.replace('_', ' ')} {_plain(v)}" for k, v in options.items())
        facts.append((f"Arm: {arm_label(arm)}", told or _untold(arm)))
    if len(config.arms.names) > 1:
        pair = pairs_of(config.arms.names)[0]
        reference, challenger = pair.labels
        basis = BASES[config.comparison].about.format(challenger=challenger)
        if config.comparison == "device_seconds" and results.cost_ratio is not None:
            times = f"{results.cost_ratio:.2f} times a {challenger} step"
            basis += f"; in the probe a {reference} step took {times}"
            costs = [results.probe.arms.get(arm) for arm in pair] if results.probe else [None, None]
            if costs[0] and costs[1] and costs[1].step_cached:
                ratio = costs[0].step / costs[1].step_cached
                basis += f" and {ratio:.2f} times one that reads its prefix from the cache"
        facts.append(("Comparison basis", basis))
    return tuple(facts)


def _untold(arm: str) -> str:
    """Of an arm without options."""
    return "updates every weight at once" if trains_all(arm) else STRATEGIES[arm].method


def _search_facts(config: StudyConfig) -> Facts:
    search = config.search
    named = config.space().name
    space = "written in the study file" if named == "inline" else named
    sizes = ", ".join(f"{n:,}" for n in sorted(config.dataset_sizes))
    confirm = counted(config.confirm.seeds, "fresh seed") if config.confirm.seeds else "none"
    return (
        ("Dataset sizes", f"{sizes} examples"),
        ("Search space", space),
        (
            "Search",
            f"{counted(search.trials, 'trial')} ({search.sampler}, pruner {search.pruner}) per arm "
            f"and size, in {counted(search.replicates, 'replicate')}",
        ),
        ("Confirm runs", f"{confirm} per replicate's winner" if config.confirm.seeds else confirm),
    )


def _training_facts(config: StudyConfig) -> Facts:
    t, zero = config.training, config.zero
    if t.steps is not None:
        length = f"{t.steps:,} optimizer steps at every size"
    else:
        length = f"{t.epochs or 3:g} epochs, at least {t.min_steps:,} optimizer steps"
    patience = f", patience {t.patience}" if t.patience else ""
    offload = [
        f"{what} on the CPU"
        for what, where in (
            ("optimizer", zero.offload_optimizer),
            ("parameters", zero.offload_parameters),
        )
        if where != "none"
    ]
    return (
        ("Training", f"{length}, {counted(t.evaluations, 'evaluation')} per trial{patience}"),
        (
            "Batch",
            f"{t.global_batch_size:,} examples, sequences up to {t.sequence_length:,} tokens, "
            f"precision {t.precision}",
        ),
        ("Optimizer", f"{t.optimizer}, {t.schedule} schedule after the warmup"),
        (
            "Engine",
            ", ".join(
                (
                    f"DeepSpeed ZeRO stage {zero.stage}",
                    *offload,
                    f"{counted(config.resources.workers_per_trial, 'worker')} per trial",
                )
            ),
        ),
    )


def footer(results: StudyResults) -> str:
    """When the report was written, and how long the study ran."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    ran = seconds(results.seconds) if results.seconds else MISSING
    return f"Written {now} from the study's store. Wall seconds of running: {ran}."


def _plain(value: object) -> str:
    if value is None:
        return "automatic"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def to_yaml(data: object) -> str:
    """As the study file has it, in the order given."""
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
