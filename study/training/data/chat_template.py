"""A tokenizer's chat template: conversations as one text, and where the answers are in it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from study.training.data.messages import ANSWERS, Message, with_object_arguments
from study.training.data.templates import BadValueError

_CLOCK = "strftime_now"
"""What templates call to print today's date."""
_DIRECTIVES = "aAbBcdfHIjmMpSuUVwWxXyYGZ"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Span = tuple[int, int]
"""First and end position of characters."""


def today_of(tokenizer: Any) -> str | None:
    """The day, ``YYYY-MM-DD``, that its chat template would print as today's; None where it prints
    none, so that nothing hangs on it."""
    if _CLOCK not in str(tokenizer.chat_template):
        return None
    clock = "{{ " + _CLOCK + "('%Y-%m-%d') }}"
    message = [{"role": "user", "content": ""}]
    return str(tokenizer.apply_chat_template(message, chat_template=clock, tokenize=False))


class ChatTemplate:
    """One tokenizer's chat template, the same on any day.

    Args:
        tokenizer: has a chat template.
        day: what the template prints as today's date, ``YYYY-MM-DD``; None: it prints none.
    """

    def __init__(self, tokenizer: Any, day: str | None) -> None:
        self._tokenizer, self._day = tokenizer, day

    def write(self, messages: Sequence[Message], tools: Any, opening: bool = False) -> str:
        """The conversation as text.

        Args:
            opening: whether an answer is to follow, so that its beginning is announced.

        Raises:
            BadValueError: the template refuses it.
        """
        if not messages:
            return ""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=tools,
                    chat_template=self._text(tools),
                    tokenize=False,
                    add_generation_prompt=opening,
                )
            )
        except Exception as error:  # jinja2's, and whatever a template raises on purpose
            raise BadValueError(
                f"the chat template refuses the messages ({error}). Change or remove the row, or "
                "set model.tokenizer to one whose template takes it."
            ) from error

    def marked_answers(self, messages: Sequence[Message], tools: Any, whole: str) -> list[Span]:
        """Where the assistant's part is in `whole`, by the template's own marks; empty where it
        has no such marks."""
        from study.training.transformers_internals import rendered

        text = self._text(tools)
        if not _GENERATION.search(text):
            return []
        written, spans = rendered(
            [list(messages)],
            tools=tools,
            chat_template=text,
            **self._tokenizer.special_tokens_map,
        )
        return _merged(spans[0]) if written == [whole] else []

    def prepared(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template takes them."""
        if self._end_mark:
            messages = [self._without_end_mark(message) for message in messages]
        if any(m.get("tool_calls") for m in messages) and self._wants_object_arguments:
            messages = [with_object_arguments(message) for message in messages]
        return list(messages)

    @cached_property
    def start_is_missing(self) -> bool:
        """Whether the tokenizer puts a start token before texts, and this template none."""
        text = self._probe() or ""
        plain, full = (
            self._tokenizer(text, add_special_tokens=special)["input_ids"]
            for special in (False, True)
        )
        start = self._tokenizer.bos_token_id
        return bool(text) and start in full[:1] and start not in plain[:1]

    def end_of_mark(self, text: str) -> int:
        """Where the last token in a text ends that is no ordinary text; 0 where there is none."""
        return max(
            (text.rfind(mark) + len(mark) for mark in self._marks if mark in text), default=0
        )

    @cached_property
    def _marks(self) -> list[str]:
        """What the tokenizer knows as one token, whatever is around it."""
        return [str(token) for token in self._tokenizer.added_tokens_decoder.values()]

    @cached_property
    def _end_mark(self) -> str:
        """The token that the template writes after an answer, empty where there is none."""
        _, _, after = (self._probe() or "").partition(_ANSWER)
        return next((mark for mark in self._marks if after.lstrip().startswith(mark)), "")

    def _without_end_mark(self, message: Message) -> Message:
        """An answer that brings the template's end mark along would have it twice."""
        text = message.get("content")
        if message["role"] != ANSWERS or not text or not text.rstrip().endswith(self._end_mark):
            return message
        return {**message, "content": text.rstrip().removesuffix(self._end_mark)}

    @cached_property
    def _wants_object_arguments(self) -> bool:
        """Whether the JSON text of a tool's arguments would be quoted once more, or refused."""
        function = {"name": "tool", "arguments": '{"key": "value"}'}
        call = {"id": "call00001", "type": "function", "function": function}
        asked = {"role": "user", "content": _QUESTION}
        answer = {"role": ANSWERS, "content": "", "tool_calls": [call]}
        try:
            return '\\"key\\"' in self.write([asked, answer], None)
        except BadValueError:
            return True

    def _probe(self) -> str | None:
        """A short conversation."""
        asked = {"role": "user", "content": _QUESTION}
        try:
            return self.write([asked, {"role": ANSWERS, "content": _ANSWER}], None)
        except BadValueError:
            return None

    def _text(self, tools: Any) -> str:
        text = str(self._tokenizer.get_chat_template(None, tools))
        return text if self._day is None else _on_day(text, self._day)


_QUESTION, _ANSWER = "What is two plus two?", "It is four."


def _merged(spans: Sequence[Span]) -> list[Span]:
    """Without empty ones, and neighbours as one: tokens may span them."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        elif start < end:
            merged.append((start, end))
    return merged


def _on_day(template: str, day: str) -> str:
    """The template with a clock of its own, which stands still. A macro hides the function of its
    name."""
    moment = datetime.datetime.fromisoformat(day)
    directives = {f"%{letter}" for letter in _DIRECTIVES}
    directives |= set(re.findall(r"%[-_^0#]?[a-zA-Z]", template))
    values = {directive: moment.strftime(directive) for directive in sorted(directives)}
    filters = "".join(f"|replace('{d}', '{value}')" for d, value in values.items())
    # The newline belongs to the tag, so that the template still begins a line.
    return f"{{%- macro {_CLOCK}(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}\n{template}"
