"""LLaMA-Factory's YAML for `llamafactory-cli train`, with its dataset_info.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from study.reuse.best_file import Best
from study.reuse.formats.badam import badam_arguments, badam_notes, badam_run, zero_3
from study.reuse.formats.base import CannotExpressError, Export, Run, comments
from study.reuse.formats.provenance import provenance
from study.reuse.formats.sources import RENDERED, form, rendering_note, sources, split_notes
from study.reuse.formats.trainer import deepspeed_section, training_arguments, training_notes
from study.strategies import trains_all

BESIDE = (
    "LLaMA-Factory trains all parameters or, with BAdam, one layer after another, all for equally "
    "many steps"
)
"""Why there are strategies that it cannot express."""
_ATTENTION = {"sdpa": "sdpa", "eager": "disabled", "flash_attention_2": "fa2"}
_FILE = "rendered.jsonl"


def to_llamafactory(best: Best) -> Export:
    """What `llamafactory-cli train` reads; LIFT as layer-wise BAdam.

    Raises:
        CannotExpressError: a classification task, or LIFT in a structure that BAdam does not have.
    """
    run = Run(best)
    if run.classifies:
        raise CannotExpressError(
            "LLaMA-Factory fine-tunes language models and has no stage for sequence classification."
        )
    in_turn = not trains_all(run.arm)
    entries, data_notes = _datasets(run)
    trained = badam_run(run) if in_turn else run
    arguments = training_arguments(trained)
    deepspeed = deepspeed_section(run)
    if in_turn:
        arguments |= badam_arguments(run)
        # BAdam knows ZeRO 3 and no other stage.
        deepspeed = deepspeed if zero_3(run) else None
    settings = {
        **_model(run),
        **_stage(run),
        **_data(run, entries),
        **arguments,
        "average_tokens_across_devices": True,
        "output_dir": f"{best.study.name}-{run.arm}",
        "report_to": "none",
        **({"deepspeed": deepspeed} if deepspeed else {}),
    }
    notes = [
        *training_notes(trained),
        *(badam_notes(run) if in_turn else ()),
        *data_notes,
        *split_notes(run),
        *_notes(run, deepspeed is not None),
    ]
    head = [
        *provenance(best),
        "For LLaMA-Factory: llamafactory-cli train THIS FILE, with dataset_info.json in the folder "
        "where that runs.",
        *notes,
    ]
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
    info = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    return Export(
        comments(head) + body, "llamafactory.yaml", {"dataset_info.json": info}, tuple(notes)
    )


def _model(run: Run) -> dict[str, Any]:
    model = run.best.model
    return {
        "model_name_or_path": model.path,
        **({"model_revision": model.revision} if model.revision else {}),
        "trust_remote_code": bool(model.trust_remote_code),
        "flash_attn": _ATTENTION[model.attention],
        "disable_gradient_checkpointing": not model.gradient_checkpointing,
        "use_reentrant_gc": False,
    }


def _stage(run: Run) -> dict[str, Any]:
    return {
        "stage": "pt" if form(run) == "text" else "sft",
        "do_train": True,
        "finetuning_type": "full",
    }


def _data(run: Run, entries: Mapping[str, Any]) -> dict[str, Any]:
    train = [name for name in entries if name.startswith("train")]
    held_out = [name for name in entries if not name.startswith("train")]
    size = run.best.data.validation_size
    kind = form(run)
    all_answers = run.best.data.loss_on == "all"
    return {
        "dataset": ",".join(train),
        **({"eval_dataset": ",".join(held_out)} if held_out else {"val_size": size}),
        "dataset_dir": ".",
        **({} if kind == "messages" else {"template": "empty"}),
        **({"mask_history": True} if kind == "messages" and not all_answers else {}),
        "cutoff_len": run.training.sequence_length,
        "packing": False,
    }


def _datasets(run: Run) -> tuple[dict[str, Any], list[str]]:
    """Entries of dataset_info.json, named train... and validation..., and what to know."""
    form_, notes = _columns(run)
    entries: dict[str, Any] = {}
    for split in ("train", "validation"):
        found = sources(run, split)
        if form(run) == "prompt":
            names = [_FILE if split == "train" else f"validation-{_FILE}"] if found else []
            located: list[dict[str, Any]] = [{"file_name": name} for name in names]
        else:
            located = [
                {"file_name": source.path}
                if source.kind is not None
                else {"hf_hub_url": source.path}
                | ({"subset": source.subset} if source.subset else {})
                for source in found
            ]
        for index, location in enumerate(located):
            name = split if len(located) == 1 else f"{split}_{index + 1}"
            entries[name] = location | form_
    return entries, notes


def _columns(run: Run) -> tuple[dict[str, Any], list[str]]:
    data = run.best.data
    if form(run) == "text":
        return {"columns": {"prompt": data.text or "text"}}, []
    if form(run) == "messages":
        note = (
            "Without `template` LLaMA-Factory takes the tokenizer's chat template apart: look at "
            "the first example that it prints, and name a template of its own if it differs."
        )
        return {
            "formatting": "sharegpt",
            "columns": {"messages": data.messages},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }, [note]
    extra = (
        ", each prompt with the tokenizer's start token before it and each response with its end "
        "token after it, which the template `empty` does not add"
    )
    prompt, response = RENDERED
    note = rendering_note(run, "LLaMA-Factory", _FILE, extra)
    return {"formatting": "alpaca", "columns": {"prompt": prompt, "response": response}}, [note]


def _notes(run: Run, deepspeed: bool) -> list[str]:
    model = run.best.model
    notes = ["Too long prompts lose their end; in the study they lose their beginning."]
    if model.tokenizer:
        notes.append(
            f"LLaMA-Factory reads the tokenizer from the model's folder: put that of "
            f"{model.tokenizer} there."
        )
    if model.dropout is not None:
        notes.append(f"Set every dropout of the model's configuration to {model.dropout}.")
    if run.training.optimizer == "sgd":
        notes.append("optim_args holds SGD's momentum, which needs transformers 5 or later.")
    if deepspeed:
        notes.append("DeepSpeed on one device needs FORCE_TORCHRUN=1 before the command.")
    elif run.bf16 and trains_all(run.arm):
        notes.append("bf16 is autocast over fp32 weights; the study keeps bf16 and fp32 weights.")
    return notes
