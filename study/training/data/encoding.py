"""From texts to token ids, cut to the sequence length."""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from study.training.data.templates import Chat, Example

_BATCH = 1000
Pairs = Sequence[tuple[str, str]]
"""Texts without and with loss, in turn."""
NO_TARGET = "no target"
"""Why an example is dropped whose target is blank, or lost when it was cut."""


@dataclass(frozen=True)
class Encoded:
    """One tokenised example.

    Attributes:
        ids: (tokens,) int32.
        target_start: first position with loss, at least 1; classification: 0.
        cut: what was cut because it was too long: ``messages``, ``prompt``, ``answer``, ``text``.
        dropped: why nothing is left that carries loss; empty: something is.
        loss: (tokens,) bool, which tokens carry loss; None: all from `target_start` on.
        end: the token that ends the last part with loss; None where that is cut, or ends without
            one.
        uncut_length: tokens before it was cut; None: nothing was.
    """

    ids: np.ndarray
    target_start: int
    cut: tuple[str, ...] = ()
    dropped: str = ""
    loss: np.ndarray | None = None
    end: int | None = None
    uncut_length: int | None = None

    @property
    def has_loss(self) -> np.ndarray:
        """(tokens,) bool: which tokens carry loss."""
        if self.loss is not None:
            return self.loss
        return np.arange(len(self.ids)) >= self.target_start

    @property
    def truncated(self) -> bool:
        return bool(self.cut)

    @property
    def empty(self) -> bool:
        return bool(self.dropped)


@dataclass(frozen=True)
class _Tokens:
    """An example before it is cut.

    Attributes:
        ids: its tokens.
        loss: (tokens,) bool, which of them carry loss.
        fixed: so many tokens at the beginning are never cut.
    """

    ids: list[int]
    loss: np.ndarray
    fixed: int


