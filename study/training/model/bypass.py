"""Runs a part of a model's blocks while every module stays where it is.

Blocks that are left out hand their input on in the form of their own output; the hidden states
that would have come out of them are put in at the first block that runs. So masks, positions and
whatever else the model computes around its blocks stay right, on every architecture, and hooks
of DeepSpeed or of gradient checkpointing work as always.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from study.basics.errors import PrefixCacheError
from study.training.model.layout import find_blocks

PREFIX_HIDDEN = "prefix_hidden"
"""Key of a batch's hidden states, (batch, tokens, hidden), at the first block that runs."""


class BlockBypass:
    """Leaves out the lowest or the highest blocks of `model` inside a `with` block.

    Args:
        model: whole, not partitioned by ZeRO-3: one forward pass is made to learn what each
            block returns.
        sample: a small batch, on the model's device.

    Attributes:
        blocks: of the model, from the lowest to the highest.
        dtype, token_bytes: of the hidden state that a block takes, of one token's.

    Raises:
        PrefixCacheError: a block hands on more than one hidden state of shape
            (batch, tokens, hidden), or the forward pass fails.
    """

    def __init__(self, model: PreTrainedModel, sample: Mapping[str, Tensor]) -> None:
        _, self.blocks = find_blocks(model)
        self.dtype, self.token_bytes = model.dtype, 0
        self._rests = self._learn(model, sample)

    @contextmanager
    def from_block(self, first: int, hidden: Tensor) -> Iterator[None]:
        """Run only blocks `first` and above, on `hidden`.

        Keep it open until the backward pass has ended: gradient checkpointing runs the blocks
        again there.

        Args:
            hidden: (batch, tokens, hidden), what the blocks below would have made.
        """

        def put_in(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return _with_hidden(args, kwargs, hidden)

        hook = self.blocks[first].register_forward_pre_hook(put_in, with_kwargs=True)
        with hook, self._left_out(range(first)):
            yield

    @contextmanager
    def below_block(self, last: int, wanted: Collection[int]) -> Iterator[dict[int, Tensor]]:
        """Run only the blocks below `last`; yields a dict that the forward pass fills with the
        hidden state at the input of each block in `wanted`, (batch, tokens, hidden) each."""
        found: dict[int, Tensor] = {}

        def keep(index: int, _block: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            found[index] = _hidden(args, kwargs).detach()

        with ExitStack() as hooks:
            for index in wanted:
                look = functools.partial(keep, index)
                block = self.blocks[index]
                hooks.enter_context(block.register_forward_pre_hook(look, with_kwargs=True))
            hooks.enter_context(self._left_out(range(last, len(self.blocks))))
            yield found

    @contextmanager
    def _left_out(self, indices: range) -> Iterator[None]:
        for index in indices:
            # On the instance: the class's other blocks go on as they are.
            self.blocks[index].forward = functools.partial(_hand_on, self._rests[index])
        try:
            yield
        finally:
            for index in indices:
                del self.blocks[index].forward

    def _learn(
        self, model: PreTrainedModel, sample: Mapping[str, Tensor]
    ) -> list[tuple[Any, ...] | None]:
        """What each block returns beside its hidden state; None where that is all."""
        rests: list[tuple[Any, ...] | None] = []
        expected = sample["input_ids"].shape

        def look(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            rest = tuple(output[1:]) if isinstance(output, tuple | list) else None
            whole = output if rest is None else output[0]
            hidden = _hidden(args, kwargs)
            if hidden.shape[:2] != expected or whole.shape[:2] != expected:
                raise PrefixCacheError(
                    f"{type(block).__name__} does not work on (batch, tokens, hidden)"
                )
            if any(item is not None for item in rest or ()):
                raise PrefixCacheError(
                    f"{type(block).__name__} hands on more than its hidden state"
                )
            rests.append(rest)
            self.dtype, self.token_bytes = hidden.dtype, hidden[0, 0].nbytes

        with ExitStack() as hooks, failing_as_cache_error(), torch.no_grad():
            for block in self.blocks:
                hooks.enter_context(block.register_forward_hook(look, with_kwargs=True))
            model(**{k: v for k, v in sample.items() if k != "labels"})
        return rests


def few_logits(model: PreTrainedModel) -> dict[str, Any]:
    """Spare the head what filling does not need, where the model knows how to."""
    known = inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in known else {}


@contextmanager
def failing_as_cache_error() -> Iterator[None]:
    """Whatever a model raises inside is a `PrefixCacheError`: it only says that this architecture
    cannot be run in parts. Running out of memory says something else and stays what it is."""
    try:
        yield
    except (PrefixCacheError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise PrefixCacheError(f"its blocks cannot be left out ({reason})") from error


def _hand_on(rest: tuple[Any, ...] | None, *args: Any, **kwargs: Any) -> Any:
    hidden = _hidden(args, kwargs)
    return hidden if rest is None else (hidden, *rest)


def _hidden(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    found = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(found, Tensor) or found.dim() != 3:
        raise PrefixCacheError("its blocks do not take a hidden state of (batch, tokens, hidden)")
    return found


def _with_hidden(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor) -> Any:
    if args:
        return (hidden, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden}
