"""The study's data: read, rendered, tokenised, split and stored, once.

`prepare_data` does it before the first trial; workers only open the result
(`study.training.data.tokenised.StudyData.open`), by its fingerprint. What decides the outcome, in
this order:

1. Every row of every given file, of very many of train a random part (`readers.draw`), is rendered
   and tokenised (`templates`, `encoding`). Examples without a target (a blank text or response) are
   dropped and counted.
2. Exact duplicates (same tokens, same target or label) are dropped and counted, within a split
   and across: test keeps its own, then validation, then train, then retention.
3. Splits without a file are cut at random from what is left of train.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from study.basics.errors import DataError
from study.config.load import StudyConfig
from study.config.sources import Source, find_source
from study.protocol.records import DataSummary
from study.training.data.chat_template import today_of
from study.training.data.encoding import Encoder, pad_token_id, tokenizer_fingerprint
from study.training.data.labels import Classes, Head, Label, alike, resolve_labels
from study.training.data.readers import TEXT_COLUMN, Draw, Table, read_table
from study.training.data.splits import Rows, clean, cut_missing, sample
from study.training.data.templates import Example, RawText, Template, make_template, render_rows
from study.training.data.tokenised import (
    SPLITS,
    TokenisedSplit,
    new_version,
    stored_summary,
    write_version,
)

GENERAL_TEXT = Path(__file__).parent / "general_text" / "general.jsonl"
"""The retention text behind ``retention: general``."""

# Raised whenever the same inputs would give other arrays, or a summary of more, than before.
_FORMAT = 5
_DRAW_STREAM = 3
_ENOUGH = 20_000
"""Rows of which none is left out."""
_HUB_SPLITS = {
    "train": ("train",),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test",),
    "retention": ("test", "validation", "train"),
}


def prepare_data(
    config: StudyConfig,
    folder: Path,
    tokenizer: Any,
    head: Head | None = None,
    known: DataSummary | None = None,
) -> DataSummary:
    """Tokenise the study's data into `folder`, or find it there unchanged. What else is there
    stays: a study that runs, or has results, goes on with its own data (`use_data`).

    Files count as unchanged while path, size and time of last change stay the same; a hub
    dataset while its id does. Relative paths are relative to the working directory. Processes
    that prepare the same folder at once wait for each other. For classification retention is
    not measured: a classifier's head has nothing to say about general text.

    Args:
        config: the study.
        folder: where the arrays go, one subfolder per version.
        tokenizer: the model's Hugging Face tokenizer.
        head: classification: `model.own_head` of the base model.
        known: what is on record of the study's data: the date that its chat template printed as
            today's and the most rows that were drawn go on to hold; the study file goes before it.

    Raises:
        DataError: data that is missing, unreadable, malformed, empty or too small; a disk that
            is full.
    """
    inputs = _Inputs(
        config=config,
        sources=_find_sources(config),
        tokenizer=tokenizer,
        head=head,
        day=_chat_date(config, tokenizer, known.chat_date if known else None),
        most=_most_rows(config, known),
    )
    key = inputs.key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error}). Set storage.results to a folder of yours."
        ) from error
    with held:
        summary = stored_summary(folder, key)
        if summary is None:
            with new_version(folder, key) as version:
                summary = _build(inputs, version)
        else:
            os.utime(folder / key)  # it is in use again
    return summary


@dataclass(frozen=True)
class _Inputs:
    """All that decides what the data become.

    Attributes:
        sources: in the order in which they keep duplicates.
        day: what the chat template prints as today's; None where it prints none.
        most: rows of train to go on with.
    """

    config: StudyConfig
    sources: Mapping[str, Source]
    tokenizer: Any
    head: Head | None
    day: str | None
    most: int

    def key(self) -> str:
        """Names the version that is made of them."""
        config, head = self.config, self.head
        parts = [
            _FORMAT,
            {name: source.identity() for name, source in self.sources.items()},
            config.data.model_dump(),
            config.task,
            config.training.sequence_length,
            config.seed,
            tokenizer_fingerprint(self.tokenizer),
            head and [head.names, head.problem],
            self.day,
            self.most,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def check_sizes(config: StudyConfig, summary: DataSummary) -> None:
    """Raise DataError if a dataset size exceeds the training examples there are."""
    too_large = [str(size) for size in config.dataset_sizes if size > summary.pool]
    if too_large:
        more = "raise data.max_train_samples" if summary.not_drawn else "give more data"
        raise DataError(
            f"dataset_sizes: {', '.join(too_large)} exceed the {summary.pool} training examples "
            f"(left after {summary.duplicates_removed} duplicates and {summary.empty_removed} "
            f"empty examples, {summary.validation} for validation and {summary.test} for test). "
            f"Use sizes up to {summary.pool}, {more}, or lower data.validation_size and "
            "data.test_size."
        )


def _most_rows(config: StudyConfig, known: DataSummary | None) -> int:
    """Rows of train to go on with; where nobody says, enough to draw every subset from."""
    if config.data.max_train_samples is not None:
        return config.data.max_train_samples
    if known is not None:
        return known.max_train_samples or sys.maxsize  # as it was before there was a limit
    return max(_ENOUGH, 16 * config.dataset_sizes[-1])


def class_prior_losses(pool: TokenisedSplit, split: TokenisedSplit) -> list[float]:
    """Loss, in nats, of each example of `split` under the class frequencies of `pool`: what a
    classifier reaches that ignores the text. One is added to every count, so that a class the
    pool lacks costs much but not infinitely much. Classification only."""
    assert pool.num_labels is not None
    counts = np.bincount(pool.targets, minlength=pool.num_labels) + 1
    losses = -np.log(counts / counts.sum())
    return [float(loss) for loss in losses[split.targets]]


def _find_sources(config: StudyConfig) -> dict[str, Source]:
    """The sources, in the order in which they keep duplicates."""
    data = config.data
    sources = {}
    for name in ("test", "validation", "train"):
        value = getattr(data, name)
        if value is not None:
            sources[name] = find_source(f"data.{name}", value, _HUB_SPLITS[name])
    if data.retention is not None and config.task == "causal-lm":
        sources["retention"] = (
            Source("data.retention", files=(GENERAL_TEXT,))
            if data.retention == "general"
            else find_source("data.retention", data.retention, _HUB_SPLITS["retention"])
        )
    return sources


def _chat_date(config: StudyConfig, tokenizer: Any, known: str | None) -> str | None:
    """The day that the chat template prints as today's; None where it prints none."""
    if config.data.messages is None or not tokenizer.chat_template:
        return None
    today = today_of(tokenizer)
    return today and (config.data.chat_date or known or today)


