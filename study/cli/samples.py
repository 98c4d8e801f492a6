"""Training examples as the model sees them, what it is trained to say marked: what is wrong with
data or template is seen here before it is in a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.text import Text

from study.basics.paths import StudyPaths
from study.basics.text_format import counted
from study.basics.text_safety import printable
from study.cli.data import label_name
from study.cli.output import Console
from study.orchestration.prepare import Prepared

_INDENT = "  "
_MOST_CHARACTERS, _MOST_LINES, _MOST_PARTS = 600, 12, 8
"""Of what is longer, half is shown from the beginning and half from the end."""
_LEAST_LEFT_OUT = 40
"""Characters; fewer are shown."""


@dataclass(frozen=True)
class ShownExample:
    """An example's text, special tokens included.

    Attributes:
        parts: texts, each with whether it carries loss.
        tokens: so many in all.
        target_tokens: so many of them carry loss.
        label: classification: its class.
    """

    parts: tuple[tuple[str, bool], ...]
    tokens: int
    target_tokens: int
    label: str | None = None


def read_examples(prepared: Prepared, count: int) -> list[ShownExample]:
    """The first training examples, from the data that the study would train on.

    Raises:
        DataError: the data is no longer there.
        ModelError: the tokenizer cannot be loaded.
    """
    from study.training.data.tokenised import StudyData
    from study.training.model.load import load_tokenizer

    if not count:
        return []
    config, summary = prepared.plan.resolved, prepared.data
    pool = StudyData.open(StudyPaths(config.results_dir).data, summary.fingerprint).pool
    tokenizer = load_tokenizer(config.model)
    shown = []
    for i in range(min(count, len(pool))):
        label = None
        if pool.is_classification:
            label = label_name(summary.label_names[pool.label(i)], pool.label(i))
        parts = decoded(tokenizer, pool.parts(i))
        tokens = int(pool.lengths[i])
        shown.append(ShownExample(parts, tokens, int(pool.target_counts[i]), label))
    return shown


def print_examples(console: Console, examples: Sequence[ShownExample], pool: int) -> None:
    """Print them so that a reader sees where the loss begins and ends, also without colours."""
    begin, end = _marks(examples)
    for number, example in enumerate(examples, start=1):
        told = f"Example {number:,} of {pool:,}: {counted(example.tokens, 'token')}"
        if example.label is None:
            told += f", {example.target_tokens:,} with loss, between {begin} and {end}"
        else:
            told += f", class {example.label}"
        console.print(Text(f"\n{printable(told)}", style="dim"))
        text = Text()
        for part, has_loss in _few(example.parts):
            shown = _shortened(part)
            text.append(f"{begin}{shown}{end}" if has_loss else shown, "bold" if has_loss else "")
        for line in text.wrap(console, console.width - len(_INDENT)):
            console.print(Text(_INDENT).append_text(line))
    if examples:
        console.print()


def decoded(
    tokenizer: Any, parts: Sequence[tuple[np.ndarray, bool]]
) -> tuple[tuple[str, bool], ...]:
    """The text of each part as it is after the one before: some tokenizers decode a space at the
    beginning of a text to nothing."""
    found = []
    before: list[int] = []
    for part, has_loss in parts:
        ids = part.tolist()
        first, both = _text(tokenizer, before), _text(tokenizer, before + ids)
        text = both[len(first) :] if both.startswith(first) else _text(tokenizer, ids)
        found.append((text, has_loss))
        before = ids
    return tuple(found)


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _marks(examples: Sequence[ShownExample]) -> tuple[str, str]:
    """``[[`` and ``]]``, or as many brackets as no text has in a row."""
    texts = [text for example in examples for text, _ in example.parts]
    size = 2
    while any("[" * size in text or "]" * size in text for text in texts):
        size += 1
    return "[" * size, "]" * size


def _few(parts: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    half = _MOST_PARTS // 2
    if len(parts) <= 2 * half:
        return list(parts)
    left_out = f"\n<... {counted(len(parts) - 2 * half, 'part')} ...>\n"
    return [*parts[:half], (left_out, False), *parts[-half:]]


def _shortened(text: str) -> str:
    """`text` as a terminal shows it, its middle left out where it is long."""
    text = printable(text)
    begin, end = _shown_of(text), len(text) - _shown_of(text[::-1])
    if end - begin < _LEAST_LEFT_OUT:
        return text
    return f"{text[:begin]}<... {end - begin:,} characters ...>{text[end:]}"


def _shown_of(text: str) -> int:
    """How many characters of its beginning are shown."""
    half = text[: _MOST_CHARACTERS // 2]
    return len("\n".join(half.split("\n")[: _MOST_LINES // 2]))
