"""Measure a base model on the demo's texts: packed source code and task responses."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from study.cli.examples.demo.text import TaskExample, stdlib_modules, task_examples

SEQUENCE_TOKENS = 256
MEASURED_AT_ONCE = 16
MEASURED_TASK_EXAMPLES = 500


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[torch.Tensor]:
    """Each text as bos, its tokens, eos."""
    encoded = tokenizer(texts, verbose=False)["input_ids"]
    return [torch.tensor([*ids, tokenizer.eos_token_id]) for ids in encoded]


def packed_sequences(documents: list[torch.Tensor], bos: int, offset: int = 0) -> torch.Tensor:
    """Documents end to end, cut into sequences that each start with bos.

    Bos at every cut teaches the model that text may begin anywhere in a module, which is how
    the fine-tuning and the retention examples present it.
    """
    stream = torch.cat(documents)[offset:]
    width = SEQUENCE_TOKENS - 1
    rows = stream[: len(stream) // width * width].view(-1, width)
    return torch.cat([torch.full((len(rows), 1), bos), rows], dim=1)


def next_token_loss(model: LlamaForCausalLM, sequences: torch.Tensor) -> torch.Tensor:
    """Mean loss over all next tokens, in nats per token."""
    logits = model(input_ids=sequences, use_cache=False).logits
    predicted = logits[:, :-1].float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(predicted, sequences[:, 1:].flatten())


@torch.no_grad()
def packed_loss(model: LlamaForCausalLM, sequences: torch.Tensor) -> float:
    """Mean loss over equally long sequences, in nats per token."""
    model.eval()
    total = sum(
        float(next_token_loss(model, batch)) * len(batch)
        for batch in sequences.split(MEASURED_AT_ONCE)
    )
    return total / len(sequences)


def evenly_spaced(sequences: torch.Tensor, count: int) -> torch.Tensor:
    """At most `count` sequences from all over the text."""
    return sequences[:: -(-len(sequences) // count)]


@torch.no_grad()
def response_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, examples: list[TaskExample]
) -> float:
    """Mean loss per response token (with eos), given bos and the prompt, in nats per token."""
    model.eval()
    total, count = 0.0, 0
    for example in examples:
        prompt = tokenizer(example["prompt"])["input_ids"]
        response = tokenizer(example["response"], add_special_tokens=False)["input_ids"]
        response = [*response, tokenizer.eos_token_id]
        tokens = torch.tensor([prompt + response])
        logits = model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 : -1]
        losses = torch.nn.functional.cross_entropy(
            logits.float(), tokens[0, len(prompt) :], reduction="sum"
        )
        total += float(losses)
        count += len(response)
    return total / count


def held_out_sequences(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """The held-out modules, packed."""
    texts = [source for _, source in stdlib_modules("held-out")]
    return packed_sequences(encode_documents(tokenizer, texts), tokenizer.bos_token_id)


def print_evaluation(folder: Path) -> None:
    """Measure a saved model, once in fp32 arithmetic and once with bf16 weights throughout."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sequences = held_out_sequences(tokenizer)
    examples = task_examples()[:MEASURED_TASK_EXAMPLES]
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        print(
            f"saved weights in {dtype}: held-out {packed_loss(model, sequences):.4f}"
            f" ({sequences.numel()} tokens), task responses"
            f" {response_loss(model, tokenizer, examples):.4f} nats/token",
            flush=True,
        )
