"""From rows to texts: what the model is given, and what it is to say."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from study.config import DataConfig, StudyConfig
from study.errors import DataError
from study.training.readers import TEXT_COLUMN, Table


class BadValueError(ValueError):
    """A row's value cannot be used; who knows the row's place puts it in front."""


@dataclass(frozen=True)
class Example:
    """One rendered row.

    Attributes:
        context: text without loss; empty for raw text.
        target: text with loss; classification: the text to classify.
        label: classification: an integer or a name, as found in the row.
    """

    context: str
    target: str
    label: int | str | None = None


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


def make_template(config: StudyConfig, tokenizer: Any) -> Template:
    """The template that the study's `data` section asks for.

    Raises:
        DataError: the section names no column to read, or the tokenizer has no chat template.
    """
    data = config.data
    if config.task == "sequence-classification":
        return LabelledText(data)
    if data.messages is not None:
        return ChatMessages(data.messages, tokenizer)
    if data.response is not None:
        return PromptResponse(data.prompt or "", data.response)
    if data.prompt is not None:
        raise DataError(
            "data.response: missing, though data.prompt is given. Set it to the template of what "
            'the model is to answer, e.g. "{output}", or set data.text instead of data.prompt.'
        )
    return RawText(data.text or TEXT_COLUMN, "data.text")


class RawText:
    """A column of text; the loss is on all of it."""

    add_special_tokens = True

    def __init__(self, column: str, key: str) -> None:
        self._column, self._key = column, key

    def columns(self, table: Table) -> Sequence[str]:
        table.require([self._column], self._key)
        return [self._column]

    def render(self, row: Mapping[str, Any]) -> Example:
        return Example("", _text(row, self._column))


class PromptResponse:
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
        return Example(_fill(self._prompt, row), _fill(self._response, row))


class LabelledText:
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


class ChatMessages:
    """A conversation through the tokenizer's chat template, cut after its last assistant
    message; the loss is on that message and the end mark the template puts after it."""

    add_special_tokens = False

    def __init__(self, column: str, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise DataError(
                f"data.messages: the tokenizer of {tokenizer.name_or_path} has no chat template. "
                "Take an instruction-tuned model, set model.tokenizer to one that has it, or use "
                "data.prompt and data.response."
            )
        self._column, self._tokenizer = column, tokenizer

    def columns(self, table: Table) -> Sequence[str]:
        table.require([self._column], "data.messages")
        return [self._column]

    def render(self, row: Mapping[str, Any]) -> Example:
        messages = self._messages(row[self._column])
        assistant = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        if not assistant:
            raise BadValueError(
                f"column '{self._column}' (data.messages) has no assistant message, so there is "
                "nothing to learn. Remove the row."
            )
        messages = messages[: assistant[-1] + 1]
        whole = self._apply(messages, add_generation_prompt=False)
        # Some templates open the answer with more than the plain generation prompt announces.
        for opening in (True, False):
            context = self._apply(messages[:-1], add_generation_prompt=opening)
            if whole.startswith(context):
                return Example(context, whole[len(context) :])
        raise BadValueError(
            "the chat template writes earlier messages differently once the answer follows, so "
            "the answer's place is unknown. Use data.prompt and data.response."
        )

    def _messages(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not value:
            raise BadValueError(
                f"column '{self._column}' (data.messages) holds {_shown(value)}, not a list of "
                "messages."
            )
        messages = []
        for message in value:
            # Keys that only other rows have come back as None.
            known = {k: v for k, v in dict(message or {}).items() if v is not None}
            if not isinstance(known.get("role"), str) or not isinstance(known.get("content"), str):
                raise BadValueError(
                    f"column '{self._column}' (data.messages) holds {_shown(message)}. A message "
                    'is {"role": "user", "content": "..."}.'
                )
            messages.append(known)
        return messages

    def _apply(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        if not messages:
            return ""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except Exception as error:  # jinja2's, and whatever a template raises on purpose
            raise BadValueError(f"the chat template refuses the messages ({error}).") from error


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
    if numbers and isinstance(value, bool):
        return str(value).lower()  # as JSON writes it
    if numbers and isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        _refuse_half_characters(column, value)
        return value
    raise BadValueError(
        f"column '{column}' holds {_shown(value)}, not text. Correct or remove the row."
    )


def _refuse_half_characters(column: str, text: str) -> None:
    """No tokenizer takes a lone surrogate, which JSON can write as ``\\ud83d``."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadValueError(
                f"column '{column}' holds half a character ({text[error.start]!a}, of an emoji "
                "that was cut in two). Correct or remove the row."
            ) from None


def _shown(value: Any) -> str:
    if value is None:
        return "no value"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