def _build(inputs: _Inputs, version: Path) -> DataSummary:
    config, tokenizer, most = inputs.config, inputs.tokenizer, inputs.most
    template = make_template(config, tokenizer, inputs.day)
    draws = {
        "train": Draw(most, (_DRAW_STREAM, config.seed)),
        # Some of them may be empty, or stand in other splits.
        "retention": Draw(
            max(_ENOUGH, 10 * config.data.retention_size), (_DRAW_STREAM, config.seed, 1)
        ),
    }
    rows, classes = _read(inputs, template, draws)
    read = {name: len(rows[name]) for name in _HUB_SPLITS if name in rows}
    rows, removed = clean(rows)
    splits = cut_missing(rows, config.data, config.seed)
    if "retention" in splits:
        splits["retention"] = sample(splits["retention"], config.data.retention_size, config.seed)
    if classes is not None:
        _refuse_constant_label(config, splits["pool"], classes.names)
    num_labels = None if classes is None else len(classes.names)
    arrays = {
        name: splits[name].split(num_labels, config.training.sequence_length)
        for name in SPLITS
        if name in splits
    }
    summary = DataSummary(
        fingerprint="",
        **{name: len(arrays[name]) if name in arrays else 0 for name in SPLITS},
        duplicates_removed=removed.duplicates,
        truncated=sum(e.truncated for rows in splits.values() for e in rows.encoded),
        empty_removed=removed.empty.total(),
        mean_tokens=float(arrays["pool"].lengths.mean()),
        mean_target_tokens=float(arrays["pool"].target_counts.mean()),
        label_names=() if classes is None else classes.names,
        class_counts=tuple(np.bincount(splits["pool"].labels, minlength=num_labels).tolist())
        if num_labels
        else (),
        head="" if classes is None else classes.head,
        dropped=dict(removed.empty),
        cut=_cut(splits),
        end_token_ids=_end_tokens(splits["pool"]),
        chat_date=inputs.day,
        highest_token=max(int(split.tokens.max()) for split in arrays.values()),
        longest=max(int(split.lengths.max()) for split in arrays.values()),
        notes=(
            *template.notes(),
            *_end_notes(splits["pool"], classes is not None),
            *_unknown_notes(tokenizer, arrays["pool"]),
            *alike(() if classes is None else classes.names),
        ),
        rows=read,
        not_drawn={name: draw.left for name, draw in draws.items() if draw.left},
        max_train_samples=most,
        uncut_lengths=_spread([e.uncut_length or len(e.ids) for e in splits["pool"].encoded]),
        lengths=_spread(arrays["pool"].lengths),
    )
    return write_version(version, arrays, summary, pad_token_id(tokenizer))


