"""Cross-entropy: its value at a known input, its reduction, its precision."""

from __future__ import annotations

import math

import pytest
import torch

from objectives.classification import binary_cross_entropy, cross_entropy


def test_equal_logits_give_the_logarithm_of_the_classes() -> None:
    assert cross_entropy(torch.zeros(4, 10), torch.arange(4)).item() == torch.tensor(math.log(10)).item()


def test_gradient_at_the_logits_is_softmax_minus_target_over_the_batch() -> None:
    logits_BN = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    y_B, smoothing = torch.arange(6) % 5, 0.1
    cross_entropy(logits_BN, y_B, smoothing).backward()
    target_BN = (1 - smoothing) * torch.nn.functional.one_hot(y_B, 5) + smoothing / 5
    torch.testing.assert_close(logits_BN.grad, (logits_BN.detach().softmax(1) - target_BN) / 6)


def test_without_reduction_it_is_that_of_every_image() -> None:
    logits_BN, y_B = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 5
    losses_B = cross_entropy(logits_BN, y_B, 0.1, reduction="none")
    alone = [cross_entropy(logits_N[None], y[None], 0.1) for logits_N, y in zip(logits_BN, y_B, strict=True)]
    torch.testing.assert_close(losses_B, torch.stack(alone))


def test_half_precision_logits_are_widened_and_double_ones_kept() -> None:
    y_B = torch.tensor([0, 1])
    assert cross_entropy(torch.randn(2, 3).bfloat16(), y_B).dtype == torch.float32
    assert cross_entropy(torch.randn(2, 3).double(), y_B).dtype == torch.float64


def test_binary_cross_entropy_is_its_formula_and_ln_2_for_zero_logits() -> None:
    logits, targets = torch.randn(4, 5, dtype=torch.float64), torch.rand(4, 5, dtype=torch.float64)
    p = logits.sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(binary_cross_entropy(logits, targets), expected)
    half = binary_cross_entropy(torch.zeros(4, 5, dtype=torch.bfloat16), targets > 0.5)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(math.log(2))
