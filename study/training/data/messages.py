"""From a row's values to chat messages and tools, in the forms in which people have them.

OpenAI's and Hugging Face's form (``role`` and ``content``), ShareGPT's (``from`` and ``value``), a
list of them, the JSON text of one, or Python's (as pandas writes lists into CSV).
"""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from study.training.data.templates import BadValueError, _shown

Message = dict[str, Any]

ANSWERS = "assistant"
"""The role whose messages can be learned."""
TOOLS = ("tools", "functions")
SYSTEM = "system"
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Columns beside the messages that belong to the conversation."""
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": ANSWERS,
    "chatgpt": ANSWERS,
    "assistant": ANSWERS,
    "bot": ANSWERS,
    "model": ANSWERS,
    "system": "system",
}
"""By what people call them, in any capitals."""
_SHAREGPT_ROLES = {
    **_ROLES,
    "function_call": ANSWERS,
    "tool_call": ANSWERS,
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool": "tool",
}
_CALLS = ("function_call", "tool_call")
"""Roles of messages that are the JSON text of a call, or of several."""
_TRAINED = ("weight", "train", "training", "loss")
"""Where a message says whether it is in the loss: OpenAI's key, axolotl's, and ms-swift's."""
_NO_JSON = ", nor the JSON text of one"
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Where reasoning may be kept apart from the answer; the first one counts, as in transformers."""


def read_messages(value: Any) -> list[Message]:
    """The messages in a row's value: `role` is text, `content` text or absent.

    Raises:
        BadValueError: it is no conversation.
    """
    messages = _from_text(value)
    if messages == []:
        raise BadValueError("holds no message. Remove the row.")
    if not isinstance(messages, list):
        raise BadValueError(
            f"holds {_shown(value)}, not a list of messages{_NO_JSON * isinstance(value, str)}."
        )
    return [_message(message) for message in messages]


def with_system(messages: list[Message], system: Any) -> list[Message]:
    """The conversation with the system message that stands in a column of its own, as ShareGPT's
    form has it.

    Raises:
        BadValueError: it is no text, or the conversation has another one.
    """
    if system in (None, ""):
        return messages
    if not isinstance(system, str):
        raise BadValueError(
            f"column 'system' holds {_shown(system)}, not text. Correct it, or rename it if it is "
            "something else."
        )
    own = [text_of(message) for message in messages if message["role"] == "system"]
    if not own:
        return [{"role": "system", "content": system}, *messages]
    if system not in own:
        raise BadValueError(
            f"column 'system' holds {_shown(system)}, but the messages have a system message of "
            "their own. Remove one of them, or rename the column if it is something else."
        )
    return messages


def read_tools(row: Mapping[str, Any]) -> list[Any] | None:
    """The tools that a row's conversation may use, None where there are none: those of the column
    ``tools``, or of ``functions``, as OpenAI's form called them before.

    Raises:
        BadValueError: it is neither a list of tools nor the JSON text of one.
    """
    for column in TOOLS:
        tools = _from_text(row.get(column))
        if isinstance(tools, Mapping):
            tools = [tools]
        tools = [_from_json(tool) for tool in tools] if isinstance(tools, list) else tools
        if tools in (None, "", []):
            continue
        if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
            raise BadValueError(
                f"column '{column}' holds {_shown(row[column])}, not a list of tools. Correct it, "
                "or rename it if it is something else."
            )
        if column == "functions":
            return [{"type": "function", "function": tool.get("function", tool)} for tool in tools]
        return tools
    return None


def refuse_media(row: Mapping[str, Any]) -> None:
    """Raise BadValueError if the row's conversation is about more than text."""
    for column in MEDIA:
        if row.get(column):
            raise BadValueError(
                f"column '{column}' holds {_shown(row[column])}; only text can be trained on. "
                "Remove such rows, or rename the column if the messages do not need it."
            )


def tool_names(tools: list[Any] | None) -> list[str]:
    """What the tools are called, as far as they say so."""
    functions = [tool.get("function", tool) for tool in tools or ()]
    return [str(f["name"]) for f in functions if isinstance(f, Mapping) and f.get("name")]


def weight_of(message: Message) -> bool | None:
    """Whether a message says that it is in the loss; None: it does not say.

    Raises:
        BadValueError: what it says is neither yes nor no.
    """
    said = {key: message[key] for key in _TRAINED if message.get(key) is not None}
    for key, weight in said.items():
        if not isinstance(weight, int | float) or weight not in (0, 1):
            raise BadValueError(f"has a message with the {key} {_shown(weight)}. Write 0 or 1.")
    if len({bool(weight) for weight in said.values()}) > 1:
        raise BadValueError(f"has a message with {said}, which disagree. Leave one of them.")
    return next(map(bool, said.values()), None)


def text_of(message: Message) -> str:
    return str(message.get("content") or "")


def is_empty(message: Message) -> bool:
    """Whether it says nothing: no text, no reasoning and no call of a tool."""
    return not (text_of(message).strip() or _reasoning_of(message).strip() or _calls_of(message))


