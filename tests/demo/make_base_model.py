"""Train the demo's base model from scratch on the standard library's source.

    python -m tests.demo.make_base_model --minutes 40 --output DIR --threads 1 --seed 0

The learning rate is warmed up, held, and decayed linearly to zero over the last part of the
minutes (warmup-stable-decay); the decay begins early when the held-out loss has stalled or on
Ctrl-C, so the saved weights are always those of a finished schedule. Minutes are CPU time per
thread: on a busy machine the run takes longer but trains as much. Everything but where this
clock ends a phase is fixed by the seed. `--evaluate-only` measures the model DIR already holds.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from study.cli.examples.demo.text import stdlib_modules
from tests.demo.measure import (
    SEQUENCE_TOKENS,
    encode_documents,
    evenly_spaced,
    held_out_sequences,
    next_token_loss,
    packed_loss,
    packed_sequences,
    print_evaluation,
)

VOCABULARY_SIZE = 2048
PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
BATCH_SEQUENCES = 8

PEAK_LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
DECAY_FRACTION = 0.3
WEIGHT_DECAY = 0.1
EVALUATION_SECONDS = 60.0
# Sequences of the running held-out measurement; the final one takes all of them.
EVALUATION_SEQUENCES = 64
# Measurements without a new best before the decay begins early.
STALLED_MEASUREMENTS = 8


# --- tokenizer and batches -------------------------------------------------------------------


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, which encodes any text and, like Llama's, prefixes bos."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def training_batches(
    documents: list[torch.Tensor], bos: int, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Batches without end; every epoch cuts the reshuffled documents at other places."""
    while True:
        order = torch.randperm(len(documents), generator=generator).tolist()
        offset = int(torch.randint(SEQUENCE_TOKENS, (1,), generator=generator))
        sequences = packed_sequences([documents[index] for index in order], bos, offset)
        rows = torch.randperm(len(sequences), generator=generator)
        for chosen in rows.split(BATCH_SEQUENCES):
            yield sequences[chosen]


# --- training --------------------------------------------------------------------------------


def new_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """An untrained Llama small enough to be shipped with the source."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=352,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def new_optimizer(model: LlamaForCausalLM) -> torch.optim.AdamW:
    """AdamW that decays matrices but neither embeddings nor normalisation gains."""
    decayed: list[torch.nn.Parameter] = []
    kept: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed_tokens" not in name
        (decayed if is_matrix else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95))


def training_clock() -> float:
    """CPU seconds of this process per thread."""
    return time.process_time() / torch.get_num_threads()


@dataclass
class Schedule:
    """Warmup-stable-decay by the clock: the share of the peak learning rate at each moment."""

    seconds: float
    decay_start: float

    @classmethod
    def of_budget(cls, seconds: float) -> Schedule:
        return cls(seconds, seconds * (1 - DECAY_FRACTION))

    def decay_from(self, elapsed: float) -> None:
        """Decay from now, in proportion to the time trained so far."""
        if elapsed < self.decay_start:
            self.decay_start = elapsed
            self.seconds = min(self.seconds, elapsed / (1 - DECAY_FRACTION))

    def factor(self, step: int, elapsed: float) -> float:
        warmup = min(1.0, (step + 1) / WARMUP_STEPS)
        decay = (self.seconds - elapsed) / (self.seconds - self.decay_start)
        return warmup * max(0.0, min(1.0, decay))


def train(
    model: LlamaForCausalLM,
    batches: Iterator[torch.Tensor],
    held_out: torch.Tensor,
    seconds: float,
    use_bf16: bool,
) -> None:
    """Train for the given time, printing the held-out loss once a minute."""
    optimizer = new_optimizer(model)
    schedule = Schedule.of_budget(seconds)
    started = training_clock()
    signal.signal(signal.SIGINT, lambda *_: schedule.decay_from(training_clock() - started))
    next_evaluation, best, stalled = 0.0, float("inf"), 0
    for step, batch in enumerate(batches):
        elapsed = training_clock() - started
        factor = schedule.factor(step, elapsed)
        if elapsed >= next_evaluation or elapsed >= schedule.seconds:
            loss = packed_loss(model, held_out)
            print(
                f"{elapsed / 60:6.2f} min  step {step:6d}  rate {factor * PEAK_LEARNING_RATE:.2e}"
                f"  held-out {loss:.4f} nats/token",
                flush=True,
            )
            stalled = 0 if loss < best else stalled + 1
            best = min(best, loss)
            next_evaluation = elapsed + EVALUATION_SECONDS
            if stalled >= STALLED_MEASUREMENTS:
                schedule.decay_from(elapsed)
        if elapsed >= schedule.seconds:
            return
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LEARNING_RATE * factor
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_bf16):
            batch_loss = next_token_loss(model, batch)
        batch_loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def make_base_model(minutes: float, output: Path, seed: int, use_bf16: bool) -> None:
    """Train tokenizer and model and save both, the weights rounded to bf16."""
    random.seed(seed)
    torch.manual_seed(seed)
    texts = [source for _, source in stdlib_modules("train")]
    tokenizer = train_tokenizer(texts)
    documents = encode_documents(tokenizer, texts)
    held_out = held_out_sequences(tokenizer)
    model = new_model(tokenizer)
    # At this size eager attention trains a fifth faster on a CPU than the fused kernel.
    model.set_attn_implementation("eager")
    print(
        f"{sum(len(text) for text in texts)} characters, {sum(map(len, documents))} tokens,"
        f" {model.num_parameters()} parameters, bf16 autocast: {use_bf16}",
        flush=True,
    )
    generator = torch.Generator().manual_seed(seed)
    batches = training_batches(documents, tokenizer.bos_token_id, generator)
    few = evenly_spaced(held_out, EVALUATION_SEQUENCES)
    train(model, batches, few, minutes * 60, use_bf16)
    print(f"before rounding: held-out {packed_loss(model, held_out):.4f} nats/token", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fp32", action="store_true", help="do without bf16 autocast")
    parser.add_argument("--evaluate-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.evaluate_only:
        make_base_model(
            arguments.minutes, arguments.output, arguments.seed, use_bf16=not arguments.fp32
        )
    print_evaluation(arguments.output)


if __name__ == "__main__":
    main()
