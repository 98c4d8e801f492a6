"""What is used of transformers that its documentation does not promise, as seen in 5.23."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

USED = {
    "transformers.PreTrainedModel._init_weights": "draws a head anew",
    "transformers.modeling_utils:_is_hf_initialized": "else that leaves a head as it is",
    "transformers.PretrainedConfig:_attn_implementation": "which attention a model got",
    "transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES": (
        "which models see the tokens that they should predict"
    ),
    "transformers.utils.chat_template_utils.render_jinja_template": (
        "where a chat template marks the answers, in characters"
    ),
}
"""Dotted names, an attribute of instances after a colon, and what each is used for."""


def attention_of(config: Any) -> str:
    """The attention that a model was built with."""
    return str(config._attn_implementation)


def is_encoder(model_type: str) -> bool:
    """Whether models of this type are there to fill masked tokens in."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def draw_anew(model: PreTrainedModel, module: nn.Module) -> Iterator[str]:
    """Initialise what `module` itself holds, as its model's class does; the names in it."""
    for name, parameter in module.named_parameters(recurse=False):
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]
        yield name
    model._init_weights(module)


def rendered(conversations: list[Any], **options: Any) -> tuple[list[str], list[Any]]:
    """Conversations as texts, and the marked spans of each."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        conversations=conversations, return_assistant_tokens_mask=True, **options
    )
    return texts, spans
