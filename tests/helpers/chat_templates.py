"""Chat templates as published models have them, shortened; a tokenizer that knows their marks."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from tests.helpers.models import tiny_tokenizer

MARKS = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<think>", "</think>")
_GENERATE = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}" + _GENERATE
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}"
    "<|im_end|>{% endif %}\n{% endfor %}" + _GENERATE
)
"""Says by its own marks what the assistant's part is."""
QWEN_2 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n"
    "{% endif %}{% if tools %}<|im_start|>tools\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}" + CHATML
)
"""A default system message, and tools."""
QWEN_3 = (
    "{% set ns = namespace(asked=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role != 'assistant' %}{{ m.content }}"
    "{% else %}{% set answer = (m.content or '').split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n')"
    " if '</think>' in m.content else '' %}"
    "{% if loop.index0 > ns.asked and (loop.last or thought) %}"
    "<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ answer }}{% endif %}<|im_end|>\n{% endfor %}"
    + _GENERATE
)
"""Keeps the reasoning of the last answer only."""
LLAMA_3 = (
    "{{ bos_token }}{% set day = strftime_now('%d %b %Y') if strftime_now is defined else '?' %}"
    "[system]\nToday Date: {{ day }}\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}"
    "{% set messages = messages[1:] %}{% endif %}<|eot_id|>"
    "{% for m in messages %}[{{ m.role }}]\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n\n{% endif %}"
)
"""Prints today's date and trims."""
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "[{{ 'model' if m.role == 'assistant' else m.role }}]\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}[model]\n{% endif %}"
)
"""Takes neither a system message nor two messages of one role in a row."""
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "{{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
"""Moves the system message to the last user message, and loses it once an answer follows."""
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[user]{{ m.content }}"
    "{% elif m.role == 'assistant' %}[assistant]{{ m.content.split('</think>')[-1] }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"
)
"""Strips the reasoning of every answer, and announces one."""
QWQ = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"""Announces reasoning that the answers bring along."""
NO_END = "{% for m in messages %}\n{{ m.role }}: {{ m.content }}{% endfor %}"


def chat_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Of bytes, with the marks above as tokens of their own."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    tokenizer.chat_template = template
    return tokenizer
