"""The content of a best configuration, plain values as `study best` writes them."""

from __future__ import annotations

from typing import Any

from study.reuse import formats
from study.reuse.best_file import Best
from study.reuse.formats import Export

PHASES = {
    "full": [{"name": "all parameters", "steps": 200}],
    "lift": [
        {"name": f"group {g} (block {4 - g}), sweep 1", "steps": 50} for g in range(1, 5)
    ],
}  # fmt: skip


def best_content(arm: str = "full", **changes: dict[str, Any] | Any) -> dict[str, Any]:
    """A configuration found at 1,000 examples, on two workers with ZeRO 2.

    Args:
        changes: whole entries; a mapping is merged into the section of its name.
    """
    strategy = {
        "group_size": 1, "groups": None, "order": "top-down", "sweeps": 1, "cumulative": False,
        "always_active": [], "phase_steps": "even", "group_lr_decay": 1.0, "rewarmup_ratio": 0.1,
    }  # fmt: skip
    content: dict[str, Any] = {
        "format": 1,
        "study": {"name": "mine", "seed": 7, "comparison": "tokens", "results": "/results/mine"},
        "arm": arm,
        "dataset_size": 1000,
        "chosen": {
            "trials": [f"{arm}-n1000-r1-s3"],
            "rule": "Picked among 3 replicate winners by the lowest mean validation loss.",
            "interpolated": [],
            "notes": ["The study is unfinished: 30 of 40 trials ended."],
        },
        "hyperparameters": {"learning_rate": 3e-05, "warmup_ratio": 0.05, "max_grad_norm": 0.7},
        "strategy": strategy if arm == "lift" else {},
        "training": {
            "epochs": 3, "steps": None, "min_steps": 100, "global_batch_size": 16,
            "micro_batch_size_per_worker": None, "sequence_length": 256, "precision": "auto",
            "optimizer": "adamw", "betas": [0.9, 0.95], "epsilon": 1e-08, "momentum": 0.9,
            "weight_decay": 0.01, "schedule": "cosine", "evaluations": 5, "patience": None,
            "checkpoint_share": 0.03,
        },
        "run": {
            "steps": 200, "epochs": 3.2, "evaluation_steps": [40, 80, 120, 160, 200],
            "best_step": 160, "phases": PHASES[arm],
        },
        "seeds": {"trial": 11, "subset": 12, "order": 13, "confirm": [14, 15]},
        "scores": {
            "search_validation_loss": 1.51, "confirm_validation_loss": 1.53,
            "confirm_validation_loss_interval": [1.5, 1.56], "test_loss": 1.6,
            "test_loss_interval": [1.55, 1.65], "retention_rise": None,
        },
        "winners": [],
        "model": {
            "path": "/models/base", "revision": None, "tokenizer": None, "attention": "sdpa",
            "gradient_checkpointing": False, "dropout": None, "trust_remote_code": False,
            "fingerprint": "aaaa1111", "parameters": 1000, "num_blocks": 4, "tied": False,
        },
        "task": "causal-lm",
        "data": {
            "train": "/data/train.jsonl", "validation": None, "test": None, "validation_size": 0.1,
            "test_size": 0.1, "subset": None, "text": None, "prompt": "Q: {question}\n",
            "response": "{answer}", "messages": None, "label": None, "fingerprint": "bbbb2222",
            "label_names": [],
        },
        "zero": {"stage": 2, "offload_optimizer": "none", "offload_parameters": "none",
                 "overrides": {}},
        "resources": {"workers_per_trial": 2},
        "prefix_cache": {"enabled": "auto"},
        "deepspeed": {
            "train_batch_size": 16,
            "train_micro_batch_size_per_gpu": 8,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 0.7,
            "bf16": {"enabled": False},
            "zero_optimization": {
                "stage": 2, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000,
                "contiguous_gradients": True, "overlap_comm": False,
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": None,
            "wall_clock_breakdown": False,
        },
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
    }  # fmt: skip
    for name, value in changes.items():
        merge = isinstance(value, dict) and isinstance(content.get(name), dict)
        content[name] = {**content[name], **value} if merge else value
    return content


def export(content: dict[str, Any], format: str) -> Export:
    """Plain values in a tool's terms."""
    return formats.export(Best.read(content), format)
