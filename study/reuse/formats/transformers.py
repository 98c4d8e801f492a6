"""`transformers.TrainingArguments`, as `HfArgumentParser.parse_yaml_file` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from study.errors import UserError
from study.reuse.formats.base import Export, Run, comments
from study.reuse.formats.provenance import provenance
from study.reuse.formats.trainer import deepspeed_section, training_arguments, training_notes


def to_transformers(content: Mapping[str, Any]) -> Export:
    """Arguments for a script around `Trainer`.

    Raises:
        UserError: LIFT, which Trainer cannot express.
    """
    run = Run(content)
    if run.arm == "lift":
        raise UserError(
            "--format transformers: Trainer trains one set of parameters from the first step to "
            "the last and has no option to train groups of layers in turn, so it cannot express "
            "LIFT. Use --format study (with `study train`), llamafactory or deepspeed, or "
            "--arm full."
        )
    deepspeed = deepspeed_section(run)
    settings = {
        "output_dir": f"{content['study']['name']}-{run.arm}",
        "do_train": True,
        "do_eval": True,
        **training_arguments(run),
        "average_tokens_across_devices": True,
        "report_to": "none",
        **({"deepspeed": deepspeed} if deepspeed else {}),
    }
    notes = [*training_notes(run), *_notes(run, deepspeed is not None)]
    head = [
        *provenance(content),
        "For transformers: HfArgumentParser(TrainingArguments).parse_yaml_file(THIS FILE).",
        *notes,
    ]
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
    return Export(comments(head) + body, "training_arguments.yaml", notes=tuple(notes))


def _notes(run: Run, deepspeed: bool) -> list[str]:
    model = run.section("model")
    auto = "AutoModelForSequenceClassification" if run.classifies else "AutoModelForCausalLM"
    options = [repr(str(model["path"]))]
    if model.get("revision"):
        options.append(f"revision={model['revision']!r}")
    options.append(f"attn_implementation={model.get('attention', 'sdpa')!r}")
    options.append(f"dtype={'bfloat16' if deepspeed and run.bf16 else 'float32'!r}")
    if model.get("trust_remote_code"):
        options.append("trust_remote_code=True")
    notes = [
        f"Model, data and their length are not among these arguments: load the model with "
        f"{auto}.from_pretrained({', '.join(options)}).",
        f"Cut examples to {run.training['sequence_length']} tokens, pad on the right, and give "
        + (
            "each its class as `labels`."
            if run.classifies
            else "`labels` with -100 where there is no loss (DataCollatorForSeq2Seq does)."
        ),
    ]
    if model.get("dropout") is not None:
        notes.append(f"Set every dropout of the model's configuration to {model['dropout']}.")
    if run.training.get("optimizer") == "sgd":
        notes.append("optim_args holds SGD's momentum, which needs transformers 5 or later.")
    if deepspeed:
        notes.append(
            "Its `deepspeed` section wants a launcher, also for one device: torchrun or deepspeed; "
            "without the section it trains without ZeRO."
        )
    if run.bf16 and not deepspeed:
        notes.append("bf16 is autocast over fp32 weights; the study keeps bf16 and fp32 weights.")
    return notes
