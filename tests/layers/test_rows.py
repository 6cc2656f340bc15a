"""Some images of a batch: torch's slice, but for the memory order of its gradient."""

from __future__ import annotations

import pytest
import torch

from layers.rows import rows

CHANNELS_LAST = torch.channels_last


@pytest.mark.parametrize("order", [torch.contiguous_format, CHANNELS_LAST])
@pytest.mark.parametrize(("first", "last"), [(0, 2), (2, 6), (1, 3), (0, 6), (3, 3)])
def test_it_is_a_slice_and_its_gradient_has_the_order_of_the_batch(first: int, last: int, order) -> None:
    x_BCHW = torch.randn(6, 3, 4, 5).contiguous(memory_format=order)
    ours, theirs = x_BCHW.clone().requires_grad_(), x_BCHW.clone().requires_grad_()
    seen = []
    hidden = ours * 1.0
    hidden.register_hook(seen.append)
    taken, expected = rows(hidden, first, last), theirs[first:last]
    assert torch.equal(taken, expected)
    weight = torch.randn_like(expected)
    (taken * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)
    assert seen[0].is_contiguous(memory_format=order)


def test_all_of_a_batch_is_the_batch() -> None:
    x_BCHW = torch.randn(2, 3, 4, 5)
    assert rows(x_BCHW, 0, 2) is x_BCHW


def test_without_a_gradient_it_is_a_view() -> None:
    x_BCHW = torch.randn(2, 3, 4, 5)
    with torch.inference_mode():
        assert rows(x_BCHW, 1, 2).data_ptr() == x_BCHW[1].data_ptr()