class Encoder:
    """Tokenises examples for one study.

    Texts without and with loss are tokenised apart, so that the loss covers exactly the target's
    tokens and the context looks as it will when the model is used. A start or end token that a text
    brings along is not added again.

    Too long for `sequence_length`: a conversation loses exchanges after its beginning, then the
    longest text before its last answer loses its own beginning, then goes what holds for the whole
    conversation. Any other context, and one for which that is not enough, loses its beginning (not
    the start token) but keeps half the length if it needs it; then the target loses its end, end
    token included, so that no model is taught to stop in the middle. Raw text and texts to classify
    lose their end.

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
        self._marks = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
        self._is_blank = functools.cache(lambda token: not tokenizer.decode([token]).strip())

    def encode(self, examples: Iterable[Example], add_special_tokens: bool) -> list[Encoded]:
        """Tokenise causal-lm examples."""
        encoded = []
        for batch in _batches(examples):
            filled = [e for e in batch if not _reason(e)]
            parts = self._parts([e.pairs for e in filled])
            for example in batch:
                reason = _reason(example)
                if reason:
                    encoded.append(Encoded(np.empty(0, np.int32), 1, dropped=reason))
                else:
                    tokens = self._joined(next(parts), add_special_tokens)
                    fitted = self._fitted(example, tokens)
                    if fitted.truncated:
                        fitted = replace(fitted, uncut_length=len(tokens.ids))
                    encoded.append(fitted)
        return encoded

    def encode_texts(self, examples: Iterable[Example]) -> list[Encoded]:
        """Tokenise texts to classify, with the special tokens the tokenizer itself adds."""
        encoded = []
        for batch in _batches(examples):
            texts = [self._without_start(e.target) for e in batch]
            for text, ids in zip(texts, self._ids(texts, add_special_tokens=True), strict=True):
                length = len(ids)
                truncated = length > self._sequence_length
                if truncated:
                    # Not a plain cut: a closing special token stays.
                    ids = self._tokenizer(text, truncation=True, max_length=self._sequence_length)[
                        "input_ids"
                    ]
                reason = "" if text.strip() else NO_TARGET
                cut, uncut = (("text",), length) if truncated else ((), None)
                found = Encoded(np.array(ids, np.int32), 0, cut, reason, uncut_length=uncut)
                encoded.append(found)
        return encoded

    def _without_start(self, text: str) -> str:
        """A text without the start token that the tokenizer will put before it."""
        start = self._marks.get(self._start[0]) if self._start else None
        return text.removeprefix(start) if start else text

    def _parts(self, examples: Sequence[Pairs]) -> Iterator[list[list[int]]]:
        """The tokens of each text of each example."""
        texts = [text for pairs in examples for pair in pairs for text in pair]
        ids = self._ids(texts)
        if self._anchor:
            # A text inside a text must not get the mark of a text's beginning.
            inner = [n for n, is_inner in enumerate(_inside(examples)) if is_inner]
            for n, continued in zip(inner, self._continued([texts[n] for n in inner]), strict=True):
                ids[n] = continued
        parts = iter(ids)
        for pairs in examples:
            yield list(itertools.islice(parts, 2 * len(pairs)))

    def _joined(self, parts: Sequence[list[int]], add_special_tokens: bool) -> _Tokens:
        """One after the other, with the tokenizer's start and end token where they are wanted and
        not there yet."""
        ids = list(itertools.chain.from_iterable(parts))
        loss = np.repeat(np.arange(len(parts)) % 2 == 1, [len(part) for part in parts])
        start = self._start
        if add_special_tokens:
            if start and ids[: len(start)] != start:
                ids, loss = start + ids, np.concatenate([np.zeros(len(start), bool), loss])
            if self._end and self._last_word(ids) != self._end[0]:
                ids, loss = ids + self._end, np.append(loss, True)
        begins = ids[:1] in (start[:1], [self._tokenizer.bos_token_id])
        return _Tokens(ids, loss, max(1, len(start)) if begins else 0)

    def _last_word(self, ids: Sequence[int]) -> int | None:
        """The last token that is no white space."""
        return next((token for token in reversed(ids) if not self._is_blank(token)), None)

    def _fitted(self, example: Example, tokens: _Tokens) -> Encoded:
        """The example, cut where it is too long."""
        chat = example.chat
        if not self._is_too_long(tokens):
            return self._encoded(tokens, chat, ())
        if chat is None:
            return self._cut(tokens, chat, ())
        cut: tuple[str, ...] = ()
        if chat.shorter:
            shorter = self._with_messages_cut(chat)
            if shorter is None:
                return self._cut(tokens, chat, ())
            example, tokens = shorter
            cut = ("messages",)
            if not self._is_too_long(tokens):
                return self._encoded(tokens, example.chat, cut)
        bare = chat.bare() if chat.bare is not None else None
        for form, lost in ((example, cut), (bare, ("messages",))):
            kept = None if form is None else self._with_prompt_cut(form)
            if form is not None and kept is not None:
                return self._encoded(kept[0], form.chat, (*lost, *kept[1]))
        return self._cut(tokens, example.chat, cut)

    def _is_too_long(self, tokens: _Tokens) -> bool:
        return len(tokens.ids) > self._sequence_length

    def _with_messages_cut(self, chat: Chat) -> tuple[Example, _Tokens] | None:
        """The conversation with the fewest exchanges left out so that it fits, or with the last
        one alone; None where the template refuses to write that."""
        best: tuple[Example, _Tokens] | None = None

        def fits(form: Callable[[], Example | None]) -> bool:
            nonlocal best
            example = form()
            if example is None:
                return False
            (parts,) = self._parts([example.pairs])
            tokens = self._joined(parts, False)
            fitting = not self._is_too_long(tokens)
            if fitting or best is None:
                best = example, tokens
            return fitting

        if fits(chat.shorter[-1]):
            bisect.bisect_left(chat.shorter[:-1], True, key=fits)
        return best

    def _with_prompt_cut(self, example: Example) -> tuple[_Tokens, tuple[str, ...]] | None:
        """The example with its longest text before the answer cut, and what that lost; None if it
        is not enough."""
        if example.chat is None or example.chat.cut is None:
            return None
        first, end = example.chat.cut
        context = example.context
        pairs = ((context[:first], ""), (context[first:end], ""), (context[end:], example.target))
        (parts,) = self._parts([(*pairs, *example.more)])
        head, _, text, _, following, *rest = parts
        room = self._room(sum(map(len, rest))) - len(head) - len(following)
        parts[2] = text[-room:]
        cut = ("prompt",) if len(text) > room else ()
        return (self._joined(parts, False), cut) if room > 0 else None

    def _room(self, answer: int) -> int:
        """Tokens that stay before an answer of so many: half the length if it needs them."""
        return max(self._sequence_length - answer, self._sequence_length // 2)

    def _cut(self, tokens: _Tokens, chat: Chat | None, cut: tuple[str, ...]) -> Encoded:
        """With the beginning of what is before the first token with loss cut."""
        fixed = tokens.fixed
        context = int(np.argmax(tokens.loss))
        first = max(fixed, context - self._room(len(tokens.ids) - context) + fixed)
        if first > fixed:
            cut = (*cut, "prompt")
        ids = tokens.ids[:fixed] + tokens.ids[first:]
        loss = np.concatenate([tokens.loss[:fixed], tokens.loss[first:]])
        return self._encoded(_Tokens(ids, loss, fixed), chat, cut)

    def _encoded(self, tokens: _Tokens, chat: Chat | None, cut: tuple[str, ...]) -> Encoded:
        """With the end cut, if it still is too long."""
        length = self._sequence_length
        loss = tokens.loss[:length].copy()
        loss[:1] = False  # nothing predicts the first token
        lost = tokens.loss[length:].any()
        if lost:
            is_text = tokens.loss[tokens.fixed] and chat is None
            cut = (*cut, "text" if is_text else "answer")
        start = int(np.argmax(loss)) if loss.any() else max(1, len(loss))
        return Encoded(
            np.array(tokens.ids[:length], np.int32),
            start,
            cut,
            "" if loss.any() else NO_TARGET,
            None if loss[start:].all() else loss,
            None if lost else self._end_of(tokens, chat),
        )

    def _end_of(self, tokens: _Tokens, chat: Chat | None) -> int | None:
        """The token at the end of the last part with loss by which a reader knows that it ends."""
        after = int(np.argmax(tokens.loss[::-1]))
        token = self._last_word(tokens.ids[: len(tokens.ids) - after])
        mark = self._marks.get(token) if token is not None else None
        if mark is None or (chat is not None and chat.answer.rstrip().endswith(mark)):
            return None
        # Some templates end a call of a tool with its own closing tag, and no more.
        closes_a_call = chat is not None and not chat.answer and mark.startswith("</")
        return None if closes_a_call and [token] != self._end else token

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


def _inside(examples: Sequence[Pairs]) -> Iterator[bool]:
    """Of each text of each example, whether another one precedes it."""
    for pairs in examples:
        before = False
        for text in itertools.chain.from_iterable(pairs):
            yield before
            before = before or bool(text)


def _reason(example: Example) -> str:
    """Why there is nothing to learn from an example; empty if there is."""
    blank = not any(target.strip() for _, target in example.pairs)
    return example.dropped or (NO_TARGET if blank else "")


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
