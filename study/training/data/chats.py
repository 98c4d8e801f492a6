"""Conversations as examples: which part of them carries the loss, and how long ones are cut."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from study.basics.errors import DataError
from study.training.data.chat_template import ChatTemplate, Span
from study.training.data.messages import (
    ANSWERS,
    MEDIA,
    SYSTEM,
    TOOLS,
    Message,
    first_said,
    is_empty,
    is_written,
    read_messages,
    read_tools,
    refuse_media,
    text_of,
    tool_names,
    unsaid,
    weight_of,
    with_system,
)
from study.training.data.readers import Table
from study.training.data.templates import (
    BadValueError,
    Chat,
    Example,
    Template,
    refuse_half_characters,
)

_NOTES = {
    "white space": "the chat template changes white space of the answer",
    "unseen": "the chat template leaves out what a message says that is no answer",
    "opening": (
        "the chat template announces an answer otherwise than it writes those of the data, so a "
        "new answer begins with text that was never trained"
    ),
    "empty turns": "an answer before the last one is empty; it carries no loss",
}
_REMEDY = "Use data.loss_on: last, a row for each answer, or data.prompt and data.response."
_HEAD = ("system", "developer")
"""Roles of messages that hold for the whole conversation."""


class ChatMessages(Template):
    """A conversation through the tokenizer's chat template, cut after the last assistant message
    that carries loss; the loss is on what the assistant says and the end mark that the template
    puts after it.

    Args:
        column: holds the messages; columns ``tools`` and ``system`` beside it belong to them.
        loss_on: the last assistant message, or all of them; a message's own `weight` goes first.
        day: what the template prints as today's date.
    """

    add_special_tokens = False

    def __init__(
        self, column: str, tokenizer: Any, loss_on: Literal["last", "all"], day: str | None
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise DataError(
                f"data.messages: the tokenizer of {tokenizer.name_or_path} has no chat template. "
                "Take an instruction-tuned model, set model.tokenizer to one that has it, or use "
                "data.prompt and data.response."
            )
        if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
            names = ", ".join(tokenizer.chat_template)
            raise DataError(
                f"data.messages: the tokenizer of {tokenizer.name_or_path} has the chat templates "
                f"{names}, but no default. Call one of them 'default' in its files."
            )
        self._column, self._loss_on = column, loss_on
        self._template = ChatTemplate(tokenizer, day)
        self._conversations, self._found = 0, Counter[str]()

    def columns(self, table: Table) -> Sequence[str]:
        table.require([self._column], "data.messages")
        beside = [c for c in (*TOOLS, SYSTEM, *MEDIA) if table.may_have(c) and c != self._column]
        return [self._column, *beside]

    def render(self, row: Mapping[str, Any]) -> Example:
        beside = {name: value for name, value in row.items() if name != self._column}
        refuse_media(beside)
        try:
            messages = read_messages(row[self._column])
            messages = with_system(messages, beside.get(SYSTEM))
            learned = self._learned(messages)
        except BadValueError as error:
            raise BadValueError(f"column '{self._column}' (data.messages) {error}") from None
        tools = read_tools(beside)
        filled = [i for i in learned if not is_empty(messages[i])]
        if not filled:
            reason = "empty answer" if learned else "no answer with a weight of 1"
            return Example("", "", dropped=reason)
        messages = self._template.prepared(messages[: filled[-1] + 1])
        self._conversations += 1
        notes = {"empty turns"} if len(filled) < len(learned) else set()
        example = self._example(messages, filled, tools, notes)
        self._found.update(notes)
        return example

    def notes(self) -> list[str]:
        """What a reader of the results should know of the conversations rendered so far."""
        found = [
            f"In {count} of {self._conversations} conversations {_NOTES[name]}."
            for name, count in sorted(self._found.items())
        ]
        if self._template.start_is_missing:
            found.append(
                "The chat template writes no start token, which the tokenizer puts before any "
                "other text: conversations begin without one, in training and where the template "
                "is used to generate."
            )
        return found

    def _learned(self, messages: Sequence[Message]) -> list[int]:
        """The assistant messages that are to carry loss."""
        answers = [i for i, m in enumerate(messages) if m["role"] == ANSWERS]
        if not answers:
            roles = ", ".join(dict.fromkeys(m["role"] for m in messages))
            raise BadValueError(
                "has no assistant message, so there is nothing to learn (its messages are of: "
                f"{roles}). Remove the row."
            )
        chosen = answers if self._loss_on == "all" else answers[-1:]
        weights = {i: weight_of(messages[i]) for i in answers}
        return [i for i in answers if (i in chosen if weights[i] is None else weights[i])]

    def _example(
        self, messages: list[Message], learned: Sequence[int], tools: Any, notes: set[str]
    ) -> Example:
        whole, spans = self._written(messages, learned, tools, notes)
        refuse_half_characters("a message", whole)
        for name in tool_names(tools):
            if name not in whole:
                raise BadValueError(
                    f"the chat template leaves out the tool {_excerpt(name)} of column 'tools'. "
                    "Take the column out, or set model.tokenizer to one whose template writes it."
                )
        for i, parts in zip(learned, spans, strict=True):
            if self._reflows(messages, i, tools, whole, (parts[0][0], parts[-1][1])):
                notes.add("white space")
        others = (text_of(message) for message in messages if message["role"] != ANSWERS)
        if not all(is_written(text, whole) for text in others):
            notes.add("unseen")
        return self._laid_out(messages, learned, tools, whole, spans)

    def _laid_out(
        self,
        messages: list[Message],
        learned: Sequence[int],
        tools: Any,
        whole: str,
        spans: Sequence[Sequence[Span]],
    ) -> Example:
        flat = list(itertools.chain.from_iterable(spans))
        begins = [0, *(end for _, end in flat)]
        pairs = [
            (whole[begin:start], whole[start:end])
            for begin, (start, end) in zip(begins, flat, strict=False)
        ]
        if whole[begins[-1] :]:
            pairs.append((whole[begins[-1] :], ""))
        (context, target), *more = pairs
        last, conversation = messages[learned[-1]], (messages, learned, tools)
        head, asked = _exchanges(messages[: learned[-1]])
        chat = Chat(
            answer="" if last.get("tool_calls") else text_of(last),
            cut=_longest_said(messages[: learned[0]], context),
            shorter=tuple(partial(self._shorter, *conversation, head, i) for i in asked),
            bare=partial(self._shorter, *conversation, 0, [head, *asked][-1]) if head else None,
        )
        return Example(context, target, more=tuple(more), chat=chat)

    def _shorter(
        self, messages: list[Message], learned: Sequence[int], tools: Any, head: int, first: int
    ) -> Example | None:
        """The conversation without the messages from `head` to `first`; None where the template
        refuses that."""
        kept = messages[:head] + messages[first:]
        left = [i - first + head for i in learned if i >= first]
        try:
            return self._laid_out(kept, left, tools, *self._written(kept, left, tools, set()))
        except BadValueError:
            return None

    def _reflows(
        self, messages: list[Message], index: int, tools: Any, whole: str, span: Span
    ) -> bool:
        """Whether the template changes white space of a message that carries loss.

        Raises:
            BadValueError: it leaves out something else.
        """
        start, end = span
        lost, reflowed = unsaid(messages[index], whole[start:end])
        if lost is not None:
            # The beginning may be part of what announces an answer, such as <think>.
            before = self._template.write(messages[:index], tools)
            if whole.startswith(before):
                lost, reflowed = unsaid(messages[index], whole[len(before) : end])
        if lost is not None:
            raise BadValueError(
                "the chat template leaves out, or rewrites, what the assistant says: "
                f"{_excerpt(lost)} is not in {_excerpt(whole[start:end])}, so it would not be "
                "learned. Set model.tokenizer to one whose template keeps it (templates of "
                "reasoning models often strip <think>...</think>), take it out of the data, or use "
                "data.prompt and data.response."
            )
        return reflowed

    def _written(
        self, messages: list[Message], learned: Sequence[int], tools: Any, notes: set[str]
    ) -> tuple[str, Sequence[Sequence[Span]]]:
        """The conversation as text, and where in it each message is that carries loss.

        Raises:
            BadValueError: the template refuses it, or does not show where.
        """
        whole = self._template.write(messages, tools)
        try:
            return whole, self._spans(messages, learned, tools, whole, notes)
        except BadValueError:
            used = self._as_used(messages, learned, tools)
            if used is None:
                raise
            return used

    def _as_used(
        self, messages: list[Message], learned: Sequence[int], tools: Any
    ) -> tuple[str, Sequence[Sequence[Span]]] | None:
        """For templates that write an instruction to the whole conversation into its last question,
        and lose it once an answer follows: what they write when the last answer is asked for, and
        then the answer. None for other templates."""
        head, _ = _exchanges(messages)
        instructions, rest = messages[:head], messages[head:]
        if not instructions or len(rest) < 2 or list(learned) != [len(messages) - 1]:
            return None
        asked, before = (
            self._template.write(part[:-1], tools, opening=True) for part in (messages, rest)
        )
        whole = self._template.write(rest, tools)
        said = all(is_written(text_of(message), asked) for message in instructions)
        if not said or not whole.startswith(before):
            return None
        answered = asked + whole[len(before) :]
        return answered, [[(len(asked), len(answered))]]

    def _spans(
        self,
        messages: list[Message],
        learned: Sequence[int],
        tools: Any,
        whole: str,
        notes: set[str],
    ) -> list[list[Span]]:
        """Where in `whole` each message is that carries loss, end mark included."""
        marked = self._template.marked_answers(messages, tools, whole)
        starts = {i: self._start(messages, i, tools, whole, notes) for i in learned}
        by_marks = []
        for i, start in starts.items() if marked else ():
            later = (k for k in range(i + 1, len(messages)) if messages[k]["role"] == ANSWERS)
            end = next((self._start(messages, k, tools, whole, set()) for k in later), len(whole))
            by_marks.append([span for span in marked if start < span[1] <= end])
        if by_marks and all(by_marks):
            return by_marks
        return [[(s, self._end(messages, i, tools, whole, s))] for i, s in starts.items()]

    def _start(
        self, messages: list[Message], index: int, tools: Any, whole: str, notes: set[str]
    ) -> int:
        """Where a message begins in `whole`: where the model's part begins when it is used."""
        if index == 0:
            return first_said(messages[index], whole)
        before = self._template.write(messages[:index], tools, opening=True)
        if whole.startswith(before):
            return len(before)
        # Some templates announce an answer with more than they write before one.
        plain = self._template.write(messages[:index], tools)
        if not whole.startswith(plain):
            raise BadValueError(
                "the chat template writes earlier messages differently once the answer follows, so "
                f"the answer's place is unknown. {_REMEDY}"
            )
        notes.add("opening")
        said = first_said(messages[index], whole, len(plain))
        return max(len(plain), min(_common(before, whole), said))

    def _end(self, messages: list[Message], index: int, tools: Any, whole: str, start: int) -> int:
        """Where a message ends in `whole`, its end mark included."""
        if index == len(messages) - 1:
            return len(whole)
        alone = self._template.write(messages[: index + 1], tools)
        if whole.startswith(alone):
            return len(alone)
        # Some templates write the last message with more than the same message further up.
        here = first_said(messages[index], whole, start)
        tail = alone[first_said(messages[index], alone, start) :]
        if tail and whole.startswith(tail, here):
            return here + len(tail)
        # Or they end the whole conversation with more than one message of it.
        common = tail[: _common(tail, whole[here:])]
        end = self._template.end_of_mark(common)
        if end > len(text_of(messages[index]).strip()) > 0:
            return here + end
        raise BadValueError(
            "the chat template writes an earlier assistant message otherwise than the last one, so "
            f"its place is unknown or a part of it is left out. {_REMEDY}"
        )


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _longest_said(messages: Sequence[Message], context: str) -> Span | None:
    """The longest text of a message in `context` that is neither an instruction to the whole
    conversation nor an answer: what can lose its beginning without harm to the rest."""
    texts = [text_of(m).strip() for m in messages if m["role"] not in (ANSWERS, *_HEAD)]
    longest = max(texts, key=len, default="")
    start = context.rfind(longest)
    return (start, start + len(longest)) if longest and start >= 0 else None


def _exchanges(messages: Sequence[Message]) -> tuple[int, list[int]]:
    """How many messages hold for the whole conversation, and where exchanges begin after the first
    one. An exchange begins with what a user says."""
    head = next((i for i, m in enumerate(messages) if m["role"] not in _HEAD), len(messages))
    roles = [message["role"] for message in messages]
    later = range(head + 1, len(messages))
    return head, [i for i in later if roles[i] == "user" and roles[i - 1] != "user"]


def _excerpt(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else f"{text[: limit - 3]}...")
