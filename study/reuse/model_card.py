"""The card of a model that a final run has trained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from study.basics.text_format import metric_title, percent, short_count
from study.basics.text_safety import printable
from study.protocol.records import base_name
from study.protocol.words import ANSWERS
from study.reuse.recipe import FinalRun, Recipe
from study.strategies import STRATEGIES, arm_noun

_TASKS = {
    "causal-lm": ("text-generation", "Text generation"),
    "sequence-classification": ("text-classification", "Text classification"),
}


def model_card(recipe: Recipe, run: FinalRun) -> str:
    """README.md of the model folder: what it is, how it was trained, how well it does, and why so;
    its YAML header has the Hub's metadata with a ``model-index``."""
    task, _ = _TASKS[run.config.task]
    name = f"{recipe.best.study.name}-{run.spec.arm}"
    data = ModelCardData(
        base_model=_base_model(run.config.model.path),
        base_model_relation="finetune",
        library_name="transformers",
        pipeline_tag=task,
        tags=["finetune-study", arm_noun(run.spec.arm).lower().replace(" ", "-")],
        model_name=name,
        eval_results=_results(recipe, run),
    )
    # Its own `__str__` also normalises line breaks; the text below has none to normalise.
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(name, recipe, run)}"))


def record(recipe: Recipe, run: FinalRun) -> str:
    """``study_training.json`` of the model folder: the card's facts for programs."""
    outcome = run.outcome.to_dict()
    outcome.pop("test_losses")  # one per test example
    return json.dumps(
        {
            "best_configuration": recipe.best.to_dict(),
            "spec": run.spec.to_dict(),
            "measurements": [m.to_dict() for m in run.measurements],
            "outcome": outcome,
            "base": {
                "validation_loss": run.base.validation_loss,
                "test_loss": run.base.test_loss,
                "retention_loss": run.base.retention_loss,
            },
            "data": run.data.to_dict(),
            "model_parameters": run.model_parameters,
            "device": run.device,
        },
        indent=1,
    )


def _results(recipe: Recipe, run: FinalRun) -> list[EvalResult]:
    task, task_name = _TASKS[run.config.task]
    found = {"loss": ("Test loss (nats)", run.outcome.test_loss)}
    # The Hub has F1 as a metric; which mean of it is in the name.
    names = {"macro_f1": "f1"}
    found |= {
        names.get(k, k): (f"Test {metric_title(k)}", v) for k, v in run.outcome.test_metrics.items()
    }
    return [
        EvalResult(
            task_type=task,
            task_name=task_name,
            dataset_type="custom",
            dataset_name=f"the test split of study {recipe.best.study.name}",
            metric_type=kind,
            metric_name=title,
            metric_value=round(value, 6),
        )
        for kind, (title, value) in found.items()
        if value is not None
    ]


def _body(name: str, recipe: Recipe, run: FinalRun) -> str:
    outcome, base, spec = run.outcome, run.base, run.spec
    bf16 = outcome.deepspeed_config.get("bf16") or {}
    precision = "bf16" if bf16.get("enabled") else "fp32"
    method = STRATEGIES[spec.arm].method
    lines = [
        f"# {_plain(name)}",
        "",
        f"`{_plain(_base_name(run))}` ({short_count(run.model_parameters)} parameters) after "
        f"{method} on {spec.size:,} examples, with the best configuration of a hyperparameter "
        "study.",
        "",
        "## How to use",
        "",
        *_usage(run),
        "",
        "## Losses",
        "",
        "Nats per target token, or per example for a classifier, at the evaluation with the lowest "
        f"validation loss (step {outcome.best_step} of {spec.steps}). No choice ever saw the test "
        "split.",
        "",
        f"| split | this model | {base_name(run.config.task, base)} |",
        "|---|---|---|",
        _row("validation", outcome.score, base.validation_loss),
        _row("test", outcome.test_loss, base.test_loss),
    ]
    if outcome.retention_loss is not None:
        lines.append(_row("general text", outcome.retention_loss, base.retention_loss))
    metrics = {metric_title(k): v for k, v in outcome.test_metrics.items()}
    lines += [f"| test, {title} | {v:.4f} | |" for title, v in metrics.items()]
    lines += ["", "## Why this configuration", "", *_why(recipe, run), "", "## Training", ""]
    lines += _table(
        {
            "training examples": f"{spec.size:,} of {run.data.pool:,}",
            "optimizer steps": f"{spec.steps:,}",
            "global batch": run.config.training.global_batch_size,
            "precision, workers": f"{precision}, {run.config.resources.workers_per_trial}",
            **spec.hyperparameters,
            **getattr(run.config.arms, spec.arm).model_dump(),
            "seed": spec.seed,
            "data fingerprint": run.data.fingerprint,
            "device-hours": f"{outcome.device_seconds / 3600:.3f} ({run.device})",
        }
    )
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in outcome.versions.items()) + "."]
    lines += [f"- {_plain(note)}" for note in outcome.notes]
    settings = yaml.safe_dump(run.config.training.model_dump(mode="json"), sort_keys=False)
    lines += ["", *_fenced("yaml", ["training:", *(f"  {x}" for x in settings.splitlines())]), ""]
    return printable("\n".join(lines))


