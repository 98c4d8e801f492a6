"""From rows to texts: what the model is given, and what it is to say."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from study.basics.errors import DataError
from study.config.load import DataConfig, StudyConfig
from study.training.data.readers import TEXT_COLUMN, Table


class BadValueError(ValueError):
    """A row's value cannot be used; who knows the row's place puts it in front."""


@dataclass(frozen=True)
class Example:
    """One rendered row.

    Attributes:
        context: text without loss; empty for raw text.
        target: text with loss; classification: the text to classify.
        label: classification: an integer or a name, as found in the row.
        more: further texts without and with loss, in turn, after `target`.
        dropped: why there is nothing to learn from the row; empty: there is.
        chat: how a conversation is cut; None for what is none.
    """

    context: str
    target: str
    label: int | str | None = None
    more: tuple[tuple[str, str], ...] = ()
    dropped: str = ""
    chat: Chat | None = None

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All its texts without and with loss, in turn."""
        return ((self.context, self.target), *self.more)


@dataclass(frozen=True)
class Chat:
    """What a conversation may lose where it is too long.

    Attributes:
        answer: the text of its last message; empty where that calls tools.
        cut: where in the example's `context` a text begins and ends that may lose its beginning.
        shorter: the same conversation with ever fewer exchanges after its beginning, down to the
            last one; each gives None where the template refuses that.
        bare: the last exchange without what holds for the whole conversation, where there is such.
    """

    answer: str
    cut: tuple[int, int] | None
    shorter: tuple[Callable[[], Example | None], ...] = ()
    bare: Callable[[], Example | None] | None = None


class Template(Protocol):
    """How the rows of a source become examples.

    Attributes:
        add_special_tokens: whether the tokenizer's start token goes before the context and its
            end token after the target; a chat template writes its own.
    """

    add_special_tokens: bool

    def columns(self, table: Table) -> Sequence[str]:
        """The columns `render` reads. Raises DataError if the table lacks one."""

    def render(self, row: Mapping[str, Any]) -> Example:
        """Render one row. Raises BadValueError."""

    def notes(self) -> list[str]:
        """What to know of the rows rendered so far, one sentence each."""
        return []


def render_rows(template: Template, table: Table) -> Iterator[Example]:
    """Render every row of a table.

    Raises:
        DataError: a column is missing, or a value cannot be used (with its file and row).
    """
    for place, row in table.rows(template.columns(table)):
        try:
            yield template.render(row)
        except BadValueError as error:
            raise DataError(f"{table.source.key}: {place}: {error}") from None


def make_template(config: StudyConfig, tokenizer: Any, day: str | None = None) -> Template:
    """The template that the study's `data` section asks for.

    Args:
        day: what a chat template prints as today's date, ``YYYY-MM-DD``.

    Raises:
        DataError: the section names no column to read, or the tokenizer has no chat template.
    """
    data = config.data
    if config.task == "sequence-classification":
        return LabelledText(data)
    if data.messages is not None:
        from study.training.data.chats import ChatMessages  # it is made of what is here

        return ChatMessages(data.messages, tokenizer, data.loss_on, day)
    if data.response is not None:
        return PromptResponse(data.prompt or "", data.response)
    if data.prompt is not None:
        raise DataError(
            "data.response: missing, though data.prompt is given. Set it to the template of what "
            'the model is to answer, e.g. "{output}", or set data.text instead of data.prompt.'
        )
    return RawText(data.text or TEXT_COLUMN, "data.text")


class RawText(Template):
    """A column of text; the loss is on all of it."""

    add_special_tokens = True

    def __init__(self, column: str, key: str) -> None:
        self._column, self._key = column, key

    def columns(self, table: Table) -> Sequence[str]:
        table.require([self._column], self._key)
        return [self._column]

    def render(self, row: Mapping[str, Any]) -> Example:
        return Example("", _text(row, self._column))


