"""From texts to token ids, cut to the sequence length."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.training.templates import Example

_BATCH = 1000


@dataclass(frozen=True)
class Encoded:
    """One tokenised example.

    Attributes:
        ids: (tokens,) int32.
        target_start: first position with loss, at least 1; classification: 0.
        truncated: whether tokens were cut.
        empty: whether nothing is left that carries loss.
    """

    ids: np.ndarray
    target_start: int
    truncated: bool
    empty: bool


class Encoder:
    """Tokenises examples for one study.

    Context and target are tokenised apart, so that the loss covers exactly the target's tokens
    and the context looks as it will when the model is used.

    Too long for `sequence_length`: the context loses its beginning (not the start token) but
    keeps half the length if it needs it; then the target loses its end, end token included, so
    that no model is taught to stop in the middle. Raw text and texts to classify lose their end.

    Args:
        tokenizer: a Hugging Face tokenizer.
        sequence_length: most tokens per example.
    """

    def __init__(self, tokenizer: Any, sequence_length: int) -> None:
        self._tokenizer = tokenizer
        self._sequence_length = sequence_length
        self._start = self._start_tokens()
        end = tokenizer.eos_token_id
        self._end = [] if end is None else [int(end)]
        self._anchor = self._anchor_tokens()

    def encode(self, examples: Iterable[Example], add_special_tokens: bool) -> list[Encoded]:
        """Tokenise causal-lm examples."""
        start, end = (self._start, self._end) if add_special_tokens else ([], [])
        encoded = []
        for batch in _batches(examples):
            contexts = self._ids([e.context for e in batch])
            targets = self._ids([e.target for e in batch])
            # A target inside a text must not get the mark of a text's beginning.
            inner = [i for i, e in enumerate(batch) if self._anchor and e.context]
            continued = self._continued([batch[i].target for i in inner])
            for i, ids in zip(inner, continued, strict=True):
                targets[i] = ids
            for example, context, target in zip(batch, contexts, targets, strict=True):
                if example.target.strip():
                    encoded.append(self._joined(start, context, target, end))
                else:
                    encoded.append(Encoded(np.empty(0, np.int32), 1, False, True))
        return encoded

    def encode_texts(self, examples: Iterable[Example]) -> list[Encoded]:
        """Tokenise texts to classify, with the special tokens the tokenizer itself adds."""
        encoded = []
        for batch in _batches(examples):
            texts = [e.target for e in batch]
            for text, ids in zip(texts, self._ids(texts, add_special_tokens=True), strict=True):
                truncated = len(ids) > self._sequence_length
                if truncated:
                    # Not a plain cut: a closing special token stays.
                    ids = self._tokenizer(text, truncation=True, max_length=self._sequence_length)[
                        "input_ids"
                    ]
                encoded.append(Encoded(np.array(ids, np.int32), 0, truncated, not text.strip()))
        return encoded

    def _joined(
        self, start: list[int], context: list[int], target: list[int], end: list[int]
    ) -> Encoded:
        length = self._sequence_length
        target = target + end
        room = max(length - len(target), length // 2) - len(start)
        kept = context[len(context) - room :] if len(context) > room else context
        ids = start + kept + target
        truncated = len(kept) < len(context) or len(ids) > length
        target_start = max(1, len(start) + len(kept))
        return Encoded(
            np.array(ids[:length], np.int32),
            target_start,
            truncated,
            min(len(ids), length) <= target_start,
        )

    def _ids(self, texts: list[str], add_special_tokens: bool = False) -> list[list[int]]:
        if not texts:
            return []
        return self._tokenizer(
            texts,
            add_special_tokens=add_special_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # longer than the model's maximum is what truncation is for
        )["input_ids"]

    def _start_tokens(self) -> list[int]:
        """What the tokenizer puts before a text (its start token, or nothing)."""
        plain, special = self._ids(["a"])[0], self._ids(["a"], add_special_tokens=True)[0]
        for place in range(len(special) - len(plain) + 1):
            if special[place : place + len(plain)] == plain:
                return special[:place]
        return []

    def _anchor_tokens(self) -> list[int]:
        """The tokens of "\\n" if this tokenizer marks a text's beginning (SentencePiece's dummy
        space), else nothing."""
        anchor, anchored = self._ids(["\n", "\na"])
        if not anchor or anchored[: len(anchor)] != anchor:
            return []
        return [] if anchored[len(anchor) :] == self._ids(["a"])[0] else anchor

    def _continued(self, texts: list[str]) -> list[list[int]]:
        """Tokens of texts as they are when something precedes them."""
        anchored = self._ids(["\n" + text for text in texts])
        plain = self._ids(texts)
        size = len(self._anchor)
        return [
            with_anchor[size:] if with_anchor[:size] == self._anchor else without
            for with_anchor, without in zip(anchored, plain, strict=True)
        ]


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Never more than one is held: the texts of a large file need not fit into memory."""
    remaining = iter(examples)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch


def pad_token_id(tokenizer: Any) -> int:
    """The tokenizer's padding token, else its end token, else 0 (masked out in any case)."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A hash of everything about a tokenizer that decides a text's tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        model = json.loads(backend.to_str())
        # Set by whoever called the tokenizer last, and given anew in every call here.
        model.pop("truncation", None)
        model.pop("padding", None)
    else:
        model = [type(tokenizer).__name__, tokenizer.get_vocab()]
    parts = [
        model,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        tokenizer.chat_template,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
