"""Deviations over the pixels, against torch's own."""

from __future__ import annotations

import pytest
import torch

from layers import deviation as module
from layers.deviation import deviation


@pytest.fixture(params=[2**19, 40])
def numbers(request, monkeypatch):
    """Parts of the whole batch, and of two images."""
    monkeypatch.setattr(module, "_NUMBERS", request.param)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(5, 4, 2, 2), (3, 5, 3, 1), (7, 1, 2, 3)])
def test_value_and_gradient_are_those_of_torch(numbers, shape: tuple[int, ...], order) -> None:
    x_BCHW = (torch.randn(shape, dtype=torch.float64) + 3).contiguous(memory_format=order)
    ours, theirs = x_BCHW.clone().requires_grad_(), x_BCHW.clone().requires_grad_()
    weight_BC = torch.randn(shape[:2], dtype=torch.float64)
    for found in (deviation(ours), theirs.std((2, 3))):
        (found * weight_BC).sum().backward()
        torch.testing.assert_close(found, x_BCHW.std((2, 3)), rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)


def test_gradient_by_differences(numbers) -> None:
    x_BCHW = torch.randn(3, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(deviation, x_BCHW)


def test_equal_pixels_have_no_gradient() -> None:
    x_BCHW = torch.ones(2, 3, 4, 4, requires_grad=True)
    deviation(x_BCHW).sum().backward()
    assert not x_BCHW.grad.any()


def test_half_precision_is_computed_in_float32(numbers) -> None:
    """A mean that bf16 cannot tell from the values is no obstacle, and the gradient comes back in bf16."""
    x_BCHW = (torch.randn(4, 3, 4, 4) + 100).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    found_BC = deviation(x_BCHW)
    assert found_BC.dtype is torch.float32
    torch.testing.assert_close(found_BC, x_BCHW.detach().float().std((2, 3)), rtol=1e-5, atol=1e-6)
    found_BC.sum().backward()
    assert x_BCHW.grad.dtype is torch.bfloat16 and x_BCHW.grad.is_contiguous(memory_format=torch.channels_last)


def test_the_input_stays_as_it_is() -> None:
    x_BCHW = torch.randn(2, 3, 4, 4, requires_grad=True)
    before = x_BCHW.detach().clone()
    deviation(x_BCHW).sum().backward()
    assert torch.equal(x_BCHW, before)
