from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from study.training import losses
from study.training.losses import make_loss


@pytest.fixture
def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 11, generator=generator).requires_grad_()
    labels = torch.randint(0, 11, (3, 7), generator=generator)
    labels[0, :3] = -100
    labels[2] = -100
    return logits, labels


def reference(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1), reduction="sum")


@pytest.mark.parametrize("chunk", [1, 11 * 4, 2**24])
def test_sum_and_gradient_equal_torchs_cross_entropy(
    example: tuple[torch.Tensor, torch.Tensor], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
    logits, labels = example
    loss, batch = make_loss("causal-lm"), {"labels": labels}
    total = loss.total(logits, batch)
    (gradient,) = torch.autograd.grad(3.0 * total, logits)
    expected = reference(logits, labels)
    (expected_gradient,) = torch.autograd.grad(3.0 * expected, logits)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss.count(batch) == 4 + 6
    torch.testing.assert_close(gradient, expected_gradient)


def test_bf16_logits_are_summed_in_fp32(example: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = example
    half = logits.detach().bfloat16().requires_grad_()
    total = make_loss("causal-lm").total(half, {"labels": labels})
    total.backward()
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(reference(half.float(), labels).item(), rel=1e-6)
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


def test_examples_add_up_to_the_batch(example: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = example
    loss = make_loss("causal-lm")
    sums, counts = loss.per_example(logits, {"labels": labels})
    assert counts.tolist() == [4, 6, 0]
    assert sums[2] == 0
    assert sums.sum().item() == pytest.approx(loss.total(logits, {"labels": labels}).item())
    assert loss.count({"labels": labels}) == 10


def test_classification_counts_one_target_per_example() -> None:
    logits = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    batch = {"labels": torch.tensor([1, 0])}
    loss = make_loss("sequence-classification")
    sums, counts = loss.per_example(logits, batch)
    # log 2, and log(1 + e**-2)
    assert sums.tolist() == pytest.approx([0.693147, 0.126928], abs=1e-6)
    assert counts.tolist() == [1, 1]
    assert loss.count(batch) == 2
    assert loss.total(logits, batch).item() == pytest.approx(0.820075, abs=1e-6)