def said_by(message: Message) -> Iterator[list[str]]:
    """All that a message says, in its order; each in the ways in which a template may write it."""
    for text in (_reasoning_of(message), text_of(message)):
        if text.strip():
            yield [text]
    for call in _calls_of(message):
        function = call.get("function", call)
        yield [str(function.get("name", ""))]
        for leaf in _leaves(function.get("arguments")):
            escaped = [json.dumps(leaf, ensure_ascii=ascii).strip('"') for ascii in (False, True)]
            yield [str(leaf), *escaped]


def unsaid(message: Message, text: str) -> tuple[str | None, bool]:
    """What of a message is not in `text`, and whether the rest is there but for white space."""
    reflowed, squeezed = False, ""
    for forms in said_by(message):
        if any(form in text for form in forms):
            continue
        squeezed = squeezed or _squeezed(text)
        if not any(_squeezed(form) in squeezed for form in forms):
            return forms[0], reflowed
        reflowed = True
    return None, reflowed


def first_said(message: Message, whole: str, start: int = 0) -> int:
    """Where the first of what a message says is written, at or after `start`; the end of `whole`
    where it is not."""
    forms = next(said_by(message), [])
    places = (whole.find(form.strip(), start) for form in forms)
    return next((place for place in places if place >= 0), len(whole))


def is_written(text: str, whole: str) -> bool:
    """Whether a text is in `whole`, perhaps trimmed, or quoted as JSON."""
    if text.strip() in whole:
        return True
    squeezed = _squeezed(whole)
    quoted = (json.dumps(text.strip(), ensure_ascii=ascii)[1:-1] for ascii in (False, True))
    return any(_squeezed(form) in squeezed for form in (text, *quoted))


def with_object_arguments(message: Message) -> Message:
    """The same with arguments of tools as objects where they are the JSON text of one."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in _calls_of(message):
        function = call.get("function", call)
        arguments = _from_json(function.get("arguments"))
        if isinstance(arguments, Mapping):
            function = {**function, "arguments": arguments}
        calls.append({**call, "function": function} if "function" in call else function)
    return {**message, "tool_calls": calls}


def _message(given: Any) -> Message:
    value = given
    if isinstance(value, Mapping):
        if "value" in value and "content" not in value:
            value = {"content" if key == "value" else key: v for key, v in value.items()}
        if value.get("role") in (*_CALLS, "function_response", "tool_response"):  # as ms-swift has
            value = {"from" if key == "role" else key: v for key, v in value.items()}
        if "from" in value and "role" not in value:
            value = _from_sharegpt(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise _no_message(given)
    message = _with_call({key: item for key, item in value.items() if item is not None})
    message["role"] = _ROLES.get(message["role"].strip().lower(), message["role"])
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = "".join(map(_part, content))
    elif not isinstance(content, str) and (content is not None or message["role"] != ANSWERS):
        raise _no_message(given)
    calls = message.get("tool_calls")
    if calls is not None and not (
        isinstance(calls, list) and all(isinstance(call, Mapping) for call in calls)
    ):
        raise BadValueError(
            f"has a message with {_shown(calls)} as tool_calls, not a list of calls."
        )
    return message


def _no_message(value: Any) -> BadValueError:
    return BadValueError(
        f'holds {_shown(value)}. A message is {{"role": "user", "content": "..."}}.'
    )


def _part(part: Any) -> str:
    """The text of one part of a message."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise BadValueError(f"has a message that holds {_shown(part)}; only text can be trained on.")


def _from_sharegpt(value: Mapping[str, Any]) -> Message:
    role = _SHAREGPT_ROLES.get(str(value["from"]).strip().lower())
    if role is None:
        known = ", ".join(_SHAREGPT_ROLES)
        raise BadValueError(f"has a message from {value['from']!r}. Known are: {known}.")
    message = {"role": role, **{key: item for key, item in value.items() if key != "from"}}
    if value["from"] in _CALLS:
        calls = _from_json(message.pop("content", None))
        calls = calls if isinstance(calls, list) else [calls]
        if not all(isinstance(call, Mapping) and "name" in call for call in calls):
            raise BadValueError(
                f"has {_shown(value.get('content'))} from {value['from']}. A call is the JSON text "
                '{"name": "...", "arguments": {...}}.'
            )
        message["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    return message


def _with_call(message: Message) -> Message:
    """The same with a call in OpenAI's form of before there were `tool_calls` as one of them."""
    call = message.get("function_call")
    if not isinstance(call, Mapping) or "tool_calls" in message:
        return message
    rest = {key: item for key, item in message.items() if key != "function_call"}
    return {**rest, "tool_calls": [{"type": "function", "function": call}]}


def _reasoning_of(message: Message) -> str:
    return str(next((message[key] for key in _REASONING if message.get(key)), ""))


def _calls_of(message: Message) -> list[Mapping[str, Any]]:
    return message.get("tool_calls") or []


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value not in (None, ""):
        yield value


def _from_json(value: Any) -> Any:
    """What a JSON text holds; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _from_text(value: Any) -> Any:
    """What a JSON text holds, or Python's text of a list; anything else as it is."""
    value = _from_json(value)
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval(value.strip())
    return value


def _squeezed(text: str) -> str:
    return "".join(text.split())