def _cut(splits: Mapping[str, Rows]) -> dict[str, int]:
    """Examples by what was cut of them; those of retention for themselves."""
    task = [rows.encoded for name, rows in splits.items() if name != "retention"]
    cut = Counter(what for encoded in task for example in encoded for what in example.cut)
    retention = splits["retention"].encoded if "retention" in splits else ()
    if any(example.truncated for example in retention):
        cut["retention"] = sum(example.truncated for example in retention)
    return dict(cut)


def _spread(lengths: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """Median, 95th percentile and largest: each a length that is among them."""
    found = np.quantile(lengths, [0.5, 0.95, 1.0], method="inverted_cdf")
    return tuple(int(length) for length in found)


def _end_tokens(pool: Rows) -> tuple[int, ...]:
    return tuple(sorted({e.end for e in pool.encoded if e.end is not None}))


def _end_notes(pool: Rows, is_classification: bool) -> list[str]:
    """What a model will not learn about where its answer ends."""
    if is_classification:
        return []
    cut = sum("answer" in e.cut for e in pool.encoded)
    endless = sum(e.end is None and not e.truncated for e in pool.encoded)
    notes = []
    if cut:
        notes.append(
            f"{cut} of {len(pool)} training examples have an answer that is longer than "
            "training.sequence_length leaves room for: its end is cut."
        )
    if endless:
        notes.append(
            f"{endless} of {len(pool)} training examples have no token with loss that ends the "
            "answer: the trained model may not know when to stop."
        )
    return notes


def _unknown_notes(tokenizer: Any, pool: TokenisedSplit) -> list[str]:
    """What the tokenizer has no token for, so that no model could tell it apart."""
    unknown = tokenizer.unk_token_id
    # Some tokenizers name a token of other use, which they never write for a text.
    if unknown in (None, tokenizer.bos_token_id, tokenizer.eos_token_id):
        return []
    count = int(np.count_nonzero(pool.tokens == unknown))
    if not count:
        return []
    return [
        f"{count:,} of {len(pool.tokens):,} training tokens are {tokenizer.unk_token}: the "
        "tokenizer has no other for these characters, so a model can neither read nor write them."
    ]


def _read(
    inputs: _Inputs, template: Template, draws: Mapping[str, Draw]
) -> tuple[dict[str, Rows], Classes | None]:
    """All sources tokenised, and what their labels mean (None for causal-lm)."""
    config, retention = inputs.config, inputs.config.data.retention
    encoder = Encoder(inputs.tokenizer, config.training.sequence_length)
    tables: dict[str, Table] = {}
    labels: dict[str, list[Label]] = {}
    rows: dict[str, Rows] = {}
    for name, source in inputs.sources.items():
        # The subset names a configuration of the task's dataset, not of the retention text's.
        subset = config.data.subset if name != "retention" else None
        table = read_table(source, subset, config.data.encoding)
        tables[name] = replace(table, draw=draws.get(name))
        column = TEXT_COLUMN if retention == "general" else config.data.retention_text
        used = RawText(column, "data.retention_text") if name == "retention" else template
        examples = render_rows(used, tables[name])
        if config.task == "sequence-classification":
            labels[name] = []
            rows[name] = Rows(source, encoder.encode_texts(_noted(examples, labels[name])))
        else:
            rows[name] = Rows(source, encoder.encode(examples, used.add_special_tokens))
    if config.task == "causal-lm":
        return rows, None
    classes = resolve_labels(labels, _declared(str(config.data.label), tables), inputs.head)
    labelled = {n: Rows(r.source, r.encoded, classes.ids[n]) for n, r in rows.items()}
    return labelled, classes


def _noted(examples: Iterable[Example], labels: list[Label]) -> Iterator[Example]:
    """The same examples, their labels noted on the way."""
    for example in examples:
        assert example.label is not None
        labels.append(example.label)
        yield example


def _declared(column: str, tables: Mapping[str, Table]) -> list[str] | None:
    """The class names that the splits declare."""
    declared = [names for t in tables.values() if (names := t.label_names(column)) is not None]
    if any(names != declared[0] for names in declared):
        raise DataError(
            f"data.label: the splits declare different class names for '{column}': "
            f"{' and '.join(map(str, declared))}. Give splits of the same dataset."
        )
    return declared[0] if declared else None


def _refuse_constant_label(config: StudyConfig, pool: Rows, names: tuple[str, ...]) -> None:
    if len(set(pool.labels)) == 1:
        raise DataError(
            f"data.label: all {len(pool)} training examples of {pool.source.name} have the label "
            f"'{names[pool.labels[0]]}' in column '{config.data.label}', so there is nothing to "
            "learn. Name another column, or give data with at least two classes."
        )