def _why(recipe: Recipe, run: FinalRun) -> list[str]:
    best = recipe.best
    said = [best.chosen.rule, *best.chosen.notes]
    lines = [
        f"Chosen for {recipe.dataset_size:,} examples by study {_plain(best.study.name)} "
        f"(basis: {best.study.comparison}). {_plain(' '.join(said))}".rstrip()
    ]
    if best.verdict:
        lines += ["", _verdict(best.verdict)]
    expected = best.scores.get("test_loss")
    if expected is not None:
        lines += ["", f"The study's own runs of it had a mean test loss of {expected:.4f}."]
    if run.data.fingerprint != best.data.fingerprint:
        lines += ["", "The data are not those of the study: its figures are about other data."]
    return lines


def _verdict(verdict: Mapping[str, Any]) -> str:
    arm, confidence = verdict.get("arm"), verdict.get("confidence")
    said = ANSWERS[verdict["answer"]].short.format(rho=verdict["rho"])
    told = f"{arm}, {said}" if arm else said
    sure = "" if confidence is None else f" (confidence {percent(confidence)})"
    return f"Verdict at {verdict['dataset_size']:,} examples: {told}{sure}."


def _base_name(run: FinalRun) -> str:
    """A hub id, or the last part of a folder."""
    return _last_part(run.config.model.path)


def _last_part(path: str) -> str:
    return PurePath(path).name if path.startswith(("/", ".", "~")) else path


def _base_model(path: str) -> str | None:
    """The base model for the card's header, where only a hub id, or a name like one, may stand.

    Of a folder: the id that it has in the Hub's cache, or that its configuration remembers, else
    its own name, which is all that a reader elsewhere can use of it.
    """
    if path == _last_part(path):
        return path
    cached = re.search(r"/models--([^/]+?)(?:--([^/]+))?/snapshots/", path)
    if cached:
        return "/".join(part for part in cached.groups() if part)
    known = None
    with suppress(OSError, ValueError):
        settings = json.loads((Path(path).expanduser() / "config.json").read_text("utf-8"))
        known = settings.get("_name_or_path")
    for name in (known, _last_part(path)):
        with suppress(HFValidationError):
            if isinstance(name, str) and name:
                validate_repo_id(name)
                return name
    return None


def _usage(run: FinalRun) -> list[str]:
    """Python that loads the model and asks it something."""
    config = run.config
    classifies = config.task != "causal-lm"
    auto = "AutoModelForSequenceClassification" if classifies else "AutoModelForCausalLM"
    more = ", trust_remote_code=True" if config.model.trust_remote_code else ""
    data = config.data
    code = [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        'place = "."  # this folder, or where it is, such as its id on the Hub',
        f"tokenizer = AutoTokenizer.from_pretrained(place{more})",
        f"model = {auto}.from_pretrained(place{more})",
    ]
    if classifies:
        code += [
            f'text = "..."  # what was in the column {data.text!r}',
            'inputs = tokenizer(text, return_tensors="pt", truncation=True, '
            f"max_length={config.training.sequence_length})",
            "chances = model(**inputs).logits[0].softmax(-1).tolist()",
            "print({model.config.id2label[k]: chance for k, chance in enumerate(chances)})",
        ]
        return _fenced("python", code)
    if data.messages is not None:
        code += [
            'messages = [{"role": "user", "content": "..."}]',
            "inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, "
            'return_dict=True, return_tensors="pt")',
        ]
    else:
        prompt = "..." if data.prompt is None else data.prompt
        about = "" if data.prompt is None else "  # as in training: put your own in for the names"
        code += [f"prompt = {prompt!r}{about}", 'inputs = tokenizer(prompt, return_tensors="pt")']
    code += [
        "output = model.generate(**inputs, max_new_tokens=100)",
        'answer = output[0, inputs["input_ids"].shape[1] :]',
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ]
    return _fenced("python", code)


def _fenced(language: str, lines: Sequence[str]) -> list[str]:
    """A code block that nothing in it can end."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *lines, fence]


def _row(name: str, value: float | None, base: float | None) -> str:
    shown = ["" if x is None else f"{x:.4f}" for x in (value, base)]
    return f"| {name} | {shown[0]} | {shown[1]} |"


def _table(facts: Mapping[str, Any]) -> list[str]:
    rows = [f"| {name} | {_plain(str(value))} |" for name, value in facts.items()]
    return ["| | |", "|---|---|", *rows]


def _plain(text: str) -> str:
    """Text that neither Markdown nor HTML takes for its own."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.replace("|", "\\|").replace("`", "'").split())