class PromptResponse(Template):
    """Two templates over the columns; the loss is on the response."""

    add_special_tokens = True

    def __init__(self, prompt: str, response: str) -> None:
        self._prompt = _parse("data.prompt", prompt)
        self._response = _parse("data.response", response)

    def columns(self, table: Table) -> Sequence[str]:
        for key, parts, text in (
            ("data.prompt", self._prompt, "the same for every example"),
            ("data.response", self._response, "nothing that could be learned"),
        ):
            names = _names(parts)
            table.require(names, key)
            written = "".join(literal for literal, _ in parts)
            available = table.parts[0].columns
            if not names and (key == "data.response" or written in available):
                name = written if written in available else available[0]
                raise DataError(
                    f"{key}: {written!r} names no column and is {text}. Put a column's name in "
                    f'braces, e.g. "{{{name}}}".'
                )
        return list(dict.fromkeys(_names(self._prompt) + _names(self._response)))

    def render(self, row: Mapping[str, Any]) -> Example:
        response = _fill(self._response, row)
        # Words around it, such as an end token, make no answer of an empty one.
        answers = (_text(row, name, numbers=True).strip() for name in _names(self._response))
        dropped = "" if any(answers) else "empty answer"
        return Example(_fill(self._prompt, row), response, dropped=dropped)


class LabelledText(Template):
    """A text and its class."""

    add_special_tokens = True

    def __init__(self, data: DataConfig) -> None:
        if data.label is None:
            raise DataError("data.label: missing. Name the column that holds the class.")
        self._label = data.label
        self._text = data.text or TEXT_COLUMN

    def columns(self, table: Table) -> Sequence[str]:
        table.require([self._text], "data.text")
        table.require([self._label], "data.label")
        if self._text == self._label:
            raise DataError(
                f"data.label: '{self._label}' is data.text as well. Name the column that holds "
                "the class."
            )
        return [self._text, self._label]

    def render(self, row: Mapping[str, Any]) -> Example:
        label = row[self._label]
        if isinstance(label, bool):
            label = int(label)
        if isinstance(label, float) and label.is_integer():
            label = int(label)  # an integer column with gaps, as CSV and JSON writers leave it
        if not isinstance(label, int | str) or label == "":
            raise BadValueError(
                f"column '{self._label}' (data.label) holds {_shown(label)}, not a class. Give "
                "every row one integer or name, or remove the row: several classes a text, and "
                "numbers to predict, are not supported."
            )
        return Example("", _text(row, self._text), label)


Part = tuple[str, str | None]
"""Literal text, and the column whose value follows it."""


def _parse(key: str, template: str) -> list[Part]:
    """Split a template into literals and column names. Only plain names: a format that reaches
    into attributes could read more than the row."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DataError(
            f"{key}: {template!r} is not a template ({error}). Write {{{{ and }}}} for braces "
            "that are meant as text."
        ) from None
    for _, name, form, conversion in parsed:
        if form or conversion or name == "":
            raise DataError(
                f"{key}: {template!r} may only hold plain column names in braces, such as "
                "{question}. Write {{ and }} for braces that are meant as text."
            )
    return [(literal, name) for literal, name, _, _ in parsed]


def _names(parts: Sequence[Part]) -> list[str]:
    return [name for _, name in parts if name is not None]


def _fill(parts: Sequence[Part], row: Mapping[str, Any]) -> str:
    return "".join(
        literal + (_text(row, name, numbers=True) if name is not None else "")
        for literal, name in parts
    )


def _text(row: Mapping[str, Any], column: str, numbers: bool = False) -> str:
    value = row[column]
    if isinstance(value, float) and math.isnan(value):
        value = None  # what pandas has for a missing one, and some JSON writers too
    if numbers and isinstance(value, bool):
        return str(value).lower()  # as JSON writes it
    if numbers and isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        refuse_half_characters(f"column '{column}'", value)
        return value
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and "role" in value[0]:
        raise BadValueError(
            f"column '{column}' holds chat messages, not text. Put the whole conversation, answer "
            "included, into one column and name that in data.messages."
        )
    raise BadValueError(
        f"column '{column}' holds {_shown(value)}, not text. Correct or remove the row."
    )


def refuse_half_characters(holder: str, text: str) -> None:
    """No tokenizer takes a lone surrogate, which JSON can write as ``\\ud83d``."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadValueError(
                f"{holder} holds half a character ({text[error.start]!a}, of an emoji that was "
                "cut in two). Correct or remove the row."
            ) from None


def _shown(value: Any) -> str:
    if value is None:
        return "no value"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
