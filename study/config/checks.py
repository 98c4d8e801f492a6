"""Rules of a study file that concern several settings at once."""

from __future__ import annotations

import datetime
import re
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from study.basics.errors import Fault
from study.config.faults import is_affected
from study.config.models import StudyConfig
from study.config.space.read import SearchSpace
from study.strategies import STRATEGIES, Strategy

Check = Callable[[StudyConfig], Iterable[Fault]]

MAX_PAIRS = 150
MAX_TRIALS = 20_000
MAX_EVALUATIONS = 1_000_000
MAX_STEPS = 100_000_000

# DeepSpeed keys that other settings of the study decide, and which.
OWNED_KEYS = {
    "train_batch_size": "training.global_batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size_per_worker",
    "gradient_accumulation_steps": "training.global_batch_size",
    "gradient_clipping": "the search space's max_grad_norm",
    "optimizer": "training.optimizer",
    "scheduler": "training.schedule",
    "fp16": "training.precision",
    "bf16": "training.precision",
    "amp": "training.precision",
    "data_types": "training.precision",
    "zero_optimization.stage": "zero.stage",
    "zero_optimization.offload_optimizer": "zero.offload_optimizer",
    "zero_optimization.offload_param": "zero.offload_parameters",
}

_CHECKS: list[tuple[tuple[str, ...], Check]] = []


def _reads(*paths: str) -> Callable[[Check], Check]:
    """Registers a check with the settings it reads: it stays silent where one is faulty."""

    def register(check: Check) -> Check:
        _CHECKS.append((paths, check))
        return check

    return register


def cross_field_faults(config: StudyConfig, faulty: Collection[str] = ()) -> list[Fault]:
    """All broken rules, without lines; rules that read a `faulty` path are left out."""
    return [
        fault
        for paths, check in _CHECKS
        if not any(is_affected(path, faulty) for path in paths)
        for fault in check(config)
    ]


def space_faults(config: StudyConfig, space: SearchSpace) -> Iterator[Fault]:
    """Settings that the arms section and the search space both decide, or none uses."""
    searched = {arm: space.for_arm(arm) for arm in config.arms.names}
    for arm, strategy in _strategies(config):
        for name in searched[arm]:
            if name in strategy.model_fields_set:
                rule = f"the search space `{space.name}` decides this too."
                remedy = f"Remove it here, or from the space with a fixed value: `{name}: ...`."
                yield Fault(f"arms.{arm}.{name}", None, None, rule, remedy)
        for pair in strategy.exclusive:
            yield from _searched_once(arm, strategy, pair, space)
    if config.training.optimizer == "sgd" and any("beta2" in names for names in searched.values()):
        remedy = "Take `beta2` out of the space, or use `optimizer: adamw`."
        yield Fault("training.optimizer", None, None, "SGD has no beta2 to search.", remedy)


def _searched_once(
    arm: str, strategy: Strategy, pair: tuple[str, str], space: SearchSpace
) -> Iterator[Fault]:
    searched = space.for_arm(arm)
    if searched.keys() >= set(pair):
        rule = f"`{pair[0]}` and `{pair[1]}` exclude each other, and the space has both."
        yield Fault("search.space", None, None, rule, "Take one of them out.")
        return
    for name, other in (pair, pair[::-1]):
        if getattr(strategy, name) is not None and other in searched:
            rule = f"the search space `{space.name}` decides `{other}`; the two exclude each other."
            remedy = f"Remove it here, or take `{other}` out of the space."
            yield Fault(f"arms.{arm}.{name}", None, None, rule, remedy)


def _strategies(config: StudyConfig) -> Iterator[tuple[str, Strategy]]:
    for arm in config.arms.names:
        strategy = config.arms.strategy(arm)
        assert strategy is not None  # it has a name
        yield arm, strategy


