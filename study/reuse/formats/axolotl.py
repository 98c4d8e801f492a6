"""axolotl's YAML."""

from __future__ import annotations

import math
from typing import Any

import yaml

from study.reuse.best_file import Best
from study.reuse.formats.base import CannotExpressError, Export, Run, comments
from study.reuse.formats.provenance import provenance
from study.reuse.formats.sources import (
    RENDERED,
    Source,
    form,
    rendering_note,
    simple_prompt,
    sources,
    split_notes,
)
from study.reuse.formats.trainer import deepspeed_section, training_arguments, training_notes

BESIDE = (
    "axolotl can train a fixed set of layers (unfrozen_parameters) or layers drawn at random "
    "(LISA), but no groups of layers in turn"
)
"""Why there are strategies that it cannot express."""
_RENAMED = {
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
}
_FOREIGN = ("data_seed",)
_FILE = "rendered.jsonl"


def to_axolotl(best: Best) -> Export:
    """What `axolotl train` reads.

    Raises:
        CannotExpressError: a classification task.
    """
    run = Run(best)
    _refuse(run)
    model = run.best.model
    train, notes = _datasets(run, "train")
    validation, _ = _datasets(run, "validation")
    deepspeed = deepspeed_section(run)
    arguments = {
        _RENAMED.get(name, name): value
        for name, value in training_arguments(run).items()
        if name not in _FOREIGN
    }
    examples = best.dataset_size
    settings = {
        "base_model": model.path,
        **({"revision_of_model": model.revision} if model.revision else {}),
        **({"tokenizer_config": model.tokenizer} if model.tokenizer else {}),
        "trust_remote_code": bool(model.trust_remote_code),
        "attn_implementation": model.attention,
        "datasets": train,
        **(
            {"test_datasets": [entry | {"split": "train"} for entry in validation]}
            if validation
            else {"val_set_size": run.best.data.validation_size}
        ),
        "sequence_len": run.training.sequence_length,
        "excess_length_strategy": "truncate",
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "train_on_inputs": False,
        **arguments,
        # max_steps ends the run; a smaller number of epochs would end it before.
        "num_epochs": math.ceil(run.steps * run.global_batch_size / examples),
        "fp16": False,
        "output_dir": f"{best.study.name}-{run.arm}",
        **({"deepspeed": deepspeed} if deepspeed else {}),
    }
    notes = [*training_notes(run), *notes, *split_notes(run), *_notes(run, deepspeed is not None)]
    head = [*provenance(best), "For axolotl: axolotl train THIS FILE.", *notes]
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
    return Export(comments(head) + body, "axolotl.yaml", notes=tuple(notes))


def _refuse(run: Run) -> None:
    if run.classifies:
        raise CannotExpressError(
            "axolotl fine-tunes language models and has no dataset type for sequence "
            "classification."
        )


def _datasets(run: Run, split: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Entries of ``datasets`` or ``test_datasets``, and what to know about them."""
    kind, notes = _prompts(run)
    found = sources(run, split)
    if kind["type"] == "rendered":
        names = [_FILE if split == "train" else f"validation-{_FILE}"] if found else []
        kind = _instruction(*RENDERED)
        return [{"path": name, "ds_type": "json", **kind} for name in names], notes
    return [_source(source) | kind for source in found], notes


def _source(source: Source) -> dict[str, Any]:
    if source.kind is None:
        subset = {"name": source.subset} if source.subset else {}
        return {"path": source.path, "split": "train", **subset}
    return {"path": source.path, "ds_type": source.kind}


def _prompts(run: Run) -> tuple[dict[str, Any], list[str]]:
    data = run.best.data
    if form(run) == "text":
        note = "Texts beyond the sequence length go on in further examples; the study cuts them."
        return {"type": "completion", "field": data.text or "text"}, [note]
    if form(run) == "messages":
        notes = [
            "The loss is on every assistant message; in the study on the last one and the end mark "
            "after it."
        ]
        return {
            "type": "chat_template",
            "field_messages": data.messages,
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
        }, [] if data.loss_on == "all" else notes
    prompt = simple_prompt(run)
    if prompt is None:
        return {"type": "rendered"}, [rendering_note(run, "axolotl", _FILE)]
    keys = dict(zip(prompt.columns, ("instruction", "input"), strict=False))
    text = "".join(
        literal.replace("{", "{{").replace("}", "}}") + (f"{{{keys[name]}}}" if name else "")
        for literal, name in prompt.parts
    )
    columns = [*prompt.columns, prompt.response]
    return _instruction(columns[0], prompt.response, text, *prompt.columns[1:]), []


def _instruction(
    prompt: str, response: str, text: str = "{instruction}", second: str | None = None
) -> dict[str, Any]:
    """A user-defined prompt of axolotl's."""
    return {
        "type": {
            "system_prompt": "",
            "field_instruction": prompt,
            **({"field_input": second} if second else {}),
            "field_output": response,
            "format": text,
            # Where the second column is empty.
            "no_input_format": text.replace("{input}", ""),
        }
    }


def _notes(run: Run, deepspeed: bool) -> list[str]:
    notes = ["Too long examples lose their end; in the study the prompt loses its beginning first."]
    dropout = run.best.model.dropout
    if dropout is not None:
        notes.append(f"Set the model's dropouts to {dropout} with overrides_of_model_config.")
    if run.bf16 and not deepspeed:
        notes.append("bf16 is autocast over fp32 weights; the study keeps bf16 and fp32 weights.")
    return notes
