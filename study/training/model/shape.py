"""What can be known of a model before its weights are read: its parts, its sizes, its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from study.basics.errors import ModelError
from study.config.load import ModelConfig
from study.protocol.records import DataSummary
from study.strategies.base import BlockLayout
from study.training.model.layout import meta_layout
from study.training.model.load import CLASSIFICATION, meta_model, new_head
from study.training.transformers_internals import attention_of


@dataclass(frozen=True)
class ModelLimits:
    """What a model can be given.

    Attributes:
        vocabulary: rows of the input embedding.
        positions: tokens per example that it is made for; None: it has no limit.
        learned_positions: it has a table of that many positions and fails beyond it.
    """

    vocabulary: int
    positions: int | None
    learned_positions: bool

    def refuse(self, data: DataSummary) -> None:
        """Raise ModelError for token ids, or lengths, that it fails at."""
        if data.highest_token >= self.vocabulary:
            raise ModelError(
                f"model.tokenizer: the data has token id {data.highest_token}, the model only "
                f"{self.vocabulary} ids. Set it to the tokenizer that the model was trained with."
            )
        if self.learned_positions and self.positions and data.longest > self.positions:
            raise ModelError(
                f"training.sequence_length: the longest example has {data.longest} tokens, and "
                f"the model was made for {self.positions}. Set it to {self.positions} or less, or "
                "use a model for longer text."
            )


@dataclass(frozen=True)
class ModelShape(ModelLimits):
    """A model without its weights.

    Attributes:
        architecture: the class, e.g. ``LlamaForCausalLM``.
        layout: its parameters by part.
        hidden: width of a hidden state.
        intermediate: width inside a block's feed-forward part, of all experts that a token visits.
        heads: attention heads.
        scores: numbers that the backward pass keeps per head and pair of tokens; 0 where attention
            is computed in one piece.
        logits: numbers that the model gives per token; 0 for a classifier.
    """

    architecture: str
    layout: BlockLayout
    hidden: int
    intermediate: int
    heads: int
    scores: int
    logits: int

    @property
    def parameters(self) -> int:
        """Scalars in the model."""
        return self.layout.count(self.layout.parameters)

    @property
    def largest_block(self) -> int:
        """Scalars in the largest transformer block."""
        return max(self.layout.count(block) for block in self.layout.blocks)


def model_shape(config: ModelConfig, task: str, num_labels: int = 2) -> ModelShape:
    """Look at a model's configuration, and at its weight files without reading the weights.

    Raises:
        ModelError: it cannot be split into blocks, or a weight file is damaged.
    """
    model = meta_model(config, task, num_labels)
    layout = meta_layout(model, new_head(model))
    text = model.config.get_text_config()
    hidden = int(text.hidden_size)
    return ModelShape(
        architecture=type(model).__name__,
        layout=layout,
        hidden=hidden,
        intermediate=_intermediate(text, hidden),
        heads=int(getattr(text, "num_attention_heads", 1)),
        scores=_scores(model.config),
        logits=0 if task == CLASSIFICATION else int(text.vocab_size),
        **vars(model_limits(model)),
    )


def model_limits(model: PreTrainedModel) -> ModelLimits:
    """Of a model, on the meta device too."""
    embedding = model.get_input_embeddings()
    table = _position_table(model, embedding)
    return ModelLimits(
        vocabulary=int(embedding.num_embeddings),
        positions=_positions(model.config.get_text_config(), table),
        learned_positions=table is not None,
    )


def _intermediate(text: Any, hidden: int) -> int:
    experts = getattr(text, "num_experts_per_tok", None)
    names = ["intermediate_size", "ffn_dim", "hidden_dim", "n_inner"]
    if experts:
        names.insert(0, "moe_intermediate_size")
    found = (getattr(text, name, None) for name in names)
    width = next((int(value) for value in found if isinstance(value, int)), 4 * hidden)
    return width * (experts or 1)


def _scores(config: Any) -> int:
    if attention_of(config) != "eager":
        return 0
    # DeBERTa adds three kinds of scores.
    return 8 if getattr(config, "relative_attention", False) else 2


def _position_table(model: PreTrainedModel, embedding: nn.Module) -> nn.Embedding | None:
    """The learned embedding of positions, by its name."""
    for name, module in model.named_modules():
        own = name.rpartition(".")[2]
        is_table = isinstance(module, nn.Embedding) and module is not embedding
        if is_table and ("position" in own or own == "wpe"):
            return module
    return None


def _positions(text: Any, table: nn.Embedding | None) -> int | None:
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    if table is not None and table.padding_idx is not None:
        # RoBERTa's kind counts positions from the one after the padding's.
        return min(limit, table.num_embeddings - table.padding_idx - 1)
    return limit