@_reads()  # a faulty option is not there any more
def _options_do_not_exclude_each_other(config: StudyConfig) -> Iterator[Fault]:
    for arm, strategy in _strategies(config):
        for one, other in strategy.exclusive:
            if getattr(strategy, one) is not None and getattr(strategy, other) is not None:
                rule = f"`{other}` and `{one}` exclude each other."
                yield Fault(f"arms.{arm}.{other}", None, None, rule, "Keep one of them.")


@_reads("arms")
def _an_arm_is_on(config: StudyConfig) -> Iterator[Fault]:
    if not config.arms.names:
        remedy = f"Write `arms: [{', '.join(STRATEGIES)}]`, or one of them for a plain sweep."
        yield Fault("arms", None, None, "at least one arm must be on.", remedy)


@_reads("search.warm_start", "search.warm_start_bounds")
def _bounds_have_earlier_studies(config: StudyConfig) -> Iterator[Fault]:
    search = config.search
    if search.warm_start_bounds != "keep" and not search.warm_start:
        remedy = "Name earlier studies in `search.warm_start`, or write `keep`."
        rule = "there is no earlier study to go by."
        yield Fault("search.warm_start_bounds", None, search.warm_start_bounds, rule, remedy)


@_reads("training.epochs", "training.steps", "training.min_steps")
def _one_training_length(config: StudyConfig) -> Iterator[Fault]:
    training = config.training
    if training.epochs is not None and training.steps is not None:
        rule = "`epochs` and `steps` exclude each other."
        yield Fault("training.steps", None, None, rule, "Keep one of them.")
    elif training.steps is not None and "min_steps" in training.model_fields_set:
        rule = "`min_steps` has no effect beside `steps`."
        yield Fault("training.min_steps", None, None, rule, "Remove one of them.")


@_reads("arms", "dataset_sizes", "search", "confirm", "training.evaluations")
def _the_plan_has_an_end(config: StudyConfig) -> Iterator[Fault]:
    search, seeds = config.search, config.confirm.seeds
    cells = len(config.arms.names) * len(config.dataset_sizes) * search.replicates
    trials, evaluations = cells * (search.trials + seeds), config.training.evaluations
    pairs = len(config.dataset_sizes) * search.replicates
    if pairs > MAX_PAIRS:
        rule = f"{len(config.dataset_sizes):,} sizes in {search.replicates:,} replicates each."
        remedy = f"At most {MAX_PAIRS} pairs of the two: lower it, or ask for fewer sizes."
        yield Fault("search.replicates", None, None, rule, remedy)
    elif trials > MAX_TRIALS:
        rule = f"the study would have {trials:,} trials; at most {MAX_TRIALS:,}."
        remedy = "Lower `trials`, `replicates`, `confirm.seeds`, or the number of sizes."
        yield Fault("search.trials", None, None, rule, remedy)
    elif trials * evaluations > MAX_EVALUATIONS:
        rule = f"{trials:,} trials would be evaluated {trials * evaluations:,} times."
        remedy = f"At most {MAX_EVALUATIONS:,}: lower it."
        yield Fault("training.evaluations", None, None, rule, remedy)


@_reads("training", "dataset_sizes")
def _a_trial_has_an_end(config: StudyConfig) -> Iterator[Fault]:
    training = config.training
    longest = (training.epochs or 1.0) * max(config.dataset_sizes) / training.global_batch_size
    for path, steps in (
        ("training.steps", training.steps or 0),
        ("training.min_steps", training.min_steps),
        ("training.epochs" if training.epochs else "dataset_sizes", longest),
    ):
        if steps > MAX_STEPS:
            rule = f"a trial would have {steps:.3g} optimizer steps."
            yield Fault(path, None, None, rule, f"At most {MAX_STEPS:,}: lower it.")


