"""Finds a Hugging Face model's transformer blocks, and what lies below and above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from study.basics.errors import ModelError
from study.strategies.base import BlockLayout

_PROBE_TOKENS = 4


def find_layout(model: PreTrainedModel, new_head: Sequence[str] = ()) -> BlockLayout:
    """How `model` splits into embeddings, blocks and top.

    The blocks are the outermost list of modules as long as the configuration's number of layers;
    a forward pass on four tokens proves that each runs once and in order, and its autograd graph
    tells what feeds them. The model is left as it was.

    Args:
        model: whole, not partitioned by ZeRO-3.
        new_head: names of the parameters initialised at random.

    Raises:
        ModelError: the architecture cannot be split; the message says why.
    """
    prefix, blocks = find_blocks(model)
    try:
        output = _run(model, blocks, _masks(model)[0])
    except Exception as error:
        if isinstance(error, ModelError):
            raise
        raise _refuse(model, f"a forward pass on four tokens fails: {_line(error)}") from error
    return _layout(model, prefix, len(blocks), _reached(model, output), new_head)


def meta_layout(model: PreTrainedModel, new_head: Sequence[str] = ()) -> BlockLayout:
    """`find_layout` for a model without weights, on the meta device.

    Some architectures look at values and cannot run there. Of those only the structure is checked,
    and parts outside the blocks are told apart by their modules; `find_layout` has the last word
    once there are weights.

    Raises:
        ModelError: the architecture cannot be split; the message says why.
    """
    prefix, blocks = find_blocks(model)
    output = _run_without_weights(model, blocks)
    feeding = _in_embedding_modules(model) if output is None else _reached(model, output)
    return _layout(model, prefix, len(blocks), feeding, new_head)


def _layout(
    model: PreTrainedModel, prefix: str, blocks: int, feeding: set[str], new_head: Sequence[str]
) -> BlockLayout:
    numel = {name: p.numel() for name, p in model.named_parameters()}
    # The trailing dot matters: "layers.1" is also the start of "layers.10".
    inside = tuple(
        tuple(n for n in numel if n.startswith(f"{prefix}.{index}.")) for index in range(blocks)
    )
    within = {n for block in inside for n in block}
    outside = [n for n in numel if n not in within]
    top = tuple(n for n in outside if n not in feeding)
    return BlockLayout(
        numel=numel,
        embeddings=tuple(n for n in outside if n in feeding),
        blocks=inside,
        top=top,
        new_head=tuple(n for n in numel if n in set(new_head)),
        tied=is_tied(model),
        head=_head(model, top, new_head),
    )


def _run_without_weights(model: PreTrainedModel, blocks: nn.ModuleList) -> Tensor | None:
    """As `_run`; None where the architecture cannot run on the meta device."""
    for mask in _masks(model):
        try:
            return _run(model, blocks, mask)
        except ModelError:
            raise
        except Exception:
            continue
    return None


def _in_embedding_modules(model: PreTrainedModel) -> set[str]:
    """Parameters of embeddings, and of what shares a module with one (a norm above it)."""
    head = model.get_output_embeddings()
    found: set[str] = set()
    for name, module in model.named_modules():
        own_name = name.rpartition(".")[2]
        holds_one = any(isinstance(child, nn.Embedding) for child in module.children())
        is_one = isinstance(module, nn.Embedding) and module is not head
        if is_one or (holds_one and "embed" in own_name):
            found.update(f"{name}.{own}" for own, _ in module.named_parameters())
    return found


def _refuse(model: PreTrainedModel, reason: str) -> ModelError:
    return ModelError(
        f"model.path: {type(model).__name__} ({model.config.model_type}) cannot be split into "
        f"transformer blocks: {reason}. Use another model."
    )


def _refuse_by_config(model: PreTrainedModel) -> None:
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        raise _refuse(model, "encoder-decoder models have two stacks of blocks")
    if not isinstance(getattr(config, "num_hidden_layers", None), int):
        raise _refuse(model, "its configuration has no num_hidden_layers")
    if getattr(config, "layerdrop", 0) or getattr(config, "encoder_layerdrop", 0):
        raise _refuse(model, "layerdrop skips blocks at random in training (set it to 0)")


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The transformer blocks, from the lowest to the highest, behind their name.

    Raises:
        ModelError: there is no single list of them.
    """
    _refuse_by_config(model)
    layers = model.config.num_hidden_layers
    found: dict[str, nn.ModuleList] = {}
    lists: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or next(module.parameters(), None) is None:
            continue
        nested = any(name.startswith(f"{outer}.") for outer in lists)
        lists.append(name)
        if len(module) == layers and not nested:
            found[name] = module
    if not found:
        raise _refuse(model, f"it has no list of {layers} blocks of its own (they may be shared)")
    if len(found) > 1:
        raise _refuse(model, f"it has several lists of {layers} blocks: {', '.join(found)}")
    prefix, blocks = next(iter(found.items()))
    owners: dict[int, int] = {}
    for index, block in enumerate(blocks):
        for parameter in block.parameters():
            if owners.setdefault(id(parameter), index) != index:
                raise _refuse(model, f"blocks {owners[id(parameter)]} and {index} share parameters")
    return prefix, blocks


