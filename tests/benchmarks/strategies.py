"""Whole trials side by side: full fine-tuning, LIFT in 4, 8 and 16 groups, Hugging Face Trainer.

LIFT runs three times per number of groups: with its frozen prefix recomputed in every step, with
an empty prefix cache, and with the cache that this trial left. Every figure comes from one run of
this script; the last column divides by full's. `--device cuda` wants a larger model, such as
`--hidden 2048 --layers 16 --vocabulary 32000 --tokens 512 --batch 16`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from study.config.load import StudyConfig
from study.protocol.records import DataSummary, Stage, TrialOutcome, TrialSpec
from study.training.data.batches import TrainBatches, collate, subset_indices
from study.training.data.tokenised import StudyData, TokenisedSplit
from study.training.engine.ops import prepare_deepspeed
from study.training.engine.zero import deepspeed_config
from study.training.loop import run_trial
from study.training.model.base_model import BaseModel
from study.training.placement import Placement

PEAK_LEARNING_RATE = 1e-5
_COLUMNS = (
    f"{'':<26}{'tokens/s':>10}{'seconds':>9}{'train':>8}{'switch':>8}{'state MiB':>11}"
    f"{'peak MiB':>10}{'x full':>8}"
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=128, help="per example")
    parser.add_argument("--batch", type=int, default=8, help="examples per step")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--validation", type=int, default=16, help="examples")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=3)
    parser.add_argument("--stage", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="keep the fastest of so many")
    parser.add_argument("--no-trainer", action="store_true", help="leave Hugging Face out")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def make_split(examples: int, options: argparse.Namespace, seed: int) -> TokenisedSplit:
    """Equally long random examples: padding is another benchmark's business."""
    generator = np.random.default_rng(seed)
    total = examples * options.tokens
    tokens = generator.integers(3, options.vocabulary, total).astype(np.int32)
    offsets = np.arange(0, total + 1, options.tokens)
    return TokenisedSplit(tokens, offsets, np.ones(examples, np.int32), None, options.tokens)


def make_data(options: argparse.Namespace) -> StudyData:
    pool = make_split(options.examples, options, 0)
    validation = make_split(options.validation, options, 1)
    counts = (options.examples, options.validation, options.validation, 0, 0, 0, 0)
    summary = DataSummary("benchmark", *counts, float(options.tokens), options.tokens - 1.0)
    return StudyData(pool, validation, validation, None, summary, 0, None)


def make_model(options: argparse.Namespace, folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=options.vocabulary, hidden_size=options.hidden,
        num_hidden_layers=options.layers, intermediate_size=int(2.75 * options.hidden),
        num_attention_heads=max(1, options.hidden // 64), max_position_embeddings=options.tokens,
        tie_word_embeddings=False,
    )  # fmt: skip
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)


def make_config(options: argparse.Namespace, folder: Path, cache: Path | None) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "benchmark",
            "model": {"path": str(folder / "model")},
            "data": {"train": "unused"},
            "dataset_sizes": [options.examples],
            "arms": ["full", "lift"],
            "training": {
                "global_batch_size": options.batch,
                "micro_batch_size_per_worker": options.batch,
                "sequence_length": options.tokens,
                "evaluations": options.evaluations,
            },
            "zero": {"stage": options.stage},
            "prefix_cache": {
                "enabled": False if cache is None else "auto",
                "folder": None if cache is None else str(cache),
                "min_free_gib": 1,
            },
        }
    )