@_reads(
    "training.global_batch_size",
    "training.micro_batch_size_per_worker",
    "resources.workers_per_trial",
)
def _batch_divides(config: StudyConfig) -> Iterator[Fault]:
    batch, workers = config.training.global_batch_size, config.resources.workers_per_trial
    micro = config.training.micro_batch_size_per_worker
    unit = workers * (micro or 1)
    if batch % unit:
        formula = f"workers_per_trial ({workers})"
        if micro is not None:
            formula += f" x micro_batch_size_per_worker ({micro})"
        below, above = batch // unit * unit, -(-batch // unit) * unit
        nearest = f"{below} or {above}" if below else f"{above}"
        rule = f"must be a multiple of {formula}."
        yield Fault("training.global_batch_size", None, batch, rule, f"Nearest: {nearest}.")


@_reads("zero.stage", "zero.offload_optimizer", "zero.offload_parameters")
def _offload_has_its_stage(config: StudyConfig) -> Iterator[Fault]:
    zero = config.zero
    if zero.offload_parameters != "none" and zero.stage != 3:
        rule = f"parameters can be offloaded with ZeRO stage 3 only, not {zero.stage}."
        yield Fault("zero.offload_parameters", None, None, rule, "Set `stage: 3` or remove it.")
    if zero.offload_optimizer != "none" and zero.stage == 0:
        rule = "the optimizer can be offloaded with ZeRO stages 1 to 3 only."
        yield Fault("zero.offload_optimizer", None, None, rule, "Set `stage: 2` or remove it.")


@_reads("zero.overrides")
def _overrides_leave_owned_keys(config: StudyConfig) -> Iterator[Fault]:
    overrides = config.zero.overrides
    zero_section = overrides.get("zero_optimization", {})
    if not isinstance(zero_section, Mapping):
        rule = "must be a section of `key: value` lines."
        remedy = "Indent DeepSpeed's keys below it, e.g. `overlap_comm: true`."
        yield Fault("zero.overrides.zero_optimization", None, None, rule, remedy)
        zero_section = {}
    for key, owner in OWNED_KEYS.items():
        outer, _, name = key.rpartition(".")
        section = zero_section if outer else overrides
        if name in section:
            rule = f"the study decides this key, through {owner}."
            remedy = f"Remove it and set {owner}."
            yield Fault(f"zero.overrides.{key}", None, None, rule, remedy)


@_reads("resources.gpus_per_worker", "resources.workers_per_trial")
def _gpus_are_not_shared_within_a_trial(config: StudyConfig) -> Iterator[Fault]:
    gpus = config.resources.gpus_per_worker
    if gpus != "auto" and 0 < gpus < 1 and config.resources.workers_per_trial > 1:
        rule = "workers of one trial cannot share a GPU (NCCL refuses)."
        remedy = "Set it to 1, or `workers_per_trial: 1`."
        yield Fault("resources.gpus_per_worker", None, gpus, rule, remedy)


@_reads("resources.accelerator_type", "resources.gpus_per_worker")
def _accelerator_without_gpus(config: StudyConfig) -> Iterator[Fault]:
    kind = config.resources.accelerator_type
    if kind is not None and config.resources.gpus_per_worker == 0:
        rule = "names GPUs, and `gpus_per_worker` is 0."
        remedy = "Leave it out, or set `gpus_per_worker: auto`."
        yield Fault("resources.accelerator_type", None, kind, rule, remedy)


@_reads("data.validation_size", "data.test_size", "data.validation", "data.test")
def _splits_leave_a_pool(config: StudyConfig) -> Iterator[Fault]:
    data = config.data
    cuts = {
        "test_size": data.test_size if data.test is None else 0,
        "validation_size": data.validation_size if data.validation is None else 0,
    }
    if sum(size for size in cuts.values() if size < 1) >= 1:
        rule = "validation_size and test_size together take the whole training file."
        yield Fault("data.validation_size", None, None, rule, "Their shares must add to below 1.")


