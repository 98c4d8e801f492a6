"""Between a batch's hidden states and the rows of bytes that are kept, one per example.

Whatever serves a hidden state, or checks that it may be served, goes both ways through here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def rows_of(hidden: Tensor, lengths: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """(bytes,) uint8 for each example of a batch: its hidden states without the padding.

    Args:
        hidden: (batch, tokens, hidden).
        lengths: (batch,) tokens of each example, which stand on the left.
    """
    whole = hidden.to("cpu").contiguous().view(torch.uint8).numpy()
    return [row[:length].reshape(-1) for row, length in zip(whole, lengths, strict=True)]


def padded_hidden(
    rows: Sequence[np.ndarray], tokens: int, token_bytes: int, dtype: torch.dtype
) -> Tensor:
    """(batch, tokens, hidden) on the CPU: what `rows_of` cut, with zeros for padding.

    Args:
        tokens: of the batch's longest example.
        token_bytes: of one token's hidden state.
    """
    hidden = np.zeros((len(rows), tokens, token_bytes), dtype=np.uint8)
    for place, row in enumerate(rows):
        hidden[place, : len(row) // token_bytes] = row.reshape(-1, token_bytes)
    return torch.from_numpy(hidden).view(dtype)
