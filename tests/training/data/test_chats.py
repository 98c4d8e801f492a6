"""Conversations: what carries loss, compared with plain transformers, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from study.basics.errors import DataError
from study.training.data.chats import ChatMessages
from study.training.data.encoding import Encoded, Encoder
from study.training.data.templates import BadValueError
from tests.helpers import chat_templates as of
from tests.helpers.chat_templates import chat_tokenizer

Message = dict[str, Any]
DAY = "2024-02-09"
SHORT = [
    {"role": "user", "content": "What is two plus two?"},
    {"role": "assistant", "content": "Four."},
]
LONG = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Name a fruit."},
    {"role": "assistant", "content": "Pear"},
    {"role": "user", "content": "Another, please."},
    {"role": "assistant", "content": "  Fig\nor plum"},
]
THOUGHTS = [
    {"role": "user", "content": "Is 3 even?"},
    {"role": "assistant", "content": "<think>\n3 leaves 1.\n</think>\n\nNo."},
]


def chats(template: str, loss_on: Any = "last") -> ChatMessages:
    return ChatMessages("messages", chat_tokenizer(template), loss_on, DAY)


def encoded(
    template: str,
    messages: Any,
    loss_on: Any = "last",
    length: int = 10_000,
    tools: Any = None,
    **beside: Any,
) -> Encoded:
    """Of one row."""
    example = chats(template, loss_on).render({"messages": messages, "tools": tools, **beside})
    return Encoder(chat_tokenizer(template), length).encode([example], False)[0]


def pieces(template: str, found: Encoded) -> list[tuple[str, bool]]:
    """Text of neighbouring tokens, and whether it carries loss."""
    tokenizer, runs = chat_tokenizer(template), []
    for token, has_loss in zip(found.ids.tolist(), found.has_loss.tolist(), strict=True):
        if not runs or runs[-1][1] != has_loss:
            runs.append(([], has_loss))
        runs[-1][0].append(token)
    return [(tokenizer.decode(ids), has_loss) for ids, has_loss in runs]


def learned(template: str, *args: Any, **options: Any) -> list[str]:
    found = pieces(template, encoded(template, *args, **options))
    return [text for text, has_loss in found if has_loss]


def plain(tokenizer: PreTrainedTokenizerFast, messages: list[Message], **more: Any) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **more)


@pytest.mark.parametrize("template", [of.CHATML, of.QWEN_2, of.QWEN_3, of.GEMMA, of.MISTRAL])
@pytest.mark.parametrize("conversation", [SHORT, LONG[1:]])
def test_the_last_answer_is_what_plain_transformers_adds_to_the_prompt(
    template: str, conversation: list[Message]
) -> None:
    tokenizer = chat_tokenizer(template)
    whole = plain(tokenizer, conversation)
    prompt = plain(tokenizer, conversation[:-1], add_generation_prompt=True)
    found = encoded(template, conversation)
    assert found.ids.tolist() == tokenizer.apply_chat_template(conversation)["input_ids"]
    assert pieces(template, found) == [(prompt, False), (whole.removeprefix(prompt), True)]


@pytest.mark.parametrize("template", [of.CHATML, of.QWEN_2, of.GEMMA, of.MISTRAL, of.QWEN_3])
def test_loss_on_all_is_every_difference_to_a_prompt(template: str) -> None:
    tokenizer, conversation = chat_tokenizer(template), LONG[1:]
    whole = plain(tokenizer, conversation)
    expected = []
    for index in (1, 3):
        prompt = plain(tokenizer, conversation[:index], add_generation_prompt=True)
        after = plain(tokenizer, conversation[: index + 1])
        if template == of.QWEN_3 and index == 1:
            # Written alone an answer has empty reasoning before it, and not further up.
            after = after.replace("<think>\n\n</think>\n\n", "")
        assert whole.startswith(after)
        expected.append(after.removeprefix(prompt))
    assert learned(template, conversation, "all") == expected
    assert (
        encoded(template, conversation, "all").ids.tolist()
        == (tokenizer.apply_chat_template(conversation)["input_ids"])
    )


@pytest.mark.parametrize("loss_on", ["last", "all"])
def test_a_templates_own_marks_decide(loss_on: str) -> None:
    tokenizer = chat_tokenizer(of.MARKED)
    reference = tokenizer.apply_chat_template(LONG, return_assistant_tokens_mask=True)
    mask = [bool(m) for m in reference["assistant_masks"]]
    if loss_on == "last":
        last = len(mask) - mask[::-1].index(True)
        first = max(i for i in range(last) if not mask[i]) + 1
        mask = [first <= i < last for i in range(len(mask))]
    found = encoded(of.MARKED, LONG, loss_on)
    assert found.ids.tolist() == reference["input_ids"]
    assert found.has_loss.tolist() == mask


def test_weights_of_messages_go_before_loss_on() -> None:
    weighed = [dict(message) for message in LONG]
    weighed[2]["weight"] = 1
    assert learned(of.CHATML, weighed) == ["Pear<|im_end|>\n", "  Fig\nor plum<|im_end|>\n"]
    weighed[4]["weight"] = 0.0  # as Parquet has it beside rows without one
    for loss_on in ("last", "all"):
        assert learned(of.CHATML, weighed, loss_on) == ["Pear<|im_end|>\n"]
    weighed[2]["weight"] = None
    assert encoded(of.CHATML, weighed).dropped == "no answer with a weight of 1"
    weighed[2]["weight"] = 0.5
    with pytest.raises(BadValueError, match=r"weight 0\.5 \(float\)\. Write 0 or 1"):
        encoded(of.CHATML, weighed)


@pytest.mark.parametrize("content", ["", " \n", None])
def test_an_empty_answer_is_dropped_with_its_reason(content: str | None) -> None:
    empty = {"role": "assistant", "content": content}
    assert encoded(of.CHATML, [*LONG[:2], empty]).dropped == "empty answer"
    template = chats(of.CHATML, "all")
    example = template.render({"messages": [*LONG[:2], empty, *LONG[3:]]})
    assert [target for _, target in example.pairs] == ["  Fig\nor plum<|im_end|>\n"]
    assert "In 1 of 1 conversations an answer before the last one is empty" in template.notes()[0]


def test_reasoning_that_the_template_strips_is_refused() -> None:
    with pytest.raises(BadValueError, match=r"leaves out.*'<think>\\n3 leaves 1"):
        encoded(of.R1, THOUGHTS)
    apart = [THOUGHTS[0], {"role": "assistant", "content": "No.", "reasoning_content": "3 is odd"}]
    with pytest.raises(BadValueError, match="'3 is odd' is not in"):
        encoded(of.CHATML, apart)
    # Kept in the last answer, stripped further up: of no harm unless loss is wanted there.
    several = [*THOUGHTS, *SHORT]
    assert learned(of.QWEN_3, several)[0].endswith("</think>\n\nFour.<|im_end|>\n")
    with pytest.raises(BadValueError, match="a part of it is left out"):
        encoded(of.QWEN_3, several, "all")


def test_reasoning_that_a_prompt_announces_is_not_missing() -> None:
    assert learned(of.QWQ, THOUGHTS) == ["3 leaves 1.\n</think>\n\nNo.<|im_end|>\n"]
    template = chats(of.R1)
    example = template.render({"messages": SHORT})
    assert example.pairs == (("<s>[user]What is two plus two?[assistant]", "Four.</s>"),)
    assert "announces an answer otherwise" in template.notes()[0]


def test_a_template_that_trims_or_leaves_messages_out_is_told() -> None:
    template = chats(of.LLAMA_3)
    template.render({"messages": LONG})
    assert template.notes() == [
        "In 1 of 1 conversations the chat template changes white space of the answer."
    ]
    with pytest.raises(BadValueError, match="writes earlier messages differently"):
        chats(of.MISTRAL, "all").render({"messages": LONG})
    template = chats(of.R1)
    template.render({"messages": [{"role": "system", "content": "In rhyme."}, *SHORT]})
    assert any("leaves out what a message says" in note for note in template.notes())


@pytest.mark.parametrize(
    ("template", "conversation", "expected"),
    [
        (of.GEMMA, LONG, r"refuses the messages \(System role not supported\)\. Change"),
        (of.GEMMA, [SHORT[0], *SHORT], r"refuses the messages \(Conversation roles must"),
        (of.CHATML, ["hello"], r"holds 'hello' \(str\)\. A message is"),
        (of.CHATML, [{"role": "user", "content": None}], "holds {'role': 'user', 'content': None}"),
        (of.CHATML, [{"from": "robot", "value": "x"}], "has a message from 'robot'. Known are: hu"),
        (of.CHATML, [SHORT[0], {"role": "assistant", "content": "\ud83d"}], "half a character"),
        (of.CHATML, [{"role": "narrator", "content": "x"}], r"no assistant message.*of: narrator"),
        (of.CHATML, [SHORT[0], {**SHORT[1], "train": "no"}], r"with the train 'no' \(str\)"),
        (of.CHATML, [SHORT[0], {**SHORT[1], "train": False, "weight": 1}], "which disagree"),
        (
            of.CHATML,
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            "only text can be trained on",
        ),
    ],
)
def test_a_conversation_that_cannot_be_learned(
    template: str, conversation: Any, expected: str
) -> None:
    with pytest.raises(BadValueError, match=expected):
        encoded(template, conversation)


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Bonn"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALLED = [
    {"role": "user", "content": "How is the weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
]


@pytest.mark.parametrize("written", [TOOLS, json.dumps(TOOLS)])
def test_tools_and_calls_reach_the_template(written: Any) -> None:
    tokenizer = chat_tokenizer(of.QWEN_2)
    found = encoded(of.QWEN_2, CALLED, tools=written)
    whole = plain(tokenizer, CALLED, tools=TOOLS)
    assert '<tool_call>{"name": "weather", "arguments": {"town": "Bonn"}}</tool_call>' in whole
    assert '"parameters": {"type": "object"}' in whole
    assert found.ids.tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]
    followed = [*CALLED, {"role": "tool", "content": "Rain"}, SHORT[1]]
    answers = learned(of.QWEN_2, followed, "all", tools=written)
    assert [a.count("<|im_end|>") for a in answers] == [1, 1] and "weather" in answers[0]


def test_a_call_that_the_template_leaves_out_is_refused() -> None:
    with pytest.raises(BadValueError, match="'weather' is not in"):
        encoded(of.MARKED, [CALLED[0], {**CALLED[1], "content": "Let me look."}])
    with pytest.raises(BadValueError, match="leaves out the tool 'weather' of column 'tools'"):
        encoded(of.CHATML, SHORT, tools=TOOLS)
    with pytest.raises(BadValueError, match="column 'tools' holds 'hammer'"):
        encoded(of.QWEN_2, CALLED, tools="hammer")


def test_arguments_as_json_text_are_not_quoted_once_more() -> None:
    function = {**CALL["function"], "arguments": '{"town": "Bonn", "day": null}'}
    conversation = [CALLED[0], {**CALLED[1], "tool_calls": [{**CALL, "function": function}]}]
    (answer,) = learned(of.CHATML, conversation)
    assert '"arguments": {"town": "Bonn", "day": null}}' in answer
    verbatim = of.CHATML.replace("call.function | tojson", "call.function.arguments")
    verbatim = verbatim.replace("<tool_call>", "<tool_call>{{ call.function.name }}")
    assert '{"town": "Bonn", "day": null}' in learned(verbatim, conversation)[0]


def test_sharegpt_parts_and_json_text_are_the_same_conversation() -> None:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    sharegpt = [{"from": names[m["role"]], "value": m["content"]} for m in LONG]
    in_parts = [
        {**m, "content": [{"type": "text", "text": m["content"][:3]}, {"text": m["content"][3:]}]}
        for m in LONG
    ]
    expected = encoded(of.CHATML, LONG).ids.tolist()
    for form in (sharegpt, in_parts, json.dumps(LONG), json.dumps(sharegpt)):
        assert encoded(of.CHATML, form).ids.tolist() == expected
    called = [
        {"from": "human", "value": "How is the weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "Bonn"}}'},
    ]
    assert encoded(of.CHATML, called).ids.tolist() == encoded(of.CHATML, CALLED).ids.tolist()


def test_an_end_mark_in_the_data_is_not_doubled() -> None:
    for mark in ("<|im_end|>", "<|im_end|>\n"):
        brought = [SHORT[0], {"role": "assistant", "content": f"Four.{mark}"}]
        assert learned(of.CHATML, brought) == ["Four.<|im_end|>\n"]


@pytest.mark.parametrize(
    ("template", "mark"),
    [(of.CHATML, "<|im_end|>"), (of.MARKED, "<|im_end|>"), (of.LLAMA_3, "<|eot_id|>"),
     (of.GEMMA, "<end_of_turn>"), (of.MISTRAL, "</s>"), (of.NO_END, None)],
)  # fmt: skip
def test_the_trained_end_mark_is_known(template: str, mark: str | None) -> None:
    found = encoded(template, SHORT)
    expected = None if mark is None else chat_tokenizer(template).convert_tokens_to_ids(mark)
    assert found.end == expected
    assert mark is None or expected in found.ids[found.has_loss]
    in_answer = [SHORT[0], {"role": "assistant", "content": "<think>4</think>"}]
    assert encoded(of.NO_END, in_answer).end is None


def exchanges(count: int, words: int = 4) -> list[Message]:
    turns = [{"role": "system", "content": "In rhyme."}]
    for i in range(count):
        turns.append({"role": "user", "content": f"question {i} " + "word " * words})
        turns.append({"role": "assistant", "content": f"answer {i}"})
    return turns


@pytest.mark.parametrize("loss_on", ["last", "all"])
def test_a_long_conversation_loses_exchanges_from_its_middle(loss_on: str) -> None:
    conversation, tokenizer = exchanges(12), chat_tokenizer(of.CHATML)
    found = encoded(of.CHATML, conversation, loss_on, length=250)
    assert found.cut == ("messages",)
    # The longest that fits, as transformers writes it.
    for first in range(1, 24, 2):
        kept = [conversation[0], *conversation[first:]]
        expected = tokenizer.apply_chat_template(kept)["input_ids"]
        if len(expected) <= 250:
            break
    assert 1 < first < 23 and found.ids.tolist() == expected
    counted = sum(message["role"] == "assistant" for message in kept)
    texts = [text for text, has_loss in pieces(of.CHATML, found) if has_loss]
    assert len(texts) == (counted if loss_on == "all" else 1)
    assert texts[-1] == "answer 11<|im_end|>\n"


def test_a_long_last_exchange_loses_the_beginning_of_what_was_asked() -> None:
    found = encoded(of.LLAMA_3, exchanges(3, words=40), length=120)
    text = chat_tokenizer(of.LLAMA_3).decode(found.ids)
    assert found.cut == ("messages", "prompt") and len(found.ids) == 120
    assert text.startswith("<s>[system]\nToday Date: 09 Feb 2024\nIn rhyme.<|eot_id|>[user]\n\n")
    assert text.endswith("word word<|eot_id|>[assistant]\n\nanswer 2<|eot_id|>")
    tight = encoded(of.CHATML, exchanges(1, words=40), length=48)
    text = chat_tokenizer(of.CHATML).decode(tight.ids)
    assert text.startswith("<|im_start|>user\n") and text.endswith("answer 0<|im_end|>\n")
    tiny = encoded(of.LLAMA_3, exchanges(1, words=40), length=40)
    assert tiny.ids[0] == 2, "the start token stays in any case"
    assert chat_tokenizer(of.LLAMA_3).decode(tiny.ids).endswith("answer 0<|eot_id|>")


def test_an_answer_that_is_too_long_is_counted_as_cut() -> None:
    conversation = [SHORT[0], {"role": "assistant", "content": "four " * 40}]
    found = encoded(of.CHATML, conversation, length=80)
    assert found.cut == ("answer",) and found.end is None
    text = chat_tokenizer(of.CHATML).decode(found.ids)
    assert text.startswith("<|im_start|>user\nWhat is two plus two?<|im_end|>\n")


def test_a_template_prints_one_day_whatever_the_clock_says() -> None:
    tokenizer = chat_tokenizer(of.LLAMA_3)
    # transformers' own clock, asked for another form.
    today = tokenizer.apply_chat_template(
        SHORT, tokenize=False, chat_template="{{ strftime_now('%d %b %Y') }}"
    )
    expected = plain(tokenizer, SHORT).replace(today, "09 Feb 2024")
    assert chat_tokenizer(of.LLAMA_3).decode(encoded(of.LLAMA_3, SHORT).ids) == expected
    forms = "{{ strftime_now('%-d/%m/%y %A %B %j %H:%M') }}|{{ messages[0].content }}<|im_end|>"
    text = chats(forms)._template.write([SHORT[0]], None)
    assert text == "9/02/24 Friday February 040 00:00|What is two plus two?<|im_end|>"


def test_a_start_token_that_only_the_tokenizer_writes_is_told() -> None:
    from tokenizers.processors import TemplateProcessing

    for template, expected in ((of.CHATML, 1), (of.GEMMA, 0)):
        tokenizer = chat_tokenizer(template)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 2)]
        )
        found = ChatMessages("messages", tokenizer, "last", None)
        example = found.render({"messages": SHORT})
        assert len([n for n in found.notes() if "no start token" in n]) == expected
        ids = Encoder(tokenizer, 100).encode([example], False)[0].ids.tolist()
        assert ids == tokenizer.apply_chat_template(SHORT)["input_ids"]


def decoded(template: str, messages: Any, loss_on: Any = "last", **beside: Any) -> Any:
    return pieces(template, encoded(template, messages, loss_on, **beside))


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "User", "content": "Hi"}, {"role": "Assistant", "content": "Yo"}],
        [{"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Yo"}],
        [{"role": "user", "content": "Hi"}, {"role": "model", "content": "Yo"}],
        [{"role": "user", "value": "Hi"}, {"role": "assistant", "value": "Yo"}],
        [{"from": "Human", "value": "Hi"}, {"from": "bot", "value": "Yo"}],
        "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Yo'}]",
    ],
    ids=["capitals", "role human", "role model", "role and value", "from bot", "text of Python"],
)
def test_other_names_for_the_same_conversation(messages: Any) -> None:
    same = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    assert decoded(of.CHATML, messages) == decoded(of.CHATML, same)


def test_a_system_message_in_a_column_of_its_own() -> None:
    system = {"role": "system", "content": "Be a pirate."}
    assert decoded(of.CHATML, SHORT, system="Be a pirate.") == decoded(of.CHATML, [system, *SHORT])
    for told in ("", None):
        assert decoded(of.CHATML, SHORT, system=told) == decoded(of.CHATML, SHORT)
    own = [system, *SHORT]
    assert decoded(of.CHATML, own, system="Be a pirate.") == decoded(of.CHATML, own)
    with pytest.raises(BadValueError, match="have a system message of their own"):
        decoded(of.CHATML, own, system="Be polite.")
    with pytest.raises(BadValueError, match=r"'system' holds 3 \(int\), not text"):
        decoded(of.CHATML, SHORT, system=3)


@pytest.mark.parametrize("column", ["image", "images", "videos", "audios"])
def test_a_conversation_about_more_than_text_is_refused(column: str) -> None:
    with pytest.raises(BadValueError, match=f"column '{column}' holds .*; only text can be"):
        decoded(of.CHATML, SHORT, **{column: ["a.png"]})
    assert decoded(of.CHATML, SHORT, **{column: []}) == decoded(of.CHATML, SHORT)


@pytest.mark.parametrize("key", ["weight", "train", "training", "loss"])
def test_messages_that_say_themselves_whether_they_are_learned(key: str) -> None:
    bad = {"role": "assistant", "content": "bad", key: False}
    good = {"role": "assistant", "content": "good", key: True}
    found = decoded(of.CHATML, [SHORT[0], bad, SHORT[0], good], "all")
    assert [text for text, has_loss in found if has_loss] == ["good<|im_end|>\n"]


def test_calls_as_messages_of_a_role_of_their_own() -> None:
    call = json.dumps(CALL["function"])
    said = [CALLED[0], {"role": "tool_call", "content": call}]
    said += [{"role": "tool_response", "content": "Rain"}, SHORT[1]]
    same = [*CALLED, {"role": "tool", "content": "Rain"}, SHORT[1]]
    assert decoded(of.QWEN_2, said, "all") == decoded(of.QWEN_2, same, "all")


def test_calls_and_tools_in_the_form_of_before() -> None:
    called = [CALLED[0], {"role": "assistant", "content": None, "function_call": CALL["function"]}]
    functions = [tool["function"] for tool in TOOLS]
    found = decoded(of.QWEN_2, called, functions=functions)
    assert found == decoded(of.QWEN_2, CALLED, tools=TOOLS)


PARTS = of.CHATML.replace(
    "{{ m.content }}", "{% for p in m.content %}{{ p.text if p.type == 'text' }}{% endfor %}"
)
"""As models have it that see images too."""


def test_a_template_that_takes_only_parts() -> None:
    assert decoded(PARTS, LONG) == decoded(of.CHATML, LONG)
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in LONG]
    assert decoded(PARTS, parts, "all") == decoded(of.CHATML, LONG, "all")


def test_a_template_that_moves_the_system_message_is_learned_as_it_is_used() -> None:
    tokenizer = chat_tokenizer(of.MISTRAL)
    asked = tokenizer.apply_chat_template(LONG[:-1], tokenize=False, add_generation_prompt=True)
    assert "Be short.\n\nAnother, please.[/INST]" in asked
    found = decoded(of.MISTRAL, LONG)
    assert found == [(asked, False), (" " + LONG[-1]["content"] + "</s>", True)]
    short = encoded(of.MISTRAL, LONG, length=80)
    assert short.truncated and "Be short." in pieces(of.MISTRAL, short)[0][0]


@pytest.mark.parametrize("loss_on", ["last", "all"])
def test_what_always_announces_an_answer_is_not_learned(loss_on: str) -> None:
    """The first templates of Llama 3 do, also after the last answer."""
    always = of.LLAMA_3.replace("{% if add_generation_prompt %}", "{% if true %}")
    assert decoded(always, LONG, loss_on) == decoded(of.LLAMA_3, LONG, loss_on)


def test_a_chat_template_that_cannot_be_used_is_told_as_such() -> None:
    with pytest.raises(DataError, match=r"chat template of .* is broken \(unexpected"):
        decoded("{% for m in messages %}{{ m.role }", SHORT)
    tokenizer = chat_tokenizer(of.CHATML)
    tokenizer.chat_template = {"rag": of.CHATML, "tool_use": of.QWEN_2}
    with pytest.raises(DataError, match="has the chat templates rag, tool_use, but no default"):
        ChatMessages("messages", tokenizer, "last", None)