@_reads("task", "data.text", "data.prompt", "data.response", "data.messages", "data.label")
def _columns_fit_the_task(config: StudyConfig) -> Iterator[Fault]:
    data = config.data
    given = [n for n in ("text", "prompt", "response", "messages", "label") if getattr(data, n)]
    if config.task == "sequence-classification":
        for name in ("text", "label"):
            if name not in given:
                remedy = f"Add `{name}:` with the name of the {name} column."
                yield Fault(f"data.{name}", None, None, "classification needs it.", remedy)
        for name in given:
            if name not in ("text", "label"):
                remedy = "Remove it; classification reads the columns `text` and `label`."
                yield Fault(f"data.{name}", None, None, "only causal-lm uses it.", remedy)
        return
    if "label" in given:
        remedy = "Remove it, or set `task: sequence-classification`."
        yield Fault("data.label", None, None, "causal-lm has no labels.", remedy)
    forms = [n for n in ("text", "prompt", "messages") if n in given]
    if "response" in given and "prompt" not in given:
        remedy = "Add `prompt:`, or give the column as `text` for loss on all of it."
        yield Fault("data.response", None, None, "a response needs a prompt.", remedy)
        return
    if "prompt" in given and "response" not in given:
        remedy = 'Add e.g. `response: "{output}"`; the loss is on it.'
        yield Fault("data.prompt", None, None, "a prompt needs a response.", remedy)
    if len(forms) != 1:
        found = f"found {' and '.join(forms)}" if forms else "found none"
        rule = f"exactly one of text, prompt with response, or messages is needed, {found}."
        remedy = 'E.g. `prompt: "{question}"` and `response: "{answer}"`.'
        yield Fault("data", None, None, rule, remedy)


@_reads("data.messages", "data.loss_on", "data.chat_date")
def _chat_settings_have_chats(config: StudyConfig) -> Iterator[Fault]:
    data = config.data
    for name in ("loss_on", "chat_date"):
        value = getattr(data, name)
        if data.messages is None and value != type(data).model_fields[name].default:
            remedy = "Remove it, or name the column of chat messages as `messages`."
            yield Fault(f"data.{name}", None, value, "has no effect without `messages`.", remedy)
    if data.chat_date is not None:
        try:
            datetime.date.fromisoformat(data.chat_date)
        except ValueError:
            remedy = "Write it as `2026-01-31`."
            yield Fault("data.chat_date", None, data.chat_date, "is no date.", remedy)


@_reads("data.prompt")
def _prompt_is_a_template(config: StudyConfig) -> Iterator[Fault]:
    yield from _template_faults("data.prompt", config.data.prompt)


@_reads("data.response")
def _response_is_a_template(config: StudyConfig) -> Iterator[Fault]:
    yield from _template_faults("data.response", config.data.response)


@_reads("data")
def _columns_are_names(config: StudyConfig) -> Iterator[Fault]:
    for name in ("text", "messages", "label", "retention_text"):
        column = getattr(config.data, name)
        if column and re.fullmatch(r"\{.*\}", column):
            remedy = f"Write `{name}: {column[1:-1]}`."
            if "{" in column[1:-1]:
                remedy = "Name one column; write a text of several ones into the data."
            yield Fault(f"data.{name}", None, column, "a column's name has no braces.", remedy)


def _template_faults(path: str, template: str | None) -> Iterator[Fault]:
    if not template:
        return
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        remedy = "Write columns as {column}; double literal braces: {{ and }}."
        yield Fault(path, None, template, f"not a template: {error}.", remedy)
        return
    fields = [field for _, field, _, _ in parts if field is not None]
    for _, field, spec, conversion in parts:
        if field is not None and (spec or conversion or not _is_column(field)):
            remedy = "Write it as {column}; double literal braces: {{ and }}."
            rule = f"`{{{field}}}` is not a column in braces."
            yield Fault(path, None, template, rule, remedy)
    # A prompt may be the same for all examples; a single word was meant to be a column.
    if not fields and (path.endswith("response") or re.fullmatch(r"\w+", template)):
        remedy = f'Put the column\'s name in braces, e.g. "{{{template.strip()}}}".'
        yield Fault(path, None, template, "the template names no column.", remedy)


def _is_column(field: str) -> bool:
    return bool(field) and not field.isdigit() and not re.search(r"[.\[\]]", field)