def _run(model: PreTrainedModel, blocks: nn.ModuleList, mask: Tensor | None) -> Tensor:
    """The highest block's output on a few tokens, with its autograd graph."""
    calls: list[int] = []
    outputs: list[Tensor] = []

    def record(index: int, _block: nn.Module, _args: Any, output: Any) -> None:
        calls.append(index)
        outputs.append(output[0] if isinstance(output, tuple | list) else output)

    with ExitStack() as hooks, _undisturbed(model), torch.enable_grad():
        for index, block in enumerate(blocks):
            hooks.enter_context(block.register_forward_hook(partial(record, index)))
        tokens = torch.arange(_PROBE_TOKENS, device=model.device) % model.config.vocab_size
        model(input_ids=tokens[None], attention_mask=mask)
    if calls != list(range(len(blocks))):
        raise _refuse(model, f"its blocks ran in the order {calls}, not each once and in turn")
    return outputs[-1]


def _masks(model: PreTrainedModel) -> tuple[Tensor | None, ...]:
    # Without values most architectures take one of these; with values the first always does.
    tokens = _PROBE_TOKENS
    flat = torch.ones(1, tokens, dtype=torch.long, device=model.device)
    square = torch.zeros(1, 1, tokens, tokens, dtype=model.dtype, device=model.device)
    return None, flat, square


def _line(error: Exception) -> str:
    return next((x for x in str(error).splitlines() if x.strip()), type(error).__name__)


def _reached(model: PreTrainedModel, output: Tensor) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    reached: set[str] = set()
    pending, seen = [output.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) in names:
            reached.add(names[id(leaf)])
        pending.extend(parent for parent, _ in node.next_functions)
    return reached


@contextmanager
def _undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode with every parameter in the graph; both put back afterwards."""
    training = model.training
    flags = [(p, p.requires_grad) for p in model.parameters()]
    model.eval()
    for parameter, _ in flags:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        model.train(training)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _head(model: PreTrainedModel, top: Sequence[str], new_head: Sequence[str]) -> tuple[str, ...]:
    """The output matrix, or the parameters of `top` that lie outside the base model."""
    output = model.get_output_embeddings()
    owned = set() if output is None else {id(p) for p in output.parameters()}
    base = {id(p) for p in model.base_model.parameters()}
    return tuple(
        name
        for name, parameter in model.named_parameters()
        if id(parameter) in owned or name in new_head or (name in top and id(parameter) not in base)
    )


def is_tied(model: PreTrainedModel) -> bool:
    """Whether a language model's head is the matrix of its input embeddings."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", 0)