def make_spec(options: argparse.Namespace, arm: str, groups: int) -> TrialSpec:
    steps = options.epochs * options.examples // options.batch
    evaluations = options.evaluations
    hyperparameters = {
        "learning_rate": PEAK_LEARNING_RATE, "warmup_ratio": 0.1, "max_grad_norm": 1.0,
    }  # fmt: skip
    if arm == "lift":
        hyperparameters["group_size"] = -(-options.layers // groups)
    return TrialSpec(
        trial_id=f"{arm}-{groups}", arm=arm, size=options.examples, replicate=0,
        stage=Stage.SEARCH, index=0, seed=1, subset_seed=2, order_seed=3, steps=steps,
        evaluation_steps=tuple(round(steps * i / evaluations) for i in range(1, evaluations + 1)),
        hyperparameters=hyperparameters,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Figures:
    """One trial. Seconds are wall seconds, bytes the largest over its phases."""

    tokens_per_second: float
    seconds: float
    train_seconds: float
    switch_seconds: float
    state_bytes: int
    peak_bytes: int
    hit_share: float | None

    @classmethod
    def of(cls, outcome: TrialOutcome, tokens: int) -> Figures:
        use = outcome.prefix_cache
        looked_up = use.hits + use.misses if use else 0
        return cls(
            tokens / outcome.device_seconds,
            outcome.device_seconds,
            outcome.train_seconds,
            sum(p.switch_seconds for p in outcome.phases),
            max(p.state_bytes for p in outcome.phases),
            max(p.peak_memory_bytes for p in outcome.phases),
            use.hits / looked_up if use and looked_up else None,
        )

    def line(self, name: str, full: Figures) -> str:
        hits = "" if self.hit_share is None else f"  {self.hit_share:.0%} read"
        return (
            f"{name:<26}{self.tokens_per_second:>10.0f}{self.seconds:>9.2f}"
            f"{self.train_seconds:>8.2f}{self.switch_seconds:>8.2f}"
            f"{self.state_bytes / 2**20:>11.1f}{self.peak_bytes / 2**20:>10.0f}"
            f"{self.tokens_per_second / full.tokens_per_second:>8.2f}{hits}"
        )


def run_all(
    options: argparse.Namespace, folder: Path, device: torch.device
) -> tuple[dict[str, Figures], float | None]:
    """Each kind's fastest trial, and the fastest seconds of Hugging Face Trainer's steps: other
    programs only ever make one slower."""
    data, placement = make_data(options), Placement(device, 0, 1)
    # As a worker keeps it from trial to trial.
    base = BaseModel(make_config(options, folder, None), 0, placement, keep=True)
    tokens = options.epochs * options.examples * options.tokens

    def trial(arm: str, groups: int, cache: Path | None) -> Figures:
        config = make_config(options, folder, cache)
        spec = make_spec(options, arm, groups)
        outcome = run_trial(config, spec, data, placement, lambda _: None, base_model=base)
        if outcome.status != "finished":
            raise SystemExit(f"{arm}: {outcome.status} {outcome.reason}")
        return Figures.of(outcome, tokens)

    trial("full", 1, None)  # the first trial of a process pays for imports and page faults
    found: dict[str, list[Figures]] = {}
    trainer: list[float] = []
    for repeat in range(options.repeats):
        found.setdefault("full", []).append(trial("full", 1, None))
        if not options.no_trainer:
            trainer.append(trainer_seconds(options, folder, device))
        for groups in options.groups:
            cold = folder / f"cache-{groups}-{repeat}"
            for kind, cache in {"recomputed": None, "cold": cold, "warm": cold}.items():
                name = f"LIFT {groups} groups, {kind}"
                found.setdefault(name, []).append(trial("lift", groups, cache))
        print(f"round {repeat + 1} of {options.repeats} done", file=sys.stderr, flush=True)
    best = {name: min(tries, key=lambda f: f.seconds) for name, tries in found.items()}
    print(_COLUMNS)
    for name, figures in best.items():
        print(figures.line(name, best["full"]))
    for groups in options.groups:
        recomputed, cached = 2 * groups / (groups + 1), 3 * groups / (groups + 2)
        print(f"bounds for {groups} groups: recomputed {recomputed:.2f}, cached {cached:.2f}")
    return best, min(trainer, default=None)


def trainer_seconds(options: argparse.Namespace, folder: Path, device: torch.device) -> float:
    """Seconds of Hugging Face Trainer's training steps: same model, batches and DeepSpeed."""
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    data, config = make_data(options), make_config(options, folder, None)
    spec = make_spec(options, "full", 1)
    batches = TrainBatches(
        data.pool, subset_indices(len(data.pool), spec.size, spec.subset_seed), spec.order_seed,
        options.batch, 0, 1, options.batch,
    )  # fmt: skip
    rows = [
        {k: v[0] for k, v in collate(data.pool, [i], 0).items()}
        for step in range(spec.steps)
        for i in batches.example_ids(step)
    ]
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    model.config.use_cache = False
    scalars = sum(p.numel() for p in model.parameters())
    settings = deepspeed_config(
        config.training, config.zero, spec.hyperparameters, 1, options.batch,
        "bf16" if cuda else "fp32", scalars, scalars, device.type,
    )  # fmt: skip

    class Clock(TrainerCallback):
        begun = ended = 0.0

        def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
            self.begun = self.begun or time.perf_counter()

        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            if cuda:
                torch.cuda.synchronize()
            self.ended = time.perf_counter()

    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), deepspeed=settings, use_cpu=not cuda, bf16=cuda,
        per_device_train_batch_size=options.batch, max_steps=spec.steps, save_strategy="no",
        learning_rate=PEAK_LEARNING_RATE, lr_scheduler_type="cosine", warmup_steps=2,
        max_grad_norm=1.0, report_to=[], disable_tqdm=True, logging_strategy="no",
        optim="adamw_torch_fused", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[clock])
    trainer.train()
    return clock.ended - clock.begun


def main() -> None:
    options = parse()
    warnings.simplefilter("ignore", FutureWarning)
    cuda = options.device == "cuda"
    device = torch.device("cuda:0" if cuda else "cpu")
    prepare_deepspeed(device.type)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29517")
    dist.init_process_group("nccl" if cuda else "gloo", rank=0, world_size=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(options, folder / "model")
        best, seconds = run_all(options, folder, device)
        found: dict[str, Any] = {name: dataclasses.asdict(f) for name, f in best.items()}
        if seconds is not None:
            ours = best["full"].train_seconds
            found["Hugging Face Trainer"] = {"train_seconds": seconds}
            print(
                f"training steps alone: full {ours:.2f} s, Hugging Face Trainer {seconds:.2f} s "
                f"({seconds / ours:.2f} times as long)"
            )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
