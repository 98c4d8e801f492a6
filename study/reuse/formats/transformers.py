"""`transformers.TrainingArguments`, as `HfArgumentParser.parse_yaml_file` reads them."""

from __future__ import annotations

import yaml

from study.reuse.best_file import Best
from study.reuse.formats.base import Export, Run, class_notes, comments, loading
from study.reuse.formats.provenance import provenance
from study.reuse.formats.trainer import deepspeed_section, training_arguments, training_notes

BESIDE = (
    "Trainer trains one set of parameters from the first step to the last and has no option to "
    "train groups of layers in turn"
)
"""Why there are strategies that it cannot express."""
_EXACT_LOSS = (
    "Give Trainer compute_loss_func=lambda outputs, labels, num_items_in_batch: "
    "torch.nn.functional.cross_entropy(outputs.logits.float(), labels, reduction='sum') / "
    "num_items_in_batch, which is the study's loss. A classifier's own is the mean over one "
    "forward pass, and Trainer adds those of accumulated passes and of devices up."
)


def to_transformers(best: Best) -> Export:
    """Arguments for a script around `Trainer`."""
    run = Run(best)
    deepspeed = deepspeed_section(run)
    settings = {
        "output_dir": f"{best.study.name}-{run.arm}",
        "do_train": True,
        "do_eval": True,
        **training_arguments(run),
        "average_tokens_across_devices": True,
        "report_to": "none",
        **({"deepspeed": deepspeed} if deepspeed else {}),
    }
    notes = [*training_notes(run), *_notes(run, deepspeed is not None)]
    head = [
        *provenance(best),
        "For transformers: HfArgumentParser(TrainingArguments).parse_yaml_file(THIS FILE).",
        *notes,
    ]
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
    return Export(comments(head) + body, "training_arguments.yaml", notes=tuple(notes))


def _notes(run: Run, deepspeed: bool) -> list[str]:
    model = run.best.model
    dtype = "bfloat16" if deepspeed and run.bf16 else "float32"
    notes = [
        "Model, data and their length are not among these arguments: load the model with "
        f"{loading(run, dtype)}.",
        f"Cut examples to {run.training.sequence_length} tokens, pad on the right, and give "
        + (
            "each its class as `labels`."
            if run.classifies
            else "`labels` with -100 where there is no loss (DataCollatorForSeq2Seq does)."
        ),
    ]
    if run.classifies:
        notes += [*class_notes(run), _EXACT_LOSS]
    if model.dropout is not None:
        notes.append(f"Set every dropout of the model's configuration to {model.dropout}.")
    if run.training.optimizer == "sgd":
        notes.append("optim_args holds SGD's momentum, which needs transformers 5 or later.")
    if deepspeed:
        notes.append(
            "Its `deepspeed` section wants a launcher, also for one device: torchrun or deepspeed; "
            "without the section it trains without ZeRO."
        )
    if run.bf16 and not deepspeed:
        notes.append("bf16 is autocast over fp32 weights; the study keeps bf16 and fp32 weights.")
    return notes
