"""What a saved model loses, with nothing of the program's."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from study.training.data.tokenised import TokenisedSplit


@torch.no_grad()
def plain_loss(folder: Path, split: TokenisedSplit) -> float:
    """Mean loss per target token of the saved model, with nothing of the program's."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    total = count = 0.0
    for index in range(len(split)):
        ids = torch.tensor(split.input_ids(index)[None].astype("int64"))
        first = int(split.targets[index])
        logits, labels = model(input_ids=ids).logits[0, first - 1 : -1], ids[0, first:]
        total += float(torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))
        count += len(labels)
    return total / count
